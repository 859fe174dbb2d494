#!/usr/bin/env bash
# Builds the site into docs/_build/html, warnings as errors; open its index.html from disk, search included.
# Usage: bash tools/build_site.sh [OUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
exec "$python" -m sphinx -W --keep-going -q -b html docs "${1:-docs/_build/html}"
