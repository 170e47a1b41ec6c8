#!/usr/bin/env bash
# From a molecule to molecular dynamics with a network of its own: sets up the environment if needed, generates labelled
# conformations (GFN2-xTB), converts them, trains SchNet by the recommended protocol, draws its errors, simulates with
# it and measures the simulations. docs/own_molecule.md explains each step.
#
#   scripts/tutorial.sh                          glycine, in runs/tutorial
#   scripts/tutorial.sh mine.xyz OUT             a molecule of your own
#   scripts/tutorial.sh 'O=CCC=O' OUT --smiles   from a SMILES string
#
# Repeat a killed command to go on; remove OUT to start over. SMALL=1 does it all at a size that shows that it runs.
set -euo pipefail
molecule=${1:-}
out=${2:-}
[ "${3:-}" = --smiles ] || [ -z "$molecule" ] || [ ! -f "$molecule" ] || molecule=$(realpath "$molecule")
[ -z "$out" ] || out=$(realpath -m "$out")
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
molecule=${molecule:-$repository/scripts/glycine.xyz}
out=${out:-$repository/runs/tutorial}
export PATH="$venv/bin:$PATH"
# networks this small gain nothing from a second thread, and lose where it has to wait for a core
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

needed=tblite${3:+, rdkit}
if ! python -c "import $needed" 2>/dev/null; then
    echo "tutorial: installing the extra sample (tblite, RDKit and PySCF; about 400 MB on disk)"
    python -m pip install --quiet --editable "$repository[sample]"
fi

frames=2000 equilibrate=1000 train=1600 held_out=200 epochs=60 length=5
[ -z "${SMALL:-}" ] || { frames=60 equilibrate=20 train=40 held_out=10 epochs=2 length=0.1; }

# Prints a command and runs it, unless what it makes is there.
make() {
    local made=$1
    shift
    [ ! -e "$made" ] || return 0
    printf '\n$ %s\n' "$*"
    "$@"
}

mkdir -p "$out"
cd "$out"
make molecule.npz ocp-dc md17 generate "$molecule" molecule.npz --frames $frames --equilibrate $equilibrate \
    ${3:+"$3"}
make data ocp-dc md17 convert molecule.npz data --train $train --val $held_out --test $held_out --seed 0
make checkpoints/tutorial/finished ocp-dc train --config-yml md17/schnet_recommended --timestamp-id tutorial \
    --dataset.train.src=data/train --dataset.val.src=data/val --optim.num_workers=0 --optim.max_epochs=$epochs \
    --model.hidden_channels=128 --model.num_filters=64 --model.num_interactions=3 --model.num_gaussians=50
touch checkpoints/tutorial/finished
make errors.json ocp-dc evaluate --checkpoint checkpoints/tutorial/checkpoint.pt --data data/test --out errors.json \
    --details --plot
# both go on where they were
ocp-dc simulate checkpoints/tutorial/checkpoint.pt --start data/test --out md/nvt --temperature 500 --length $length
ocp-dc simulate checkpoints/tutorial/checkpoint.pt --start data/test --out md/nve --ensemble nve --temperature 300 \
    --length $length
make md/report ocp-dc md-report md/nvt md/nve --reference molecule.npz --test data/test --out md/report

printf '\nto look at:\n'
find "$out" -name '*.png' | sort
printf 'all of it is in %s; %s min %s s in all\n' "$out" $((SECONDS / 60)) $((SECONDS % 60))
