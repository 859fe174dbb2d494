"""What ``tools/doctor.py`` checks: the installed packages, and the machine itself."""

from bocb_mm.doctor.machine import devices, driver, machine_findings
from bocb_mm.doctor.stack import PACKAGES, Finding, findings, versions

__all__ = [
    'PACKAGES',
    'Finding',
    'devices',
    'driver',
    'findings',
    'machine_findings',
    'versions',
]
