#!/usr/bin/env bash
# Trains under Slurm, one task a GPU; pre-emption and time limit save a checkpoint first (SIGUSR1).
# Usage:  [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS="..."] \
#             bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [train.py arguments]
set -euo pipefail
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

[ $# -ge 4 ] || die "usage: bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [train.py arguments]"
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
gpus=${GPUS:-8}
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "GPUS=$gpus: a whole number of at least 1 is expected"
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
[[ $gpus_per_node =~ ^[1-9][0-9]*$ ]] || die "GPUS_PER_NODE=$gpus_per_node: a whole number of at least 1 is expected"
[[ $config == *::* || -f $config ]] || die "config $config: no such file"
command -v srun >/dev/null || die "no srun on PATH: this node does not run Slurm; use tools/dist_train.sh"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -n "${PYTHON:-}" ]; then
    python=$(command -v "$PYTHON") || die "PYTHON=$PYTHON: no such program"
else
    python=$(command -v "$root/.venv/bin/python" || command -v python3) || die "no Python found; run bash tools/setup_env.sh"
fi

# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun -p "$partition" --job-name="$job" --gres="gpu:$gpus_per_node" --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 --signal=USR1@120 ${SRUN_ARGS:-} \
    "$python" -u "$root/tools/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
