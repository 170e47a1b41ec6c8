"""A run goes on as itself, from a checkpoint that is whole, or not at all."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from faults import abandoned
from test_training import launch

from ocp_dc.cli import main
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.samples import sample_path
from ocp_dc.errors import InputError
from ocp_dc.launch import run_fairchem
from ocp_dc.locks import file_lock
from ocp_dc.trainers.metrics_log import read_metrics

ONE_EPOCH, TWO_EPOCHS = "--optim.max_epochs=1", "--optim.max_epochs=2"
NAMED = ("--timestamp-id", "run")


def load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)


@pytest.fixture
def trained(train_arguments, tmp_path) -> Path:
    run_fairchem("train", train_arguments("schnet_dc", *NAMED, ONE_EPOCH))
    return tmp_path / "checkpoints" / "run" / "checkpoint.pt"


def refused(arguments, message):
    with pytest.raises(InputError, match=message):
        run_fairchem("train", arguments)


def test_a_checkpoint_given_alone_keeps_its_run(trained, train_arguments, tmp_path):
    run_fairchem("train", train_arguments("schnet_dc", "--checkpoint", str(trained), TWO_EPOCHS))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["run"]
    assert load(trained)["step"] == 2 * load(trained.with_name("previous_checkpoint.pt"))["step"]


def test_a_finished_run_says_so_and_stays(trained, train_arguments, caplog):
    before = trained.read_bytes()
    with caplog.at_level("INFO"):
        run_fairchem("train", train_arguments("schnet_dc", *NAMED, ONE_EPOCH))
    step = load(trained)["step"]
    assert f"trained to step {step}; the model is {trained}. Its errors: ocp-dc evaluate --checkpoint" in caplog.text
    assert trained.read_bytes() == before


def test_a_flipped_byte_is_noticed_and_the_one_before_is_named(trained, train_arguments, capsys):
    run_fairchem("train", train_arguments("schnet_dc", *NAMED, TWO_EPOCHS))
    content = bytearray(trained.read_bytes())
    weight = next(iter(load(trained)["optimizer"]["state"].values()))["exp_avg"].numpy().tobytes()
    content[content.index(weight) + len(weight) // 2] ^= 1
    trained.write_bytes(content)
    assert main(["train", *train_arguments("schnet_dc", *NAMED, TWO_EPOCHS)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"checkpoint {trained} is damaged" in error
    assert error.endswith(f"the one before it is {trained.with_name('previous_checkpoint.pt')}")


def test_a_truncated_one_too(trained, train_arguments):
    trained.write_bytes(trained.read_bytes()[:1000])
    refused(train_arguments("schnet_dc", *NAMED, TWO_EPOCHS), "cannot be read")


def test_weights_alone_do_not_resume_but_may_start_anew(trained, train_arguments, tmp_path):
    best = shutil.copy(trained.with_name("best_checkpoint.pt"), tmp_path / "best.pt")
    from_best = ("--checkpoint", str(best))
    refused(train_arguments("schnet_dc", *from_best, "--timestamp-id", "anew"), "has no step, optimizer, scheduler")
    for epochs in (ONE_EPOCH, TWO_EPOCHS):
        arguments = train_arguments("schnet_dc", *from_best, "--weights-only", "--timestamp-id", "anew", epochs)
        run_fairchem("train", arguments)
    anew = load(tmp_path / "checkpoints" / "anew" / "checkpoint.pt")
    assert anew["step"] == 2 * load(trained)["step"]
    assert anew["normalizers"]["energy"] == load(best)["normalizers"]["energy"]


def test_anew_begins_with_the_weights_and_its_own_optimizer(trained, train_arguments, tmp_path):
    anew = ("--checkpoint", str(trained), "--weights-only", "--timestamp-id", "anew")
    run_fairchem("train", train_arguments("schnet_dc", *anew, ONE_EPOCH, "--optim.lr_initial=1.0e-30"))
    state = load(tmp_path / "checkpoints" / "anew" / "checkpoint.pt")
    for name, weight in load(trained)["state_dict"].items():
        assert torch.equal(state["state_dict"][name], weight)
    assert state["step"] == load(trained)["step"]
    assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {state["step"]}


def logged_beyond(checkpoint: Path) -> Path:
    """The log of a run that has gone on since its checkpoint."""
    log = checkpoint.parents[2] / "logs" / "tensorboard" / "run" / "metrics.jsonl"
    last = log.read_text().splitlines()[-1]
    with log.open("a") as file:
        file.write(json.dumps({**json.loads(last), "step": 1000}) + "\n")
    return log


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--optim.lr_initial=0.5", r"optim\.lr_initial 0\.0001 \(config: 0\.5\): set the config to .* --weights-only"),
        ("--optim.batch_size=5", r"optim\.batch_size \d+ \(config: 5\)"),
        ("--optim.optimizer=AdamW", r"optim\.optimizer 'Adam' \(config: 'AdamW'\)"),
    ],
)
def test_another_way_of_training_is_refused(trained, train_arguments, override, message):
    log = logged_beyond(trained)
    before = trained.read_bytes(), log.read_bytes()
    refused(train_arguments("schnet_dc", *NAMED, TWO_EPOCHS, override), message)
    assert (trained.read_bytes(), log.read_bytes()) == before


def test_other_data_are_refused(trained, train_arguments, tmp_path):
    convert(sample_path(), tmp_path / "other", sizes={"train": 90, "val": 20, "test": 0}, seed=1, show_progress=False)
    other = f"--dataset.train.src={tmp_path / 'other' / 'train'}"
    refused(
        train_arguments("schnet_dc", *NAMED, TWO_EPOCHS, other),
        "was trained on .*100 records, and dataset.train is .*90",
    )


def test_two_runs_do_not_share_a_folder(trained, train_arguments):
    log = logged_beyond(trained)
    before = log.read_bytes()
    with file_lock(trained.with_name("lock")):
        refused(train_arguments("schnet_dc", *NAMED, TWO_EPOCHS), "is being written to by another run")
    assert log.read_bytes() == before


def test_what_was_logged_before_the_first_checkpoint_is_not_logged_twice(train_arguments, tmp_path):
    log = tmp_path / "logs" / "tensorboard" / "run" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"split": "train", "step": 1}\n{"split": "tr')
    run_fairchem("train", train_arguments("schnet_dc", *NAMED, ONE_EPOCH))
    steps = [line["step"] for line in read_metrics(log) if line["split"] == "train"]
    assert steps == [1, 2, 3, 4, 5]


def test_what_a_killed_save_left_goes(trained, train_arguments):
    left = abandoned(trained)
    run_fairchem("train", train_arguments("schnet_dc", *NAMED, TWO_EPOCHS))
    assert not left.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_shrink_while_they_are_read(train_arguments, sample_data, tmp_path, workers):
    """In a process of its own: reading beyond the end of a file kills it.

    That is how it ends, too, where the file shrinks between the look at it and the read; hence another try or two.
    """
    for number in range(3):
        folder = tmp_path / str(number)
        data = shutil.copytree(sample_data / "train", folder / "data")
        (file,) = data.glob("*.lmdb")
        settings = (f"--dataset.train.src={data}", "--dataset.train.format=lmdb", f"--optim.num_workers={workers}")
        endless = ("--optim.max_epochs=1000", "--optim.eval_every=100000", *NAMED)
        process = launch(train_arguments("schnet_dc", *settings, *endless, run_dir=folder))
        while not (folder / "logs" / "tensorboard" / "run" / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.truncate(file, 8192)
        output, _ = process.communicate(timeout=60)
        if process.returncode != -signal.SIGBUS:
            break
    assert process.returncode == 2, output
    assert f"ocp-dc: error: {file} has been cut short while it was read, to 8,192 of" in output


def test_a_start_that_fails_leaves_nothing(train_arguments, tmp_path):
    refused(train_arguments("schnet_dc", "--dataset.train.first_n=1000000"), "dataset: Cannot take 1000000")
    assert list(tmp_path.iterdir()) == []


def test_and_takes_nothing_from_other_runs(trained, train_arguments, tmp_path):
    files = {file for file in tmp_path.rglob("*") if "tfevents" not in file.name}
    refused(train_arguments("schnet_dc", *NAMED, TWO_EPOCHS, "--optim.lr_initial=0.5"), "lr_initial")
    refused(
        train_arguments("schnet_dc", "--timestamp-id", "other", "--dataset.train.first_n=1000000"),
        "dataset: Cannot take 1000000",
    )
    assert {file for file in tmp_path.rglob("*") if "tfevents" not in file.name} == files
