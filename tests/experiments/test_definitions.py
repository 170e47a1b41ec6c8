"""The experiments against the paper: how many, which, with which settings, and what it reports."""

from __future__ import annotations

import math
import re

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.config_files import config_file
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import (
    MD17,
    OC22,
    PAPERS_MODELS,
    TABLES,
    Experiment,
    experiments_of,
    paper_value,
    recommended_variants,
)

OF_THE_PAPER = ("table1", "table2", "table7", "table8", "table9", "fig1", "fig2")
EVERY = list(dict.fromkeys(experiment for target in OF_THE_PAPER for experiment in experiments_of(target)))
ON_MD17 = [experiment for experiment in EVERY if experiment.collection == MD17]
ON_OC22 = [*experiments_of("table2"), *experiments_of("table2", as_published=True)]


@pytest.mark.parametrize(
    ("target", "count"),
    [("table1", 80), ("table2", 8), ("table7", 80), ("table8", 80), ("table9", 32), ("fig1", 8), ("fig2", 29)],
)
def test_number_of_runs(target, count):
    experiments = experiments_of(target)
    assert len(experiments) == count
    assert len(set(experiments)) == count
    assert len(experiments_of(target, seeds=3)) == 3 * count


def test_cells_shared_between_tables_are_the_same_run():
    # 80 of Table 1, IReLU alone (40), rescaled without IReLU (40), seven further β, 21 further sizes
    assert len(ON_MD17) == 80 + 40 + 40 + 7 + 21
    assert set(experiments_of("table9")) < set(experiments_of("table1")) | set(experiments_of("table8"))


def test_ids_are_unique_and_safe_in_file_names():
    seeded = [experiment for target in TABLES for experiment in experiments_of(target, seeds=2, with_recommended=True)]
    seeded += ON_OC22
    assert len({experiment.id for experiment in seeded}) == len(set(seeded))
    assert all(re.fullmatch(r"[a-z0-9_.-]+", experiment.id) for experiment in seeded)
    assert [Experiment.of_id(experiment.id) for experiment in seeded] == seeded
    assert Experiment("schnet", "irelu+rescaled", "ethanol").id == "schnet-irelu_rescaled-ethanol-50000-b30-s0"


def test_configs_are_those_of_the_variants():
    for experiment in ON_MD17:
        config = load_config(config_file(experiment.config))[0]
        words = experiment.variant.split("+")
        assert config["task"]["label_rescaling"] == (1e6 if "rescaled" in words else "none")
        assert (config["model"].get("activation", "original") == "irelu") == ("irelu" in words)
        assert (config["model"].get("denormalize", "none") == "batch") == ("denorm" in words)
        assert config["model"]["name"].removesuffix("_irelu") == experiment.model


def test_configs_have_the_papers_protocol():
    for name in {experiment.config for experiment in ON_MD17}:
        config = load_config(config_file(name))[0]
        energy, forces = config["loss_functions"]
        assert energy == {"energy": {"fn": "mae", "coefficient": 1}}
        assert forces == {"forces": {"fn": "mae", "coefficient": Experiment("schnet", "original", "ethanol").beta}}
        optim = config["optim"]
        assert (optim["optimizer"], optim["lr_initial"], optim["scheduler"]) == ("Adam", 1e-4, "Null")
        assert (optim["batch_size"], optim["max_epochs"]) == (20, 50)


@pytest.mark.parametrize("experiment", ON_OC22, ids=lambda experiment: experiment.id)
def test_configs_of_oc22_are_the_papers(experiment):
    config = load_config(config_file(experiment.config))[0]
    large, forcenet = experiment.model in ("dimenetplusplus", "forcenet"), experiment.model == "forcenet"
    constant = (1e5 if forcenet else 1e4) if "rescaled" in experiment.variant else "none"
    assert config["task"]["label_rescaling"] == constant
    assert config["model"]["use_pbc"] == (experiment.protocol == "paper")
    assert (config["model"].get("activation", "original") == "irelu") == ("irelu" in experiment.variant)
    assert (config["model"].get("denormalize", "none") == "batch") == ("denorm" in experiment.variant)
    optim = config["optim"]
    assert (optim["optimizer"], optim["lr_initial"], optim["scheduler"]) == ("Adam", 1e-5 if forcenet else 1e-4, "Null")
    assert (optim["batch_size"], optim["max_epochs"]) == (10 if large else 20, 50)
    assert not config["outputs"]["forces"]["train_on_free_atoms"]
    assert not config["outputs"]["forces"]["eval_on_free_atoms"]


def test_configs_of_oc22_have_the_widths_of_md17():
    with_graph = {"use_pbc", "otf_graph", "name", "activation", "conservative"}
    for stem in PAPERS_MODELS:
        on_md17, on_oc22 = (load_config(config_file(f"{name}/{stem}"))[0]["model"] for name in ("md17", "oc22"))
        assert {key: value for key, value in on_md17.items() if key not in with_graph} == {
            key: value for key, value in on_oc22.items() if key not in with_graph
        }


def test_every_cell_of_tables_and_of_figure_2_has_the_papers_value():
    for target in ("table1", "table2", "table7", "table8", "table9", "fig2"):
        assert all(paper_value(experiment, target) for experiment in experiments_of(target))
    # the records are of these runs; those with periodic images are shown beside them
    assert all(paper_value(experiment, "table2") for experiment in ON_OC22)


@pytest.mark.parametrize(
    ("model", "variant", "molecule", "target", "energy", "force"),
    [
        ("schnet", "original", "aspirin", "table1", 53.00, 1.21),
        ("cgcnn", "irelu+denorm+rescaled", "ethanol", "table1", 4.63, 2.96),
        ("dimenetplusplus", "irelu+rescaled", "uracil", "table8", 5.96, 0.71),
        ("gemnet_t", "irelu", "toluene", "table7", 10.26, 0.18),
        ("forcenet", "denorm+rescaled", "naphthalene", "table9", 727.00, 0.94),
    ],
)
def test_papers_values_are_those_printed_with_digits_cut(model, variant, molecule, target, energy, force):
    value = paper_value(Experiment(model, variant, molecule), target)
    assert energy <= value.published["energy MAE"] < energy + 0.01
    assert force <= value.published["force MAE"] < force + 0.01
    assert value.printed == {}


def test_papers_values_on_oc22():
    value = paper_value(experiments_of("table2", models=["cgcnn"], variants=["original"])[0])
    assert value.published == {"energy MAE": 223.904, "force MAE": 0.324934}
    assert value.printed["energy MAE"] == 233.90


def test_papers_values_where_it_disagrees_with_itself():
    twice = Experiment("schnet", "irelu+rescaled", "aspirin")
    assert paper_value(twice) == paper_value(twice, "table1")
    assert paper_value(twice).published["energy MAE"] == 28.3164
    assert paper_value(twice, "fig2").published["energy MAE"] == 240.38868
    misprinted = Experiment("cgcnn", "original", "toluene")
    assert paper_value(misprinted, "table1").printed == {"force MAE": 9.73}
    assert paper_value(misprinted, "table9").printed == {}


def test_papers_diverged_runs_are_nan():
    value = paper_value(Experiment("gemnet_t", "irelu", "benzene"))
    assert all(map(math.isnan, value.published.values()))


def test_what_the_paper_does_not_report_has_no_value():
    assert paper_value(Experiment("schnet", "original", "aspirin", beta=200.0)) is None
    assert paper_value(Experiment("schnet", "original", "ethanol", protocol="recommended")) is None
    assert paper_value(Experiment("schnet", "original", "ethanol", train_size=100_000)) is None


def test_filters_keep_the_order_and_the_pairs_together():
    found = experiments_of("table1", models=["cgcnn", "schnet"], molecules=["ethanol", "aspirin"])
    assert [(experiment.model, experiment.molecule) for experiment in found[::2]] == [
        ("schnet", "aspirin"),
        ("schnet", "ethanol"),
        ("cgcnn", "aspirin"),
        ("cgcnn", "ethanol"),
    ]
    assert [experiment.variant for experiment in found[:2]] == ["original", "irelu+rescaled"]
    assert {experiment.variant for experiment in experiments_of("table8", variants=["rescaled"])} == {"rescaled"}
    assert {experiment.molecule for experiment in experiments_of("fig1", molecules=["ethanol"])} == {"ethanol"}


def test_recommended_protocol_is_added_where_there_are_configs():
    added = set(experiments_of("table1", molecules=["ethanol"], with_recommended=True)) - set(experiments_of("table1"))
    assert {experiment.protocol for experiment in added} == {"recommended"}
    assert {(experiment.model, experiment.variant) for experiment in added} == {
        (model, variant) for model in PAPERS_MODELS for variant in recommended_variants(model, MD17)
    }
    # diverges with IReLU, see docs/recommended.md
    assert recommended_variants("gemnet_t", MD17) == ("original", "integrated")
    others = set(PAPERS_MODELS) - {"gemnet_t"}
    assert {recommended_variants(model, MD17) for model in others} == {("original", "irelu", "integrated")}
    for experiment in added:
        assert load_config(config_file(experiment.config))[0]["task"]["reference_energy"] == "mean"
    on_oc22 = set(experiments_of("table2", with_recommended=True)) - set(experiments_of("table2"))
    assert {experiment.config for experiment in on_oc22} == {
        f"oc22/{model}{suffix}_recommended" for model in others for suffix in ("", "_irelu", "_integrated")
    }
    assert {recommended_variants(model, OC22) for model in PAPERS_MODELS} == {("original", "irelu", "integrated")}
    for experiment in on_oc22:
        assert load_config(config_file(experiment.config))[0]["task"]["reference_energy"] == "element"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "table3"}, "target table3 is unknown; choose from table1"),
        ({"target": "fig1", "as_published": True}, "--as-published: fig1 was run as the paper's text has it"),
        ({"target": "table2", "molecules": ["ethanol"]}, "--molecule ethanol: table2 is on OC22; leave it out"),
        ({"target": "table1", "models": ["schnett"]}, "--model schnett is unknown; choose from schnet"),
        ({"target": "table1", "molecules": ["water"]}, "--molecule water is unknown; choose from aspirin"),
        ({"target": "table1", "variants": ["irelu+"]}, "--variant irelu+ is unknown"),
        ({"target": "table9", "models": ["schnet"]}, "it has cgcnn: original, denorm+rescaled; forcenet"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        experiments_of(**arguments)


def test_a_variant_without_config_is_refused():
    with pytest.raises(InputError, match=r"cgcnn, variant irelu\+rescaled"):
        _ = Experiment("cgcnn", "irelu+rescaled", "ethanol").config
