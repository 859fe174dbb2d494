"""Names, pointer and deletion of checkpoints, without a training."""

import pytest

from bocb_mm.checkpoints.rotation import Rotation


def rotation(folder, **changes):
    return Rotation(folder, folder / 'last_checkpoint', **changes)


def test_the_newest_are_kept_and_the_others_named(tmp_path):
    found = rotation(tmp_path, keep=2)
    assert [found.add(step) for step in (1, 2, 3, 3, 5)] == [
        [], [], ['epoch_1.pth'], [], ['epoch_2.pth'],
    ]  # fmt: skip
    assert found.steps == [3, 5]
    assert found.steps_with(7) == [3, 5, 7] and found.steps == [3, 5]


def test_all_are_kept_without_a_number(tmp_path):
    found = rotation(tmp_path)
    assert [found.add(step) for step in (1, 2, 3)] == [[], [], []]


def test_a_template_without_a_number_is_one_file_that_is_never_deleted(tmp_path):
    found = rotation(tmp_path, template='latest.pth', keep=1)
    assert [found.add(step) for step in (1, 2)] == [[], []] and found.keep == -1


@pytest.mark.parametrize(
    ('template', 'interim'),
    [
        ('epoch_{}.pth', 'iter_7.pth'),
        ('model_{:04d}.pth.tar', 'iter_7.pth.tar'),
        ('m{}', 'iter_7'),
        ('latest.pt', 'iter_7.pth'),
    ],
)
def test_a_checkpoint_between_the_regular_ones_has_their_ending(template, interim, tmp_path):
    assert rotation(tmp_path, template=template).interim(7) == interim


def test_the_pointer_names_a_file_in_the_directory(tmp_path):
    found = Rotation(tmp_path / 'far', tmp_path / 'last_checkpoint')
    found.point_to('epoch_1.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'far' / 'epoch_1.pth')


def test_only_half_written_checkpoints_of_its_own_are_cleared_away(tmp_path):
    folder = tmp_path / 'new' / 'deep'
    found = Rotation(folder, tmp_path / 'last_checkpoint', template='m_{:03d}.pt')
    found.prepare()
    ours = ['.m_004.pt.tmp', '.iter_9.pt.tmp', '.best_coco_AP_m_4.pt.tmp']
    others = ['.m_004.pth.tmp', '.notes.tmp', 'm_004.pt', '.iter_9.tmp']
    for name in ours + others:
        (folder / name).touch()
    (tmp_path / '.last_checkpoint.x1.tmp').touch()
    found.prepare()
    assert sorted(p.name for p in folder.iterdir()) == sorted(others)
    assert not list(tmp_path.glob('.last*'))


def test_what_is_gone_already_is_no_error(tmp_path):
    (tmp_path / 'a.pth').touch()
    rotation(tmp_path).delete(['gone.pth', 'a.pth'])
    assert not list(tmp_path.iterdir())
