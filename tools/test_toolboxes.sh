#!/usr/bin/env bash
# Trains with toolboxes beyond mmpretrain, mmdet and mmpose, each from the registry, in an environment
# of its own that lies on top of .venv (.toolboxes, a few MB).
# Usage: [BOCB_TOOLBOXES=mmseg,mmaction,mmpretrain,mmdet,mmpose] bash tools/test_toolboxes.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\033[1m[toolboxes]\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Without their own dependencies, which would bring another OpenCV: what those name and .venv lacks.
declare -A packages=(
    [mmseg]='mmsegmentation==1.2.2 prettytable wcwidth ftfy regex'
    [mmaction]='mmaction2==1.2.0 decord==0.6.0'
    [mmpretrain]='' [mmdet]='' [mmpose]=''
)
export BOCB_TOOLBOXES=${BOCB_TOOLBOXES:-mmseg,mmaction}
wanted=()
for name in ${BOCB_TOOLBOXES//,/ }; do
    [ -n "${packages[$name]+known}" ] || die "BOCB_TOOLBOXES: no toolbox $name; there are ${!packages[*]}"
    read -ra needed <<<"${packages[$name]}"
    wanted+=("${needed[@]}")
done

bash tools/setup_env.sh
uv=${UV:-$(command -v uv || echo .uv/bin/uv)}
if [ ! -x "$uv" ]; then
    say "getting uv"
    python3 -m pip install --quiet --disable-pip-version-check --target .uv --upgrade uv
    uv=.uv/bin/uv
fi
"$uv" venv --quiet --clear --python .venv/bin/python .toolboxes
site='import sysconfig; print(sysconfig.get_path("purelib"))'
below=$(.venv/bin/python -c "$site")
echo "import site; site.addsitedir('$below')" >"$(.toolboxes/bin/python -c "$site")/below.pth"
if [ ${#wanted[@]} -gt 0 ]; then
    say "installing ${wanted[*]}"
    "$uv" pip install --quiet --python .toolboxes/bin/python --no-deps "${wanted[@]}"
fi

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTHONPATH=. exec .toolboxes/bin/python -m pytest tests/toolboxes "$@"
