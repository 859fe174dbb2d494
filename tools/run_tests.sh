#!/usr/bin/env bash
# Builds the environment if need be, then checks style and types and runs every test.
# Usage: bash tools/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\033[1m[tests]\033[0m %s\n' "$*" >&2; }

bash tools/setup_env.sh

# Real programs that some tests drive. Where they cannot be had, those tests skip and say so.
declare -A programs=(
    [chromium]='chromium chromium-driver' [pdflatex]='texlive-latex-recommended texlive-latex-extra' [initdb]='postgresql'
)
have() { command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1; }
wanted=()
for program in "${!programs[@]}"; do
    have "$program" && continue
    read -ra packages <<<"${programs[$program]}"
    wanted+=("${packages[@]}")
done
if [ ${#wanted[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${wanted[*]}"
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${wanted[@]}") >/tmp/bocb_apt.log 2>&1 \
        || say "not installed (see /tmp/bocb_apt.log); the tests that need them will skip"
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
exec $bin/python -m pytest -n "${BOCB_TEST_WORKERS:-2}" --dist worksteal "$@"
