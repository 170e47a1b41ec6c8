"""The paper's claims against its own records, and against runs."""

from __future__ import annotations

import io

import pytest
from matplotlib.image import imread

from ocp_dc.experiments import figures
from ocp_dc.experiments.claim_sections import claim_sections
from ocp_dc.experiments.claims import CLAIMS, ENERGY, FORCE
from ocp_dc.experiments.definitions import MD17, Experiment
from ocp_dc.experiments.tables import measures, pictures_of
from ocp_dc.experiments.validation import LastEpochs
from ocp_dc.runs.results import read_results

VARIANTS = ("original", "irelu+rescaled")


@pytest.mark.parametrize(
    ("table", "model", "quantity", "shown", "of"),
    [
        ("table1", "schnet", ENERGY, 7, 8),
        ("table1", "schnet", FORCE, 7, 8),
        ("table1", "cgcnn", FORCE, 8, 8),
        ("table2", "cgcnn", ENERGY, 1, 1),
        ("table2", "schnet", FORCE, 1, 1),
        # IReLU alone: all of SchNet's energies are lower in the records, one of its forces
        ("table7", "schnet", ENERGY, 0, 8),
        ("table7", "schnet", FORCE, 7, 8),
        ("table7", "gemnet_t", FORCE, 8, 8),
        ("table8", "cgcnn", FORCE, 0, 8),
        ("table9", "cgcnn", ENERGY, 7, 8),
    ],
)
def test_how_often_the_papers_records_show_a_claim(table, model, quantity, shown, of):
    claims = [
        each
        for each in CLAIMS
        if (each.table, each.quantity, each.variants) == (table, quantity, None) and model in each.models
    ]
    assert [claim.papers_count(model) for claim in claims] == [(shown, of)]


def test_every_claim_is_about_runs_that_there_are():
    for claim in CLAIMS:
        for protocol in ("paper", "halved"):
            pairs = list(claim.pairs(protocol))
            assert {each.model for each, _ in pairs} == set(claim.models)
            assert all(each.config for pair in pairs for each in pair)
    # ForceNet alone, and of it the method, was not run as the text has it
    (table1,) = (each for each in CLAIMS if each.table == "table1" and each.quantity == ENERGY)
    published = list(table1.pairs("as_published"))
    assert {(each.protocol, other.protocol) for each, other in published} == {("paper", "as_published")}
    assert {each.model for each, _ in published} == {"forcenet"}


@pytest.fixture
def results(write_run, tmp_path):
    """SchNet on ethanol: the method halves forces; its energies after the last step are far off, centered they are
    better."""
    for seed in range(3):
        for variant, (energy, force, centered) in zip(VARIANTS, [(10.0, 4.0, 6.0), (1000.0, 2.0, 3.0)], strict=True):
            noise = 1 + 0.02 * seed * (variant == "original")
            run = write_run(
                Experiment("schnet", variant, "ethanol", seed=seed),
                energy=energy * (1 + seed) ** (2.0 * (variant != "original")),
                force=force * noise,
                centered=centered * noise,
            )
            write_validation(run, energy=energy, force=force * noise)
    write_run(Experiment("cgcnn", "original", "ethanol"), energy=1.0, force=3.0)
    write_run(Experiment("cgcnn", "irelu+denorm+rescaled", "ethanol"), energy=2.0, force=1.0)
    return read_results(tmp_path)


def write_validation(folder, energy: float, force: float) -> None:
    """An epoch is 40 steps of 2,000; the last is an outlier."""
    (log,) = folder.rglob("metrics.jsonl")
    with log.open("w") as file:
        for epoch in range(1, 51):
            factor = 100 if epoch in (44, 45, 50) else 1
            values = f'"energy_mae": {factor * energy}, "forces_mae": {factor * force}'
            file.write(f'{{"split": "val", "step": {40 * epoch}, {values}}}\n')


def column(row, number: int) -> list[str]:
    return [value.ours for value in row.cells[number]]


def test_each_claim_has_its_row_with_energies_in_three_ways(results):
    (section,) = claim_sections("table1", results)
    energy, cgcnns, cgcnns_force, force = section.rows
    assert energy.labels == (
        *("energy MAE lower: the method lowers the energy error (38 of 40 cases) (Sec. 5.1.1)", "SchNet", "Eth."),
    )
    assert column(energy, 0) == [
        *("energy MAE, last step", "energy MAE, last 5 epochs", "centered energy MAE, last step"),
    ]
    assert column(energy, 1) == ["10.00 ± 0.00 n=3", "10.00 ± 0.00 n=3", "6.12 ± 0.12 n=3"]
    assert column(energy, 3)[1] == "+4.61 ± 0.00, × 100, lower in 0 of 3"
    assert column(energy, 4) == ["opposite", "opposite", "seen"]
    assert column(energy, 5) == ["5.97 → 13.39", "7 of 8"]
    # the paper: worse on forces; here they are halved
    assert force.labels[0].startswith("force MAE higher: ")
    assert column(force, 3)[0] == "-0.71 ± 0.02, × 0.49, lower in 3 of 3"
    assert column(force, 4) == ["opposite", "opposite"]
    assert column(cgcnns, 4) == column(cgcnns_force, 4) == ["undecided"]
    assert any("One seed decides nothing" in note for note in section.notes)
    assert section.notes[-1] == "Verdicts: 4 opposite, 1 seen, 2 undecided."
    assert claim_sections("table9", results) == claim_sections("fig1", results) == []


def test_the_last_epochs_are_counted_back_from_the_end_and_converted(results, write_run, tmp_path):
    energy, _ = measures(MD17)
    median = LastEpochs(energy.name, energy.unit, energy.units)
    run = results.cell(Experiment("schnet", "original", "ethanol").cell).runs[0]
    assert median.of(run) == 10.0
    run.description["energy_unit"] = "eV"
    assert median.of(run) == pytest.approx(10.0 / 0.0433634, rel=1e-5)
    (unvalidated,) = results.cell(Experiment("cgcnn", "original", "ethanol").cell).runs
    assert median.of(unvalidated) is None


def test_the_halved_rate_has_rows_of_its_own(results, write_run, tmp_path):
    for variant in VARIANTS:
        write_run(Experiment("schnet", variant, "ethanol", protocol="halved"))
    (section,) = claim_sections("table1", read_results(tmp_path))
    halved = [row for row in section.rows if "halved" in row.labels[1]]
    assert [row.labels[1] for row in halved] == ["SchNet, learning rate halved every five epochs"] * 2
    assert column(halved[0], 5) == ["7 of 8"]


def test_learning_curves_are_means_in_bands(results, monkeypatch):
    (picture,) = pictures_of("table1", results)
    assert picture.name == "table1-schnet-ethanol-curves"
    assert imread(io.BytesIO(picture.png)).shape[1] > 800
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    (picture,) = pictures_of("table1", results)
    energy, force = picture.png.axes
    assert [line.get_label() for line in force.lines] == ["SchNet: original, n = 3", "SchNet*: irelu+rescaled, n = 3"]
    steps, errors = force.lines[0].get_xydata()[0]
    assert (steps, errors) == pytest.approx((40, 4 * (1.02 * 1.04) ** (1 / 3)))
    (band,) = force.collections[0].get_paths()
    assert sorted({round(y, 6) for x, y in band.vertices if x == 40}) == [4.0, 4.16]
    assert "kcal/mol/Å" in force.get_ylabel()
    assert len(energy.lines[0].get_xdata()) == 50


def test_seeds_that_are_running_hide_no_learning_curves(results, write_run, tmp_path, monkeypatch):
    for variant in VARIANTS:
        write_run(Experiment("schnet", variant, "ethanol", seed=3), "unfinished")
    write_run(Experiment("schnet", "original", "ethanol", seed=4), "diverged")
    running = write_run(Experiment("cgcnn", "irelu+denorm+rescaled", "ethanol", beta=1.0), "unfinished")
    write_validation(running, energy=1.0, force=1.0)
    results = read_results(tmp_path)
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    (picture,) = pictures_of("table1", results)
    lines = picture.png.axes[1].lines
    labels = ["SchNet: original, n = 3, 1 diverged", "SchNet*: irelu+rescaled, n = 3"]
    assert [line.get_label() for line in lines] == labels
    assert [len(line.get_xdata()) for line in lines] == [50, 50]
    alone = figures.plot_learning_curves({"alone": results.cell(running.name)}, measures(MD17))
    assert [len(line.get_xdata()) for line in alone.axes[0].lines] == [50]
