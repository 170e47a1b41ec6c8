import math
from pathlib import Path

import pytest

from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.metrics_log import read_metrics

CONFIGS = Path(__file__).parent.parent / "configs"


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.yml") if path.stem != "base")


def losses_in(run_dir: Path) -> list[float | None]:
    (log,) = run_dir.glob("logs/tensorboard/*/metrics.jsonl")
    return [record["loss"] for record in read_metrics(log) if record["split"] == "train"]


@pytest.mark.parametrize("name", names("md17"))
def test_trains_20_steps_on_the_sample(train_arguments, tmp_path, name):
    run_fairchem("train", train_arguments(name, "--optim.max_epochs=1", "--optim.batch_size=5"))
    losses = losses_in(tmp_path)
    assert len(losses) == 20
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert len(set(losses)) == 20


@pytest.mark.parametrize("name", names("oc22"))
def test_trains_on_the_sample_of_oxide_slabs(train_arguments_on_oxides, tmp_path, name):
    run_fairchem("train", train_arguments_on_oxides(name, "--optim.max_epochs=1", "--optim.batch_size=5"))
    losses = losses_in(tmp_path)
    assert len(losses) == 4
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert len(set(losses)) == 4
