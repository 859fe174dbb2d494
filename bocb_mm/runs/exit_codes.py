"""Exit statuses of ``tools/train.py``, by which a scheduler sees why a run ended."""

COMPLETED = 0
FAILED = 1  # an unforeseen error, with its traceback
USER_ERROR = 2  # one line says what to fix
DIVERGED = 3  # the loss is gone; starting again with the same settings is of no use
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint was saved, run again with --resume
