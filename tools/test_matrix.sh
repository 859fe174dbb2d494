#!/usr/bin/env bash
# Builds each environment of the table below and runs a core of the suite in it; prints a table. What
# it gave stands in docs/install.md. One environment takes a few GB; it is deleted unless KEEP=1.
# Usage: bash tools/test_matrix.sh [NAME ...]     (CORE="tests/x.py -k y" for other tests, MATRIX=DIR)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# name           python torch  torchvision requirements beside the extras
legs='
py310            3.10   2.14.1 0.29.1
py311            3.11   2.14.1 0.29.1
py312            3.12   2.14.1 0.29.1
py313            3.13   2.14.1 0.29.1
torch2.11        3.11   2.11.0 0.26.0
torch2.9         3.11   2.9.1  0.24.1
torch2.7         3.11   2.7.1  0.22.1
torch2.6         3.11   2.6.0  0.21.0
torch2.5         3.11   2.5.1  0.20.1
torch2.4         3.11   2.4.1  0.19.1
torch2.3         3.11   2.3.1  0.18.1
forks            3.11   2.14.1 0.29.1 onedl-mmengine==0.10.12 onedl-mmdetection==3.5.1 onedl-mmpretrain==1.3.6
'
CORE=${CORE:-tests/stand_ins tests/optimizers/test_catalog.py tests/optimizers/test_references.py
    tests/checkpoints/test_read.py tests/hooks/test_safe_checkpoint.py
    tests/test_stock_configs.py::test_two_hook_lines_measure_and_record}
MATRIX=${MATRIX:-work_dirs/matrix}
uv=${UV:-$(command -v uv || echo .uv/bin/uv)}
mkdir -p "$MATRIX"

# The forks have the import names of the packages that they replace, which must then stay out.
replaced() {
    for fork in "$@"; do
        case $fork in
            onedl-mmengine*) echo 'mmengine; python_version < "3"' ;;
            onedl-mmdetection*) echo 'mmdet; python_version < "3"' ;;
            onedl-mmpretrain*) echo 'mmpretrain; python_version < "3"' ;;
        esac
    done
}

build() { # NAME PYTHON TORCH TORCHVISION [REQUIREMENT ...]
    local name=$1 python=$2 torch=$3 vision=$4
    shift 4
    "$uv" venv --quiet --clear --python "$python" "$MATRIX/$name" || return  # within `if`, set -e sleeps
    replaced "$@" > "$MATRIX/$name/overrides.txt"
    "$uv" pip install --quiet --python "$MATRIX/$name" --override "$MATRIX/$name/overrides.txt" --group dev \
        -e '.[stack,classification,detection,pose]' "torch==$torch" "torchvision==$vision" "$@"
}

results="$MATRIX/results.md"
printf '| environment | Python | torch | built | core of the suite |\n|---|---|---|---|---|\n' | tee "$results"
while read -r name python torch vision more; do
    [ -n "$name" ] || continue
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    log="$MATRIX/$name.log"
    start=$SECONDS outcome='not built'
    # shellcheck disable=SC2086
    if build "$name" "$python" "$torch" "$vision" $more >"$log" 2>&1; then
        built="$((SECONDS - start)) s"
        OMP_NUM_THREADS=1 "$MATRIX/$name/bin/python" -m pytest -q $CORE >>"$log" 2>&1 || true
        outcome=$({ grep -E '(passed|failed|error).* in ' "$log" || tail -1 "$log"; } | tail -1 | tr -d '=')
    else
        built=$({ grep -v '^ *$' "$log" || echo 'no output'; } | tail -1)
    fi
    printf '| %s | %s | %s | %s | %s |\n' "$name" "$python" "$torch" "$built" "$outcome" | tee -a "$results"
    [ "${KEEP:-0}" = 1 ] || rm -rf "${MATRIX:?}/$name"
done <<<"$legs"
