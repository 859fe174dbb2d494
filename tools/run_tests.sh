#!/usr/bin/env bash
# Builds the environment if need be, then checks style and types and runs every test.
# Usage: bash tools/run_tests.sh [--install-programs] [pytest arguments]
# BOCB_COVERAGE=1: also say which lines of bocb_mm ran, and fail below the floor in pyproject.toml; slower.
# --install-programs: first install what some tests drive (Chromium, LaTeX) with apt-get, as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\033[1m[tests]\033[0m %s\n' "$*" >&2; }

bash tools/setup_env.sh

install=no
if [ "${1:-}" = --install-programs ]; then install=yes; shift; fi
# Real programs that some tests drive: without them, those tests skip and say so.
declare -A programs=([chromium]='chromium chromium-driver' [pdflatex]='texlive-latex-recommended texlive-latex-extra')
packages=()
for program in "${!programs[@]}"; do
    command -v "$program" >/dev/null && continue
    read -ra needed <<<"${programs[$program]}"
    packages+=("${needed[@]}")
done
if [ ${#packages[@]} -gt 0 ] && [ $install = yes ]; then
    say "installing ${packages[*]}"
    log=$(mktemp)
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${packages[@]}") >"$log" 2>&1 \
        || say "not installed (see $log); the tests that need them will skip"
elif [ ${#packages[@]} -gt 0 ]; then
    say "not on PATH: ${packages[*]}; the tests that need them will skip (--install-programs installs them)"
fi

# Two workers of one thread each: the heavy imports are paid once a worker.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
bin=.venv/bin
say "ruff"
$bin/ruff check .
$bin/ruff format --check .
say "mypy"
$bin/mypy
say "pytest"
coverage=()
if [ "${BOCB_COVERAGE:-0}" = 1 ]; then coverage=(--cov --cov-report=term-missing); fi
exec $bin/python -m pytest -n "${BOCB_TEST_WORKERS:-2}" --dist worksteal "${coverage[@]}" "$@"
