from __future__ import annotations

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.experiments.definitions import CONFIGS, MODELS, Experiment, experiments_of
from ocp_dc.experiments.plan import Run
from ocp_dc.experiments.scales import NARROW, SCALES
from ocp_dc.experiments.sources import Source

SAMPLE_CONFORMATIONS = 1_000


def planned(experiment: Experiment, scale: str, tmp_path) -> Run:
    return Run(experiment, SCALES[scale], Source(tmp_path), tmp_path)


def test_paper_scale_overrides_nothing_but_data_seed_and_beta(tmp_path):
    for experiment in (*experiments_of("table1"), *experiments_of("fig2")):
        overridden = [word.split("=")[0] for word in planned(experiment, "paper", tmp_path).command if "=" in word]
        assert overridden == ["--dataset.train.src", "--dataset.val.src", "--hide_eval_progressbar"]
    of_beta = planned(Experiment("schnet", "original", "aspirin", beta=0.01), "paper", tmp_path).command[-1]
    assert of_beta == (
        "--loss_functions=[{'energy': {'fn': 'mae', 'coefficient': 1}}, {'forces': {'fn': 'mae', 'coefficient': 0.01}}]"
    )


def test_paper_scale_has_the_papers_sizes_and_steps(tmp_path):
    run = planned(Experiment("gemnet", "original", "ethanol", seed=2), "paper", tmp_path)
    assert run.sizes == {"train": 50_000, "val": 6_250, "test": 6_250}
    assert run.epochs == 50
    assert run.steps == 125_000
    assert run.scale.test_batch_size == 1
    assert run.command[run.command.index("--seed") + 1] == "2"
    assert (
        planned(Experiment("schnet", "irelu+rescaled", "ethanol", 200_000), "paper", tmp_path).sizes["train"] == 200_000
    )


def test_smaller_scales_keep_the_proportions_of_figure_2():
    assert [SCALES["small"].sizes(size)["train"] for size in (50_000, 100_000, 200_000)] == [800, 1_600, 3_200]
    assert [SCALES["smoke"].sizes(size)["train"] for size in (50_000, 100_000, 200_000)] == [100, 200, 400]


def test_smaller_scales_fit_the_embedded_sample():
    assert sum(SCALES["small"].sizes(50_000).values()) == SAMPLE_CONFORMATIONS
    assert sum(SCALES["smoke"].sizes(200_000).values()) <= SAMPLE_CONFORMATIONS


@pytest.mark.parametrize("model", MODELS)
def test_smoke_narrows_settings_of_the_config(model):
    settings = load_config(CONFIGS / f"{MODELS[model].stem}.yml")[0]["model"]
    for key, value in NARROW[model].items():
        assert value < settings[key]
    assert SCALES["small"].overrides(model) == []
