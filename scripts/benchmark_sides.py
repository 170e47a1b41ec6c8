"""What the benchmarks share: this package's trainer and stock fairchem's, side by side in one process."""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from ocp_dc.launch import config_of

# isort: split
from fairchem.core.common import distutils
from fairchem.core.common.utils import new_trainer_context

from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.experiments.scales import WIDTHS

STOCK_MODELS = ("schnet", "dimenetplusplus", "gemnet_t")
MODELS = (*STOCK_MODELS, "cgcnn", "forcenet")
SIZES = {**WIDTHS, "published": {}}
NEVER = 10**9


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", choices=SIZES, default="small", help="of the networks (default small)")
    parser.add_argument("--activation", default="irelu", help="of our side: original, irelu (default), ...")
    parser.add_argument("--format", choices=("lmdb", "md17_packed"), default="md17_packed", help="of our side's data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="on the GPU")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace, models: Sequence[str]) -> None:
    for model in models:
        if options.width != "published" and model not in SIZES[options.width]:
            having = [width for width in SIZES if model in SIZES[width]]
            parser.error(f"no width {options.width} for {model}: choose published or {', '.join(having)}")
    torch.set_num_threads(options.threads)


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds; of one thread on a CPU those that it ran, so that other work on the machine does not count."""
    return time.process_time if options.threads == 1 and not options.gpu else time.perf_counter


def settings(options: argparse.Namespace, model: str, config: str, data: Path, run_dir: Path, *overrides: str) -> dict:
    """What `ocp-dc train` would run, of configs/md17 at the chosen width."""
    arguments = [
        *("--config-yml", f"md17/{config}", f"--run-dir={run_dir}", "--optim.num_workers=0"),
        *(f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}"),
        *(f"--optim.eval_every={NEVER}", f"--optim.checkpoint_every={NEVER}"),
        *(f"--model.{key}={value}" for key, value in SIZES[options.width].get(model, {}).items()),
        *overrides,
    ]
    if not options.gpu:
        arguments.append("--cpu")
    return config_of("train", arguments)


@contextlib.contextmanager
def trainers_of(
    sides: Sequence[str],
    options: argparse.Namespace,
    model: str,
    source: Path,
    sizes: dict[str, int],
    folder: Path,
    *overrides: str,
) -> Iterator[dict[str, object]]:
    """The trainers of ``ours`` and ``stock``, where fairchem has the model, each with data of its own.

    Args:
        source, sizes: an npz file, and how many of its conformations go to train, val and test.
    """
    with contextlib.ExitStack() as stack:
        # a process can open an LMDB once
        for side in sides:
            convert(source, folder / side / "data", sizes=sizes, show_progress=False)
        ours = settings(options, model, f"{model}_irelu", folder / "ours" / "data", folder / "ours", *overrides)
        ours["model"]["activation"] = options.activation
        ours["dataset"]["train"]["format"] = options.format
        if model == "dimenetplusplus" and options.activation == "original":
            # fairchem's, so that both do the same
            ours["model"]["conservative"] = False
        trainers = {"ours": stack.enter_context(new_trainer_context(config=ours)).trainer}
        if "stock" in sides and model in STOCK_MODELS:
            both = [override for override in overrides if not override.startswith("--optim.step")]
            stock = settings(options, model, model, folder / "stock" / "data", folder / "stock", *both)
            stock["dataset"]["train"]["format"] = "lmdb"
            # one process group serves both
            stock.update(trainer="ocp", local_rank=0)
            stack.enter_context(mock.patch.object(distutils, "setup"))
            trainers["stock"] = stack.enter_context(new_trainer_context(config=stock)).trainer
        yield trainers


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


def machine(options: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if options.gpu else f"{processor()}, {options.threads} threads"
    return f"{device}; torch {torch.__version__}"


def ratio(ours: Sequence[float], stock: Sequence[float]) -> str:
    """How much longer stock takes: of the medians, and the range over the repeats."""
    each = [theirs / own for own, theirs in zip(ours, stock, strict=True)]
    return f"{statistics.median(stock) / statistics.median(ours):.2f} ({min(each):.2f} to {max(each):.2f})"


# --- molecules of any size --------------------------------------------------------------------------------------------


def write_molecule(path: Path, atoms: int, count: int) -> None:
    """An npz file of conformations of a made-up molecule, in MD17's layout.

    A chain of carbon and hydrogen atoms, a bond of 1.4 Å from each to a random earlier one and no two closer than 1 Å,
    at rest and with noise of 0.05 Å. Energies and forces are those of springs: each pair has its distance at rest.
    """
    random = np.random.default_rng(atoms)
    rest = np.zeros((1, 3))
    while len(rest) < atoms:
        step = random.normal(size=3)
        place = rest[random.integers(max(0, len(rest) - 6), len(rest))] + 1.4 * step / np.linalg.norm(step)
        if np.linalg.norm(rest - place, axis=1).min() > 1:
            rest = np.vstack([rest, place])
    positions = rest + random.normal(scale=0.05, size=(count, atoms, 3))
    energies, forces = zip(*(springs(rest, conformation) for conformation in positions), strict=True)
    elements = random.choice([1, 6], size=atoms).astype(np.uint8)
    np.savez(path, E=np.array(energies)[:, None], F=np.array(forces), R=positions, z=elements)


def springs(rest: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy and forces (A, 3) where a spring between each pair of atoms is at rest at ``rest``, (A, 3)."""
    distance, vectors = _distances(positions)
    stretch = distance - _distances(rest)[0]
    pull = 20 * stretch / distance
    return -10_000 + 5 * np.square(stretch).sum(), -(pull[:, :, None] * vectors).sum(axis=1)


def _distances(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of all pairs, an atom's from itself being 1; and the vectors, from the second atom to the first."""
    vectors = positions[:, None] - positions[None]
    return np.linalg.norm(vectors, axis=-1) + np.eye(len(positions)), vectors
