#!/usr/bin/env bash
# Builds sdist and wheel, installs the wheel into an empty environment and works there as a new user
# does, in a folder that is not the checkout. Minutes, and a few GB in a new folder in DIR, deleted
# unless KEEP=1.
# Usage: bash tools/release_check.sh [DIR]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '\033[1m[release]\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

uv=${UV:-$(command -v uv || echo "$root/.uv/bin/uv")}
[ -x "$uv" ] || die "no uv; run bash tools/setup_env.sh, which gets it, or set UV"
parent=${1:-${TMPDIR:-/tmp}}
mkdir -p "$parent"
place=$(mktemp -d "$(cd "$parent" && pwd)/release.XXXXXX")
mkdir "$place/empty"
[ "${KEEP:-0}" = 1 ] || trap 'rm -rf "$place"' EXIT

say "building: the sdist, and the wheel from it"
"$uv" build --quiet --out-dir "$place/dist" "$root"
wheel=$(ls "$place"/dist/*.whl)
bytes=$(stat -c %s "$wheel")
say "$(basename "$wheel"): $((bytes / 1000)) kB"
[ "$bytes" -lt 5000000 ] || die "the wheel has $bytes bytes; it shall have less than 5 MB"

say "installing it with the MM stack into an empty environment"
"$uv" venv --quiet --clear --python "${PYTHON:-python3}" "$place/env"
# From the checkout, for what its [tool.uv] says of the MM packages (docs/install.md).
(cd "$root" && "$uv" pip install --quiet --python "$place/env" "$wheel[mm]")

cd "$place/empty"
unset PYTHONPATH
export PATH=$place/env/bin:$PATH OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
expect() { # STATUS COMMAND...: runs it, says its seconds
    local wanted=$1 start status=0
    shift
    start=$(date +%s%N)
    "$@" >"$place/log.txt" 2>&1 || status=$?
    say "$((($(date +%s%N) - start) / 1000000)) ms: $*"
    [ "$status" = "$wanted" ] || { cat "$place/log.txt" >&2; die "$*: status $status, $wanted was expected"; }
}
expect 0 bocb --version # the first call compiles
expect 0 bocb --help
expect 0 bocb optimizers
expect 0 bocb backbones
expect 0 bocb configs
expect 2 bocb train cifar100/cnx-tt
expect 2 bocb train cifar100/cnx-t --optimizer adanw
expect 2 bocb dist gone 2
expect 0 bocb doctor
expect 0 bocb quickstart --smoke --out runs
expect 0 bocb layers runs/digits_r18-xs/AdamW/epoch_1.pth --out layers.csv
expect 0 bocb test quickstart/digits_r18-xs runs/digits_r18-xs/AdamW/epoch_1.pth
expect 0 bocb report runs --out report
expect 0 python -m bocb_mm.datasets
expect 0 bocb sweep create study --config quickstart/digits_r18-xs --optimizers SGD AdamW --grid 1x1 \
    --cfg-options train_cfg.max_epochs=1
expect 0 bocb sweep work study --jobs 1
expect 0 bocb sweep status study
expect 0 bocb sweep best study --csv best.csv
expect 0 bocb report study --out study_report
expect 0 bocb probe --backbone timm.test_vit --iterations 20 --optimizers SGD AdamW --seeds 2 --jobs 1 \
    --out probe
[ -s probe/probe.html ] || die "bocb probe wrote no page"
expect 0 bocb report --paper --out paper
say "all is well"
