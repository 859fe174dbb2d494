"""The stages in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage: module of the same name, seconds it may take on a GPU, and what it looks at."""

    name: str
    seconds: int
    about: str


#: Together 480 seconds.
STAGES = (
    Stage('environment', 25, 'what `bocb doctor` finds, versions, the GPU'),
    Stage('operators', 25, "mmcv's operators: device against CPU, stand-ins against compiled"),
    Stage('parity', 50, '30 steps of each optimizer in each execution mode against the CPU'),
    Stage('compiled', 60, '30 steps of each optimizer with compile=True against the CPU'),
    Stage('waiting', 25, 'steps that wait for the device'),
    Stage('step_times', 60, 'milliseconds, kernels and memory of a step, beside other packages'),
    Stage('networks', 90, 'classifiers, RetinaNet, pose: loss against the CPU, images a second'),
    Stage('layers', 15, 'layer metrics against the CPU'),
    Stage('training', 50, 'a signal in mid-epoch, resume, the same bits'),
    Stage('search', 40, 'trials on their devices, one of them killed'),
    Stage('several', 40, 'two processes: the same weights, a signal to one, resume'),
)
