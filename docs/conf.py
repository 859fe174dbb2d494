"""Sphinx settings of the site; `bash tools/build_site.sh` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import catalog_pages  # noqa: E402

from bocb_mm import __version__  # noqa: E402

catalog_pages.write(HERE / 'generated')

project = 'bocb_mm'
author = copyright = 'the bocb_mm authors, Apache-2.0'
release = version = __version__
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'sphinx_design',
]
myst_enable_extensions = ['colon_fence']  # no maths: MathJax would come from the network
smartquotes_action = 'qe'  # quotes and ellipses; two dashes begin an option
myst_heading_anchors = 3
exclude_patterns = ['_build', 'generated/parts']
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the signature shows them
napoleon_use_rtype = False
html_theme = 'furo'
html_title = 'bocb_mm'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_copy_source = html_show_sphinx = False
html_use_index = html_domain_indices = False  # the search finds names better
html_theme_options = {'navigation_with_keys': True}
