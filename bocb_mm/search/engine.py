"""Ray, as far as the search needs it: started, asked what there is, and found gone."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocb_mm.compat import let_ray_clients_show_their_token
from bocb_mm.errors import UserError
from bocb_mm.launch.devices import gpu_names
from bocb_mm.launch.process import MOST_THREADS, children, search_path, variables
from bocb_mm.runs import lock
from bocb_mm.search.worker import MOST_REST, Ended, Job, attempt

_STORE_BYTES = 80 << 20  # the least that Ray takes: nothing large goes through it
# Of a Ray on this machine alone. Trainings are no processes of Ray's: it cannot see their memory,
# and must not offer its own workers to the kernel before them.
_SETTINGS = {
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_memory_monitor_refresh_ms': '0',
    'RAY_worker_oom_score_adjustment': '0',
    'RAY_worker_niceness': '0',  # 15 is its default: anything else on the machine would go first
}
# Ray tries for ten minutes otherwise.
_PATIENCE = {'RAY_NUM_REDIS_GET_RETRIES': '1', 'RAY_py_gcs_connect_timeout_s': '5'}


class EngineLost(Exception):
    """A process that Ray cannot work without is gone."""


@dataclass(frozen=True)
class Engine:
    """Where trials are placed.

    Attributes:
        address: Of a Ray that runs: ``'auto'``, ``'ray://host:10001'``; ``None``: one of its own,
            on this machine.
        gpus: ``CUDA_VISIBLE_DEVICES`` of the trials, one by one; none: they train on the CPU.
        jobs: Trials at a time on the CPU.
        gpus_per_trial: Of each trial; a fraction lets several share one.
        threads: Of each training; ``None``: the cores are shared among the trials.
        dashboard: Start Ray's dashboard.
        most_rest: Longest rest of a place after failures of the machine, in s.
    """

    address: str | None = None
    gpus: Sequence[str] = ()
    jobs: int = 1
    gpus_per_trial: float = 1.0
    threads: int | None = None
    dashboard: bool = False
    most_rest: float = MOST_REST

    @property
    def on_gpu(self) -> bool:
        """Whether trials get GPUs."""
        return bool(self.gpus) or (self.address is not None and self.gpus_per_trial > 0)

    @property
    def threads_each(self) -> int:
        """Threads of a training."""
        places = max(1, int(len(self.gpus) / self.gpus_per_trial)) if self.gpus else self.jobs
        return self.threads or min(max(1, (os.cpu_count() or 1) // places), MOST_THREADS)


def engine_here(
    gpus: Sequence[str] | None = None, jobs: int | None = None, **settings: Any
) -> Engine:
    """A Ray of its own on this machine: on some GPUs, else on ``jobs`` places of the CPU.

    Args:
        gpus: Numbers as torch counts GPUs; without, and without ``jobs``: all that are visible.
        jobs: Trials at a time on the CPU.
        settings: Further fields of :class:`Engine`.

    Raises:
        UserError: GPUs that are not there.
    """
    names = () if jobs else gpu_names(gpus)
    return Engine(gpus=names, jobs=jobs or 1, **settings)


class RunningEngine:
    """A Ray that this process is connected to; a context.

    Args:
        engine: Which.
        processes: Of each trial.

    Raises:
        UserError: Ray is not installed, does not answer or has no node with enough GPUs.
    """

    def __init__(self, engine: Engine, processes: int) -> None:
        self.engine, self.processes = engine, processes
        for key, value in (_SETTINGS if engine.address is None else _PATIENCE).items():
            os.environ.setdefault(key, value)
        if str(engine.address).startswith('ray://'):
            let_ray_clients_show_their_token()
        self.ray = _import_ray()
        self.temporary: str | None = None
        self._vital: dict[int, str] = {}

    def __enter__(self) -> RunningEngine:
        try:
            if self.engine.address is None:
                self._start()
            else:
                self._connect(self.engine.address)
            self._check_nodes()
            self._task = self.ray.remote(_placed)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End Ray, or leave the one that runs elsewhere; what it watches over is asked to end."""
        with suppress(Exception):
            self.ray.shutdown()
        self.remove_files()

    def remove_files(self) -> None:
        """Leave nothing in the temporary folder."""
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
            lock.release(self.temporary)

    def submit(self, job: Job, avoid: frozenset[str] = frozenset()) -> Any:
        """Let Ray place an attempt; returns Ray's reference to its result.

        Args:
            job: The attempt.
            avoid: Nodes that shall not get it, as long as there are others.
        """
        gpus = self.engine.gpus_per_trial if self.engine.on_gpu else 0
        cpus = 1.0 if self.engine.address is None else float(self.engine.threads_each)
        options: dict[str, Any] = {'num_gpus': gpus, 'num_cpus': cpus, 'max_retries': 0}
        avoid = avoid & (nodes := {node['NodeID'] for node in self._nodes()}) if avoid else avoid
        if avoid and nodes - avoid:
            options['label_selector'] = {'ray.io/node-id': f'!in({",".join(sorted(avoid))})'}
        return self._task.options(**options).remote(job)

    def places(self) -> int:
        """How many trials find a place at a time."""
        return sum(self._fits(node) for node in self._nodes())

    def wait(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the attempts that have ended, after so many seconds at most.

        Raises:
            EngineLost: A process of Ray's is gone.
        """
        ended, _ = self.ray.wait(list(references), num_returns=1, timeout=seconds)
        if not ended:
            self._check_vital()
        return ended

    def result(self, reference: Any) -> Any:
        """What an attempt that has ended returned; ``None`` if its process or node is gone."""
        try:
            return self.ray.get(reference)
        except (self.ray.exceptions.RayTaskError, self.ray.exceptions.RuntimeEnvSetupError):
            raise
        except self.ray.exceptions.RayError:
            self._check_vital()
            return None

    # -- starting ---------------------------------------------------------------------------

    def _start(self) -> None:
        self.temporary = _temporary_folder()
        told = {
            'CUDA_VISIBLE_DEVICES': ','.join(self.engine.gpus),
            'PYTHONPATH': search_path(),
            'TMPDIR': self.temporary,  # Ray ends its processes so that none clears up after itself
        }
        old = children()
        try:
            with variables(told):  # as Ray's processes see them
                self.ray.init(
                    address='local',
                    num_cpus=self._places_here(),
                    num_gpus=len(self.engine.gpus),
                    include_dashboard=self.engine.dashboard,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=self.temporary,
                )
        except Exception as error:  # a node that takes more than 30 s to start has no other class
            raise UserError(f'Ray does not start here: {_short(error)}') from None
        self._vital = {
            pid: name
            for pid, name in children().items()
            if pid not in old and name in ('raylet', 'gcs_server')
        }

    def _connect(self, address: str) -> None:
        try:
            self.ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={'env_vars': {'PYTHONPATH': search_path()}},
            )
        except Exception as error:  # Ray raises its own, gRPC's, and the socket's
            raise UserError(
                f'--address {address}: no Ray answers there ({_short(error)}); start one with ray '
                'start --head, name the file with its token in RAY_AUTH_TOKEN_PATH where it was '
                'started elsewhere, or leave --address out'
            ) from None

    def _places_here(self) -> int:
        if self.engine.gpus:
            return max(1, int(len(self.engine.gpus) / self.engine.gpus_per_trial))
        return self.engine.jobs

    def _check_nodes(self) -> None:
        if any(self._fits(node) for node in self._nodes()):
            return
        most = max((node['Resources'].get('GPU', 0) for node in self._nodes()), default=0)
        raise UserError(
            f'a trial takes {self.engine.gpus_per_trial:g} GPUs and {self.engine.threads_each} '
            f'cores, and no node has as many (most GPUs of a node: {most:g}); give less, or '
            'start a larger node'
        )

    def _fits(self, node: Any) -> int:
        """How many trials a node takes."""
        has = node['Resources']
        cpus = 1 if self.engine.address is None else self.engine.threads_each
        found = int(has.get('CPU', 0) // cpus)
        if self.engine.on_gpu:
            each = self.engine.gpus_per_trial
            gpus = has.get('GPU', 0)
            found = min(found, int(gpus // each) if each >= 1 else int(gpus) * int(1 / each))
        return found

    def _nodes(self) -> list[Any]:
        return [node for node in self.ray.nodes() if node['Alive']]

    def _check_vital(self) -> None:
        """Ray itself hangs, or ends this process after a minute."""
        alive = children()
        for pid, name in self._vital.items():
            if alive.get(pid) != name:
                raise EngineLost(f'{name} is gone')


def _placed(job: Job) -> Ended:
    """What Ray runs."""
    import ray

    return attempt(job, ray.get_runtime_context().get_node_id())


def _temporary_folder() -> str:
    """A folder for Ray's files, locked by this process; those of drivers that were killed go."""
    # Paths of sockets may have some hundred characters, and Ray's own part has seventy.
    parent = Path(tempfile.gettempdir())
    parent = parent if len(str(parent)) < 20 else Path('/tmp')
    for left in parent.glob('bocb-*'):
        if lock.owner_died(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix='bocb-', dir=parent)
    lock.acquire(folder)
    return folder


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f'the search runs on Ray, which is not installed: pip install "ray>=2.60,<3" ({error})'
        ) from None
    return ray


def _short(error: BaseException) -> str:
    return ' '.join(str(error).split())[:200]
