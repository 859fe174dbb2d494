#!/usr/bin/env bash
# Builds .venv from pyproject.toml, or does nothing in a second when it stands. Needs Python 3.10-3.12
# with pip, a C++ compiler and the package registry; gets uv by itself when there is none.
# Usage: bash tools/setup_env.sh        (UV=path/to/uv to name one; PYTHON=python3.11 to choose)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_uv() {
    if [ -n "${UV:-}" ]; then echo "$UV"
    elif command -v uv >/dev/null; then command -v uv
    elif [ -x .uv/bin/uv ]; then echo .uv/bin/uv
    fi
}

PYTHON=${PYTHON:-$(command -v python3 || true)}
[ -n "$PYTHON" ] || die "no python3 on PATH; install Python 3.10, 3.11 or 3.12"
"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
    || die "$("$PYTHON" -V) is not supported; set PYTHON to a Python 3.10, 3.11 or 3.12"

# Two builds at once would write to the same .venv: one at a time.
exec 9<pyproject.toml
flock 9

uv=$(find_uv)
if [ -z "$uv" ]; then
    say "getting uv"
    # --target works where the system's Python refuses other installs (PEP 668).
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --target .uv --upgrade uv \
        || die "pip could not install uv; install it by hand and run this again"
    uv=.uv/bin/uv
fi

if [ ! -x .venv/bin/python ]; then
    command -v c++ >/dev/null || command -v g++ >/dev/null \
        || die "no C++ compiler on PATH; mmcv's operators are compiled here (install g++ or clang)"
    say "building .venv: a few GB of downloads, and five minutes of compiling mmcv the first time"
    "$uv" venv --quiet --python "$PYTHON" .venv
fi
# Up to date already? Then not even the registry is asked.
stamp=$(cat pyproject.toml "$0" | cksum)
if [ "$(cat .venv/.setup.stamp 2>/dev/null)" != "$stamp" ]; then
    # Compiled once here, because where PYTHONDONTWRITEBYTECODE is set every process would do it anew.
    MAX_JOBS=${MAX_JOBS:-$(nproc)} "$uv" sync --extra mm --compile-bytecode \
        || die "uv could not build the environment; the reason stands above. To mend, delete .venv and run this again"
    echo "$stamp" > .venv/.setup.stamp
fi
say "environment ready: .venv"
