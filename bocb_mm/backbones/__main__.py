"""``python -m bocb_mm.backbones``: print the catalog."""

from __future__ import annotations

from bocb_mm.backbones.catalog import catalog_table

if __name__ == '__main__':
    print(catalog_table(extras=True))
