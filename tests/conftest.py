"""Shared fixtures: the embedded samples as LMDBs, and arguments to train on them."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

import pytest
import torch
from torch_geometric.nn.models import dimenet_utils

import ocp_dc.trainers  # noqa: F401  registers models and trainer

# isort: split
from fairchem.core.models.gemnet.layers import spherical_basis

from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.samples import oxide_sample_path, sample_path
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.launch import run_fairchem

# the imported modules' objects need not be looked at again by each gc.collect() below
gc.freeze()

CONFIGS = Path(__file__).parent.parent / "configs"
# of the scale that shows whether everything runs, and GemNet smaller yet
SMALL = {**WIDTHS["narrow"], "gemnet_t": {**WIDTHS["narrow"]["gemnet_t"], "num_blocks": 1, "max_neighbors": 5}}


def small_widths(config: str) -> list[str]:
    """Arguments that make the network of a config, such as ``md17/schnet_dc``, small."""
    name = Path(config).name
    model = next((model for model in SMALL if name == model or name.startswith(f"{model}_")), None)
    if model is None:
        pytest.fail(f"configs/{config}.yml: no small widths for its model; add them to experiments/widths.json")
    return [f"--model.{key}={value}" for key, value in SMALL[model].items()]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _bases_derived_once():
    """sympy derives DimeNet++'s and GemNet's basis functions again for every model, in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (dimenet_utils, "bessel_basis"),
            (dimenet_utils, "real_sph_harm"),
            (spherical_basis, "real_sph_harm"),
        ):
            patch.setattr(module, name, functools.cache(getattr(module, name)))
        yield


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory) -> Path:
    """A folder with train (100), val (20) and test (20) conformations of the embedded sample."""
    out = tmp_path_factory.mktemp("sample") / "data"
    convert(sample_path(), out, sizes={"train": 100, "val": 20, "test": 20}, seed=0, show_progress=False)
    return out


@pytest.fixture(scope="session")
def oxide_data(tmp_path_factory) -> Path:
    """A folder with train (20), val (5) and test (5) structures of the embedded sample of oxide slabs."""
    out = tmp_path_factory.mktemp("oxides") / "data"
    convert_structures([oxide_sample_path()], out, sizes={"train": 20, "val": 5, "test": 5}, seed=0)
    return out


def arguments(config: str, data: Path, run_dir: Path, *overrides: str) -> list[str]:
    """Arguments of `ocp-dc train` for a config, such as ``md17/schnet``, at small widths."""
    return [
        *("--config-yml", str(CONFIGS / f"{config}.yml"), "--run-dir", str(run_dir), "--print-every", "1"),
        *(f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}"),
        *("--optim.num_workers=0", "--hide_eval_progressbar=True"),
        *small_widths(config),
        *overrides,
    ]


@pytest.fixture(scope="session")
def ethanol_checkpoint(sample_data, tmp_path_factory) -> Path:
    """Of a SchNet that has seen a little of the embedded sample, in kcal/mol."""
    return _trained("md17/schnet_irelu_recommended", sample_data, tmp_path_factory.mktemp("ethanol"))


@pytest.fixture(scope="session")
def oxide_checkpoint(oxide_data, tmp_path_factory) -> Path:
    """Of a SchNet that has seen a little of the embedded sample of oxide slabs, in eV."""
    return _trained("oc22/schnet_recommended", oxide_data, tmp_path_factory.mktemp("oxides"))


def _trained(config: str, data: Path, run_dir: Path) -> Path:
    run_fairchem("train", arguments(config, data, run_dir, "--optim.max_epochs=1", "--timestamp-id", "run"))
    gc.collect()
    return run_dir / "checkpoints" / "run" / "checkpoint.pt"


@pytest.fixture
def train_arguments(sample_data, tmp_path):
    """Arguments of `ocp-dc train` for a config of configs/md17, at small widths, on the embedded sample."""

    def of(config: str, *overrides: str, run_dir: Path = tmp_path) -> list[str]:
        return arguments(f"md17/{config}", sample_data, run_dir, *overrides)

    yield of
    # an LMDB that a test's exception still holds open cannot be opened by the next test
    gc.collect()


@pytest.fixture
def train_arguments_on_oxides(oxide_data, tmp_path):
    """The same for a config of configs/oc22, on the embedded sample of oxide slabs."""

    def of(config: str, *overrides: str) -> list[str]:
        return arguments(f"oc22/{config}", oxide_data, tmp_path, *overrides)

    yield of
    gc.collect()
