"""Going on with a run: find its checkpoint, put back its state, randomness and schedules."""
