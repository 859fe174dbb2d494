"""The generators: the same seed gives the same files, and the truth they write is exact."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.datasets import digits, prepare, scenes, stick_figures
from bocb_mm.datasets.backgrounds import LUMINANCE, background, contrasting
from bocb_mm.errors import UserError

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope='module')
def scans():
    return digits.load_digits(seed=0)


@pytest.fixture
def few(monkeypatch):
    """Small sets, so that writing them takes a moment."""

    def first_twenty(seed):
        parts = load(seed)
        return tuple(digits.Digits(p.images[:20], p.labels[:20], p.indices[:20]) for p in parts)

    load = digits.load_digits
    monkeypatch.setattr(digits, 'load_digits', first_twenty)
    monkeypatch.setattr(scenes, 'COUNTS', {'train': 3, 'val': 2})
    monkeypatch.setattr(stick_figures, 'COUNTS', {'train': 3, 'val': 2})


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


def test_digits_are_split_without_overlap(scans):
    train, val = scans
    assert len(train) + len(val) == 1797  # scikit-learn's documentation of load_digits
    assert not set(train.indices) & set(val.indices)
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in val.images}
    for part in scans:
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert np.all(np.abs(shares - 0.1) < 0.01)  # the classes are nearly equally frequent


def test_the_split_follows_the_seed(scans):
    again, other = digits.load_digits(seed=0), digits.load_digits(seed=1)
    assert np.array_equal(again[1].indices, scans[1].indices)
    assert not np.array_equal(other[1].indices, scans[1].indices)


@given(st.integers(0, 1796), st.integers(8, 64), st.integers(8, 64))
@settings(max_examples=30, deadline=None)
def test_enlarging_keeps_ink_in_range(row, width, height):
    image = np.concatenate([part.images for part in digits.load_digits()])[row]
    ink = digits.enlarge(image, width, height)
    assert ink.shape == (height, width) and ink.dtype == np.float32
    assert ink.min() >= 0 and ink.max() <= 1


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_scene_boxes_are_the_tight_boxes_of_the_ink(scans, seed):
    image, objects, numbers = scenes.compose_scene(np.random.default_rng(seed), scans[0])
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    # Fewer than three where no place was found for a third.
    assert 1 <= len(objects) <= scenes.DIGITS_A_SCENE[1]
    for k, (label, (x, y, w, h)) in enumerate(objects, start=1):
        rows, columns = np.nonzero(numbers == k)
        assert 0 <= label <= 9
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
        assert x >= 0 and y >= 0 and x + w <= 128 and y + h <= 128
        inside = numbers[y : y + h, x : x + w]
        assert set(np.unique(inside)) <= {0, k}  # no other digit reaches into the box


def test_the_ink_of_a_scene_differs_from_its_ground(scans):
    """The digit is in the image where the box says, not only in the annotation."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ground = background(np.random.default_rng(seed), 128, 128)
        image, _, numbers = scenes.compose_scene(rng, scans[0])
        change = np.abs(image.astype(float) - ground).max(axis=2)
        assert change[numbers == 0].max() <= 0.5  # rounding
        assert np.median(change[numbers > 0]) > 20


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_figures_lie_within_their_slots_with_exact_boxes(seed):
    rng = np.random.default_rng(seed)
    image, drawn = stick_figures.compose_figures(rng)
    assert image.shape == (128, 192, 3)
    width, height = stick_figures.SLOT
    for slot, figure in enumerate(drawn):
        x, y, w, h = figure.box
        assert slot * width <= x and x + w <= (slot + 1) * width and y >= 0 and y + h <= height
        low, high = figure.keypoints.min(axis=0), figure.keypoints.max(axis=0)
        assert np.all(low >= [x, y]) and np.all(high <= [x + w, y + h])
        assert 0 < figure.area < w * h


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_figures_face_the_viewer(seed):
    """Left parts stand on the right of the image, so a flip must swap the pairs."""
    pose = dict(
        zip(stick_figures.KEYPOINTS, stick_figures.random_pose(np.random.default_rng(seed)))
    )
    for part in ('eye', 'ear', 'shoulder', 'hip', 'knee', 'ankle'):
        assert pose[f'left_{part}'][0] > pose[f'right_{part}'][0], part


def test_keypoints_are_where_the_drawing_is():
    """The ground is repainted at every keypoint (compared with the bare background)."""
    for seed in range(10):
        ground = background(np.random.default_rng(seed), 192, 128)
        image, drawn = stick_figures.compose_figures(np.random.default_rng(seed))
        change = np.abs(image.astype(float) - ground).max(axis=2)
        at = np.concatenate([f.keypoints for f in drawn]).astype(int)
        assert np.mean(change[at[:, 1], at[:, 0]] > 10) > 0.95


def test_keypoint_names_are_mmpose_s():
    from mmengine.config import Config
    from mmengine.utils import get_installed_path

    file = Path(get_installed_path('mmpose'), '.mim/configs/_base_/datasets/coco.py')
    info = Config.fromfile(file).dataset_info
    names = [info.keypoint_info[k]['name'] for k in range(17)]
    assert tuple(names) == stick_figures.KEYPOINTS
    links = [info.skeleton_info[k]['link'] for k in range(19)]
    ours = [tuple(stick_figures.KEYPOINTS[i - 1] for i in link) for link in stick_figures.SKELETON]
    assert [tuple(link) for link in links] == ours


@given(seeds, st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_contrasting_colours_keep_their_distance(seed, distance):
    rng = np.random.default_rng(seed)
    under = rng.uniform(0, 255, size=(4, 4, 3))
    colour = contrasting(rng, under, distance)
    assert abs((colour - under.reshape(-1, 3).mean(axis=0)) @ LUMINANCE) >= distance - 1e-9


def test_writing_twice_gives_the_same_bytes(few, tmp_path):
    prepare.prepare_quickstart(tmp_path / 'a', seed=3)
    prepare.prepare_quickstart(tmp_path / 'b', seed=3)
    prepare.prepare_quickstart(tmp_path / 'c', seed=4)
    assert content(tmp_path / 'a') == content(tmp_path / 'b')
    assert content(tmp_path / 'a' / 'scenes') != content(tmp_path / 'c' / 'scenes')
    assert not [p for p in tmp_path.rglob('.*')]  # nothing temporary is left


def test_data_are_written_once(few, tmp_path):
    folders = prepare.prepare_quickstart(tmp_path, seed=0)
    marks = {name: (folder / 'stamp.json').stat().st_mtime_ns for name, folder in folders.items()}
    assert list(marks) == ['digits', 'scenes', 'figures']
    prepare.prepare_quickstart(tmp_path, seed=0)
    assert marks == {n: (f / 'stamp.json').stat().st_mtime_ns for n, f in folders.items()}
    (folders['scenes'] / 'stamp.json').write_text('{"version": 0}')  # of an older release
    prepare.prepare_quickstart(tmp_path, seed=0)
    assert json.loads((folders['scenes'] / 'stamp.json').read_text()) == {
        'version': prepare.VERSION,
        'seed': 0,
    }


def test_a_failed_write_leaves_the_old_set(few, tmp_path, monkeypatch):
    prepare.prepare_quickstart(tmp_path, seed=0)
    before = content(tmp_path)

    def fail(folder, seed):
        (folder / 'half').write_text('')
        raise OSError('disk full')

    monkeypatch.setitem(prepare.GENERATORS, 'scenes', fail)
    with pytest.raises(OSError, match='disk full'):
        prepare.prepare_quickstart(tmp_path, seed=1)
    assert {k: v for k, v in content(tmp_path).items() if k.startswith('scenes')} == {
        k: v for k, v in before.items() if k.startswith('scenes')
    }
    assert not list(tmp_path.glob('.*'))


def test_the_root_follows_the_variable(monkeypatch):
    monkeypatch.delenv('BOCB_DATA_ROOT', raising=False)
    assert prepare.quickstart_root() == Path('data/quickstart')
    monkeypatch.setenv('BOCB_DATA_ROOT', 'elsewhere')
    assert prepare.quickstart_root() == Path('elsewhere/quickstart')


def test_without_scikit_learn_the_error_names_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(UserError, match='pip install scikit-learn'):
        digits.load_digits()
