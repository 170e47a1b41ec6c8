from __future__ import annotations

from dataclasses import replace

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.config_files import config_file
from ocp_dc.experiments.definitions import MD17, OC22, PAPERS_MODELS, Experiment, experiments_of, paper_value
from ocp_dc.experiments.plan import Run
from ocp_dc.experiments.scales import OWN_CLASSES, SCALES, WIDTHS
from ocp_dc.experiments.sources import FrameSource, MoleculeSource, OC22Source
from ocp_dc.experiments.step_costs import Throughput, estimated_step_seconds
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.metrics_log import read_metrics

SAMPLE_CONFORMATIONS = {MD17: 1_000, OC22: 400}


def planned(experiment: Experiment, scale: str, tmp_path, source: type = MoleculeSource) -> Run:
    return Run(experiment, SCALES[scale, experiment.collection], source(tmp_path), tmp_path)


def test_paper_scale_overrides_nothing_but_data_seed_and_beta(tmp_path):
    for experiment in (*experiments_of("table1"), *experiments_of("fig2")):
        overridden = [word.split("=")[0] for word in planned(experiment, "paper", tmp_path).command if "=" in word]
        assert overridden == ["--dataset.train.src", "--dataset.val.src", "--hide_eval_progressbar"]
    of_beta = planned(Experiment("schnet", "original", "aspirin", beta=0.01), "paper", tmp_path).command[-1]
    assert of_beta == (
        "--loss_functions=[{'energy': {'fn': 'mae', 'coefficient': 1}}, {'forces': {'fn': 'mae', 'coefficient': 0.01}}]"
    )


def test_paper_scale_has_the_papers_sizes_and_steps(tmp_path):
    run = planned(Experiment("gemnet_t", "original", "ethanol", seed=2), "paper", tmp_path)
    assert run.sizes == {"train": 50_000, "val": 6_250, "test": 6_250}
    assert run.epochs == 50
    assert run.steps == 125_000
    assert run.scale.test_batch_size == 1
    assert run.command[run.command.index("--seed") + 1] == "2"
    assert (
        planned(Experiment("schnet", "irelu+rescaled", "ethanol", 200_000), "paper", tmp_path).sizes["train"] == 200_000
    )


def test_oc22_is_tested_on_frames_of_another_split(tmp_path):
    experiment = experiments_of("table2", models=["forcenet"])[0]
    run = planned(experiment, "paper", tmp_path, OC22Source)
    assert run.sizes == {"train": 200_000, "val": 25_000}
    assert run.steps == 1_000_000
    assert run.source.test_split == "val"
    run = planned(experiment, "smoke", tmp_path, FrameSource)
    assert run.sizes == {"train": 100, "val": 20, "test": 20}
    assert run.source.test_split == "test"


def test_smaller_scales_keep_the_proportions_of_figure_2():
    sizes = (50_000, 100_000, 200_000)
    assert [SCALES["small", MD17].sizes(size, MD17)["train"] for size in sizes] == [800, 1_600, 3_200]
    assert [SCALES["smoke", MD17].sizes(size, MD17)["train"] for size in sizes] == [100, 200, 400]


@pytest.mark.parametrize("collection", [MD17, OC22], ids=lambda collection: collection.name)
def test_smaller_scales_fit_the_embedded_samples(collection):
    for scale in ("small", "smoke"):
        sizes = SCALES[scale, collection].sizes(collection.size, collection)
        assert sum(sizes.values()) <= SAMPLE_CONFORMATIONS[collection]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("model", PAPERS_MODELS)
def test_smaller_widths_narrow_settings_of_the_config(model, width):
    for collection in (MD17, OC22):
        settings = load_config(config_file(f"{collection.name}/{model}"))[0]["model"]
        for key, value in WIDTHS[width].get(model, {}).items():
            assert value < settings[key]
        assert SCALES["small", MD17].overrides(model, settings["name"]) == []


def test_every_model_of_a_table_has_its_smaller_widths():
    for target, scale in (("table1", "smoke"), ("table2", "smoke"), ("table2", "small")):
        for experiment in experiments_of(target):
            assert SCALES[scale, experiment.collection].widths(experiment.model)


def test_given_widths_replace_those_of_a_scale_and_tell_runs_apart(tmp_path):
    experiment = Experiment("schnet", "original", "ethanol")
    usual = planned(experiment, "length", tmp_path)
    other = replace(usual, scale=usual.scale.with_widths(["num_filters=16", "hidden_channels=32"], ["schnet"]))
    settings = dict(word.split("=") for word in other.command if word.startswith("--model."))
    assert (settings["--model.hidden_channels"], settings["--model.num_filters"]) == ("32", "16")
    assert settings["--model.num_gaussians"] == "32"
    # a step takes another time, which is not that of the published widths
    assert not set(other.pace) & set(usual.pace)
    paper = SCALES["paper", MD17]
    assert estimated_step_seconds(replace(usual, scale=paper), Throughput()) > 0
    narrow = paper.with_widths(["hidden_channels=32"], ["schnet"])
    assert estimated_step_seconds(replace(usual, scale=narrow), Throughput()) is None


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        # five epochs of 50,000 conformations in batches of 20
        ("halved", ["--optim.scheduler=StepLR", "--optim.step_size=12500", "--optim.gamma=0.5"]),
        ("decayed", ["--optim.lr_initial=1.0e-3", "--optim.scheduler=CosineAnnealingLR"]),
    ],
)
def test_another_schedule_is_the_papers_protocol_but_for_that(schedule, arguments, tmp_path):
    plain, more = (set(experiments_of("table1", molecules=["ethanol"], schedules=each)) for each in ([], [schedule]))
    assert {experiment.protocol for experiment in more - plain} == {schedule}
    changed = next(each for each in more - plain if each.model == "schnet" and each.variant == "irelu+rescaled")
    paper = replace(changed, protocol="paper")
    assert changed.config == paper.config == "md17/schnet_dc"
    assert paper_value(changed) is None
    assert Experiment.of_id(changed.id) == changed
    commands = [planned(each, "paper", tmp_path).command for each in (changed, paper)]
    assert [word for word in commands[0] if word not in commands[1] and str(tmp_path) not in word] == arguments


@pytest.mark.parametrize("model", sorted(PAPERS_MODELS.keys() - {"gemnet_t"}))
def test_the_length_of_the_paper_with_small_networks(model, tmp_path):
    run = planned(Experiment(model, "original", "ethanol"), "length", tmp_path)
    assert run.sizes == {"train": 50_000, "val": 6_250, "test": 6_250}
    assert run.steps == 125_000
    overridden = [word.split("=")[0] for word in run.command if word.startswith(("--model.", "--optim."))]
    own = ("name", "activation", "use_pbc") if model in OWN_CLASSES else ()
    assert overridden == ["--optim.num_workers", *(f"--model.{key}" for key in (*own, *WIDTHS["small"][model]))]


@pytest.mark.parametrize("model", OWN_CLASSES)
def test_this_packages_classes_train_as_fairchems(model, train_arguments, tmp_path):
    """Where a scale has them in their place."""
    own = planned(Experiment(model, "original", "ethanol"), "length", tmp_path).command
    own = [word for word in own if word.startswith(("--model.name", "--model.activation", "--model.use_pbc"))]
    losses = []
    for folder, changed in (("fairchems", []), ("own", own)):
        settings = ("--optim.max_epochs=1", "--optim.batch_size=5", *changed)
        run_fairchem("train", train_arguments(model, *settings, run_dir=tmp_path / folder))
        (log,) = (tmp_path / folder).glob("logs/tensorboard/*/metrics.jsonl")
        losses.append([record["loss"] for record in read_metrics(log) if record["split"] == "train"])
    assert len(own) == 3
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_step_of_the_same_molecule_is_more_like_it_than_one_of_the_same_config(tmp_path):
    pace = planned(Experiment("schnet", "original", "aspirin"), "length", tmp_path).pace

    def closeness(variant: str, molecule: str) -> int:
        other = planned(Experiment("schnet", variant, molecule), "length", tmp_path).pace
        return next(index for index, word in enumerate(pace) if word in other)

    assert closeness("original", "aspirin") == 0
    assert 0 < closeness("irelu+rescaled", "aspirin") < closeness("original", "ethanol")
    assert closeness("original", "ethanol") < closeness("irelu+rescaled", "ethanol")
