"""Transforms that remember are named, since no checkpoint holds what they remember."""

import random

import numpy as np
import pytest

from bocb_mm.resume.transforms import stateful_transforms
from tests import tiny_training as tiny


class CachedMosaic:
    def __init__(self):
        self.results_cache = []


class Mosaic:
    def __init__(self, use_cached):
        self.use_cached, self.results_cache = use_cached, []


class Draws:
    def __init__(self, generator):
        self.generator = generator


class AlbuStandIn:
    pass


class Wraps:
    def __init__(self, *transforms):
        self.transforms = list(transforms)


class Data:
    def __init__(self, *pipeline):
        self.pipeline = Wraps(*pipeline)


class Repeat:
    def __init__(self, *datasets):
        self.datasets = list(datasets)


@pytest.mark.parametrize(
    ('data', 'names'),
    [
        (Data(CachedMosaic()), ['CachedMosaic']),
        (Data(Mosaic(use_cached=True)), ['Mosaic']),
        (Data(Mosaic(use_cached=False)), []),
        (Repeat(Data(), Data(Wraps(Wraps(CachedMosaic())))), ['CachedMosaic']),
        (Data(Draws(np.random.default_rng())), ['Draws']),
        (Data(Draws(random.Random(1))), ['Draws']),
        (Data(AlbuStandIn()), ['AlbuStandIn']),
        (Data(Draws(None), Wraps()), []),
        (object(), []),
    ],
)
def test_what_remembers_is_named(data, names):
    assert stateful_transforms(data) == names


def test_the_real_ones_are_found_and_a_usual_pipeline_is_not():
    from mmdet.datasets import transforms as mmdet
    from mmdet.datasets.transforms import CachedMixUp
    from mmdet.datasets.transforms import CachedMosaic as Real

    cached = [Real(img_scale=(64, 64)), CachedMixUp(img_scale=(64, 64))]
    assert stateful_transforms(Data(*cached)) == ['CachedMixUp', 'CachedMosaic']
    usual = [mmdet.RandomFlip(prob=0.5), mmdet.PhotoMetricDistortion(), mmdet.PackDetInputs()]
    assert stateful_transforms(Data(*usual)) == []


def test_the_log_says_so_at_the_start(tmp_path, caplog):
    dataset = tiny.TinyData()
    dataset.pipeline = [CachedMosaic()]
    run = tiny.runner(
        tmp_path, default_hooks=tiny.saving(), train_dataloader=tiny.loader(dataset=dataset)
    )
    run.logger.addHandler(caplog.handler)
    run.train()
    assert 'CachedMosaic: keeps images or random numbers' in caplog.text
