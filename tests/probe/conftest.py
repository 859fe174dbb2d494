"""A probe whose trainings are a formula."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from bocb_mm.probe import run, target
from bocb_mm.probe.engine import Outcome
from bocb_mm.probe.look import Look
from bocb_mm.runs.record import RunRecord

HEIGHTS = {'SGD': 40.0, 'LARS': 38.0, 'AdamW': 47.0, 'LION': 46.0}


class FakeTrials:
    """Results by formula, in files: what was trained is known to the next one too."""

    limit = 10**6  # trials until it is interrupted
    respond = None  # trial -> value
    kind = 'completed'
    metric, larger_is_better = 'accuracy/top1', True

    def __init__(self, folder, cell_of, common, engine):
        self.folder, self.cell_of, self.engine = Path(folder), cell_of, engine
        record = RunRecord('classification', 'pets', 'R', 'SGD', metric=self.metric, n_classes=5)
        (self.folder / 'run').mkdir(parents=True, exist_ok=True)
        record.save(self.folder / 'run')
        self.file = self.folder / 'fake.json'
        self.done = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.trials, self.trained = {}, []

    def add(self, trials):
        for trial in trials:
            self.trials[self._key(trial)] = trial

    def _key(self, trial):
        cell = self.cell_of(trial)
        assert Path(cell['config']).is_file()
        return json.dumps([cell[k] for k in ('optimizer', 'lr', 'seed', 'options')])

    def outcomes(self):
        return {t: self._outcome(self.done[k]) for k, t in self.trials.items() if k in self.done}

    def _outcome(self, value):
        told = (1.0, str(self.folder / 'run'), self.message(), self.kind, self.larger_is_better)
        return Outcome(float(value), *told)

    def message(self):
        return '' if self.kind == 'completed' else 'out of luck'

    def work(self, on_end):
        while waiting := [k for k in self.trials if k not in self.done]:
            if type(self).limit <= 0:
                return 75
            type(self).limit -= 1
            trial = self.trials[waiting[0]]
            self.done[waiting[0]] = str(type(self).respond(trial))
            self.trained.append(trial)
            self.file.write_text(json.dumps(self.done))
            on_end()
        return 0


def hill(trial):
    return HEIGHTS[trial.optimizer] - trial.power**2 + 0.3 * math.sin(7 * trial.seed + trial.power)


@pytest.fixture
def fake(monkeypatch):

    looked = []

    def look(config, options, optimizer, pretrained, threads, device):
        assert Path(config).is_file()
        looked.append(config)
        return Look(0.1, 400, 1.0, 1.0, {'first_to_median': 2.0}, 1000)

    def model(network, n_classes, side):  # nothing is trained: nothing is built
        return {'type': 'mmpretrain.ImageClassifier', 'backbone': {'type': network.name}}

    monkeypatch.setattr(run, 'look', look)
    monkeypatch.setattr(target.networks, 'model_of', model)
    kind = type('Fake', (FakeTrials,), {'respond': staticmethod(hill), 'looked': looked})
    return kind


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos') / 'my pets'
    for c in ('cat', 'dog'):
        (folder / c).mkdir(parents=True)
        for i in range(8):
            Image.new('RGB', (32, 32), (i * 30, 0, 200 * (c == 'dog'))).save(
                folder / c / f'{i}.png'
            )
    return str(folder)
