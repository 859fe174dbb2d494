"""Exit statuses of ``tools/train.py``, so that a scheduler can tell why a run ended."""

COMPLETED = 0
FAILED = 1  # an unforeseen error, with its traceback
USER_ERROR = 2  # one line says what to mend
DIVERGED = 3  # the loss is gone; starting again with the same settings is of no use
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint was saved, run again with --resume
