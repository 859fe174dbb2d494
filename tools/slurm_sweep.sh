#!/usr/bin/env bash
# Starts an array of drivers of a study under Slurm. Before the time limit, trainings save, their
# trials wait, and the job queues again; when nothing waits any more, the jobs end.
# Usage:  [GPUS=1] [CPUS_PER_TASK=5] [SBATCH_ARGS="--time=24:00:00 ..."] \
#             bash tools/slurm_sweep.sh PARTITION DRIVERS STUDY [sweep.py work arguments]
set -euo pipefail
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

[ $# -ge 3 ] || die "usage: bash tools/slurm_sweep.sh PARTITION DRIVERS STUDY [sweep.py work arguments]"
partition=$1 drivers=$2 study=$3
shift 3
gpus=${GPUS:-1}
[[ $drivers =~ ^[1-9][0-9]*$ ]] || die "DRIVERS '$drivers': a whole number of at least 1 is expected"
[[ $gpus =~ ^[0-9]+$ ]] || die "GPUS=$gpus: a whole number is expected, 0 for CPU nodes"
[ -f "$study/plan.json" ] || die "STUDY $study: no such study (plan.json is not there); make it with bocb sweep create"
command -v sbatch >/dev/null || die "no sbatch on PATH: this node does not run Slurm; start bocb sweep work on each machine"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -n "${PYTHON:-}" ]; then
    python=$(command -v "$PYTHON") || die "PYTHON=$PYTHON: no such program"
else
    python=$(command -v "$root/.venv/bin/python" || command -v python3) || die "no Python found; run bash tools/setup_env.sh"
fi

resources=(--cpus-per-task="${CPUS_PER_TASK:-5}")
[ "$gpus" = 0 ] || resources+=(--gres="gpu:$gpus")
command=$(printf '%q ' "$python" -u "$root/tools/sweep.py" work "$study" --no-wait "$@")
# shellcheck disable=SC2086  # SBATCH_ARGS is a list of words
exec sbatch -p "$partition" --job-name=sweep --array="1-$drivers" --ntasks=1 "${resources[@]}" \
    --signal=B:USR1@120 --requeue --open-mode=append --output=sweep_%A_%a.log ${SBATCH_ARGS:-} <<EOF
#!/usr/bin/env bash
$command &
driver=\$!
trap 'kill -USR1 \$driver' USR1 TERM
# The trap ends a wait, not the driver, which ends when its trainings have saved.
while wait \$driver; [ \$? -gt 128 ] && kill -0 \$driver 2>/dev/null; do :; done
wait \$driver
status=\$?
if [ \$status = 75 ]; then scontrol requeue "\${SLURM_ARRAY_JOB_ID}_\${SLURM_ARRAY_TASK_ID}"; fi
exit \$status
EOF
