"""``python -m bocb_mm.optimizers`` prints the catalog."""

from bocb_mm.optimizers.build import catalog_table

print(catalog_table())
