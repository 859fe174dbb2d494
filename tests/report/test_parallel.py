"""Work spread over processes: the same results, in order, and a lost child is an error."""

import os
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest

from bocb_mm.report.parallel import processors, spread


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize('chunk', [1, 3])
def test_results_come_in_order_from_a_closure(processes, chunk):
    offset = 7
    with spread(lambda v: (v + offset, os.getpid()), range(20), chunk, processes=processes) as made:
        results, where = zip(*made)
    assert list(results) == list(range(7, 27))
    assert (set(where) == {os.getpid()}) == (processes == 1)


def test_few_items_start_no_process():
    with spread(lambda _: os.getpid(), [1, 2], few=3, processes=2) as made:
        assert set(made) == {os.getpid()}


def test_an_error_of_the_work_is_the_callers():
    with pytest.raises(ZeroDivisionError), spread(lambda v: 1 // v, [1, 0], 1, 2, 2) as made:
        list(made)


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL on this system')
def test_a_killed_child_ends_the_wait():
    def work(value):
        return os.kill(os.getpid(), signal.SIGKILL) if value else value

    with pytest.raises(BrokenProcessPool), spread(work, [0, 1], 1, 2, 2) as made:
        list(made)


def test_spreads_within_one_another():
    with spread(abs, [-1, -2], few=2, processes=2) as outer:
        with spread(str, [1, 2], few=2, processes=2) as inner:
            assert list(inner) == ['1', '2']
        assert list(outer) == [1, 2]


def test_there_is_a_processor():
    assert processors() >= 1
