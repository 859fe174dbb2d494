"""Wide CSV files: read, or refused in one clear line."""

import math

import pytest

from bocb_mm.errors import UserError
from bocb_mm.report import load, stats


def csv(tmp_path, text):
    path = tmp_path / 'mine.csv'
    path.write_text(text)
    return path


def test_csv_with_missing_and_diverged(tmp_path):
    table = load.table_from_csv(csv(tmp_path, 'optimizer,R-50,X\nSGD,70.5,diverged\nMuon,,-inf\n'))
    assert table.name == 'mine' and table.gamma == 3
    assert table.values.loc['SGD'].tolist() == [70.5, stats.DIVERGED]
    assert math.isnan(table.values.at['Muon', 'R-50'])
    assert len(table.cells) == 3


BAD_CSV = {
    'empty': ('', 'a row of backbones'),
    'only a head': ('optimizer,R-50\n', 'a row of backbones'),
    'a word': ('optimizer,R-50\nSGD,seventy\n', "row 'SGD', column 'R-50'"),
    'short row': ('optimizer,R-50,X\nSGD,70\n', "row 'SGD' has 2 cells"),
    'optimizer twice': ('optimizer,R-50\nSGD,70\nSGD,71\n', "optimizer 'SGD' stands there twice"),
    'column twice': ('optimizer,R-50,R-50\nSGD,70,71\n', "column 'R-50' stands there twice"),
}


@pytest.mark.parametrize('case', BAD_CSV)
def test_bad_csv_is_one_clear_line(tmp_path, case):
    text, message = BAD_CSV[case]
    with pytest.raises(UserError, match=message):
        load.table_from_csv(csv(tmp_path, text))
