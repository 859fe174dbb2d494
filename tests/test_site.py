"""The site builds without a warning, has a page for every row of the catalogs, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from bocb_mm.backbones import list_backbones
from bocb_mm.cli.main import commands
from bocb_mm.optimizers import list_optimizers
from tests.browser import SIZES, needs_browser, resize
from tests.conftest import ROOT


class Page(HTMLParser):
    """Where a page leads to, and the places in it that others can lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places = [], {''}
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {v for k in ('id', 'name') if (v := found.get(k))}
        self.links += [v for k in ('href', 'src') if (v := found.get(k))]


@pytest.fixture(scope='module')
def site(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        ['bash', root / 'tools' / 'build_site.sh', folder],
        env=os.environ | {'PYTHON': sys.executable, 'PYTHONPATH': str(root)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_row_of_a_catalog_has_a_page(site):
    for kind, names in (('optimizers', list_optimizers()), ('backbones', list_backbones())):
        pages = {page.stem for page in (site / 'generated' / kind).glob('*.html')}
        assert pages == set(names)


def test_pages_show_what_the_paper_measured(site):
    sgd = (site / 'generated' / 'optimizers' / 'SGD.html').read_text(encoding='utf-8')
    assert sgd.count('<img') == 3  # it has a row in each of the three tables
    cnx = (site / 'generated' / 'backbones' / 'CNX-T.html').read_text(encoding='utf-8')
    assert 'table1_cifar100_CNX-T.svg' in cnx and 'What to try first' in cnx


def test_every_command_is_in_the_reference(site):
    text = (site / 'generated' / 'commands.html').read_text(encoding='utf-8')
    for name in commands():
        assert f'id="bocb-{name}"' in text


PAGES = sorted((ROOT / 'docs').glob('*.md'))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_what_is_read_on_the_site_suits_it(page):
    text = page.read_text(encoding='utf-8')
    assert not re.findall(r'\[[\w/]+\.md\]\(', text)  # a file's name says nothing to a reader
    for language, code in re.findall(r'^```(bash|python)\n(.*?)^```$', text, re.M | re.S):
        if 'MultiTensorOptimizer' not in code:  # a whole module, which has lines of 100
            long = [line for line in code.splitlines() if len(line) > 90]  # what a page shows
            assert not long, (language, long)


def test_every_link_leads_to_a_page_and_a_place_in_it(site):
    pages = {path: Page(path) for path in site.rglob('*.html')}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].places if target in pages else {''}
            if not target.exists() or (target in pages and unquote(parts.fragment) not in known):
                broken.append(f'{path.relative_to(site)}: {link}')
    assert len(pages) > 60 and not broken


@needs_browser
@pytest.mark.parametrize('size', SIZES)
def test_no_page_is_wider_than_its_window_and_every_image_is_drawn(site, browser, size):
    resize(browser, size)
    pages = [*site.glob('*.html'), *site.glob('generated/*.html')]
    pages += [site / 'generated' / f'{name}.html' for name in ('optimizers/LAMB', 'backbones/R-50')]
    for page in pages:
        browser.get(page.as_uri())
        wide = browser.execute_script('return document.documentElement.scrollWidth - innerWidth')
        lost = browser.execute_script(
            'return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)'
        )
        assert wide <= 0 and not lost, page
