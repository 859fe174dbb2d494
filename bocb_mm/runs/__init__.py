"""What one run leaves behind, and how it is found again: record, lock, exit statuses, files."""

from bocb_mm.runs.record import FILE_NAME, RunRecord

__all__ = ['FILE_NAME', 'RunRecord']
