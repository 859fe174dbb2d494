#!/usr/bin/env bash
# Builds .venv from pyproject.toml, or does nothing in a second when it stands. Needs Python 3.10-3.13
# with pip and the package registry, no compiler; gets uv by itself when there is none.
# Usage: bash tools/setup_env.sh        (UV=path/to/uv to name one; PYTHON=python3.12 to choose)
#        MMCV_OPS=1 bash tools/setup_env.sh   with all of mmcv's operators, compiled here in 5 to 20
#        minutes: needs g++ or clang and, for CUDA, an nvcc of torch's own CUDA version. Later calls
#        keep it so; MMCV_OPS=0 goes back.
set -euo pipefail
# Paths as the caller gave them.
if [[ ${UV:-} == */* ]]; then UV=$(realpath "$UV"); fi
if [[ ${PYTHON:-} == */* ]]; then PYTHON=$(realpath -s "$PYTHON"); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_uv() {
    if [ -n "${UV:-}" ]; then echo "$UV"
    elif command -v uv >/dev/null; then command -v uv
    elif [ -x .uv/bin/uv ]; then echo .uv/bin/uv
    fi
}

# Not said: as the environment that stands.
if [ -z "${MMCV_OPS:-}" ]; then
    MMCV_OPS=$(grep -qs 'mm-ops$' .venv/.setup.stamp && echo 1 || echo 0)
fi
case $MMCV_OPS in
    0) extra=mm ;;
    1) extra=mm-ops ;;
    *) die "MMCV_OPS=$MMCV_OPS: expected 1 (compile mmcv's operators) or 0" ;;
esac

# Two builds at once would write to the same .venv: one at a time.
exec 9<pyproject.toml
flock 9

# Up to date already? Then not even the registry is asked.
stamp="$(cat pyproject.toml tools/setup_env.sh | cksum) $extra"
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
stands=$(version .venv/bin/python || true)
if [ -n "${PYTHON:-}" ] && [ -n "$stands" ] && [ "$(version "$PYTHON" || true)" != "$stands" ]; then
    die ".venv is of Python $stands, PYTHON=$PYTHON is not; delete .venv to build it anew"
fi
if [ -n "$stands" ] && [ "$(cat .venv/.setup.stamp 2>/dev/null)" = "$stamp" ]; then
    say "environment ready: .venv"
    exit 0
fi

PYTHON=${PYTHON:-$(command -v python3 || true)}
[ -n "$PYTHON" ] || die "no python3 on PATH; install Python 3.10, 3.11, 3.12 or 3.13"
if [ -z "$stands" ]; then
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
        || die "$("$PYTHON" -V) is not supported; set PYTHON to a Python 3.10, 3.11, 3.12 or 3.13"
fi

uv=$(find_uv)
if [ -z "$uv" ]; then
    say "getting uv"
    # --target works where the system's Python refuses other installs (PEP 668).
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --target .uv --upgrade uv \
        || die "pip could not install uv; install it by hand and run this again"
    uv=.uv/bin/uv
fi

# Compiled once here, because where PYTHONDONTWRITEBYTECODE is set every process would do it anew.
sync() {
    "$uv" sync --extra "$extra" --compile-bytecode "$@" \
        || die "uv could not build the environment; the reason stands above. To start anew, delete .venv and run this again"
}

# Sets what mmcv's build reads, and cuda to torch's CUDA version where nvcc fits it. Where it does
# not, the GPU is hidden from the build, which would otherwise ask for that nvcc and fail.
choose_cuda() {
    local torch_cuda nvcc_cuda
    torch_cuda=$(.venv/bin/python -c 'import torch; print(torch.version.cuda or "none")')
    nvcc_cuda=$("${CUDA_HOME:+$CUDA_HOME/bin/}nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true)
    cuda=''
    if [ "${nvcc_cuda%%.*}" = "${torch_cuda%%.*}" ]; then
        cuda=$torch_cuda
        export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-7.0;7.5;8.0;8.6;8.9;9.0+PTX}
        say "compiling mmcv's operators for the CPU and CUDA $cuda ($TORCH_CUDA_ARCH_LIST), 10 to 40 minutes"
    else
        export FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=''
        say "compiling mmcv's operators for the CPU, 5 to 20 minutes; not for CUDA: nvcc is ${nvcc_cuda:-not on PATH}, torch's CUDA is $torch_cuda"
    fi
}

[ -n "$stands" ] || "$uv" venv --quiet --clear --python "$PYTHON" .venv
if [ "$extra" = mm ]; then
    say "building .venv: a few GB of downloads the first time, a minute from then on"
    sync
else
    command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
        || die "no C++ compiler on PATH for MMCV_OPS=1; install g++ or clang, or leave MMCV_OPS out"
    say "building .venv: a few GB of downloads the first time"
    sync --no-install-package mmcv
    choose_cuda
    # The setting says nothing to the build: it keeps uv from taking one for the CPU from its cache.
    MAX_JOBS=${MAX_JOBS:-$(nproc)} sync ${cuda:+--config-settings-package "mmcv:cuda=$cuda"}
fi
echo "$stamp" > .venv/.setup.stamp
say "environment ready: .venv"
