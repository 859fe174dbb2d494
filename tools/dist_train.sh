#!/usr/bin/env bash
# Trains on N processes of this node: one a GPU (nccl), or CPU processes (gloo) where there is none.
# Usage:  bash tools/dist_train.sh CONFIG N [train.py arguments]
# Nodes:  NNODES=2 NODE_RANK=0 MASTER_ADDR=host MASTER_PORT=29500 bash tools/dist_train.sh ... on each
set -euo pipefail
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

[ $# -ge 2 ] || die "usage: bash tools/dist_train.sh CONFIG N [train.py arguments]"
config=$1
processes=$2
shift 2
[[ $processes =~ ^[1-9][0-9]*$ ]] || die "number of processes '$processes': a whole number of at least 1 is expected"
[[ $config == *::* || -f $config ]] || die "config $config: no such file"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -n "${PYTHON:-}" ]; then
    python=$(command -v "$PYTHON") || die "PYTHON=$PYTHON: no such program"
else
    python=$(command -v "$root/.venv/bin/python" || command -v python3) || die "no Python found; run bash tools/setup_env.sh"
fi

nodes=${NNODES:-1}
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "NNODES=$nodes: a whole number of at least 1 is expected"
if [ "$nodes" -gt 1 ]; then
    rendezvous=(--nnodes "$nodes" --node_rank "${NODE_RANK:?NODE_RANK is needed with NNODES > 1}"
        --master_addr "${MASTER_ADDR:?MASTER_ADDR is needed with NNODES > 1}"
        --master_port "${MASTER_PORT:-${PORT:-29500}}")
elif [ -n "${MASTER_PORT:-${PORT:-}}" ]; then
    rendezvous=(--nnodes 1 --master_port "${MASTER_PORT:-$PORT}")
else
    rendezvous=(--standalone) # picks a free port, so that several runs share a machine
fi
# One thread a process unless told otherwise, as torchrun does; mmengine would warn about it.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
if [ -d "$root/bocb_mm" ]; then export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}; fi
exec "$python" -m bocb_mm.launch.torchrun "${rendezvous[@]}" --nproc_per_node "$processes" \
    "$root/tools/train.py" "$config" --launcher pytorch "$@"
