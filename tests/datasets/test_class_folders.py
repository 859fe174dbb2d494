"""Folders of images as a newcomer has them."""

from pathlib import Path

import pytest
from PIL import Image

from bocb_mm.datasets.class_folders import find_images
from bocb_mm.errors import UserError


def fill(folder, classes, n=10, size=(40, 50)):
    for c in classes:
        (folder / c).mkdir(parents=True)
        for i in range(n):
            Image.new('RGB', size, (i, 0, 0)).save(folder / c / f'an image {i}.png')
    return folder


def test_class_folders_alone_are_split(tmp_path):
    found = find_images(fill(tmp_path, ['cat', 'dog', 'eel']))
    assert found.classes == ('cat', 'dog', 'eel') and found.side == 64
    assert len(found.train) == 24 and len(found.val) == 6
    assert not set(found.train) & set(found.val)
    assert {label for _, label in found.val} == {0, 1, 2}
    assert find_images(tmp_path) == found  # the same images every time


def test_train_and_val_are_taken_as_they_are(tmp_path):
    fill(tmp_path / 'train', ['cat', 'dog'], 4)
    fill(tmp_path / 'val', ['cat', 'dog'], 2)
    found = find_images(tmp_path)
    assert len(found.train) == 8 and len(found.val) == 4
    assert all(path.startswith('val/') for path, _ in found.val)


def test_what_a_mac_or_a_notebook_left_is_no_image(tmp_path):
    fill(tmp_path, ['cat', 'dog'], 5)
    for name in ('._an image 0.png', '.ipynb_checkpoints/a.png', '__MACOSX/b.png', 'c.png/d.txt'):
        (tmp_path / 'cat' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'cat' / name).write_bytes(b'none')
    (tmp_path / '__MACOSX').mkdir()
    found = find_images(tmp_path, 32)
    assert found.classes == ('cat', 'dog') and len(found.train) + len(found.val) == 10


def test_images_without_labels_are_no_validation(tmp_path):
    """As competitions have it: `train` in class folders, `test` without."""
    fill(tmp_path / 'train', ['cat', 'dog'], 10)
    (tmp_path / 'test').mkdir()
    Image.new('RGB', (40, 50)).save(tmp_path / 'test' / '0.png')
    found = find_images(tmp_path)
    assert len(found.train) == 16 and found.split == 'a fifth of each class of train set aside'


def test_the_lists_name_the_images(tmp_path):
    found = find_images(fill(tmp_path / 'data', ['cat', 'dog'], 5))
    train, val = found.write_lists(tmp_path / 'out')
    lines = [line for file in (train, val) for line in Path(file).read_text().splitlines()]
    assert len(lines) == 10
    for line in lines:
        path, label = line.rsplit(' ', 1)
        assert (tmp_path / 'data' / path).is_file() and label in '01'


@pytest.mark.parametrize(
    ('classes', 'message'), [(['cat'], 'only one class .cat.'), ([], 'no class folder')]
)
def test_fewer_than_two_classes_are_refused(tmp_path, classes, message):
    with pytest.raises(UserError, match=message):
        find_images(fill(tmp_path, classes))


def test_what_cannot_work_is_said(tmp_path):
    with pytest.raises(UserError, match='no such folder'):
        find_images(tmp_path / 'nowhere')
    fill(tmp_path / 'a', ['cat', 'dog'])
    (tmp_path / 'a' / 'eel').mkdir()
    with pytest.raises(UserError, match='eel holds no image'):
        find_images(tmp_path / 'a')
    fill(tmp_path / 'b' / 'train', ['cat', 'dog'])
    fill(tmp_path / 'b' / 'val', ['cat', 'eel'])
    with pytest.raises(UserError, match='different classes .dog, eel.'):
        find_images(tmp_path / 'b')
    fill(tmp_path / 'c', ['cat', 'dog'], 1)
    with pytest.raises(UserError, match='has one image'):
        find_images(tmp_path / 'c')
    fill(tmp_path / 'd', ['cat', 'dog'], 4)
    for file in (tmp_path / 'd').rglob('*.png'):
        file.write_text('no image')
    with pytest.raises(UserError, match='cannot be read as an image'):
        find_images(tmp_path / 'd')


def test_large_images_are_shrunk(tmp_path):
    assert find_images(fill(tmp_path, ['cat', 'dog'], 3, (500, 900))).side == 224
