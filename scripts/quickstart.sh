#!/usr/bin/env bash
# Sets up the environment if needed, converts the embedded ethanol sample, trains SchNet seven ways at small widths, and
# prints the test errors side by side: the paper's baseline and the paper's method (IReLU, rescaled labels), both again
# with a learning rate that decays, and the recommended protocol with three activations. Results go to runs/quickstart
# (or the folder given as argument).
set -euo pipefail
caller=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
case "${1:-}" in
    "") out=$repository/runs/quickstart ;;
    /*) out=$1 ;;
    *) out=$caller/$1 ;;
esac
export PATH="$venv/bin:$PATH"
exec "$venv/bin/python" "$repository/scripts/quickstart.py" "$out"
