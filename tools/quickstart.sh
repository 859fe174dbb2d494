#!/usr/bin/env bash
# The main job on data that comes with the project, about eight minutes on two cores: pre-train two
# small backbones with three optimizers each, fine-tune RetinaNet and top-down pose from them, measure
# the layers, write the report.
# Usage: bash tools/quickstart.sh [tools/quickstart.py arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
exec .venv/bin/python tools/quickstart.py "$@"
