#!/usr/bin/env bash
# Sets up the environment if needed and runs the tests; arguments go to pytest (`scripts/test.sh -m slow` for the slow ones).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$repository"
# two at a time: most of what they run takes one core
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# of the hundred processes that tests start, only the first need compile anything
unset PYTHONDONTWRITEBYTECODE
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
