"""What a step takes, as the script counts it, is proportional to its structures, and is what is committed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import load_config
from torch_geometric.data import Batch

from ocp_dc.config_files import config_file
from ocp_dc.experiments.definitions import TABLES, experiments_of
from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.experiments.step_costs import counted_costs

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        # where it imports another script from
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("count_step_costs")


def model_of(config: str, **widths: int):
    settings = {**load_config(config_file(config))[0]["model"], **widths}
    return registry.get_model_class(settings.pop("name"))(**settings).train()


@pytest.mark.parametrize("model", ["schnet", "gemnet_t"])
def test_twice_the_structures_are_twice_the_products_in_as_many_operations(script, model):
    network = model_of(f"md17/{model}_dc", **WIDTHS["narrow"][model])
    one = script.molecule("ethanol")
    two = Batch.from_data_list([*one.to_data_list(), *one.to_data_list()])
    costs = [script.count(network, batch) for batch in (one, two)]
    assert costs[1].flops == pytest.approx(2 * costs[0].flops, rel=0.02)
    assert costs[1].operations == pytest.approx(costs[0].operations, rel=0.02)


def test_what_is_committed_is_what_is_counted(script):
    cost = script.count(model_of("md17/cgcnn_dc"), script.molecule("uracil"))
    assert counted_costs()["md17/cgcnn_dc"]["flops"]["uracil"] == pytest.approx(cost.flops, rel=0.01)
    assert counted_costs()["md17/cgcnn_dc"]["operations"] == pytest.approx(cost.operations, rel=0.1)


def test_every_cell_of_the_papers_tables_is_counted():
    for target in ("table1", "table2", "table7", "table8", "table9", "fig1", "fig2"):
        assert target in TABLES
        for experiment in experiments_of(target):
            assert experiment.molecule in counted_costs()[experiment.config]["flops"]
