import subprocess
import sys

import pytest

from ocp_dc.cli import main


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--model.activaton=irelu", "config key model.activaton is unknown; did you mean activation?"),
        ("--model.activation=irelo", "irelu"),
        ("--model.name=schnett", "model.name is 'schnett'"),
        ("--optim.lr_inital=1", "config key optim.lr_inital is unknown; did you mean lr_initial?"),
        ("--optim.scheduler=Cosine", "optim.scheduler is 'Cosine'"),
        ("--task.label_rescalin=1", "config key task.label_rescalin is unknown; did you mean label_rescaling?"),
        ("--task.label_rescaling=many", "task.label_rescaling is 'many'; it must be auto, mean_force or none"),
        ("--task.reference_energy=median", "task.reference_energy is 'median'; it must be none, mean or element"),
        ("--outputs.energy.levle=system", "config key outputs.energy.levle is unknown; did you mean level?"),
        ("--optm.batch_size=3", "config key optm is unknown; did you mean optim?"),
        ("--dataset.train.transforms={'normalizer': {}}", "both scale the labels: remove one of them"),
    ],
)
def test_config_mistakes_are_named_and_leave_nothing_behind(train_arguments, tmp_path, capsys, override, message):
    assert main(["train", *train_arguments("schnet_dc", override)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ocp-dc: error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_unknown_activation_lists_the_known_ones(train_arguments, capsys):
    assert main(["train", *train_arguments("schnet_dc", "--model.activation=irelo")]) == 2
    error = capsys.readouterr().err
    for name in ("irelu", "integrated_silu", "integrated_elu", "original"):
        assert name in error


def test_missing_files(train_arguments, tmp_path, capsys):
    assert main(["train", "--config-yml", str(tmp_path / "no.yml")]) == 2
    assert "no.yml: no such file" in capsys.readouterr().err
    assert main(["train", *train_arguments("schnet_dc", "--checkpoint", str(tmp_path / "no.pt"))]) == 2
    assert "no.pt: no such file" in capsys.readouterr().err
    assert main(["train", *train_arguments("schnet_dc", f"--dataset.train.src={tmp_path / 'no'}")]) == 2
    assert "dataset.train.src" in capsys.readouterr().err


def test_info(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for model in ("schnet", "schnet_irelu", "gemnet_t", "painn"):
        assert model in printed
    assert "torch_scatter" in printed


HEAVY = ("torch", "fairchem", "torch_geometric", "ase", "numpy", "scipy", "matplotlib", "lmdb", "submitit", "yaml")


@pytest.mark.parametrize(
    "command",
    [
        ["--version"],
        ["--help"],
        ["train", "--help"],
        ["md17", "--help"],
        ["oc22", "--help"],
        ["reproduce", "--help"],
        ["report", "--help"],
        ["configs", "--help"],
        ["info", "--help"],
        ["evaluate", "--help"],
        ["predict", "--help"],
        ["predict", "--config-yml", "--help"],
        ["fit-scale-factors", "--help"],
        ["md17", "convert", "--help"],
        ["oc22", "subset", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom ocp_dc.cli import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', sorted(set({HEAVY!r}).intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "ocp-dc" in done.stdout or "ocp_dc" in done.stdout
    assert done.stderr == ""
