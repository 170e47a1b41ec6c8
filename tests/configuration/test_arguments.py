"""Flags and overrides are checked before anything heavy is imported."""

import subprocess
import sys

import pytest

from ocp_dc.config_files import config_file
from ocp_dc.configuration.arguments import checked_arguments
from ocp_dc.errors import InputError
from ocp_dc.launch import config_of

CONFIG = ("--config-yml", "md17/schnet_dc")

MISTAKES = [
    ("train", ("--max-epochs", "3"), r"--max-epochs is no flag .*; did you mean --optim\.max_epochs=VALUE\?"),
    ("train", ("--run-dri", "x"), r"--run-dri is no flag and no config key; did you mean --run-dir\?"),
    ("train", ("stray",), "'stray' belongs to nothing: config keys are given as --section.key=VALUE"),
    ("train", ("--optim.max_epochs", "3"), r"--optim\.max_epochs: give its value after an equals sign"),
    ("train", ("--optim.batch_size=0",), r"optim\.batch_size is 0; .* \(on the command line\)"),
    ("train", ("--optim=3",), "optim is 3; it must be a mapping of keys"),
    ("train", ("--dataset.train.src=a=b",), "fairchem splits at every ="),
    ("train", ("--seed", str(10**30)), "--seed is 10+; it must be from 0 to 4294967295"),
    ("train", ("--seed", "-1"), "--seed is -1"),
    ("train", ("--num-gpus", "-1"), "--num-gpus is -1; it must be 1 or more"),
    ("train", ("--num-nodes", "2", "--cpu"), "--num-nodes 2 is for SLURM: give --submit too"),
    ("train", ("--print-every", "0"), "--print-every is 0"),
    ("train", ("--timestamp-id", "../../escape"), r"--timestamp-id is '\.\./\.\./escape'; .* cannot be a path"),
    ("train", ("--identifier", "a/b"), "--identifier is 'a/b'"),
    ("train", ("--checkpoint", "no.pt"), r"--checkpoint no\.pt: no such file"),
    ("train", ("--submit",), "there is no sbatch here"),
    ("train", ("--run-dir", f"{__file__}/run"), r"--run-dir .*run: .*test_arguments\.py is a file; give a folder"),
    ("train", ("--run-dir", "/proc/run"), "/proc cannot be written to"),
    ("predict", ("--dataset.test.src=x",), "predicting takes a trained model: --checkpoint FILE"),
    ("predict", (), r"dataset\.test\.src is missing"),
]


@pytest.mark.parametrize(("mode", "arguments", "message"), MISTAKES, ids=[" ".join(words) for _, words, _ in MISTAKES])
def test_each_mistake_is_named(monkeypatch, tmp_path, mode, arguments, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=message):
        checked_arguments(mode, [*CONFIG, *arguments])


def test_what_is_right_passes():
    overrides = ["--optim.lr_initial=1e-3", "--model.activation=irelu", "--dataset.val.src=DIR/val"]
    args, rest = checked_arguments("train", [*CONFIG, "--seed", "3", *overrides])
    assert args.seed == 3
    assert args.config_yml.name == "schnet_dc.yml"
    assert rest == overrides


def test_a_scheduler_on_the_command_line_replaces_the_parameters_of_the_files(tmp_path):
    own = tmp_path / "own.yml"
    own.write_text(f"includes: [{config_file('md17/schnet')}]\noptim: {{scheduler: OneCycleLR, pct_start: 0.05}}\n")
    arguments = ("--config-yml", str(own), "--dataset.train.src=DIR")
    step = ("--optim.scheduler=StepLR", "--optim.step_size=3")
    assert config_of("train", arguments)["optim"]["pct_start"] == 0.05
    # the same again is no other
    assert config_of("train", [*arguments, "--optim.scheduler=OneCycleLR"])["optim"]["pct_start"] == 0.05
    found = config_of("train", [*arguments, *step])["optim"]
    assert found["scheduler"] == "StepLR"
    assert "pct_start" not in found
    for mistake in ("--optim.pct_start=0.1", "--optim.factor=0.1"):
        with pytest.raises(InputError, match=rf"key {mistake[2:].partition('=')[0]} is .*, and optim.scheduler is 'St"):
            checked_arguments("train", [*arguments, *step, mistake])


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom ocp_dc.cli import main\n"
        f"assert main(['train', *{CONFIG!r}, '--optim.batch_size=0']) == 2\n"
        "print(sorted({'torch', 'fairchem.core', 'ase', 'scipy'}.intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
