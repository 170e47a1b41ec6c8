import math
from pathlib import Path

import pytest

from ocp_dc.cli import run_host
from ocp_dc.trainers.metrics_log import read_metrics

CONFIGS = Path(__file__).parent.parent / "configs" / "md17"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml") if path.stem != "base")


@pytest.mark.parametrize("name", NAMES)
def test_trains_20_steps_on_the_sample(train_arguments, tmp_path, name):
    run_host("train", train_arguments(name, "--optim.max_epochs=1", "--optim.batch_size=5"))
    (log,) = tmp_path.glob("logs/tensorboard/*/metrics.jsonl")
    losses = [record["loss"] for record in read_metrics(log) if record["split"] == "train"]
    assert len(losses) == 20
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert len(set(losses)) == 20
