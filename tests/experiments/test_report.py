import argparse
import csv
import json
import math
import re

import pytest

from ocp_dc.config_files import config_file
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import Experiment, experiments_of
from ocp_dc.experiments.plan import LOG
from ocp_dc.runs.commands import add_run_commands
from ocp_dc.runs.report import print_table


def report(*arguments) -> int:
    parser = argparse.ArgumentParser()
    add_run_commands(parser.add_subparsers())
    args = parser.parse_args(["report", *map(str, arguments)])
    return args.func(args)


@pytest.fixture
def runs_of_table1(write_run, tmp_path):
    """Part of Table 1. In the paper, SchNet* is worse than SchNet on ethanol in both errors, on aspirin only in the
    force; CGCNN* is better in both."""
    for seed in range(3):
        write_run(Experiment("schnet", "original", "ethanol", seed=seed), energy=10.0 + 2 * seed, force=1.0 + seed)
        write_run(Experiment("schnet", "irelu+rescaled", "ethanol", seed=seed), energy=20.0 + 2 * seed, force=0.5)
        write_run(Experiment("cgcnn", "original", "ethanol", seed=seed), "diverged", step=1077)
    for seed, status in enumerate(("finished", "finished", "diverged")):
        method = Experiment("cgcnn", "irelu+denorm+rescaled", "ethanol", seed=seed)
        write_run(method, status, energy=12_345.0, force=0.0345, step=1500)
    write_run(Experiment("schnet", "original", "aspirin"), energy=100.0, force=2.0)
    write_run(Experiment("schnet", "irelu+rescaled", "aspirin"), energy=130.0, force=2.5)
    write_run(Experiment("gemnet_t", "original", "ethanol"), energy=7.0, force=0.7)
    write_run(Experiment("gemnet_t", "irelu+rescaled", "ethanol"), "unfinished", losses=[3.0])
    write_run(Experiment("forcenet", "original", "ethanol"), "failed")
    return tmp_path


def row(text: str, *labels: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (found,) = [cells[len(labels) :] for cells in rows if cells[: len(labels)] == list(labels)]
    return found


def test_markdown_table_has_ours_beside_the_papers(runs_of_table1):
    assert report(runs_of_table1, "--target", "table1") == 0
    text = (runs_of_table1 / "report.md").read_text()
    assert row(text, "Model", "Settings") == ["Asp.", "Eth."]
    assert row(text, "SchNet", "original") == [
        "**100.00 n=1** (53.01)<br>**2.00 n=1** (1.22)",
        "**12.00 ± 2.00** (5.97)<br>2.00 ± 1.00 (0.69)",
    ]
    assert row(text, r"SchNet\*", "irelu+rescaled") == [
        "130.00 n=1 (28.32) ✗<br>2.50 n=1 (1.67) ✓",
        "22.00 ± 2.00 (13.39) ✓<br>**0.50 ± 0.00** (1.53) ✗",
    ]


def test_diverged_failed_and_missing_cells(runs_of_table1):
    report(runs_of_table1, "--target", "table1")
    text = (runs_of_table1 / "report.md").read_text()
    assert row(text, "CGCNN", "original")[1] == "NaN at step 1,077 (38.36)<br>NaN at step 1,077 (8.25)"
    method = row(text, r"CGCNN\*", "irelu+denorm+rescaled")
    assert method == [
        "– (137.12)<br>– (7.13)",
        "**12,345 ± 0.00 n=2** (4.64) ✓<br>**0.035 ± 0.00 n=2** (2.97) ✓",
    ]
    assert row(text, "GemNet", "original")[1] == "7.00 n=1 (470.32)<br>0.70 n=1 (0.29)"
    assert row(text, r"GemNet\*", "irelu+rescaled")[1] == "– (7.10)<br>– (0.27)"
    assert row(text, "ForceNet", "original")[1].startswith("failed (1048.44)")
    assert "Not run yet: Ben., Mal., Nap., Sal., Tol., Ura., DimeNet++\n" in text
    assert "cgcnn-irelu_denorm_rescaled-ethanol-50000-b30-s2 at step 1,500" in text


def test_directions_that_agree_are_counted(runs_of_table1):
    report(runs_of_table1, "--target", "table1")
    text = (runs_of_table1 / "report.md").read_text()
    assert "Directions that agree with the paper's: 2 of 3 for the energy MAE, 2 of 3 for the force MAE." in text


def test_what_was_run_is_stated(runs_of_table1, capsys):
    report(runs_of_table1, "--target", "table1")
    text = (runs_of_table1 / "report.md").read_text()
    assert "Scale small, 50 epochs, 2,000 steps; 800 / 100 / 90 conformations" in text
    assert "drawn at random with seed 7 (aspirin, ethanol)" in text
    assert "ethanol from some.npz (GFN2-xTB). Seeds: 0, 1, 2." in text
    assert row(text, "gemnet_t-irelu_rescaled-ethanol-50000-b30-s0") == [
        "unfinished",
        "10 of 2,000",
        "–",
        "–",
        "–",
        "–",
    ]
    assert row(text, "gemnet_t-original-ethanol-50000-b30-s0") == [
        "finished",
        "2,000 of 2,000",
        "2 min",
        "12.50",
        "–",
        "–",
    ]
    assert "17 runs: 4 diverged, 1 failed, 11 finished, 1 unfinished." in capsys.readouterr().out


def test_each_run_has_its_centered_energies_in_the_unit_of_its_table(write_run, tmp_path):
    write_run(Experiment("schnet", "original", "ethanol"), centered=0.0345)
    report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert row(text, "Run", "State")[2:] == ["EFwT (%)", "energy offset (kcal/mol)", "centered energy MAE (kcal/mol)"]
    assert row(text, "schnet-original-ethanol-50000-b30-s0")[-1] == "0.035"
    # molecules and materials in one list
    write_run(experiments_of("table2", models=["schnet"])[0], centered=1.0)
    report(tmp_path, "--overwrite")
    text = (tmp_path / "report.md").read_text()
    assert row(text, "Run", "State")[2:] == ["EFwT (%)", "energy offset (eV)", "centered energy MAE (eV)"]
    assert row(text, "schnet-original-ethanol-50000-b30-s0")[-1] == "0.0015"


def test_given_splits_are_named(write_run, tmp_path):
    description = write_run(Experiment("schnet", "original", "ethanol")) / "experiment.json"
    files = '"method": "given", "seed": null, "files": {"train.pkl": "ab", "test.pkl": "cd"}'
    description.write_text(description.read_text().replace('"method": "random", "seed": 7, "files": {}', files))
    report(tmp_path)
    assert "as given by train.pkl, test.pkl (ethanol)" in (tmp_path / "report.md").read_text()


def test_markdown_pictures_lie_beside_the_file(write_run, tmp_path):
    write_run(Experiment("gemnet_t", "original", "ethanol"), predictions=True)
    report(tmp_path, "--to", tmp_path / "docs" / "results.md")
    text = (tmp_path / "docs" / "results.md").read_text()
    names = re.findall(r"\]\((.*?)\)", text)
    assert names == [f"figures/gemnet_t-original-ethanol-50000-b30-s0-{kind}.png" for kind in ("parity", "errors")]
    for name in names:
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")


def test_recommended_protocol_is_marked_as_ours(runs_of_table1, write_run):
    for variant, energy in {"original": 0.2, "irelu": 0.3}.items():
        write_run(Experiment("schnet", variant, "ethanol", protocol="recommended"), energy=energy, force=energy)
    write_run(Experiment("gemnet_t", "original", "ethanol", protocol="recommended"), energy=0.1, force=0.1)
    report(runs_of_table1, "--target", "table1")
    text = (runs_of_table1 / "report.md").read_text()
    assert row(text, "SchNet, recommended protocol (ours)", "original") == ["–<br>–", "**0.20 n=1**<br>**0.20 n=1**"]
    assert row(text, r"SchNet\*, recommended protocol (ours)", "irelu")[1] == "0.30 n=1<br>0.30 n=1"
    assert row(text, "GemNet, recommended protocol (ours)", "original")[1] == "0.10 n=1<br>0.10 n=1"
    assert row(text, r"GemNet\*, recommended protocol (ours)", "integrated")[1] == "–<br>–"
    assert text.count(r"GemNet\*, recommended") == 1  # none with IReLU
    assert "2 of 3 for the energy" in text


def test_csv_has_every_run_at_full_precision_and_missing_cells(runs_of_table1, write_run):
    write_run(Experiment("dimenetplusplus", "original", "ethanol"), energy=0.1 + 0.2, force=1 / 3)
    report(runs_of_table1, "--target", "table1", "--format", "csv")
    with (runs_of_table1 / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))

    def value(model, variant, molecule, seed, quantity):
        key = (model, variant, molecule, seed, quantity)
        names = ("model", "variant", "molecule", "seed", "quantity")
        (found,) = [line for line in lines if tuple(line[name] for name in names) == key]
        return found

    force = value("dimenetplusplus", "original", "ethanol", "0", "force MAE")
    assert float(force["value"]) == 1 / 3
    assert force["unit"] == "kcal/mol/Å"
    assert float(value("dimenetplusplus", "original", "ethanol", "0", "energy MAE")["value"]) == 0.1 + 0.2
    assert float(value("schnet", "original", "aspirin", "0", "energy MAE")["paper"]) == 53.0082
    diverged = value("cgcnn", "original", "ethanol", "2", "energy MAE")
    assert (diverged["status"], diverged["step"]) == ("diverged", "1077")
    assert math.isnan(float(diverged["value"]))
    assert value("gemnet_t", "irelu+rescaled", "uracil", "", "force MAE")["status"] == "missing"
    misprint = value("cgcnn", "original", "toluene", "", "force MAE")
    assert (misprint["paper"], misprint["paper_printed"], misprint["value"]) == ("9.70237", "9.73", "")
    # 80 cells, of which 5 have three seeds
    assert len(lines) == 2 * (80 + 4 * 2)


def test_html_needs_no_other_file(runs_of_table1, write_run):
    write_run(Experiment("schnet", "original", "uracil"), predictions=True)
    report(runs_of_table1, "--target", "table1", "--format", "html")
    text = (runs_of_table1 / "report.html").read_text()
    assert "<b>12.00 ± 2.00</b>" in text
    assert text.count("data:image/png;base64,iVBOR") == 2
    assert not re.search(r"https?:|(src|href)=\"(?!data:)|@import|<script|url\(", text)
    assert not (runs_of_table1 / "figures").exists()


@pytest.fixture
def runs_of_figures(write_run, tmp_path):
    for beta in (1.0, 30.0):
        write_run(Experiment("schnet", "original", "aspirin", beta=beta), energy=beta, losses=[2.0, 1.0])
    write_run(Experiment("schnet", "original", "ethanol"))
    for size in (50_000, 100_000):
        write_run(Experiment("schnet", "irelu+rescaled", "uracil", size), energy=9.0, force=size / 1e5)
    write_run(Experiment("schnet", "irelu+rescaled", "ethanol"))
    return tmp_path


def test_png_writes_the_figures(runs_of_figures, tmp_path):
    report(runs_of_figures, "--format", "png", "--to", tmp_path / "pictures")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["fig1-aspirin.png", "fig2.png"]
    assert (tmp_path / "pictures" / "fig2.png").stat().st_size > 10_000
    assert not (tmp_path / "report.md").exists()


def test_figures_have_their_numbers(runs_of_figures):
    report(runs_of_figures)
    text = (runs_of_figures / "report.md").read_text()
    assert row(text, "aspirin")[:5] == ["–<br>–", "–<br>–", "1.00<br>1.00", "–<br>–", "30.00<br>1.00"]
    assert row(text, "uracil") == ["9.00 (120.81)<br>0.50 (1.23)", "9.00 (9.71)<br>1.00 (0.96)", "", ""]
    assert "50,000 (ours 800) | 100,000 (ours 1,600) | 150,000 | 200,000 |" in text
    assert "](figures/fig1-aspirin.png)" in text


def test_terminal_table(runs_of_table1, capsys):
    print_table(runs_of_table1, "table1")
    lines = capsys.readouterr().out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("SchNet*"))
    assert re.split(r"  +", lines[first]) == [
        *("SchNet*", "irelu+rescaled", "130.00 n=1 (28.32) ✗", "22.00 ± 2.00 (13.39) ✓")
    ]
    assert lines[first + 1].split("  ")[-1].strip() == "[0.50 ± 0.00] (1.53) ✗"
    assert lines[first].index("22.00") == lines[first + 1].index("[0.50")


@pytest.mark.parametrize("config", [config_file("md17/schnet"), "'/my packages/ocp_dc/configs/md17/schnet.yml'"])
def test_copies_give_the_same_report_without_what_was_trained(runs_of_table1, write_run, tmp_path_factory, config):
    out, to = runs_of_table1, tmp_path_factory.mktemp("copies") / "of" / "runs"
    run = write_run(Experiment("schnet", "original", "benzene"), losses=[3.0, 2.0], predictions=True)
    description = json.loads((run / "experiment.json").read_text())
    command = f"ocp-dc train --name 'a b' --config-yml {config} --run-dir {run}"
    (run / "experiment.json").write_text(json.dumps(description | {"command": command}))
    assert report(out, "--format", "copies", "--to", to) == 0

    copied = {path.name for path in (to / "runs").iterdir()}
    states = {path.parent.name: json.loads(path.read_text())["status"] for path in out.glob("runs/*/result.json")}
    assert copied == {name for name, status in states.items() if status != "failed"}
    copy = to / "runs" / run.name
    assert {path.name for path in copy.iterdir()} == {"experiment.json", "result.json", "logs"}
    named = "'md17/schnet.yml'" if "'" in str(config) else "md17/schnet.yml"
    assert json.loads((copy / "experiment.json").read_text()) == description | {
        "command": f"ocp-dc train --name 'a b' --config-yml {named} --run-dir OUT/runs/{run.name}"
    }
    assert [json.loads(line)["split"] for line in (copy / LOG).read_text().splitlines()] == ["val"]

    for folder in (out, to):
        report(folder, "--format", "csv")
    lines, of_copies = ((folder / "report.csv").read_text().splitlines() for folder in (out, to))
    done = [line for line in lines if ",finished," in line or ",diverged," in line]
    assert [line for line in of_copies[1:] if ",missing," not in line] == done != []


def test_copies_of_other_runs_stay_and_other_results_are_not_replaced_unasked(write_run, tmp_path, tmp_path_factory):
    to = tmp_path_factory.mktemp("copies")
    first = write_run(Experiment("schnet", "original", "ethanol"), energy=1.0)
    report(tmp_path, "--format", "copies", "--to", to)
    report(tmp_path, "--format", "copies", "--to", to)
    (first / "experiment.json").rename(tmp_path / "elsewhere.json")
    second = write_run(Experiment("schnet", "irelu", "ethanol"), energy=2.0)
    report(tmp_path, "--format", "copies", "--to", to)
    assert {path.name for path in (to / "runs").iterdir()} == {first.name, second.name}

    result = json.loads((second / "result.json").read_text())
    result["quantities"]["energy MAE"]["value"] = 3.0
    (second / "result.json").write_text(json.dumps(result))
    write_run(Experiment("cgcnn", "original", "ethanol"))
    with pytest.raises(InputError, match=rf"{second.name} has another result than .*--overwrite"):
        report(tmp_path, "--format", "copies", "--to", to)
    assert {path.name for path in (to / "runs").iterdir()} == {first.name, second.name}
    report(tmp_path, "--format", "copies", "--to", to, "--overwrite")
    assert json.loads((to / "runs" / second.name / "result.json").read_text()) == result


def test_where_copies_go_is_named(runs_of_table1, tmp_path_factory):
    file = tmp_path_factory.mktemp("copies") / "file"
    file.write_text("something")
    with pytest.raises(InputError, match="name the folder for them with --to"):
        report(runs_of_table1, "--format", "copies")
    for to in (file, runs_of_table1):
        with pytest.raises(InputError, match=f"--to {to}: give a folder for the copies"):
            report(runs_of_table1, "--format", "copies", "--to", to)
    assert file.read_text() == "something"


@pytest.mark.parametrize("form", ["md", "csv", "html", "png"])
def test_nothing_run_yet(tmp_path, capsys, form):
    assert report(tmp_path, "--format", form) == 0
    assert (
        "There are no runs yet for candidates, table1, table2, table7, table8, table9, fig1, fig2, factors, table3, "
        "table4, table5." in capsys.readouterr().out
    )
    print_table(tmp_path, "table9")
    assert capsys.readouterr().out == "There are no runs yet for table9.\n"


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no such folder.*--out"):
        report(tmp_path / "nowhere")


def test_table_2_tells_edges_with_images_from_the_papers_without(write_run, tmp_path):
    (baseline, method) = experiments_of("table2", models=["cgcnn"])
    write_run(baseline, energy=5.0, force=0.5, unit="eV")
    write_run(method, energy=50 / 0.0433634, force=0.4 / 0.0433634)
    for experiment in experiments_of("table2", models=["cgcnn"], as_published=True):
        write_run(experiment, energy=6.0, force=0.6, unit="eV")
    assert report(tmp_path, "--target", "all") == 0
    text = (tmp_path / "report.md").read_text()
    assert row(text, "Model", "Settings") == ["OC22"]
    assert row(text, "CGCNN", "original") == ["**5.00** (223.90)<br>0.50 (0.32)"]
    assert row(text, r"CGCNN\*", "irelu+denorm+rescaled") == ["50.00 (71.34) ✗<br>**0.40** (0.083) ✓"]
    assert row(text, "CGCNN, as published: no periodic images", "original") == [
        "**6.00** (223.90)<br>**0.60** (0.32)",
    ]
    assert "Energy MAE (eV) over force MAE (eV/Å)" in text
    assert "Not run yet: SchNet, DimeNet++, ForceNet\n" in text
    assert "CGCNN, OC22: the paper prints 233.9 for the energy MAE, its record is 223.904." in text
    report(tmp_path, "--format", "csv", "--target", "table2")
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert {line["unit"] for line in lines} == {"eV", "eV/Å"}
    assert {line["protocol"] for line in lines} == {"paper", "as_published"}
