"""Configs as targets: what is tried, and how a run differs from the config."""

import pytest

from bocb_mm.probe.options import Options
from bocb_mm.probe.plan import Protocol, Trial
from bocb_mm.probe.target import find_target


@pytest.fixture
def detector(root):
    return find_target(
        Options(out='x', config=str(root / 'configs/quickstart/retinanet_r18-xs.py'))
    )


def test_a_detector_starts_from_the_rates_of_detection(detector):
    assert (detector.task, detector.metric, detector.margin) == ('detection', 'coco/bbox_mAP', 3.0)
    assert detector.starts['SGD'] == (0.01, 1e-4) and detector.starts['AdamW'] == (1e-4, 0.05)


def test_a_run_is_a_whole_schedule_that_is_validated_at_its_end(detector):
    protocol = Protocol(detector.starts, lengths=(1.0, 2.0))
    cell = detector.cell('c.py', protocol, Trial('AdamW', 1, 0, 2.0))
    epochs = cell['options']['train_cfg.max_epochs']
    assert (
        epochs == cell['options']['train_cfg.val_interval'] == 2 * detector.cfg.train_cfg.max_epochs
    )
    assert cell['options']['param_scheduler'][-1]['end'] == epochs
    assert cell['lr'] == 2e-4 and cell['weight_decay'] == 0.05 and cell['seed'] == 0
    assert detector.budget(1).startswith(f'{detector.cfg.train_cfg.max_epochs} epochs at batch ')


def test_the_same_config_is_the_same_target(detector, root):
    path = str(root / 'configs/quickstart/retinanet_r18-xs.py')
    again = find_target(Options(out='y', config=path))
    assert (again.identity, again.data) == (detector.identity, detector.data)
    other = find_target(
        Options(out='y', config=path, cfg_options={'model.backbone.frozen_stages': 1})
    )
    assert other.identity != detector.identity and other.data == detector.data
    longer = find_target(Options(out='y', config=path, cfg_options={'train_cfg.max_epochs': 99}))
    assert longer.data != detector.data


def test_imagenet_has_the_papers_smaller_margin(root):
    path = str(root / 'configs/pretrain/imagenet/r-50_pytorch.py')
    assert find_target(Options(out='x', config=path)).margin == 1.0


def test_a_network_is_called_as_its_records_call_it(root):
    """Both are of the class ConvNeXt; and probes of two networks on the same data compare."""
    folder = root / 'configs' / 'real_small' / 'probe'
    found = [
        find_target(Options(out='x', config=str(folder / f'{name}.py')))
        for name in ('convnext', 'convnextv2')
    ]
    assert [t.backbone for t in found] == ['CNX-3XS', 'CNXV2-3XS']
    assert found[0].data == found[1].data and found[0].identity != found[1].identity
    assert {t.margin for t in found} == {3.0}
