"""What a resumed run needs to draw the same random numbers: generator states and data position.

Three kinds of randomness meet in a training. The generators of the main process (dropout, and
augmentation without workers) are saved and restored. The order of the samples is a function of the
sampler's seed and the epoch, so the position in it is enough. The generators of data workers
cannot be saved, the workers run ahead; instead each batch seeds them from (seed, rank, round,
position), whatever worker loads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from bocb_mm.compat import restart_sampler


def random_state() -> dict[str, Any]:
    """The states of the python, numpy, torch and CUDA generators, as plain values and tensors.

    Returns:
        A dict for :func:`set_random_state`; every checkpoint reader accepts what it holds.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(3)
        >>> set_random_state(state)
        >>> torch.equal(first, torch.rand(3))
        True
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    key = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state: dict[str, Any] = {
        'python': [version, torch.tensor(words), gauss],
        'numpy': [kind, key, position, has_gauss, cached],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators into a state that :func:`random_state` gave."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


class SeededBatch(list):
    """The indices of one batch; a data worker that goes through them first seeds its generators."""

    def __init__(self, indices: Any, entropy: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.entropy = entropy

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:  # the main process has states that are saved
            numpy_seed, *words = np.random.SeedSequence(self.entropy).generate_state(3).tolist()
            np.random.seed(numpy_seed)
            random.seed(words[0])
            torch.manual_seed(words[1])
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:  # pickling must not go through __iter__
        return SeededBatch, (list(list.__iter__(self)), self.entropy)


class PositionedBatches:
    """A batch sampler that can start in the middle and seeds the workers batch by batch.

    Args:
        batches: The batch sampler it stands in for; everything but iterating is left to it.
        seed: Seed of the run.
        rank: Number of this process.

    Attributes:
        round: Number of the current pass over the data.
        offset: Batches in the passes before the current one.
        order_state: torch's generator state when the current pass began.
    """

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank = batches, seed, rank
        self.round, self.offset = -1, 0
        self._total = 0
        self.order_state: torch.Tensor | None = None
        self._skip = 0
        self._arrived: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def start_at(self, position: dict[str, Any], arrived: Callable[[], None]) -> None:
        """Make the next pass the one a checkpoint was saved in.

        Args:
            position: ``round``, ``offset``, ``order_state`` as they were, and ``skip``, the number
                of batches of that pass that were trained on already.
            arrived: Called just before the next batch is named; restores the generators.
        """
        self.round, self._total = position['round'] - 1, position['offset']
        self.order_state, self._skip = position['order_state'], position['skip']
        self._arrived = arrived

    def __iter__(self) -> Iterator[SeededBatch]:
        skip, arrived = self._skip, self._arrived
        self._skip, self._arrived = 0, None
        if arrived is not None and self.order_state is not None:
            torch.set_rng_state(self.order_state)
        self.order_state = torch.get_rng_state()
        self.round += 1
        self.offset = self._total
        count = 0
        for count, indices in enumerate(self.batches, start=1):
            if count <= skip:
                continue
            if arrived is not None:
                arrived()
                arrived = None
            yield SeededBatch(indices, (self.seed, self.rank, self.round, count - 1))
        if arrived is not None:  # the pass was over
            arrived()
        self._total += count


def position_batches(dataloader: DataLoader, seed: int, rank: int) -> PositionedBatches | None:
    """Give a data loader a batch sampler that can start in the middle.

    Returns:
        The sampler, or ``None`` for an iterable data set or one without batches: such a run can
        be resumed, at the start of an epoch only, and not bit-equal.
    """
    batches = dataloader.batch_sampler
    if isinstance(batches, PositionedBatches):
        return batches
    if batches is None or isinstance(dataloader.dataset, torch.utils.data.IterableDataset):
        return None
    sampler = getattr(batches, 'sampler', dataloader.sampler)
    restart_sampler(sampler)  # it may have run ahead
    positioned = PositionedBatches(batches, seed, rank)
    # DataLoader forbids setting it, so that a change does not go unnoticed by a running iterator.
    dataloader.__dict__['batch_sampler'] = positioned
    dataloader.__dict__['_iterator'] = None
    return positioned


class SkippingIterator:
    """The batches of an iteration-based loop, which on resuming asks for the old ones first.

    Args:
        make: Makes the iterator of new batches.
        done: Number of old batches; ``None`` is given for them, at no cost.
    """

    def __init__(self, make: Callable[[], Iterator[Any]], done: int) -> None:
        self._make, self._done = make, done
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> SkippingIterator:
        return self

    def __next__(self) -> Any:
        if self._done > 0:
            self._done -= 1
            return None
        if self._batches is None:
            self._batches = self._make()
        return next(self._batches)
