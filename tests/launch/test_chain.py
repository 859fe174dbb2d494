"""The chain: order, hand-over of checkpoints, failures. Trainings are stand-ins that write a record."""

import io
import re

import chain_jobs
import pytest
from rich.console import Console

from bocb_mm.errors import UserError
from bocb_mm.launch import chain
from bocb_mm.launch.chain import Job, run_chain


def job(name, after=''):
    return Job(name, 'no_config.py', 'SGD', 0.1, 1e-4, after=after)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(chain, 'POLL_SECONDS', 0.01)


def run(jobs, folder, workers=2, train=chain_jobs.leave_a_run):
    console = Console(file=io.StringIO(), width=200)
    records = run_chain(jobs, folder, workers, console, train)
    return records, console.file.getvalue()


def test_a_job_starts_from_its_predecessors_checkpoint(tmp_path):
    records, text = run([job('pre'), job('tuned', after='pre'), job('random')], tmp_path)
    assert set(records) == {'pre', 'tuned', 'random'}
    assert records['pre'].last == 91.25
    assert (tmp_path / 'tuned' / 'told.txt').read_text() == f'{tmp_path}/pre/epoch_1.pth'
    assert (tmp_path / 'random' / 'told.txt').read_text() == 'none'
    assert re.search(r'100 % \d:\d\d', text) and 'top1 91.2' in text


def test_a_failure_leaves_out_what_waits_for_it_and_nothing_else(tmp_path):
    jobs = [job('bad'), job('next', after='bad'), job('last', after='next'), job('other')]
    records, text = run(jobs, tmp_path)
    assert set(records) == {'other'}
    assert 'bad: failed (exit status 1): ValueError: no luck' in text
    assert 'next: left out: bad did not complete' in text
    assert 'last: left out: next did not complete' in text
    assert '100 %' in text


def test_no_more_jobs_run_at_a_time_than_workers(tmp_path):
    run([job(f'j{k}') for k in range(5)], tmp_path, workers=2, train=chain_jobs.meet)
    events = [(float(p.read_text()), p.name == 'start') for p in tmp_path.glob('*/[se]*')]
    at_once, most = 0, 0
    for _, begins in sorted(events):
        at_once += 1 if begins else -1
        most = max(most, at_once)
    assert most == 2


def test_a_run_that_diverged_is_no_success(tmp_path):
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


def test_a_mistake_of_the_user_is_one_line_of_the_log_and_status_2(tmp_path):
    records, text = run([job('typo')], tmp_path)
    assert records == {}
    assert 'failed (exit status 2): config c.py: no such file' in text
    assert (tmp_path / 'typo' / 'log.txt').read_text() == 'error: config c.py: no such file\n'
