"""The console command ``bocb``: one module a sub-command, each with a ``main(argv)``.

What a sub-command does stands in the rooms below; the scripts in ``tools/`` call the same ``main``.
A module imports torch and the toolboxes only after it has read its arguments.
"""
