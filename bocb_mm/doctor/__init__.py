"""What ``tools/doctor.py`` checks: the installed packages here, the machine itself."""

from bocb_mm.doctor.stack import PACKAGES, Finding, findings, versions

__all__ = ['PACKAGES', 'Finding', 'findings', 'versions']
