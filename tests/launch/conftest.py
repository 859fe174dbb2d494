"""Trainings in processes of their own find what they run as the module `chain_jobs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
