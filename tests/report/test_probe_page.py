"""The page of a probe."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bocb_mm.report.probe_page import figures, page
from bocb_mm.report.probed import FRESH, analyse
from tests.report.test_probed import DEFAULTS, SUBJECT, runs

HEIGHTS = {'SGD': 40, 'LARS': 38, 'AdamW': 47, 'LION': 46}
LAYERS = 'layer,alpha,eligible,entropy,l2_norm,pca_energy,iteration\n' + ''.join(
    f'backbone.{i},{3 + i / 9},True,5.{i},1.{i},0.{i},400\n' for i in range(1, 7)
)


class Text(HTMLParser):
    """Visible text in order, and every picture's description."""

    def __init__(self):
        super().__init__()
        self.words, self.pictures, self.skip = [], [], False

    def handle_starttag(self, tag, attrs):
        self.skip = tag == 'style'
        if tag == 'img':
            self.pictures.append(dict(attrs)['alt'])

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def read(text):
    parser = Text()
    parser.feed(text)
    return ' '.join(' '.join(parser.words).split()), parser.pictures


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    every = runs(HEIGHTS, longer={'AdamW': 5})
    for optimizer in ('SGD', 'AdamW'):
        (folder / optimizer).mkdir()
        (folder / optimizer / 'layer_metrics.csv').write_text(LAYERS)
    every = [
        replace(r, directory=str(folder / r.optimizer)) if (r.stage, r.seed) == (FRESH, 1) else r
        for r in every
    ]
    return analyse(SUBJECT, every, DEFAULTS, 3.0)


def test_the_first_sentence_answers_the_title(result):
    text, pictures = read(page(result))
    title, answer = text.partition('or is it the learning rate?')[::2]
    assert 'Is MyNet coupled' in title
    assert answer.strip().startswith(
        'After 400 iterations at batch 100, MyNet is coupled to adaptive rates'
    )
    assert len(pictures) == 6 and all('MyNet' in p for p in pictures)


def test_it_loads_nothing(result):
    text = page(result)
    assert not re.search(r'(src|href)="(?!data:|#)', text) and '<script' not in text


def test_a_name_is_text(result):
    named = {**result, 'subject': {**result['subject'], 'backbone': '<b>$x$ & "y"'}}
    text = page(named)
    assert '<b>$x$' not in text and '&lt;b&gt;$x$' in text


def test_layers_are_drawn_where_runs_left_them(result):
    names = [f.name for f in figures(result)]
    assert names == [
        'rates',
        'gap',
        'layers_entropy',
        'layers_l2_norm',
        'layers_pca_energy',
        'layers_alpha',
    ]
    bare = {**result, 'runs': [{**r, 'directory': ''} for r in result['runs']]}
    assert [f.name for f in figures(bare)] == ['rates', 'gap']


def test_an_optimizer_far_behind_is_in_sight_and_a_bad_rate_need_not_be():
    found = analyse(SUBJECT, runs(HEIGHTS | {'SGD': 8}), DEFAULTS, 3.0)
    low, high = next(figures(found)).draw().axes[0].get_ylim()
    assert low < min(min(row['fresh']) for row in found['optimizers']) and high > HEIGHTS['AdamW']
    assert low > min(r['value'] for r in found['runs'])  # SGD's rates of -8


@pytest.mark.parametrize('n', [0, 1, 5, 20, 21])
def test_an_unfinished_probe_has_a_page(n):
    text, _ = read(page(analyse(SUBJECT, runs(HEIGHTS)[:n], DEFAULTS, 3.0)))
    assert 'Undecided' in text or 'undecided' in text


def test_where_all_diverged_there_is_a_page():
    text, pictures = read(
        page(analyse(SUBJECT, runs(dict.fromkeys(HEIGHTS, -float('inf'))), DEFAULTS, 3.0))
    )
    assert 'all 20 runs diverged' in text and len(pictures) == 1


def test_an_error_keeps_its_sign():
    subject = replace(SUBJECT, metric='NME', sign=-1.0)
    every = [replace(r, value=r.value - 60) for r in runs(HEIGHTS)]
    text, _ = read(page(analyse(subject, every, DEFAULTS, 3.0)))
    row = re.search(r'AdamW adaptive ([\d.]+) \[([\d.]+), ([\d.]+)\]', text)
    mean, low, high = map(float, row.groups())
    assert 12 < mean < 14 and low < mean < high
