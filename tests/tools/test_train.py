import json
import re

import pytest

from tests.tools.tiny_config import write_tiny_config


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_tiny_config(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def train(run_tool, capsys, tmp_path, monkeypatch):
    """Run tools/train.py in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: run_tool('train', *argv, capsys=capsys)


def record_of(directory):
    return json.loads((directory / 'run.json').read_text())


def test_a_training_leaves_a_record_a_checkpoint_and_its_own_directory(train, config, tmp_path):
    status, _, _ = train(config, '--optimizer', 'adamw', '--lr', '0.001', '--seed', '3')
    assert status == 0
    (run,) = (tmp_path / 'work_dirs' / 'tiny' / 'AdamW').iterdir()
    assert re.fullmatch(r'lr0\.001_wd[\d.]+_seed3', run.name)
    record = record_of(run)
    assert record['status'] == 'completed'
    assert (record['optimizer'], record['lr'], record['seed']) == ('AdamW', 0.001, 3)
    assert record['task'] == 'classification' and record['metric'] == 'accuracy/top1'
    assert len(record['evaluations']) == 1 and record['best'] == record['last']
    assert record['iterations'] == 2 and record['epochs'] == 1
    assert record['optimizer_step_ms'] > 0 and record['seconds_per_iteration'] > 0
    assert record['n_parameters'] == record['n_trainable'] > 1000
    assert record['optimizer_settings']['betas'] == [0.9, 0.999]
    assert (run / 'epoch_1.pth').is_file()


def test_the_start_says_where_the_rate_comes_from_and_the_record_too(train, config, tmp_path):
    status, out, _ = train(config, '--optimizer', 'LAMB', '--work-dir', 'a')
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith('LAMB: lr ')]
    assert 'for CIFAR-100' in line and 'batch 8, not 100' in line and 'search it' in line
    record = record_of(tmp_path / 'a')
    assert record['lr_origin'] == 'sourced' and record['lr_source'] == line
    assert (record['batch_size'], record['n_train'], record['n_classes']) == (8, 16, 4)
    assert record['image_size'] == [32, 32]
    status, out, _ = train(
        config, '--optimizer', 'LAMB', '--auto-scale-lr', '--work-dir', 'b', '--amp', 'bfloat16',
        '--metric', 'accuracy/top1',
    )  # fmt: skip
    assert (
        status == 0 and f'by the square root from {record["lr"]:g} at batch 100 to batch 8' in out
    )
    scaled = record_of(tmp_path / 'b')
    assert scaled['lr'] == float(f'{record["lr"] * (8 / 100) ** 0.5:.6g}')
    assert scaled['config_hash'] != record['config_hash'] and scaled['last'] is not None


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--optimizer', 'pytorch_optimizer.ranger21'], 'no default for num_iterations'),
        (['--optimizer', 'pytorch_optimizer.lbfgs'], 'closure'),
        (['optim_wrapper.optimizer.type=bocb_mm.timm.sgdp', 'optim_wrapper.optimizer.betas=1'],
         'betas'),
        (['optim_wrapper.optimizer.momentun=0.9'], 'momentum'),
        (['optim_wrapper.optimizer.weight_decay=-1'], 'weight_decay=-1'),
    ],
)  # fmt: skip
def test_an_optimizer_that_cannot_run_is_refused_before_anything_is_written(
    train, config, tmp_path, options, expected
):
    options = options if options[0].startswith('--') else ['--cfg-options', *options]
    status, _, err = train(config, *options)
    assert status == 2 and expected in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['adashift', 'conda'])
def test_a_state_that_cannot_be_read_back_is_refused_after_the_first_iteration(
    train, config, tmp_path, name
):
    status, _, err = train(config, '--optimizer', f'pytorch_optimizer.{name}', '--work-dir', 'w')
    assert status == 2 and '--trust-checkpoint' in err and len(err.splitlines()) == 1
    assert not list((tmp_path / 'w').glob('*.pth'))


@pytest.mark.parametrize('name', ['SOAP', 'Prodigy', 'pytorch_optimizer.sm3'])
def test_states_of_an_unusual_form_go_on(train, config, tmp_path, name):
    """Matrices of other sizes than the weight's, tensors in the groups, and no weight decay."""
    arguments = (config, '--optimizer', name, '--work-dir', 'w')
    assert train(*arguments)[0] == 0
    status, _, err = train(*arguments, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert status == 0, err
    record = record_of(tmp_path / 'w')
    assert record['optimizer'] == name and record['iterations'] == 4


def test_a_metric_that_is_never_measured_is_a_warning_in_the_log(train, config, tmp_path):
    assert train(config, '--metric', 'coco/AP', '--work-dir', 'w')[0] == 0
    record = record_of(tmp_path / 'w')
    assert record['best'] is None and record['metric'] == 'coco/AP'
    assert any('ends without a result' in warning for warning in record['warnings'])


def test_a_finished_run_is_not_overwritten(train, config, tmp_path):
    assert train(config, '--work-dir', 'w')[0] == 0
    before = (tmp_path / 'w' / 'run.json').read_text()
    status, _, err = train(config, '--work-dir', 'w')
    assert status == 2 and 'already holds a completed run; to train it for longer' in err
    assert '--resume' in err and 'train_cfg.max_epochs' in err and '--seed' in err
    status, _, err = train(config, '--work-dir', 'w', '--resume')
    assert status == 2 and 'max_epochs' in err
    assert (tmp_path / 'w' / 'run.json').read_text() == before


def test_more_epochs_resume_a_finished_run_and_keep_its_evaluations(train, config, tmp_path):
    assert train(config, '--work-dir', 'w')[0] == 0
    status, _, err = train(
        config, '--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=2'
    )
    assert status == 0, err
    record = record_of(tmp_path / 'w')
    assert [e['epoch'] for e in record['evaluations']] == [1, 2]
    assert record['iterations'] == 4 and record['status'] == 'completed'


def test_a_finished_run_that_counts_iterations_goes_on_as_well(train, config, tmp_path):
    """Its length is max_iters, and there is no max_epochs."""
    lines = config.read_text().replace("train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)",
                                       "train_cfg = dict(by_epoch=False, max_iters=2, val_interval=2)")  # fmt: skip
    lines = lines.replace(
        'T_max=1, by_epoch=True, convert_to_iter_based=True', 'T_max=2, by_epoch=False'
    )
    other = config.with_name('by_iteration.py')
    other.write_text(lines + 'default_hooks["checkpoint"].update(by_epoch=False, interval=2)\n')
    assert train(other, '--work-dir', 'w')[0] == 0
    status, _, err = train(other, '--work-dir', 'w', '--resume')
    assert status == 2 and 'completed run of 2 iters; raise train_cfg.max_iters' in err
    status, _, err = train(
        other, '--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_iters=4'
    )
    assert status == 0, err
    record = record_of(tmp_path / 'w')
    assert record['iterations'] == 4 and record['status'] == 'completed'


def test_a_run_reads_what_it_wrote_and_never_starts_anew_over_what_it_cannot_read(
    train, config, tmp_path, run_tool, capsys
):
    one_cycle = "[dict(type='OneCycleLR', eta_max=0.1, total_steps=4, by_epoch=False)]"
    other = config.with_name('one_cycle.py')
    other.write_text(config.read_text() + f'param_scheduler = {one_cycle}\n')
    assert train(other, '--work-dir', 'w')[0] == 0
    longer = ('--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert train(other, *longer)[0] == 0
    assert [e['epoch'] for e in record_of(tmp_path / 'w')['evaluations']] == [1, 2]
    last = tmp_path / 'w' / 'epoch_2.pth'
    assert run_tool('layer_metrics', last, '--out', 'm.csv', capsys=capsys)[0] == 0
    assert run_tool('test', other, last, capsys=capsys)[0] == 0
    for path in (tmp_path / 'w').glob('*.pth'):
        path.write_bytes(path.read_bytes()[:-99])
    before = {p: p.read_bytes() for p in (tmp_path / 'w').iterdir() if p.is_file()}
    longer = (*longer[:-1], 'train_cfg.max_epochs=3')
    status, _, err = train(other, *longer)
    assert status == 2 and 'epoch_1.pth, epoch_2.pth' in err and 'overwrite' in err
    assert before == {p: p.read_bytes() for p in (tmp_path / 'w').iterdir() if p.is_file()}


def test_resuming_with_another_number_of_classes_is_refused_and_changes_nothing(
    train, config, tmp_path
):
    assert train(config, '--work-dir', 'w')[0] == 0
    before = {
        p: p.read_bytes() for p in (tmp_path / 'w').iterdir() if p.suffix in ('.pth', '.json')
    }
    longer = ('--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    status, _, err = train(config, *longer, 'model.head.num_classes=6')
    assert status == 2 and len(err.strip().splitlines()) == 1, err
    assert 'head.fc.weight' in err and '(4, 64)' in err and '(6, 64)' in err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_checkpoint_that_is_trusted_is_gone_on_from(train, config, tmp_path):
    import torch

    assert train(config, '--work-dir', 'w')[0] == 0
    path = tmp_path / 'w' / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    torch.save({**content, 'by_hand': json.JSONDecoder}, path)
    longer = ('--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    status, _, err = train(config, *longer)
    assert status == 2 and 'json.decoder.JSONDecoder' in err and '--trust-checkpoint' in err
    try:
        status, _, err = train(config, *longer, '--trust-checkpoint')
    finally:
        from bocb_mm.checkpoints.read import install_safe_loading

        install_safe_loading(trust=False)
    assert status == 0, err
    assert [e['epoch'] for e in record_of(tmp_path / 'w')['evaluations']] == [1, 2]


def test_our_own_checkpoint_starts_a_backbone_and_gives_the_pretraining_its_name(
    train, config, tmp_path
):
    assert train(config, '--work-dir', 'first', '--optimizer', 'LARS')[0] == 0
    status, _, err = train(
        config, '--work-dir', 'second', '--pretrained', tmp_path / 'first' / 'epoch_1.pth'
    )
    assert status == 0, err
    assert record_of(tmp_path / 'second')['pretraining'] == 'LARS'


@pytest.mark.parametrize(
    'argv, words',
    [
        (['nowhere.py'], ['nowhere.py', 'no such file']),
        (['{config}', '--optimizer', 'adanw'], ['adanw', 'AdamW']),
        (['{config}', '--cfg-options', 'optim_wrapper.optimizer.momentun=0.9'], ['momentun', 'momentum']),
        (['{config}', '--lr', '-1'], ['--lr', '-1']),
        (['{config}', '--lr', 'nan'], ['--lr', 'nan']),
        (['{config}', '--pretrained', 'gone.pth'], ['gone.pth', 'no such file', '--pretrained']),
        (['{config}', '--resume', 'gone.pth'], ['gone.pth', 'no such']),
        (['{config}', '--cfg-options', 'oops'], ['oops', 'key=value']),
        (['{config}', '--cfg-options', 'default_scope=mmseg'], ['mmseg', 'mmpretrain']),
        (
            ['{config}', '--cfg-options', 'train_dataloader.dataset.data_root=/no/such/data'],
            ['/no/such/data', 'train_dataloader'],
        ),
        (['{config}', '--launcher', 'pytorch'], ['RANK', 'bocb dist']),
        (['{config}', '--auto-scale-lr'], ['--auto-scale-lr', 'base_batch_size']),
        (['{config}', '--cfg-options', 'model.backbone.type=bocb_mm.R-51'], ['R-51', 'R-50']),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_leaves_nothing(train, config, tmp_path, argv, words):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        assert name not in __import__('os').environ
    status, _, err = train(*[a.format(config=config) for a in argv])
    line = err.strip().splitlines()[-1]
    assert status == 2
    assert line.startswith('error: ') and 'Traceback' not in err
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob('run.json'))


def test_a_checkpoint_of_another_architecture_is_refused_naming_keys(train, config, tmp_path):
    import torch

    torch.save(
        {'state_dict': {'backbone.blocks.0.attn.qkv.weight': torch.zeros(3, 3)}}, 'other.pth'
    )
    status, _, err = train(
        config, '--work-dir', 'w', '--pretrained', 'other.pth',
        '--cfg-options', 'model.backbone.type=bocb_mm.R-18', 'model.backbone._delete_=True',
    )  # fmt: skip
    assert status == 2 and 'Traceback' not in err
    assert 'other.pth' in err and 'conv1.weight' in err


def test_the_trained_weights_test_to_the_recorded_value(train, config, tmp_path, run_tool, capsys):
    assert train(config, '--work-dir', 'w')[0] == 0
    status, out, err = run_tool(
        'test', config, 'w/epoch_1.pth', '--out', 'metrics.json', capsys=capsys
    )
    assert status == 0, err
    value = json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1']
    assert value == pytest.approx(record_of(tmp_path / 'w')['last'])
    assert 'accuracy/top1' in out


def test_a_test_says_which_weights_it_tests(train, config, tmp_path, run_tool, capsys):
    """With EMAHook, a checkpoint's state_dict is the average that the validation saw, too."""
    averaged = tmp_path / 'averaged.py'
    averaged.write_text(
        f"_base_ = {str(config)!r}\ncustom_hooks = [dict(type='EMAHook', momentum=0.5)]\n"
    )
    assert train(averaged, '--work-dir', 'w')[0] == 0
    status, out, err = run_tool(
        'test', averaged, 'w/epoch_1.pth', '--out', 'metrics.json', capsys=capsys
    )
    assert status == 0, err
    assert 'weights: the exponential moving average (EMAHook) at epoch 1, iteration 2' in out
    value = json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1']
    assert value == pytest.approx(record_of(tmp_path / 'w')['last'])


def test_a_test_takes_files_of_other_makers(train, config, tmp_path, run_tool, capsys):
    """Bare or in another container, behind a prefix, without the counters of batch norms."""
    import torch

    assert train(config, '--work-dir', 'w')[0] == 0
    state = torch.load('w/epoch_1.pth', weights_only=False)['state_dict']
    named = {f'module.{k}': v for k, v in state.items() if 'num_batches_tracked' not in k}
    torch.save({'model': named}, 'other.pth')
    status, out, err = run_tool('test', config, 'other.pth', '--out', 'm.json', capsys=capsys)
    assert status == 0, err
    assert 'weights: the trained ones' in out
    value = json.loads((tmp_path / 'm.json').read_text())['accuracy/top1']
    assert value == pytest.approx(record_of(tmp_path / 'w')['last'])


def test_a_test_says_where_it_looked_for_data(config, tmp_path, run_tool, capsys):
    (tmp_path / 'any.pth').touch()
    status, _, err = run_tool(
        'test', config, tmp_path / 'any.pth',
        '--cfg-options', 'test_dataloader.dataset.data_root=/no/such/data', capsys=capsys,
    )  # fmt: skip
    assert status == 2 and 'test_dataloader: no data at /no/such/data' in err


def test_a_place_that_is_not_there_is_refused_before_the_test(config, tmp_path, run_tool, capsys):
    (tmp_path / 'any.pth').touch()
    out = tmp_path / 'no' / 'metrics.json'
    status, _, err = run_tool('test', config, tmp_path / 'any.pth', '--out', out, capsys=capsys)
    assert status == 2 and 'its directory does not exist; make it first' in err


def test_logs_of_a_test_never_go_into_a_folder_named_like_an_address():
    from bocb_mm.launch.evaluate import _beside

    assert _beside('runs/a/epoch_1.pth', 'c/r50.py').as_posix() == 'runs/a/test'
    assert _beside('https://host/r50.pth', 'c/r50.py').as_posix() == 'work_dirs/r50/test'


def test_weights_of_another_model_are_not_tested(train, config, tmp_path, run_tool, capsys):
    import torch

    torch.save({'state_dict': {'nothing': torch.zeros(1)}}, 'other.pth')
    status, _, err = run_tool('test', config, 'other.pth', capsys=capsys)
    assert status == 2 and 'keys are missing' in err
