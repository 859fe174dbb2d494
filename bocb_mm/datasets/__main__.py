"""``python -m bocb_mm.datasets`` writes the quickstart's data sets and prints where."""

from bocb_mm.datasets.prepare import prepare_quickstart

for name, folder in prepare_quickstart().items():
    print(f'{name:<8} {folder}')
