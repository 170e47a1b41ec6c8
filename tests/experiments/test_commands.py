"""`ocp-dc reproduce`: the plan, its mistakes, and runs on the embedded sample that are killed and started again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ocp_dc.cli import main
from ocp_dc.datasets.samples import sample_path
from ocp_dc.evaluation import evaluate
from ocp_dc.experiments import definitions, scales, study
from ocp_dc.experiments.definitions import MD17, Experiment
from ocp_dc.experiments.plan import CHECKPOINT, LOG, Run
from ocp_dc.experiments.scales import SCALES
from ocp_dc.experiments.step_costs import counted_costs
from ocp_dc.runs.records import read_record, write_record

SMOKE = ("--scale", "smoke", "--data", "sample")
ONE_RUN = ("table9", "--model", "cgcnn", "--variant", "original", *SMOKE)


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """Runs `ocp-dc reproduce`; gives its exit status, what it printed, and its error message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["reproduce", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def pace(scale: str) -> list[str]:
    """Of a run that takes as long a step as others of its kind."""
    return list(Run(Experiment("cgcnn", "original", "ethanol"), SCALES[scale, MD17], None, Path()).pace)


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "count"),
    [("table1", 80), ("table2", 8), ("table7", 80), ("table8", 80), ("table9", 32), ("fig1", 8), ("fig2", 29)],
)
def test_dry_run_ends_with_the_number_of_runs_and_touches_nothing(reproduce, tmp_path, target, count):
    status, printed, _ = reproduce(target, "--scale", "paper", "--dry-run")
    assert status == 0
    assert printed.splitlines()[-1] == f"{count} runs"
    assert [line.split()[0] for line in printed.splitlines()[1 : count + 1]] == [str(n) for n in range(count)]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_one_molecule_plans_only_its_runs(reproduce):
    _, printed, _ = reproduce("table1", *SMOKE, "--dry-run")
    assert f"{sample_path()} holds ethanol: only its runs are planned" in printed
    assert printed.splitlines()[-1] == "10 runs"
    _, printed, _ = reproduce("fig1", *SMOKE, "--dry-run")
    assert printed.splitlines()[-1] == "8 runs"
    assert "schnet-original-ethanol-50000-b0.01-s0" in printed


def test_plan_shows_steps_states_and_times_measured_in_finished_runs(reproduce, tmp_path):
    finished = tmp_path / "out" / "runs" / "cgcnn-original-ethanol-50000-b30-s0"
    write_record(finished / "experiment.json", {"pace": pace("small")})
    result = {"status": "finished", "step": 2_000, "seconds": 1_000.0, "device": "CPU", "quantities": {}}
    write_record(finished / "result.json", result)
    started = tmp_path / "out" / "runs" / "cgcnn-original-ethanol-50000-b30-s1" / LOG
    started.parent.mkdir(parents=True)
    started.write_text('{"split": "train", "step": 5000}\n')
    _, printed, _ = reproduce("table9", "--molecule", "ethanol", "--seeds", 2, "--out", "out", "--dry-run")
    lines = [re.split(r"\s{2,}", line) for line in printed.splitlines()]
    assert lines[1][3:] == ["125,000", "finished"]
    assert lines[2][3:] == ["125,000", "17 h 22 min", "measured, in runs like it", "to do"]
    assert lines[3][3::2] == [
        "125,000",
        "estimated, GPU",
    ]
    assert lines[5][1:] == [
        *("cgcnn-original-ethanol-50000-b30-s1", "md17/cgcnn", "125,000", "16 h 40 min", "measured", "at step 5,000"),
    ]


def test_narrow_networks_say_nothing_of_full_ones(reproduce, tmp_path):
    folder = tmp_path / "out" / "runs" / "cgcnn-original-ethanol-50000-b30-s0"
    write_record(folder / "experiment.json", {"pace": pace("smoke")})
    write_record(folder / "result.json", {"status": "finished", "step": 20, "seconds": 5.0, "quantities": {}})
    _, printed, _ = reproduce("table9", "--seeds", 2, "--out", "out", "--dry-run")
    assert "measured" not in printed.split("estimated: ")[0]


def test_times_of_published_widths_are_estimated_for_a_gpu_by_stated_assumptions(reproduce):
    chosen = ("table1", "--model", "cgcnn", "--molecule", "ethanol", "--variant", "original")

    def minutes(*arguments: str) -> int:
        _, printed, _ = reproduce(*chosen, *arguments, "--dry-run")
        (line,) = [line for line in printed.splitlines() if line.startswith("0 ")]
        return int(re.search(r" (\d+) min +estimated, GPU ", line).group(1))

    cost = counted_costs()["md17/cgcnn"]
    seconds = 20 * cost["flops"]["ethanol"] / 5e12 + 10e-6 * cost["operations"]
    assert minutes() == round(125_000 * seconds / 60)
    assert minutes("--assume-tflops", "0.5", "--assume-microseconds", "1") == round(
        125_000 * (seconds * 10 - 99e-6 * cost["operations"]) / 60
    )
    _, printed, _ = reproduce(*chosen, "--assume-tflops", "0.5", "--dry-run")
    assert "at 0.5 TFLOP/s of matrix products and 10 µs an operation, on one GPU" in printed
    _, printed, _ = reproduce(*chosen, "--scale", "smoke", "--data", "sample", "--dry-run")
    assert "time: not measured; it will be from the runs that finish\n" in printed


def test_several_tables_are_planned_at_once_with_the_command_that_submits_them(reproduce, tmp_path):
    targets = ("table1", "table2", "table7", "table8", "table9", "fig1")
    (tmp_path / "DIR").mkdir()
    _, printed, _ = reproduce(*targets, "--seeds", 2, "--data", "DIR", "--oc22", "OC22", "--out", "all", "--dry-run")
    # those on MD17 that are shared between tables once
    assert printed.splitlines()[-1] == f"{2 * (80 + 8 + 40 + 40 + 7)} runs"
    assert "not measured" not in printed
    assert printed.splitlines()[-2] == (
        f"as SLURM jobs: ocp-dc reproduce {' '.join(targets)} --seeds 2 --data DIR --out all --oc22 OC22 --submit"
    )


def test_models_without_widths_are_left_out_and_named(reproduce, monkeypatch):
    monkeypatch.setitem(scales.WIDTHS, "small", {"schnet": {"hidden_channels": 16}})
    quickstart = ("--scale", "quickstart", "--molecule", "ethanol", "--dry-run")
    _, printed, _ = reproduce("table1", *quickstart)
    assert "--scale quickstart has no widths for cgcnn, dimenetplusplus, forcenet, gemnet_t: left out\n" in printed
    assert printed.splitlines()[-1] == "2 runs"
    for asked in (("table1", "--model", "schnet", "cgcnn"), ("table9",)):
        _, _, refused = reproduce(*asked, *quickstart)
        assert "--scale quickstart has no widths for cgcnn, only for schnet" in refused


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ("hidden_channels", "--width hidden_channels: give a setting of the model and a number, hidden_channels=32"),
        ("hidden_channels=0", "--width hidden_channels=0: give a setting of the model and a number"),
        ("cutoff=6", "--width cutoff=6: schnet has hidden_channels, num_filters, num_interactions, num_gaussians"),
    ],
)
def test_widths_that_a_model_does_not_have_are_refused(reproduce, width, message):
    status, _, error = reproduce("table1", "--model", "schnet", "--width", width, "--dry-run")
    assert status == 2
    assert message in error


def test_runs_of_other_widths_say_so_and_are_kept_apart(reproduce):
    _, printed, _ = reproduce(*ONE_RUN, "--width", "atom_embedding_size=8", "--out", "out")
    assert "Scale smoke, atom_embedding_size=8, 4 epochs, 20 steps" in printed
    assert main(["report", "out", "--format", "csv"]) == 0
    assert '"smoke, atom_embedding_size=8"' in Path("out/report.csv").read_text()
    for other, width in (("null", ()), ('{"atom_embedding_size": 16}', ("--width", "atom_embedding_size=16"))):
        status, _, error = reproduce(*ONE_RUN, *width, "--out", "out")
        assert status == 2
        assert f'is of a run with widths {{"atom_embedding_size": 8}}, not {other}; choose another --out' in error


def test_models_that_take_long_at_a_scale_are_left_out_unless_they_are_asked_for(reproduce):
    length = ("--scale", "length", "--molecule", "ethanol", "--dry-run")
    _, printed, _ = reproduce("table1", *length)
    assert "--scale length takes long with gemnet_t: left out, add --model to have it\n" in printed
    assert printed.splitlines()[-1] == "8 runs"
    _, printed, _ = reproduce("table1", "--model", "gemnet_t", *length)
    assert "left out" not in printed
    assert printed.splitlines()[-1] == "2 runs"
    _, printed, _ = reproduce("table9", "--scale", "length", "--dry-run")
    assert "left out" not in printed


def test_recommended_protocol_is_added_and_what_lacks_it_is_named(reproduce, monkeypatch):
    _, printed, _ = reproduce("table1", *SMOKE, "--with-recommended", "--dry-run")
    assert printed.splitlines()[-1] == "24 runs"
    assert "no recommended protocol" not in printed
    assert re.search(r"schnet-irelu-ethanol-50000-b30-s0-recommended +md17/schnet_irelu_recommended +20 ", printed)
    _, printed, _ = reproduce("table2", "--scale", "smoke", "--with-recommended", "--dry-run")
    assert "no recommended protocol" not in printed
    assert printed.splitlines()[-1] == "20 runs"
    for module in (definitions, study):
        monkeypatch.setattr(
            module, "recommended_variants", lambda model, collection: ["original"] * (model == "schnet")
        )
    _, printed, _ = reproduce("table2", "--scale", "smoke", "--with-recommended", "--dry-run")
    assert "configs/oc22 has no recommended protocol for cgcnn, dimenetplusplus, forcenet\n" in printed
    assert printed.splitlines()[-1] == "9 runs"


def test_table_2_is_planned_with_and_without_periodic_images(reproduce):
    _, printed, _ = reproduce("table2", "--scale", "smoke", "--dry-run")
    assert "the embedded sample of oxide slabs takes the place of OC22" in printed
    assert re.search(r"schnet-irelu_rescaled-oc22-200000-b30-s0 +oc22/schnet_dc +20 ", printed)
    _, printed, _ = reproduce("table2", "--scale", "smoke", "--as-published", "--dry-run")
    assert printed.splitlines()[-1] == "8 runs"
    assert re.search(r"forcenet-original-oc22-200000-b30-s0-as_published +oc22/forcenet_as_published +40 ", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table2",), "--data is missing: for table2 give the folder of OC22's S2EF-total LMDBs"),
        (
            ("table2", "--scale", "smoke", "--molecule", "ethanol"),
            "--molecule ethanol: table2 is on OC22; leave it out",
        ),
        (("fig2", "--as-published"), "--as-published: fig2 was run as the paper's text has it"),
        (("table1", "--data", "none"), "none: there is no such file or folder"),
        (("table1", *SMOKE, "--molecule", "aspirin"), "holds ethanol; give other --data"),
        (("table1", "--model", "schnett"), "--model schnett is unknown"),
        (("table1", "--out", "a=b"), "cannot read a path with = in it"),
        (("table1", "--jobs", "0"), "--jobs 0: at least one job is needed"),
        (("table1", "--seeds", "0"), "--seeds 0: at least one seed is needed"),
        (
            ("table1", "table3"),
            "table1 table3: molecules and materials and physics-informed networks are started apart",
        ),
        (("table1", "table2"), "--oc22 is missing: for table2 give the folder of OC22's S2EF-total LMDBs"),
        (("table1", "table7", "--oc22", "x"), "--oc22 is for Table 2 together with tables on MD17; give --data"),
        (("table1", "--assume-tflops", "0"), "--assume-tflops 0: give a number above 0"),
        (("table2", "--scale", "quickstart"), "--scale quickstart is not for OC22; choose from paper, small, smoke"),
        (("table1", *SMOKE, "--only-index", "10"), "--only-index 10: the plan has runs 0 to 9"),
        (("table1", "--slurm-mem", "3"), "--slurm-mem is for jobs; give --submit too"),
        (("table1", "--split-dir", ".", "--split-seed", "1"), "leave out --split-seed"),
        (("fig2", "--split-dir", "."), "fig2 needs several; leave it out"),
        (("table1", "--split-dir", "."), "aspirin: there is no such folder"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(reproduce, tmp_path, arguments, message):
    status, _, error = reproduce(*arguments)
    assert status == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_too_few_conformations_is_an_error(reproduce, tmp_path):
    arrays = {name: array[:50] if array.ndim > 1 else array for name, array in np.load(sample_path()).items()}
    np.savez(tmp_path / "few.npz", **arrays)
    status, _, error = reproduce("table1", "--scale", "smoke", "--data", "few.npz")
    assert status == 2
    assert "= 140 conformations, but there are 50; ask for fewer" in error


# --- running ------------------------------------------------------------------------------------------------------


def test_a_run_of_table_2_on_the_sample_of_oxide_slabs(reproduce, tmp_path):
    arguments = ("table2", "--scale", "smoke", "--model", "schnet", "--variant", "original", "--out", "out")
    status, printed, _ = reproduce(*arguments)
    assert status == 0
    assert "Energy MAE (eV) over force MAE (eV/Å)" in printed
    assert "GFN1-xTB" in printed
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    result = read_record(folder / "result.json")
    assert result["status"] == "finished"
    assert result["quantities"]["force MAE"]["unit"] == "eV/Å"
    errors, _ = evaluate(folder / CHECKPOINT, tmp_path / "out" / "data" / "oc22-100-s0" / "test", 7, cpu=True)
    assert errors.force_mae == pytest.approx(result["quantities"]["force MAE"]["value"], rel=1e-5)


def start(out: Path, *arguments: object) -> subprocess.Popen:
    """`ocp-dc reproduce` in a process group of its own."""
    command = [sys.executable, "-m", "ocp_dc.cli", "reproduce", *map(str, arguments), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def run_folders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("runs/*/experiment.json"))


def assert_same_results(ours: Path, theirs: Path) -> None:
    assert [folder.name for folder in run_folders(ours)] == [folder.name for folder in run_folders(theirs)]
    for first, second in zip(run_folders(ours), run_folders(theirs), strict=True):
        results = [read_record(folder / "result.json") for folder in (first, second)]
        assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}
        assert results[0]["status"] == "finished"
        with np.load(first / "errors.npz") as our_errors, np.load(second / "errors.npz") as their_errors:
            for name in our_errors:
                np.testing.assert_array_equal(our_errors[name], their_errors[name])
        assert (first / LOG).read_text() == (second / LOG).read_text()
        weights = [torch.load(f / CHECKPOINT, weights_only=False)["state_dict"] for f in (first, second)]
        torch.testing.assert_close(*weights, rtol=0, atol=0, equal_nan=True)


def kill_at_first_checkpoint(process: subprocess.Popen, folder: Path) -> None:
    while not (folder / CHECKPOINT).exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_and_started_again_it_ends_as_if_never_stopped(reproduce, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    folder = cut / "runs" / "cgcnn-original-ethanol-50000-b30-s0"
    process = start(cut, *ONE_RUN, "--jobs", 1)
    killer = threading.Thread(target=kill_at_first_checkpoint, args=(process, folder))
    killer.start()
    assert reproduce(*ONE_RUN, "--jobs", 1, "--out", whole)[0] == 0
    killer.join()
    assert process.returncode == -signal.SIGKILL
    assert (folder / CHECKPOINT).exists()
    assert not (folder / "result.json").exists()

    status, printed, _ = reproduce(*ONE_RUN, "--jobs", 1, "--out", cut)
    assert status == 0
    assert printed.splitlines()[-1] == "1 finished"
    assert "CGCNN" in printed
    assert_same_results(cut, whole)

    description = read_record(folder / "experiment.json")
    assert description["command"].startswith("ocp-dc train --config-yml ")
    assert description["steps"] == json.loads((folder / LOG).read_text().splitlines()[-1])["step"]
    expected, _ = evaluate(folder / CHECKPOINT, description["test_data"], description["test_batch_size"])
    result = read_record(folder / "result.json")
    assert result["quantities"] == {
        "energy MAE": {"value": expected.energy_mae, "unit": "kcal/mol"},
        "force MAE": {"value": expected.force_mae, "unit": "kcal/mol/Å"},
        "EFwT": {"value": 100 * expected.efwt, "unit": "%"},
        "energy offset": {"value": expected.energy_offset, "unit": "kcal/mol"},
        "centered energy MAE": {"value": expected.energy_mae_centered, "unit": "kcal/mol"},
    }
    with np.load(folder / "errors.npz") as errors:
        assert np.mean(errors["energy_error"]) == result["quantities"]["energy MAE"]["value"]
        np.testing.assert_allclose(
            np.abs(errors["forces_true"] - errors["forces_predicted"]).mean(), errors["force_error"].mean()
        )

    status, _, error = reproduce("table9", "--model", "cgcnn", "--scale", "small", "--data", "sample", "--out", cut)
    assert status == 2
    assert 'is of a run with scale "smoke", not "small"; choose another --out' in error


@pytest.mark.slow
def test_killed_at_random_moments_by_two_at_once_it_ends_with_the_same_table(reproduce, tmp_path):
    arguments = ("table9", *SMOKE, "--seeds", 2, "--jobs", 1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert reproduce(*arguments, "--out", whole)[0] == 0
    moments = random.Random(0)
    for _ in range(6):
        processes = [start(cut, *arguments), start(cut, *arguments)]
        time.sleep(moments.uniform(5, 25))
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert reproduce(*arguments, "--out", cut)[0] == 0
    assert_same_results(cut, whole)
    tables = [reproduce(*arguments, "--out", out)[1].split("Table 9")[1] for out in (cut, whole)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_smoke_of_table_1_runs_all_ten_cells_of_ethanol(reproduce, tmp_path):
    status, printed, _ = reproduce("table1", *SMOKE, "--out", tmp_path / "out")
    assert status == 0
    assert printed.splitlines()[-1] == "10 finished"
    assert printed.count("ethanol-50000-b30-s0: energy MAE") == 10
    for model in ("SchNet*", "CGCNN*", "DimeNet++*", "ForceNet*", "GemNet*"):
        assert model in printed
