"""What ends a command from outside leaves nothing half done, and says from where it goes on."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from test_training import launch, only_checkpoint

from ocp_dc import cli
from ocp_dc.launch import run_fairchem
from ocp_dc.signals import EndedBySignal


@contextmanager
def heeded(number):
    """Processes that are started within it do as the signal's default says."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_training_ends_in_order(train_arguments, tmp_path, name):
    arguments = ("--optim.max_epochs=1000", "--optim.checkpoint_every=7", "--optim.eval_every=100000", "--cpu")
    # a shell has what it runs in the background ignore SIGINT, nohup has it ignore SIGHUP
    with heeded(signal.SIGINT), heeded(signal.SIGHUP):
        process = launch(train_arguments("schnet_dc", *arguments))
    while not list(tmp_path.glob("checkpoints/*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name), output
    last = output.splitlines()[-1]
    assert last == ("ocp-dc: interrupted" if name == "SIGINT" else f"ocp-dc: ended by {name}")
    assert f"it goes on from {only_checkpoint(tmp_path)}" in output
    assert "Traceback" not in output
    assert not list(tmp_path.rglob("*partial*"))


def test_a_checkpoint_that_is_whole_is_gone_on_from(train_arguments, tmp_path, monkeypatch, caplog):
    """The signal comes when the checkpoint has its name and the trainer has not yet noted it."""

    def interrupted(folder):
        if list(tmp_path.glob("checkpoints/*/checkpoint.pt")):
            raise EndedBySignal(signal.SIGTERM)

    monkeypatch.setattr("ocp_dc.files._sync_folder", interrupted)
    with pytest.raises(EndedBySignal):
        run_fairchem("train", train_arguments("schnet_dc", "--optim.checkpoint_every=2"))
    assert f"stopped in step 2; it goes on from {only_checkpoint(tmp_path)}" in caplog.text


def test_an_interrupt_in_code_that_was_made_from_a_text_ends_with_its_status(tmp_path):
    (tmp_path / "made.py").write_text(
        "import sys\nfrom ocp_dc import cli\n"
        "cli._run = lambda _: exec('import signal; signal.raise_signal(signal.SIGINT)')\nsys.exit(cli.main([]))\n"
    )
    with heeded(signal.SIGINT):
        done = subprocess.run([sys.executable, "-m", "made"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "ocp-dc: interrupted\n")


def test_nohup_is_left_alone():
    code = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom ocp_dc.signals import ended_by_signals\n"
        "with ended_by_signals():\n    signal.raise_signal(signal.SIGHUP)\nprint('alive')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "alive\n"


def test_what_fails_because_of_a_signal_is_no_cause(monkeypatch, capsys):
    def run(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("a loader's worker was ended too") from None

    monkeypatch.setattr(cli, "_run", run)
    with heeded(signal.SIGTERM):
        assert cli.main([]) == 143
    assert capsys.readouterr().err == "ocp-dc: ended by SIGTERM\n"
