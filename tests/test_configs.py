import copy
import json
import math
from pathlib import Path

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.config_files import config_file, config_names
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.metrics_log import read_metrics

# of the configs when each model block stood in several files; what is in them may not change by how they are composed
RECORDS = Path(__file__).parent / "data" / "resolved_configs.json"
RESOLVED = json.loads(RECORDS.read_text("utf-8"))
# the exceptions: since then, these set `model.replaced_by_position` and are otherwise the recorded config named
REPLACED_BY_POSITION = {
    "md17/forcenet_dc_as_published": "md17/forcenet_dc",
    "oc22/forcenet_dc_as_published": "oc22/forcenet_dc_as_published",
}


def names(collection: str) -> list[str]:
    folders = (name.split("/") for name in config_names())
    return [name for folder, name in folders if folder == collection]


def losses_in(run_dir: Path) -> list[float | None]:
    (log,) = run_dir.glob("logs/tensorboard/*/metrics.jsonl")
    return [record["loss"] for record in read_metrics(log) if record["split"] == "train"]


def recorded(name: str) -> dict:
    key = REPLACED_BY_POSITION.get(name, name)
    if key not in RESOLVED:
        pytest.fail(f"{name} is not in {RECORDS}; if it is new: python scripts/record_configs.py {name}")
    config = copy.deepcopy(RESOLVED[key])
    if name in REPLACED_BY_POSITION:
        config["model"]["replaced_by_position"] = True
    return config


def by_section(config: dict) -> dict[str, str]:
    """As text, so that 1, 1.0 and true differ."""
    return {section: json.dumps(content, sort_keys=True) for section, content in config.items()}


def test_all_configs_are_recorded():
    assert set(config_names()) == RESOLVED.keys() | REPLACED_BY_POSITION.keys()


@pytest.mark.parametrize("name", config_names())
def test_resolves_to_what_is_recorded(name):
    config, _, conflicts = load_config(config_file(name))
    assert not conflicts
    assert by_section(config) == by_section(recorded(name))


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
