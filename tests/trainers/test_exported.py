"""A model that is exported predicts what its checkpoint does, without anything being unpickled."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_training import only_checkpoint, train

from ocp_dc import calculator
from ocp_dc.cli import main
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.errors import InputError
from ocp_dc.evaluation import evaluate
from ocp_dc.trainers.checkpoints import read_checkpoint

CONFIGS = {
    "C": ("schnet_dc",),
    "mean, averaged weights": ("cgcnn_recommended", "--optim.ema_decay=0.5"),
    "element references": ("schnet_irelu_recommended", "--task.reference_energy=element"),
    "BatchNorm": ("forcenet",),
    "scale factors": ("gemnet_t_dc",),
}


@pytest.fixture
def exported(train_arguments, tmp_path):
    def of(config, *overrides):
        train(train_arguments(config, "--optim.max_epochs=1", *overrides))
        out = tmp_path / "model.safetensors"
        assert main(["export", str(only_checkpoint(tmp_path)), str(out)]) == 0
        return only_checkpoint(tmp_path), out

    return of


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_predicts_the_same(exported, config, sample_data, monkeypatch):
    checkpoint, model = exported(*config)
    structures = read_structures(sample_data / "test")[:5]
    of_checkpoint = calculator.load(checkpoint, device="cpu").evaluate(structures)
    expected, _ = evaluate(checkpoint, sample_data / "test", cpu=True)
    # data are pickles, and are read before
    monkeypatch.setattr(torch, "load", None)
    of_model = calculator.load(model, device="cpu").evaluate(structures)
    for theirs, ours in zip(of_checkpoint, of_model, strict=True):
        assert ours["energy"] == theirs["energy"]
        assert np.array_equal(ours["forces"], theirs["forces"])
    assert evaluate(model, sample_data / "test", cpu=True)[0] == expected


def test_says_what_it_is_and_nothing_of_the_machine(exported, tmp_path, capsys):
    checkpoint, model = exported("schnet_dc")
    assert str(tmp_path) not in str(safe_open(model, "pt").metadata())
    capsys.readouterr()
    said = []
    for path in (checkpoint, model):
        assert main(["info", str(path)]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "C = 1,000,000" in said[1]


def test_training_starts_from_it_but_does_not_resume(exported, train_arguments, tmp_path):
    _, model = exported("schnet_dc")
    anew = ("--checkpoint", str(model), "--timestamp-id", "anew", "--optim.max_epochs=1")
    with pytest.raises(InputError, match="has no optimizer, scheduler"):
        train(train_arguments("schnet_dc", *anew))
    train(train_arguments("schnet_dc", *anew, "--weights-only"))
    assert (tmp_path / "checkpoints" / "anew" / "checkpoint.pt").exists()


def test_nothing_is_replaced_unasked(exported, capsys):
    checkpoint, model = exported("schnet_dc")
    before = model.read_bytes()
    assert main(["export", str(checkpoint), str(model)]) == 2
    assert "exists; name another file, or give --overwrite" in capsys.readouterr().err
    assert main(["export", str(checkpoint), str(model), "--overwrite"]) == 0
    assert model.read_bytes() == before
    assert main(["export", str(checkpoint), str(checkpoint), "--overwrite"]) == 2


def test_other_files_are_refused(exported, tmp_path):
    _, model = exported("schnet_dc")
    content = model.read_bytes()
    other = tmp_path / "other.safetensors"
    for wrong, message in (
        (content[: len(content) // 2], "cannot be read"),
        (pickle.dumps({}), "cannot be read"),
    ):
        other.write_bytes(wrong)
        with pytest.raises(InputError, match=message):
            read_checkpoint(other, torch.device("cpu"))
    for metadata, message in (
        (None, "is of another program"),
        ({"ocp_dc": json.dumps({"format_version": 99})}, "is version 99; `ocp-dc export` writes version 1"),
    ):
        save_file({"weight": torch.zeros(1)}, other, metadata=metadata)
        with pytest.raises(InputError, match=message):
            read_checkpoint(other, torch.device("cpu"))
