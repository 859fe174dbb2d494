"""What the figures say and in which order they show it."""

import re

import numpy as np
import pandas as pd
import pytest

from bocb_mm.report import alt, build, figures, layers, load, plots, records, style
from bocb_mm.report.model import Options
from tests.report.synthetic_runs import make_record


def snapshot(optimizer, column, values, prefix='backbone.'):
    n = len(values)
    frame = pd.DataFrame({m: values for m in layers.METRICS} | {'alpha': values})
    frame['layer'] = [f'{prefix}{i}' for i in range(n)]
    frame['eligible'] = [i > 0 for i in range(n)]
    return layers.Snapshot(optimizer, column, frame)


def test_words_of_a_table():
    results = {'R-50': [80.0, 79.5, 60.0, 79.0, 79.9], 'CNX-T': [70.0, 82.0, 82.5, 81.0, 81.5]}
    table = load.from_frame('t', pd.DataFrame(results, index=list('abcde')), 'csv')
    # medians 79.5 and 81.5; outliers: 60 and 70
    assert alt.medians(table) == (
        'Medians from 79.5 (R-50) to 81.5 (CNX-T); columns with outliers: R-50, CNX-T.'
    )
    # thresholds 80 - 0.9 and 82.5 - 1: c and d fail on R-50, a and d on CNX-T
    assert alt.failures(table) == '4 of 10 results failed, most often d (2 times).'
    assert alt.closest(table).startswith('Within one point of the best: b on 100%, e on 100%, ')


def test_ends_of_nothing_known():
    assert alt.ends(pd.Series([np.nan])) == 'not known'


def test_alpha_counts_where_it_means_something():
    found = [snapshot('SGD', 'R-50', [100.0, 2.0, 4.0])]
    assert layers.medians(found, 'alpha')['SGD', 'R-50'] == 3
    assert layers.medians(found, 'entropy')['SGD', 'R-50'] == 4


def test_panels_share_a_scale_only_where_they_are_compared():
    found = [
        snapshot('SGD', 'det R-50 (A2)', [1.0, 2.0]),
        snapshot('SGD', 'det R-50 (A3)', [5.0, 9]),
    ]
    corners = [
        [t.get_text() for axes in layers.ridges(found, 'l2_norm', one).axes for t in axes.texts]
        for one in (False, True)
    ]
    assert corners == [['1 to 2', '5 to 9'], ['1 to 9', '1 to 9']]


@pytest.mark.parametrize(
    ('heads', 'marked'),
    [(0, False), (1, False), (4, True)],  # a classifier has one layer behind its backbone
)
def test_where_the_backbone_ends(heads, marked):
    one = snapshot('SGD', 'R-50', [1.0] * 9)
    one.layers.loc[9 - heads :, 'layer'] = 'head'
    texts = [t.get_text().strip() for t in layers.ridges([one], 'l2_norm').axes[0].texts]
    assert ('neck, head' in texts) == marked


def test_transfer_needs_two_pretrainings():
    one, other = (snapshot('SGD', f'det R-50 ({p})', [1.0, 2.0]) for p in ('A2', 'A3'))
    assert layers.several_pretrainings([one]) == {}
    assert layers.several_pretrainings([one, other]) == {'det R-50': [one, other]}


def test_variation_is_in_the_papers_order(tmp_path):
    runs = []
    for optimizer in ('RMSProp', 'SGD'):
        for backbone, lr in (('CNX-T', 0.1), ('AlexNet', 0.2), ('R-50', 0.1)):
            record = make_record(optimizer, backbone, lr=lr)
            runs.append(records.summary(record, tmp_path / f'{optimizer}{backbone}'))
    rows, _ = load.tidy_runs(runs)
    (table,) = load.tables_from_runs(rows, runs)
    variation = figures.variation(table, 'optimizer')
    assert list(variation.columns) == ['AlexNet', 'R-50', 'CNX-T']
    assert list(variation.index) == ['SGD', 'RMSProp']
    assert variation['AlexNet'].tolist() == [2, 2] and variation['R-50'].tolist() == [0, 0]


# -- what is drawn -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def drawn(run_root):
    """Every figure of two reports as matplotlib draws it, by name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    found = {}
    for options in (Options((str(run_root),), progress=False), Options(paper=True)):
        for figure in figures.figures(build.gather(options), []):
            with style.drawing():
                made = figure.draw()
                FigureCanvasAgg(made).draw()
            found[figure.name] = made
    return found


def test_no_words_are_cut_off(drawn):
    from matplotlib.text import Text

    for name, made in drawn.items():
        box, renderer = made.bbox, made.canvas.get_renderer()
        for text in made.findobj(Text):
            # numbers of ticks outside of an axis are there, but not drawn
            if not text.get_visible() or not any(map(str.isalpha, text.get_text())):
                continue
            if re.fullmatch(r'\d+e-?\d+', text.get_text()):
                continue
            place = text.get_window_extent(renderer)
            inside = (
                place.x0 > -1 and place.y0 > -1 and place.x1 < box.x1 + 1 and place.y1 < box.y1 + 1
            )
            assert inside, f'{name}: {text.get_text()!r} at {place}'


def test_an_optimizer_has_one_colour_everywhere(drawn):
    from matplotlib.colors import same_color

    color = style.look('AdamW').color
    (line,) = {
        handle.get_color()
        for text, handle in legend_of(drawn['table1_cifar100_lr_curves'])
        if text == 'AdamW'
    }
    ridge = drawn['table1_cifar100_layers_entropy'].axes[0]
    row = [t.get_text() for t in ridge.get_yticklabels()].index('AdamW')
    bar = drawn['table1_cifar100_alpha'].axes[0].patches[row]
    assert same_color(line, color) and same_color(bar.get_edgecolor()[:3], color)
    assert any(same_color(one.get_color(), color) for one in ridge.lines)
    named = dict(legend_of(drawn['table1_cifar100_profiles']))
    assert same_color(named['AdamW'].get_color(), color)


def legend_of(made):
    """Texts and handles of all legends of a figure."""
    found = [*made.legends, *(a.get_legend() for a in made.axes if a.get_legend())]
    return [(t.get_text(), h) for one in found for t, h in zip(one.get_texts(), one.legend_handles)]


def test_outliers_are_told_from_the_dots_of_a_network_nobody_knows():
    results = {'MyNet': [80.0, 79.5, 60.0, 79.0, 79.9], 'R-50': [70.0, 82.0, 82.5, 81.0, 81.5]}
    table = load.from_frame('t', pd.DataFrame(results, index=list('abcde')), 'csv')
    with style.drawing():
        lines = plots.violins(table).axes[0].lines
    dots = [line for line in lines if line.get_marker() == '.']
    rings = [line for line in lines if line.get_marker() == 'o']
    assert [len(r.get_xdata()) for r in rings] == [1, 1]
    assert all(r.get_markerfacecolor() == 'white' for r in rings)
    assert all(d.get_color() not in (style.GRAY, 'white') for d in dots)


def test_a_long_name_is_shortened_where_it_stays_itself():
    assert style.label('pytorch_optimizer.soap').endswith('.soap')
    assert len(style.label('pytorch_optimizer.soap')) == len(style.label('A' * 40)) == 15
    columns = ['TIMMBackbone [model_name=resnet18]', 'TIMMBackbone [model_name=resnet34]']
    assert len({style.head(c) for c in columns}) == 2
