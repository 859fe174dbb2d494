"""The wheel is whole: configs, tools, model index and data are in it, what is for a checkout is not."""

import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope='module')
def names(root, tmp_path_factory):
    """Names of the files in the wheel that this checkout gives."""
    pytest.importorskip('hatchling', reason='hatchling is not installed; it is in the dev group')
    folder = tmp_path_factory.mktemp('dist')
    subprocess.run(
        [sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', folder],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob('*.whl')
    assert wheel.stat().st_size < 5_000_000
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_config_and_its_parts_are_in_it(names, root):
    for file in (root / 'configs').rglob('*.py'):
        assert f'bocb_mm/.mim/{file.relative_to(root).as_posix()}' in names


@pytest.mark.parametrize(
    'name',
    [
        'bocb_mm/py.typed', 'bocb_mm/.mim/model-index.yml', 'bocb_mm/.mim/configs/metafile.yml',
        'bocb_mm/.mim/tools/train.py', 'bocb_mm/.mim/tools/dist_train.sh',
        'bocb_mm/report/paper/table1_cifar100.csv', 'bocb_mm/report/page/report.html.j2',
        'bocb_mm/facts/optimizers.csv', 'bocb_mm_stand_ins.pth',
    ],
)  # fmt: skip
def test_what_a_user_needs_is_in_it(names, name):
    assert name in names


def test_what_needs_a_checkout_is_not(names):
    tools = {n.removeprefix('bocb_mm/.mim/tools/') for n in names if '.mim/tools/' in n}
    assert not tools & {'run_tests.sh', 'setup_env.sh', 'release_check.sh', 'test_matrix.sh'}
    assert not [n for n in names if n.startswith(('tests/', 'docs/', 'configs/', 'tools/'))]
