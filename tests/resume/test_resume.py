"""A resumed run is the run that was never interrupted."""

import pytest
import torch
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from bocb_mm.checkpoints.read import CheckpointError, install_safe_loading, load_checkpoint
from bocb_mm.errors import UserError
from bocb_mm.optimizers import get_spec, list_optimizers
from bocb_mm.resume.find import find_resumable
from bocb_mm.runs.record import RunRecord
from tests import tiny_training as tiny

TWO_HALVES = {
    'constructor': 'bocb_mm.OptimWrapperConstructor',
    'paramwise_cfg': {'custom_keys': {'head': {'matrix': True}}},  # it has no other matrix
}


@pytest.mark.parametrize('name', list_optimizers())
def test_every_optimizer_resumes_bit_equal_mid_epoch_with_ema_bf16_and_accumulation(name, tmp_path):
    kind = 'SophiaAmpOptimWrapper' if name == 'Sophia' else 'AmpOptimWrapper'

    def make():
        return {
            'default_hooks': tiny.saving(),
            'custom_hooks': [{'type': 'EMAHook', 'momentum': 0.1}],
            'optim_wrapper': {
                'type': f'bocb_mm.{kind}',
                'dtype': 'bfloat16',
                'accumulative_counts': 2,
                'optimizer': {'type': f'bocb_mm.{name}', 'lr': 1e-3},
                **(TWO_HALVES if hasattr(get_spec(name).cls, 'halves') else {}),
            },
            'train_cfg': {'by_epoch': True, 'max_epochs': 2, 'val_interval': 1},
        }

    # 9 of 12 iterations: in the second epoch of six, and one gradient waits for its second half.
    whole, again = tiny.whole_and_resumed(tmp_path, 9, make)
    assert all(torch.isfinite(v).all() for v in whole.values())
    assert tiny.same(whole, again)
    start = tiny.runner(tmp_path / 'start').model.state_dict()
    assert not tiny.same(whole, start), 'nothing was trained'


BY_ITER = {'by_epoch': False, 'max_iters': 14, 'val_interval': 6}
LOADERS = {
    'no workers': (0, 'DefaultSampler', False, None),
    'workers': (2, 'DefaultSampler', False, None),
    'persistent workers': (2, 'DefaultSampler', True, None),
    'by iteration': (0, 'InfiniteSampler', False, BY_ITER),
    'by iteration, workers': (2, 'InfiniteSampler', True, BY_ITER),
}


@pytest.mark.parametrize('case', LOADERS)
def test_every_kind_of_data_loading_resumes_bit_equal(case, tmp_path):
    workers, sampler, persistent, train_cfg = LOADERS[case]

    def make():
        made = {
            'default_hooks': tiny.saving(interval=1),
            'train_dataloader': tiny.loader(workers, sampler, persistent_workers=persistent),
        }
        return {**made, 'train_cfg': dict(train_cfg)} if train_cfg else made

    whole, again = tiny.whole_and_resumed(tmp_path, 9, make)
    assert tiny.same(whole, again)


@pytest.mark.parametrize('iteration', [1, 6, 12])
def test_first_iteration_and_ends_of_epochs_resume_bit_equal(iteration, tmp_path):
    def make():
        return {'default_hooks': tiny.saving(interval=1)}

    assert tiny.same(*tiny.whole_and_resumed(tmp_path, iteration, make))


def test_epoch_checkpoints_resume_bit_equal(tmp_path):
    whole = tiny.runner(tmp_path / 'a', default_hooks=tiny.saving(by_epoch=True, interval=1))
    whole.train()
    start = str(tmp_path / 'a' / 'epoch_1.pth')
    again = tiny.runner(
        tmp_path / 'b',
        default_hooks=tiny.saving(by_epoch=True, interval=1),
        resume=True,
        load_from=start,
    )
    again.train()
    assert tiny.same(tiny.weights(whole), tiny.weights(again))


def test_validating_does_not_change_the_training(tmp_path):
    with_val = tiny.runner(tmp_path / 'a', default_hooks=tiny.saving())
    with_val.train()
    none = {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    without = tiny.runner(tmp_path / 'b', default_hooks=tiny.saving(), **none)
    without.train()
    assert tiny.same(tiny.weights(with_val), tiny.weights(without))


def test_a_validation_that_was_cut_off_is_done_on_resuming(tmp_path):
    class Cut(tiny.Hook):
        def before_val_iter(self, runner, **_):
            raise KeyboardInterrupt

    settings = {'default_hooks': tiny.saving(by_epoch=True, interval=1)}
    with pytest.raises(KeyboardInterrupt):
        tiny.runner(tmp_path, custom_hooks=[Cut()], **settings).train()
    seen = []

    class Note(tiny.Hook):
        def after_val_epoch(self, runner, metrics=None):
            seen.append(runner.epoch)

    start = str(find_resumable(tmp_path))
    tiny.runner(tmp_path, resume=True, load_from=start, custom_hooks=[Note()], **settings).train()
    assert seen == [1, 2, 3]


def test_a_checkpoint_without_optimizer_is_not_resumed(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': {}, 'meta': {}}, path)
    with pytest.raises(UserError, match='cannot be resumed, it has no optimizer, message_hub'):
        tiny.runner(tmp_path, default_hooks=tiny.saving(), resume=True, load_from=str(path)).train()


def test_a_checkpoint_without_its_schedules_is_refused(tmp_path):
    tiny.runner(tmp_path, default_hooks=tiny.saving(save_param_scheduler=False)).train()
    with pytest.raises(UserError, match='without its schedules'):
        tiny.resumed(tmp_path / 'b', tmp_path / 'iter_9.pth', default_hooks=tiny.saving())


def test_a_checkpoint_of_stock_mmengine_goes_on_where_it_was(tmp_path):
    stock = {'checkpoint': {'type': 'CheckpointHook', 'interval': 1}}
    tiny.runner(tmp_path, default_hooks=stock).train()
    start = str(tmp_path / 'epoch_1.pth')
    run = tiny.runner(tmp_path, default_hooks=tiny.saving(), resume=True, load_from=start)
    run.train()
    assert run.iter == 18


ONE_CYCLE = {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 18, 'by_epoch': False}
LIBRARIES = ['timm.lamb', 'pytorch_optimizer.scion', 'pytorch_optimizer.prodigy']


@pytest.mark.parametrize(
    'changes',
    [
        {'param_scheduler': [ONE_CYCLE]},
        *(
            {'optim_wrapper': {'optimizer': {'type': f'bocb_mm.{n}', 'lr': 0.01}}}
            for n in LIBRARIES
        ),
    ],
    ids=['OneCycleLR', *LIBRARIES],
)
def test_a_run_reads_what_it_wrote(changes, tmp_path):
    """OneCycleLR keeps a function and scion an enum, which the safe reader does not take."""

    def make():
        return {'default_hooks': tiny.saving(), **changes}

    whole, again = tiny.whole_and_resumed(tmp_path, 9, make)
    assert tiny.same(whole, again)
    assert find_resumable(tmp_path / 'whole') == tmp_path / 'whole' / 'iter_18.pth'


def test_another_optimizer_of_the_same_name_is_refused(tmp_path):
    def settings(name):
        optimizer = {'type': name, 'lr': 0.01}
        return {'default_hooks': tiny.saving(), 'optim_wrapper': {'optimizer': optimizer}}

    tiny.runner(tmp_path, **settings('bocb_mm.timm.lamb')).train()
    with pytest.raises(UserError, match=r'optimizer was timm\.lamb and is now bocb_mm\.lamb'):
        tiny.resumed(tmp_path, tmp_path / 'iter_9.pth', **settings('bocb_mm.LAMB'))


def test_pytorchs_own_and_ours_of_that_name_are_the_same(tmp_path):
    def settings(name):
        optimizer = {'type': name, 'lr': 0.01}
        return {'default_hooks': tiny.saving(), 'optim_wrapper': {'optimizer': optimizer}}

    whole = tiny.runner(tmp_path, **settings('AdamW'))
    whole.train()
    run = tiny.resumed(tmp_path, tmp_path / 'iter_9.pth', **settings('bocb_mm.AdamW'))
    assert run.iter == 18


def test_without_its_ema_hook_a_run_goes_on_from_the_weights_that_were_trained(tmp_path, caplog):
    ema = {'custom_hooks': [{'type': 'EMAHook', 'momentum': 0.3}]}
    tiny.runner(tmp_path / 'a', default_hooks=tiny.saving(), **ema).train()
    plain = tiny.runner(tmp_path / 'b', default_hooks=tiny.saving())
    plain.train()
    start = str(tmp_path / 'a' / 'iter_9.pth')
    run = tiny.runner(tmp_path / 'a', default_hooks=tiny.saving(), resume=True, load_from=start)
    run.logger.addHandler(caplog.handler)
    run.train()
    assert 'holds averaged weights of an EMAHook that is not there any more' in caplog.text
    # Averaging does not touch the training: without it, the run is the one that never averaged.
    assert tiny.same(tiny.weights(run), tiny.weights(plain))


def test_everything_is_loaded_onto_the_cpu_whatever_device_the_training_is_on(
    tmp_path, monkeypatch
):
    """A stand-in for a GPU: tensors that are loaded onto 'meta' have lost their numbers."""

    def make():
        return {'default_hooks': tiny.saving()}

    resume = Runner.resume  # on a GPU it asks for the file's tensors on that
    monkeypatch.setattr(Runner, 'resume', lambda run, file: resume(run, file, map_location='meta'))
    assert tiny.same(*tiny.whole_and_resumed(tmp_path, 9, make))


@pytest.mark.parametrize('interval', [3, 4])
def test_the_flexible_runner_resumes_bit_equal(interval, tmp_path):
    def make():
        return {
            'kind': FlexibleRunner,
            'default_hooks': tiny.saving(interval=interval, max_keep_ckpts=9),
        }

    whole, again = tiny.whole_and_resumed(tmp_path, 4 if interval == 4 else 9, make)
    assert tiny.same(whole, again)
    saved = load_checkpoint(tmp_path / 'again' / 'iter_12.pth')
    assert (saved['meta']['iter'], saved['meta']['epoch']) == (12, 1)


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_averaged_weights_resume_bit_equal_and_are_recorded(kind, tmp_path):
    def make():
        record = dict.fromkeys(('task', 'dataset', 'backbone'), 'own')
        return {
            'kind': kind,
            'default_hooks': tiny.saving(max_keep_ckpts=9),
            'custom_hooks': [
                {'type': 'EMAHook', 'momentum': 0.3},
                {'type': 'bocb_mm.RunRecordHook', **record, 'metric': 'tiny/accuracy'},
            ],
        }

    assert tiny.same(*tiny.whole_and_resumed(tmp_path, 9, make))
    whole, again = (tmp_path / name / 'iter_18.pth' for name in ('whole', 'again'))
    trained, average = (load_checkpoint(whole)[k] for k in ('ema_state_dict', 'state_dict'))
    assert not torch.equal(trained['module.head.weight'], average['head.weight'])
    for part in ('ema_state_dict', 'state_dict'):
        assert tiny.same(load_checkpoint(whole)[part], load_checkpoint(again)[part])
    first, second = (RunRecord.load(tmp_path / name) for name in ('whole', 'again'))
    assert first.status == second.status == 'completed'
    assert len(first.evaluations) == 3 and first.evaluations == second.evaluations
    assert first.started == second.started and first.n_parameters == second.n_parameters


@pytest.fixture
def trusting():
    install_safe_loading(trust=True)
    yield
    install_safe_loading(trust=False)


def test_with_trust_such_an_optimizer_is_saved_and_resumed_as_it_is(trusting, tmp_path):
    optimizer = {'type': 'bocb_mm.pytorch_optimizer.conda', 'lr': 0.01, 'update_proj_gap': 5}

    def make():
        return {'default_hooks': tiny.saving(), 'optim_wrapper': {'optimizer': optimizer}}

    whole, again = tiny.whole_and_resumed(tmp_path, 9, make)
    assert tiny.same(whole, again)
    with pytest.raises(CheckpointError, match=r'cannot be resumed from any.*iter_18.*overwrite'):
        find_resumable(tmp_path / 'whole')
    assert find_resumable(tmp_path / 'whole', trust=True) == tmp_path / 'whole' / 'iter_18.pth'
