#!/usr/bin/env bash
# Makes the virtual environment .venv beside this repository's README (or uses it if it is complete) and installs the
# package in it. Source this file from another script, or run it. PYTHON chooses the interpreter (3.10 to 3.12).
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${OCP_DC_VENV:-$repository/.venv}

find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: Python 3.10 to 3.12 is needed and none was found; set PYTHON to one" >&2
    return 1
}

# What the environment was made for: a change of any of these files installs again.
stamp=$(cat "$repository/setup.cfg" "$repository/setup.py" "$repository/pyproject.toml" | cksum)
if [ "$(cat "$venv/.ocp_dc_installed" 2>/dev/null)" != "$stamp" ]; then
    python=$(find_python)
    echo "setup: installing into $venv (about 6 GB on disk, 5 to 10 minutes the first time)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    "$venv/bin/python" -m pip install --quiet --editable "$repository[test,pinn,docs]"
    echo "$stamp" > "$venv/.ocp_dc_installed"
fi
