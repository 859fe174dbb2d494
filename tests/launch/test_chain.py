"""The chain: order, hand-over of checkpoints, failures. Trainings are stand-ins that write a record."""

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from bocb_mm.errors import UserError
from bocb_mm.launch import chain
from bocb_mm.launch.chain import Job, run_chain
from bocb_mm.runs.record import RunRecord


def job(name, after=''):
    return Job(name, 'no_config.py', 'SGD', 0.1, 1e-4, after=after)


@pytest.fixture
def fake_training(monkeypatch):
    """A forked process that writes what a training leaves, or fails if its name says so."""

    def train(job, folder: Path, pretrained, threads):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'told.txt').write_text(f'{pretrained} {threads}')
        if job.name.startswith('bad'):
            (folder / chain.LOG_FILE).write_text('first line\nValueError: no luck\n')
            os._exit(1)
        record = RunRecord('classification', 'digits', 'R-18-XS', job.optimizer, status='completed')
        record.metric = 'accuracy/top1'
        record.add_evaluation(1, 10, {'accuracy/top1': 91.25})
        record.save(folder)
        (folder / 'last_checkpoint').write_text(f'{folder}/epoch_1.pth\n')
        os._exit(0)

    monkeypatch.setattr(chain, '_train', train)
    monkeypatch.setattr(chain, 'POLL_SECONDS', 0.01)


def run(jobs, folder, workers=2):
    console = Console(file=io.StringIO(), width=200)
    records = run_chain(jobs, folder, workers, console)
    return records, console.file.getvalue()


def test_a_job_starts_from_its_predecessors_checkpoint(fake_training, tmp_path):
    records, text = run([job('pre'), job('tuned', after='pre'), job('random')], tmp_path)
    assert set(records) == {'pre', 'tuned', 'random'}
    assert records['pre'].last == 91.25
    told = (tmp_path / 'tuned' / 'told.txt').read_text().split()
    assert told[0] == f'{tmp_path}/pre/epoch_1.pth'
    assert (tmp_path / 'random' / 'told.txt').read_text().split()[0] == 'none'
    assert re.search(r'100 % \d:\d\d', text) and 'top1 91.2' in text


def test_a_failure_leaves_out_what_waits_for_it_and_nothing_else(fake_training, tmp_path):
    jobs = [job('bad'), job('next', after='bad'), job('last', after='next'), job('other')]
    records, text = run(jobs, tmp_path)
    assert set(records) == {'other'}
    assert 'bad: failed (exit status 1): ValueError: no luck' in text
    assert 'next: left out: bad did not complete' in text
    assert 'last: left out: next did not complete' in text
    assert '100 %' in text


def test_no_more_jobs_run_at_a_time_than_workers(monkeypatch, tmp_path):
    import time

    def train(job, folder, *_):
        folder.mkdir(parents=True)
        (folder / 'start').write_text(str(time.time()))
        time.sleep(0.15)
        (folder / 'end').write_text(str(time.time()))
        os._exit(1)

    monkeypatch.setattr(chain, '_train', train)
    run([job(f'j{k}') for k in range(5)], tmp_path, workers=2)
    events = [(float(p.read_text()), p.name == 'start') for p in tmp_path.glob('*/*')]
    at_once, most = 0, 0
    for _, begins in sorted(events):
        at_once += 1 if begins else -1
        most = max(most, at_once)
    assert most == 2


def test_a_run_that_diverged_is_no_success(monkeypatch, tmp_path):
    def train(job, folder, *_):
        folder.mkdir(parents=True)
        (folder / chain.LOG_FILE).write_text('')
        RunRecord('pose', 'figures', 'R-18-XS', 'SGD', status='diverged').save(folder)
        os._exit(3)

    monkeypatch.setattr(chain, '_train', train)
    records, text = run([job('wild')], tmp_path)
    assert records == {} and 'failed (exit status 3)' in text


@pytest.mark.parametrize(
    ('jobs', 'message'),
    [
        ([job('a'), job('a')], "'a' is twice"),
        ([job('a', after='b'), job('b')], "waits for 'b'"),
    ],
)
def test_a_chain_that_cannot_run_is_refused(jobs, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(jobs, tmp_path)
