"""Configs by name, from anywhere, and as bases."""

from pathlib import Path

import pytest

from bocb_mm import shipped
from bocb_mm.errors import UserError


@pytest.mark.parametrize(
    'name',
    [
        'cifar100/cnx-t', 'cnx-t', 'pretrain/cifar100/cnx-t.py', 'configs/pretrain/cifar100/cnx-t.py',
        'bocb_mm::cifar100/cnx-t', 'bocb_mm::pretrain/cifar100/cnx-t.py',
    ],
)  # fmt: skip
def test_a_shipped_config_has_its_name_everywhere(name, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    assert (
        Path(shipped.find_config(name)) == root / 'configs' / 'pretrain' / 'cifar100' / 'cnx-t.py'
    )


def test_a_pattern_stands_for_shipped_configs_and_a_name_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [Path(path).stem for path in shipped.find_configs('cifar100/*')]
    assert len(found) == 20 and {'cnx-t', 'r-50'} <= set(found)
    assert shipped.find_configs('cnx-t') == [shipped.find_config('cnx-t')]
    with pytest.raises(UserError, match='no such file'):
        shipped.find_configs('cifar1000/*')


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('cnx-t').write_text('')
    assert shipped.find_config('cnx-t') == 'cnx-t'
    assert Path(shipped.find_config('bocb_mm::cnx-t')).is_absolute()


def test_every_config_is_found_by_its_whole_name_and_parts_are_not_listed():
    configs = shipped.configs()
    assert len(configs) > 40 and not [n for n in configs if n.startswith('_base_')]
    for name, file in configs.items():
        assert shipped.find_config(name) == str(file)


@pytest.mark.parametrize(
    'name, words',
    [
        ('cifar100/cnx-tt', ['no such file', 'pretrain/cifar100/cnx-t']),
        ('zzz', ['no such file', 'bocb configs']),
        ('gone/folder/cnx-t.py', ['no such file', 'gone/folder does not exist']),
        ('', ['no such file']),
        ('bocb_mm::', ['no such file']),
    ],
)
def test_a_wrong_name_says_what_is_near(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        shipped.find_config(name)
    for word in words:
        assert word in str(error.value)


def test_a_name_that_several_configs_end_in_is_not_guessed(tmp_path, monkeypatch):
    for folder in ('a', 'b'):
        (tmp_path / 'configs' / folder).mkdir(parents=True)
        (tmp_path / 'configs' / folder / 'same.py').write_text('')
    monkeypatch.setattr(shipped, 'root', lambda: tmp_path)
    with pytest.raises(UserError, match='name one of a/same, b/same'):
        shipped.find_config('same')
    assert shipped.find_config('a/same').endswith('same.py')


def test_a_near_file_of_the_folder_is_named(tmp_path):
    (tmp_path / 'retinanet.py').write_text('')
    with pytest.raises(UserError, match=r'did you mean .*retinanet\.py'):
        shipped.find_config(str(tmp_path / 'retinanett.py'))


def test_a_config_of_the_user_builds_on_ours_as_on_a_file(tmp_path, root):
    from bocb_mm.config.edit import load_config

    texts = {'by_name.py': 'bocb_mm::retinanet_r50_sgd_pretrain.py'}
    texts['by_path.py'] = str(root / 'configs' / 'retinanet_r50_sgd_pretrain.py')
    configs = []
    for name, base in texts.items():
        (tmp_path / name).write_text(
            f'_base_ = {base!r}\nmodel = dict(bbox_head=dict(num_classes=3))\n'
        )
        configs.append(load_config(tmp_path / name))
    assert configs[0].to_dict() == configs[1].to_dict()
    assert configs[0].model.bbox_head.num_classes == 3


def test_a_base_that_is_not_shipped_is_one_line(tmp_path):
    from bocb_mm.config.edit import load_config

    (tmp_path / 'c.py').write_text("_base_ = 'bocb_mm::gone.py'\n")
    with pytest.raises(UserError, match=r'bocb_mm::gone\.py.*no such file'):
        load_config(tmp_path / 'c.py')


def test_bases_of_other_packages_are_still_found(tmp_path):
    from bocb_mm.config.edit import load_config

    (tmp_path / 'c.py').write_text("_base_ = ['bocb_mm::quickstart/digits_r18-xs.py']\n")
    load_config(tmp_path / 'c.py')
    cfg = load_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    assert cfg.model.backbone.depth == 18
