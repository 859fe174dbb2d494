"""Ending a training from within a hook, so that the record and the exit status say why."""

from __future__ import annotations

from typing import Any, NoReturn

from mmengine.runner import Runner

from bocb_mm.runs import exit_codes


class StoppedRun(SystemExit):
    """A hook ended the run in good order.

    As a SystemExit it gives any training script its exit status without a traceback; a program
    that trains in its own process catches it.

    Args:
        message: One line for people.

    Attributes:
        status: What ``run.json`` says.
        code: Exit status, see :mod:`bocb_mm.runs.exit_codes`.
    """

    status = 'failed'
    exit_status = exit_codes.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.exit_status

    def __str__(self) -> str:
        return self.message


class Diverged(StoppedRun):
    """The loss is NaN or infinite, or has blown up."""

    status = 'diverged'
    exit_status = exit_codes.DIVERGED


class Interrupted(StoppedRun):
    """A signal asked the run to end; a checkpoint is saved."""

    status = 'interrupted'
    exit_status = exit_codes.INTERRUPTED


def stop(runner: Runner, reason: StoppedRun) -> NoReturn:
    """End the run: tell the message hub, the log and the hooks that keep records, and raise.

    Args:
        runner: The runner.
        reason: What is raised.

    Raises:
        StoppedRun: Always.
    """
    # Not saved: the run that resumes is neither diverged nor interrupted.
    runner.message_hub.update_info('bocb_mm/status', reason.status, resumed=False)
    runner.message_hub.update_info('bocb_mm/message', reason.message, resumed=False)
    runner.logger.error(reason.message)
    record_failure(runner, reason)
    raise reason


def record_failure(runner: Runner, error: BaseException) -> None:
    """Let the hooks that keep records say why a run ended: none is called when an error ends it.

    A project's own training script may call it too, in ``except BaseException``.

    Args:
        runner: The runner.
        error: What ended its training.
    """
    for hook in runner.hooks:
        failed: Any = getattr(hook, 'run_failed', None)
        if failed is not None:
            failed(runner, error)
