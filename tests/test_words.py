from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.words import counted


def test_one_thing_is_not_plural():
    assert counted(1, 'table') == '1 table'
    assert counted(20000, 'trial') == '20,000 trials'


@given(st.integers(min_value=0))
def test_the_number_stays_readable_and_only_one_is_singular(n):
    number, noun = counted(n, 'seed').split()
    assert int(number.replace(',', '')) == n
    assert (noun == 'seed') == (n == 1)
