"""Wide CSV files: read, or refused in one clear line."""

import math

import pytest

from bocb_mm.errors import UserError
from bocb_mm.report import load, stats, wide_csv


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
    'two spellings': (
        'optimizer,R-50\nSGD,70\nSGD-M,71\n',
        r"optimizer 'SGD-M' stands there twice \(as 'SGD'\)",
    ),
    'not finite': ('optimizer,R-50\nSGD,1e999\n', "'1e999' is no result"),
    'out of all bounds': ('optimizer,R-50\nSGD,1e20\n', "'1e20' is no result"),
    'underscores': ('optimizer,R-50\nSGD,7_0\n', "'7_0' is no result"),
    'one column': ('optimizer R-50\nSGD 70\n', 'separated by commas, semicolons or tabs'),
    'open quotes': ('optimizer,R-50\nSGD,"70\n', 'cannot be read as CSV'),
    'column twice': ('optimizer,R-50,R-50\nSGD,70,71\n', "column 'R-50' stands there twice"),
}


@pytest.mark.parametrize('case', BAD_CSV)
def test_bad_csv_is_one_clear_line(tmp_path, case):
    text, message = BAD_CSV[case]
    with pytest.raises(UserError, match=message):
        load.table_from_csv(csv(tmp_path, text))


@pytest.mark.parametrize(
    'text',
    [
        'optimizer;R-50;CNX-T\nSGD;70,5;\nAdam;71;1,5e1\n',
        'optimizer\tR-50\tCNX-T\nSGD\t70.5\t\nAdam\t71\t15\n',
        '\ufeffoptimizer;R-50;CNX-T\r\nSGD;70.5;nan\r\n\r\nAdam;71;15\r\n',
    ],
    ids=['semicolons and decimal commas', 'tabs', 'as Excel writes it'],
)
def test_other_separators(tmp_path, text):
    values = wide_csv.read(csv(tmp_path, text))
    assert values.loc['Adam'].tolist() == [71, 15] and values.at['SGD', 'R-50'] == 70.5
    assert math.isnan(values.at['SGD', 'CNX-T'])


def test_a_file_of_another_encoding_is_refused(tmp_path):
    path = tmp_path / 'mine.csv'
    path.write_bytes('optimizer,R-50\nGröße,70\n'.encode('utf-16'))
    with pytest.raises(UserError, match='cannot be read as CSV'):
        wide_csv.read(path)
