"""What ``import xtcocotools`` gives where it is not installed: mmpose's three modules of it."""
