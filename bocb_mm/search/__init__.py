"""The search of learning rate x weight decay: a study is a directory, Ray places its trials.

``plan`` says which trials there are (plan.json), ``state`` what has become of one (run.json, lock,
attempts), ``study`` puts the two together. ``driver`` lets Ray (``engine``) place trials; where
Ray puts one, ``worker`` starts a clean process for it, ``trial`` is what runs in there, and
``outcomes`` judges how it ended. ``summary`` adds up. Only ``configs`` and ``trial`` need torch.
"""
