"""Config in, trained or evaluated run directory out: one run, processes of one, chains of many."""
