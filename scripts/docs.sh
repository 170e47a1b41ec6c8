#!/usr/bin/env bash
# Sets up the environment if needed and makes the documentation's site from docs/ and the docstrings, without the network;
# a warning is an error. It goes to build/docs (or the folder given as argument): open index.html there.
set -euo pipefail
caller=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$caller"
exec "$venv/bin/python" -m sphinx -b html -q -W --keep-going "$repository/docs" "${1:-$repository/build/docs}"
