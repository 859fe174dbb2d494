"""Which runs a probe is made of: a pure function from the results so far to the next runs.

Changing anything here that changes the runs of some probe, or how a verdict follows from them, is
a new version of the protocol: raise :data:`PROTOCOL`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

PROTOCOL = 1
"""Version of the protocol; results of different versions are never compared."""

DEFAULT_OPTIMIZERS = ('SGD', 'LARS', 'AdamW', 'LION')
RATES = 5  # tuning rates of an optimizer, by factors of 4 around its default
EXTENSIONS = 5  # at most so many further rates beyond either end: a factor of 1024
SEEDS = 4  # that confirm a best setting

# Rates are written as powers of 2 of the default, so that 0.1 * 4 / 2 and 0.1 * 2 are one rate.
_STEP, _NEIGHBOUR = 2, 1


@dataclass(frozen=True, order=True)
class Trial:
    """One run.

    Attributes:
        optimizer: Its name.
        power: The rate is the default times 2 to this.
        seed: Random seed; the first of a probe's seeds tunes, the others confirm.
        length: Length of the schedule, 1 for the probe's own.
    """

    optimizer: str
    power: int
    seed: int
    length: float = 1.0


@dataclass(frozen=True)
class Protocol:
    """What a probe tries.

    Attributes:
        starts: Default rate and weight decay of each optimizer.
        seeds: Number of fresh seeds that confirm each best rate.
        first_seed: The seed that tunes; the fresh ones follow it.
        lengths: Lengths of the schedule at which best settings are confirmed; the first tunes.
        version: :data:`PROTOCOL`.
    """

    starts: Mapping[str, tuple[float, float]]
    seeds: int = SEEDS
    first_seed: int = 0
    lengths: tuple[float, ...] = (1.0,)
    version: int = PROTOCOL

    def rate(self, trial: Trial) -> float:
        """Learning rate of a trial, rounded as the catalog's are."""
        return float(f'{self.starts[trial.optimizer][0] * 2.0**trial.power:.6g}')

    @property
    def fresh_seeds(self) -> range:
        """The seeds that confirm."""
        return range(self.first_seed + 1, self.first_seed + 1 + self.seeds)

    def runs_at(self, length: float) -> int:
        """Runs at one of the lengths, without any extension of the rates."""
        tuning = RATES + 2 if length == self.lengths[0] else 0
        return len(self.starts) * (tuning + self.seeds)

    @property
    def least_runs(self) -> int:
        """Runs without any extension of the rates: 44 for four optimizers and four seeds."""
        return sum(map(self.runs_at, self.lengths))

    def scaled(self, first: float) -> Protocol:
        """With other lengths of the same ratios."""
        scale = first / self.lengths[0]
        return replace(self, lengths=tuple(float(f'{x * scale:.6g}') for x in self.lengths))


Results = Mapping[Trial, float]
"""Results in points by trial, larger is better; ``-inf`` diverged, NaN gave no result."""


def next_trials(protocol: Protocol, results: Results) -> list[Trial]:
    """The runs that can start now, given what has come out so far; none when the probe is done.

    Each optimizer goes its own way, so that no worker waits for another optimizer: five rates by
    factors of 4; then one more beyond the end on which the best lies, until the best is interior,
    the new rate fails, or :data:`EXTENSIONS` is reached; then the two neighbours of the best by a
    factor of 2; then the best of all on the fresh seeds, at each length.

    Args:
        protocol: What the probe tries.
        results: Of every run that has ended. Runs that are still in progress are simply not in it,
            and come back in the list.

    Example:
        >>> protocol = Protocol({'SGD': (0.1, 1e-4)})
        >>> [protocol.rate(t) for t in next_trials(protocol, {})]
        [0.1, 0.025, 0.4, 0.00625, 1.6]
    """
    wanted = (t for o in protocol.starts for t in _of_optimizer(protocol, results, o))
    return [trial for trial in wanted if trial not in results]


def tuned(protocol: Protocol, results: Results, optimizer: str) -> dict[int, float]:
    """Results of an optimizer's tuning runs by power of the rate, ascending."""
    first, length = protocol.first_seed, protocol.lengths[0]
    found = {
        t.power: value
        for t, value in results.items()
        if (t.optimizer, t.seed, t.length) == (optimizer, first, length)
    }
    return dict(sorted(found.items()))


def best_power(curve: Mapping[int, float]) -> int | None:
    """The power of the best rate, of equal ones the nearest to the default; None if all failed."""
    worked = [power for power, value in curve.items() if math.isfinite(value)]
    return min(worked, key=lambda p: (-curve[p], abs(p), p), default=None)


def stage(protocol: Protocol, trial: Trial) -> str:
    """``'tuning'``, ``'fresh'`` or ``'longer'``."""
    if trial.seed == protocol.first_seed:
        return 'tuning'
    return 'fresh' if trial.length == protocol.lengths[0] else 'longer'


def _of_optimizer(protocol: Protocol, results: Results, optimizer: str) -> Iterator[Trial]:
    """The trials of the stage in which an optimizer is, those that have ended among them."""
    curve = tuned(protocol, results, optimizer)

    def tuning(powers: list[int]) -> list[Trial]:
        first, length = protocol.first_seed, protocol.lengths[0]
        return [Trial(optimizer, power, first, length) for power in powers]

    reach = _STEP * (RATES // 2)
    grid = sorted(range(-reach, reach + 1, _STEP), key=abs)  # the default first
    if not curve.keys() >= set(grid):
        yield from tuning(grid)
        return
    beyond = _extension(curve, reach)
    if beyond is not None:
        yield from tuning([beyond])
        return
    best = best_power({p: v for p, v in curve.items() if p % _STEP == 0})
    if best is None:
        return
    neighbours = [best - _NEIGHBOUR, best + _NEIGHBOUR]
    if not curve.keys() >= set(neighbours):
        yield from tuning(neighbours)
        return
    best = best_power(curve)
    assert best is not None  # the best of the grid is still in the curve
    for length in protocol.lengths:
        for seed in protocol.fresh_seeds:
            yield Trial(optimizer, best, seed, length)


def _extension(curve: Mapping[int, float], reach: int) -> int | None:
    """The next power beyond the end on which the best lies; None where the best is interior.

    Where every rate failed, smaller ones are tried: that is how divergence is left behind.
    """
    powers = [p for p in curve if p % _STEP == 0]
    low, high, most = min(powers), max(powers), reach + EXTENSIONS * _STEP
    best = best_power({p: curve[p] for p in powers})
    if best is None or best == low:
        return low - _STEP if low > -most else None
    return high + _STEP if best == high and high < most else None
