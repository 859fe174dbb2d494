"""The search of learning rate x weight decay, on Optuna: a fixed list of trials, many workers.

``plan`` says which trials there are, ``storage`` hands each to one worker, ``worker`` forks
``trial`` for it, ``outcomes`` judges how that ended, ``summary`` adds up. ``cli`` is
``tools/sweep.py``. Only ``trial`` needs torch, and only in the forked process.
"""
