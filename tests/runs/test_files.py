import os
import stat

import pytest

from bocb_mm.runs.files import atomic_open, atomic_write_text


def test_the_file_appears_whole(tmp_path):
    atomic_write_text(tmp_path / 'a.txt', 'ä\n')
    assert (tmp_path / 'a.txt').read_text(encoding='utf-8') == 'ä\n'
    assert os.listdir(tmp_path) == ['a.txt']


def test_an_error_leaves_the_old_content_and_no_rubbish(tmp_path):
    atomic_write_text(tmp_path / 'a.txt', 'old')
    with pytest.raises(RuntimeError), atomic_open(tmp_path / 'a.txt') as file:
        file.write('half of the new')
        raise RuntimeError
    assert (tmp_path / 'a.txt').read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write_text(tmp_path / 'a.txt', '')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'a.txt').stat().st_mode) == 0o640


def test_a_missing_directory_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write_text(tmp_path / 'no' / 'a.txt', '')
