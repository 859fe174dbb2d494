"""What data loaders get that the config does not set."""

from mmengine.config import Config

from bocb_mm.config.identity import hash_of
from bocb_mm.config.loaders import set_loaders


def config(scope, **loader):
    return Config(
        {
            'default_scope': scope,
            'train_dataloader': {'dataset': {'type': 'A'}, 'batch_size': 2, **loader},
            'val_dataloader': None,
        }
    )


def test_mmpretrains_batches_are_collated_as_its_own_script_says():
    cfg = config('mmpretrain', num_workers=2)
    set_loaders(cfg, pin=True)
    loader = cfg.train_dataloader
    assert loader.collate_fn == {'type': 'default_collate'}
    assert loader.persistent_workers and loader.pin_memory


def test_other_toolboxes_collate_for_themselves_and_a_cpu_pins_nothing():
    cfg = config('mmdet', num_workers=0)
    set_loaders(cfg, pin=False)
    assert 'collate_fn' not in cfg.train_dataloader and 'pin_memory' not in cfg.train_dataloader
    assert cfg.train_dataloader.persistent_workers is False  # torch refuses them without workers


def test_what_the_config_says_stands():
    said = {'num_workers': 2, 'persistent_workers': False, 'pin_memory': False}
    cfg = config('mmpretrain', **said, collate_fn={'type': 'pseudo_collate'})
    set_loaders(cfg, pin=True)
    assert {k: cfg.train_dataloader[k] for k in said} == said
    assert cfg.train_dataloader.collate_fn == {'type': 'pseudo_collate'}


def test_the_machine_makes_no_other_run_of_it():
    with_gpu, without = config('mmpretrain', num_workers=2), config('mmpretrain', num_workers=2)
    set_loaders(with_gpu, pin=True)
    set_loaders(without, pin=False)
    assert hash_of(with_gpu) == hash_of(without)
