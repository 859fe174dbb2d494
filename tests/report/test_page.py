"""report.html in a real headless Chromium: sort, filter, open a cell, keyboard, phone, no errors."""

import os

import pytest

from bocb_mm.report import style
from bocb_mm.report.cli import main
from tests.browser import needs_browser, resize
from tests.report.synthetic_runs import make_record, save

pytestmark = needs_browser
NASTY = '<script>window.hacked=1</script>'


@pytest.fixture(params=['desktop', 'phone'])
def page(request, browser, run_report):
    resize(browser, request.param)
    browser.get((run_report / 'report.html').as_uri())
    yield browser
    assert browser.get_log('browser') == []


def css(page, selector):
    return page.find_elements('css selector', selector)


def first_table(page):
    return css(page, '.table-section')[0]


def column(page, place):
    """Texts of one column of the first table, rows as shown."""
    return page.execute_script(
        'return [...arguments[0].querySelectorAll("tbody tr:not([hidden])")]'
        '.map(r => r.cells[arguments[1]].firstChild.textContent.trim() || r.dataset.name)',
        first_table(page),
        place,
    )


def test_nothing_is_wider_than_the_screen(page):
    assert page.execute_script('return document.documentElement.scrollWidth <= innerWidth')


def test_sort_by_a_column_and_back(page):
    button = first_table(page).find_elements('css selector', 'thead button')[1]
    before = column(page, 1)
    page.execute_script('arguments[0].click()', button)
    numbers = [float(v) for v in column(page, 1)]
    assert numbers == sorted(numbers, reverse=True)
    head = button.find_element('xpath', '..')
    assert head.get_attribute('aria-sort') == 'descending'
    page.execute_script('arguments[0].click()', button)
    assert [float(v) for v in column(page, 1)] == sorted(numbers)
    page.execute_script('arguments[0].querySelector(".reset").click()', first_table(page))
    assert column(page, 1) == before


def test_filter_rows_columns_and_failures(page):
    table = first_table(page)
    table.find_element('css selector', '.filter-rows').send_keys('lamb, sgd')
    assert column(page, 0) == ['SGD', 'LAMB']
    table.find_element('css selector', '.filter-columns').send_keys('deit')
    count = table.find_element('css selector', '.count').text
    assert count == '2 of 5 optimizers, 1 of 3 columns'
    shown = [c.text for c in table.find_elements('css selector', 'thead th') if c.is_displayed()]
    assert shown == ['Optimizer', 'DeiT-S']
    page.execute_script('arguments[0].querySelector(".reset").click()', table)
    page.execute_script('arguments[0].querySelector(".only-failed").click()', table)
    failing = table.find_elements('css selector', 'tbody tr[data-failed]')
    assert len(column(page, 0)) == len(failing) > 0


def test_open_a_cell_with_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    cell = first_table(page).find_element('css selector', 'tbody td[tabindex="0"]')
    cell.send_keys(Keys.ARROW_DOWN)
    focused = page.switch_to.active_element
    assert focused.find_element('xpath', '..').get_attribute('data-name') == 'LION'
    focused.send_keys(Keys.ENTER)
    dialog = css(page, 'dialog')[0]
    assert dialog.get_attribute('open') and 'LION on R-50' in dialog.text
    for wanted in (
        'Learning rate',
        'Settings tried (4)',
        'Optimizer settings',
        'torch 2.9.1',
        'Seed',
    ):
        assert wanted in dialog.text
    assert len(dialog.find_elements('css selector', '.curves svg path')) == 4  # 2 seeds, 2 charts
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.get_attribute('open')
    assert page.switch_to.active_element == focused


def test_open_a_cell_with_the_mouse_and_close(page):
    cell = first_table(page).find_elements('css selector', 'tbody td[tabindex]')[0]
    page.execute_script('arguments[0].scrollIntoView({block: "center"})', cell)
    cell.click()
    dialog = css(page, 'dialog')[0]
    assert dialog.get_attribute('open') and 'SGD on R-50' in dialog.text
    assert page.execute_script(
        'return arguments[0].scrollWidth <= arguments[0].clientWidth', dialog
    )
    css(page, 'dialog .close')[0].click()
    assert not dialog.get_attribute('open')


def test_every_image_is_there_and_described(page, run_report):
    images = css(page, 'figure img')
    assert len(images) == len(list((run_report / 'figures').glob('*.svg')))
    sizes = page.execute_script('return [...document.images].map(i => i.naturalWidth)')
    assert min(sizes) > 0
    texts = [i.get_attribute('alt') for i in images]
    assert all(len(t) > 40 for t in texts)
    assert len(set(texts)) == len(texts)  # each says what it shows


def test_no_network(run_report):
    text = (run_report / 'report.html').read_text(encoding='utf-8')
    assert "default-src 'none'" in text
    for mark in ('src="http', 'href="http', '@import', 'url(http'):
        assert mark not in text


def test_what_a_user_names_stays_text(browser, tmp_path):
    record = make_record(NASTY, f'{NASTY}%$_', best=70.0, pretraining=NASTY, message='')
    record.config, record.recipe = NASTY, NASTY
    record.optimizer_settings = {NASTY: NASTY}
    record.warnings = [NASTY, '</script><img src=x onerror="window.hacked=1">']
    record.versions = {NASTY: '1'}
    place = tmp_path / 'runs' / 'x'
    place.mkdir(parents=True)
    record.save(place)
    save(tmp_path / 'runs', make_record('SGD', best=60.0))
    assert main([str(tmp_path / 'runs'), '--out', str(tmp_path / 'o')]) == 0
    browser.get((tmp_path / 'o' / 'report.html').as_uri())
    browser.execute_script('document.querySelectorAll("td[tabindex]").forEach(c => c.click())')
    assert browser.execute_script('return window.hacked') is None
    assert NASTY in browser.find_element('css selector', 'body').text
    assert browser.get_log('browser') == []
    assert os.listdir(tmp_path / 'o' / 'figures')


def test_a_table_may_be_called_like_a_part_of_the_page(browser, tmp_path):
    files = [tmp_path / f'{name}.csv' for name in ('data', 'detail', 'main', 'a b', 'a-b')]
    for file in files:
        file.write_text('optimizer,R-50\nSGD,75\nAdamW,76\n')
    out = tmp_path / 'o'
    assert main([*map(str, files), '--out', str(out), '--no-figures', '--quiet']) == 0
    browser.get((out / 'report.html').as_uri())
    ids = browser.execute_script('return [...document.querySelectorAll("[id]")].map(e => e.id)')
    assert len(ids) == len(set(ids))
    browser.find_elements('css selector', 'th button[data-sort="0"]')[0].click()
    names = browser.execute_script(
        'return [...document.querySelector("tbody").rows].map(r => r.dataset.name)'
    )
    assert names == ['AdamW', 'SGD'] and browser.get_log('browser') == []


def test_the_head_that_stays_lets_nothing_through(page):
    color = page.execute_script(
        'return getComputedStyle(document.querySelector("nav")).backgroundColor'
    )
    assert color == 'rgb(255, 255, 255)'


def test_letters_of_figures_are_readable(page):
    """Pixels a point: the smallest letters have 5.2 points."""
    scales = page.execute_script(
        'return [...document.querySelectorAll(".drawing img")]'
        '.map(i => i.getBoundingClientRect().width / i.naturalWidth * 4 / 3)'
    )
    phone = page.execute_script('return innerWidth') < 600
    assert min(scales) > (1.7 if phone else 1.45)


def test_colours_are_those_of_the_figures_and_have_a_legend(page):
    row = first_table(page).find_element('css selector', 'tr[data-name="LAMB"] .swatch')
    assert row.value_of_css_property('background-color') == rgb(style.look('LAMB').color)
    kinds = first_table(page).find_element('css selector', '.kinds').text
    assert '(a) fixed rate with momentum: SGD LION' in ' '.join(kinds.split())
    assert '(b) adaptive rate with momentum: AdamW LAMB Adan' in ' '.join(kinds.split())


def rgb(color):
    return 'rgba({}, {}, {}, 1)'.format(*(int(color[i : i + 2], 16) for i in (1, 3, 5)))


def test_failures_in_doubt_are_marked(page):
    """The cells of the search whose best rate is on its edge; their failed rows are counted."""
    marks = first_table(page).find_elements('css selector', 'tbody td.failed sup')
    assert marks and {m.text for m in marks} <= {'†', '‡'}
    assert all(m.get_attribute('title') for m in marks)
    foot = first_table(page).find_element('css selector', 'tfoot').text
    assert '‡)' in foot


def test_what_to_try_is_on_the_page(page):
    advice = page.find_element('css selector', '#advice')
    rows = {
        r.find_element('css selector', 'th').text: r.text
        for r in advice.find_elements('css selector', 'tbody tr')
    }
    assert {'R-50', 'DeiT-S', 'CNX-T'} <= set(rows)
    assert 'your best run on this backbone' in rows['DeiT-S'] and 'lr ' in rows['DeiT-S']
