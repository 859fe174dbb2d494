"""What the machine is, and what the doctor finds."""

from __future__ import annotations

from bocb_mm import doctor
from bocb_mm.gpu_check.report import Report, Settings


def run(report: Report, settings: Settings) -> None:
    """Versions, the GPU, and every finding of ``tools/doctor.py``."""
    import torch

    found = doctor.versions()
    for name in ('torch', 'torchvision', 'mmcv', 'mmdet', 'mmpretrain', 'mmpose'):
        report.measure(name, found[name] or 'not installed')
    report.measure('CUDA of torch', str(torch.version.cuda))
    report.measure('CUDA of the driver', doctor.driver() or 'none')
    for device in doctor.devices()[1:]:
        properties = torch.cuda.get_device_properties(device)
        memory = properties.total_memory / 2**30
        report.measure(device, f'{properties.name}, {memory:.0f} GiB')
    findings = [*doctor.findings(found), *doctor.machine_findings(settings.folder)]
    for finding in findings:
        if finding.fatal:
            report.fail('doctor', f'{finding.problem}; fix: {finding.fix}')
        else:
            report.measure('doctor', finding.problem)
    fatal = sum(finding.fatal for finding in findings)
    report.check('findings that keep RetinaNet from training', fatal, 0)
