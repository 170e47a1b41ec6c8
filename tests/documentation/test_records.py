"""The numbers of docs/recommended.md and docs/results.md that docs/records has the runs of."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from ocp_dc.candidates.definitions import CandidateExperiment
from ocp_dc.experiments.definitions import MODELS, TABLES, Experiment
from ocp_dc.experiments.validation import LastEpochs
from ocp_dc.runs.comparison import paired
from ocp_dc.runs.results import Measure, Results, read_results

DOCS = Path(__file__).resolve().parents[2] / "docs"
CANDIDATES = {
    "paper's baseline": "baseline",
    "paper's method": "method",
    "recommended": "recommended",
    "recommended, bounded IReLU": "bounded_irelu",
    "recommended, integrated ELU": "integrated_elu",
    "recommended, integrated softplus": "integrated_softplus",
}
QUANTITIES = ("energy MAE", "centered energy MAE", "force MAE")
MODEL_OF = {
    "SchNet": "schnet",
    "CGCNN": "cgcnn",
    "DimeNet++": "dimenetplusplus",
    "ForceNet": "forcenet",
    "GemNet-dT": "gemnet_t",
    "GemNet-dT, 320 steps": "gemnet_t",
}
SETTINGS = {
    "original": "original",
    "IReLU": "irelu",
    "rescaled": "rescaled",
    "IReLU, rescaled": "irelu+rescaled",
    "denormalized, rescaled": "denorm+rescaled",
    "IReLU, denormalized, rescaled": "irelu+denorm+rescaled",
}
ENERGY, CENTERED, FORCE = (Measure(name, "kcal/mol/Å" if name == "force MAE" else "kcal/mol") for name in QUANTITIES)
AT_LENGTH = (ENERGY, LastEpochs(ENERGY.name, ENERGY.unit), CENTERED, FORCE, LastEpochs(FORCE.name, FORCE.unit))
LAST_ENERGY = AT_LENGTH[1]
PROTOCOLS = {
    "paper, constant rate": "paper",
    "rate halved every five epochs": "halved",
    "recommended": "recommended",
}
# of which table rows of the claims are, and the rate and quantity of each "× …" in them
ALL_THREE = [("paper", ENERGY), ("paper", CENTERED), ("paper", FORCE)]
FORCES = [("paper", FORCE), ("halved", FORCE)]
COMPARED = {
    "The method lowers the energy error": (
        "table1",
        [("paper", ENERGY), ("paper", LAST_ENERGY), ("halved", ENERGY)],
    ),
    "— without the constant": ("table1", [("paper", CENTERED), ("halved", CENTERED)]),
    "It lowers the force errors of CGCNN": ("table1", FORCES),
    "It raises that of SchNet": ("table1", FORCES),
    "IReLU alone lowers neither": ("table7", ALL_THREE),
    "With the rest of the method, IReLU": ("table8", ALL_THREE),
    "The rest without IReLU": ("table9", ALL_THREE),
}


def rows_at_length() -> list[tuple[Experiment, list[str]]]:
    """The experiment of each row of the table of runs at the paper's length, and the other cells."""
    _, _, text = (DOCS / "results.md").read_text("utf-8").partition("## At the paper's length: ethanol\n")
    rows, model, protocol = [], "", ""
    for line in text.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.replace("**", "").strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 + len(AT_LENGTH) and cells[2] in SETTINGS:
            model, protocol = MODEL_OF.get(cells[0], model), PROTOCOLS.get(cells[1], protocol)
            rows.append((Experiment(model, SETTINGS[cells[2]], "ethanol", protocol=protocol), cells[3:]))
    return rows


def table_of(title: str) -> list[list[str]]:
    """The rows of the table in a part of the page, without its header."""
    _, _, text = (DOCS / "results.md").read_text("utf-8").partition(f"\n### {title}\n")
    lines = re.split(r"\n##+ ", text)[0].replace("**", "").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def rows_by_beta() -> list[tuple[Experiment, list[str]]]:
    """The experiment of each row of Fig. 1's table, and the other cells."""
    return [
        (Experiment("schnet", "original", "ethanol", beta=float(beta)), cells)
        for beta, *cells in table_of("The weight of forces (Fig. 1)")
    ]


def rows_of_aspirin() -> list[tuple[Experiment, list[str]]]:
    """The experiment of each row of aspirin's table, and the other cells."""
    return [
        (Experiment("schnet", SETTINGS[settings], "aspirin"), cells)
        for settings, *cells in table_of("A second molecule: aspirin")
    ]


def rows_of(section: str) -> list[tuple[str, str, list[str]]]:
    """Model, candidate, and the other cells of each row of the table in a section of the page."""
    page = (DOCS / "recommended.md").read_text("utf-8")
    _, _, text = page.partition(f"## What it gives: {section}\n")
    rows, model = [], ""
    for line in text.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[1] in CANDIDATES:
            model = MODEL_OF[cells[0]] if cells[0] else model
            rows.append((model, CANDIDATES[cells[1]], cells[2:]))
    return rows


def shown(mean: float, deviation: float | None, like: str) -> str:
    """Mean and deviation, with the digits that the page has."""
    digits = len(re.sub(r"[*,]", "", like).split(" ")[0].partition(".")[2])
    more = "" if deviation is None else f" ± {deviation:,.{len(like.rpartition(' ')[2].partition('.')[2])}f}"
    return f"{mean:,.{digits}f}{more}"


@pytest.mark.parametrize(
    ("section", "molecule", "unit", "folders", "models"),
    [
        ("uracil", "uracil", "kcal/mol", ["uracil"], list(MODELS)),
        ("oxide slabs", "oc22", "eV", ["slabs", "slabs-10-epochs"], ["dimenetplusplus", "gemnet_t"]),
    ],
)
def test_tables_have_the_numbers_of_the_records(section, molecule, unit, folders, models):
    copies = [read_results(DOCS / "records" / folder) for folder in folders]
    results = Results(run for copy in copies for name in copy.cells for run in copy.cell(name).runs)
    rows = [row for row in rows_of(section) if row[0] in models]
    assert {model for model, _, _ in rows} == set(models)
    for model, candidate, (seeds, *cells) in rows:
        cell = results.cell(CandidateExperiment(candidate, model, molecule).cell)
        assert len(cell.finished) == int(seeds), (model, candidate)
        for quantity, text in zip(QUANTITIES, cells, strict=False):
            measure = Measure(quantity, f"{unit}/Å" if quantity == "force MAE" else unit)
            assert shown(cell.mean(measure), cell.deviation(measure), text) == text.replace("*", ""), (
                model,
                candidate,
                quantity,
            )


def test_tables_at_length_have_the_numbers_of_the_records():
    results = read_results(DOCS / "records" / "length")
    rows = [
        (experiment, cells)
        for experiment, cells in rows_at_length() + rows_by_beta() + rows_of_aspirin()
        if experiment.cell in results.cells
    ]
    assert sorted({experiment.cell for experiment, _ in rows}) == results.cells
    assert len(rows_by_beta()) == len(TABLES["fig1"].betas)
    for experiment, (seeds, *texts) in rows:
        cell = results.cell(experiment.cell)
        assert len(cell.finished) == int(seeds), experiment
        for measure, text in zip(AT_LENGTH, texts, strict=True):
            assert shown(cell.mean(measure), cell.deviation(measure), text) == text, (experiment, measure.title)


def test_other_widths_have_the_numbers_of_the_records():
    folder = ""
    for width, settings, *texts in table_of("Other widths"):
        folder = f"length-width-{width}" if width else folder
        cell = read_results(DOCS / "records" / folder).cell(Experiment("schnet", SETTINGS[settings], "ethanol").cell)
        assert len(cell.finished) == 1
        for measure, text in zip(AT_LENGTH, texts, strict=True):
            assert shown(cell.mean(measure), None, text) == text, (folder, settings, measure.title)
    assert folder == "length-width-128"


def rows_of_claims() -> list[tuple[str, str, str, str]]:
    """Claim, model, molecule, and what came out here, of each row of the claims about runs at the paper's length."""
    _, _, text = (DOCS / "results.md").read_text("utf-8").partition("| claim of the paper |")
    rows, claim = [], ""
    for line in text.partition("\n\n")[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        claim = cells[0] or claim
        model, _, molecule = cells[1].partition(";")[0].partition(" on ")
        rows.append((claim, MODEL_OF[model], molecule or "ethanol", cells[2]))
    return rows


def compared(table: str, model: str, molecule: str, protocol: str) -> list[str]:
    """Names of the cells that a table of the paper compares; the baseline first."""
    (row,) = (row for row in TABLES[table].rows if row.model == model)
    return [Experiment(model, variant, molecule, protocol=protocol).cell for variant in row.variants]


def test_claims_have_the_ratios_of_the_records():
    results = read_results(DOCS / "records" / "length")
    rows, checked = rows_of_claims(), set()
    for claim, model, molecule, here in rows:
        start, (table, quantities) = next(each for each in COMPARED.items() if claim.startswith(each[0]))
        ratios = re.findall(r"× (\d[\d.,]*\b)(?:, lower in (\d) of (\d))?", here)
        assert 0 < len(ratios) <= len(quantities), (claim, model)
        # a row ends before the halved rate where there are no such runs
        for (protocol, measure), (ratio, *counts) in zip(quantities, ratios, strict=False):
            cells = compared(table, model, molecule, protocol)
            # SchNet's at the halved rate are not in the records
            if set(cells) <= set(results.cells):
                found = paired(*map(results.cell, cells), measure)
                digits = len(ratio.partition(".")[2])
                assert f"{math.exp(found.mean):,.{digits}f}" == ratio, (claim, model, measure.title)
                assert counts == ([str(found.lower), str(found.count)] if found.count > 1 else ["", ""]), (claim, model)
                checked.add((start, model, molecule))
    assert len(checked) == len(rows)
