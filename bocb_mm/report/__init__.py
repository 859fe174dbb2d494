"""The report: run directories and result tables in, the paper's tables, figures and rankings out.

``records`` and ``load`` read, ``stats``, ``coupling`` and ``ranking`` compute, ``tables``,
``figures`` and ``html`` show, ``build`` puts the files of a report in place, ``recommend`` answers
"which optimizer for this backbone". No torch and no mmengine in here: a report is made on a laptop
that has neither.
"""
