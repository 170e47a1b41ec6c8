#!/usr/bin/env python
"""Time whole training steps: this package's trainer and model against stock fairchem's, on the embedded ethanol sample.

    python scripts/benchmark_training.py --model schnet --width small --threads 1
    python scripts/benchmark_training.py --model schnet --width published --threads 2 --activation original --steps 10

A step is all of it: loading and collating 20 conformations, forward, loss, metrics, backward, checks, optimizer, log.
Both trainers run in this process, alternately, an epoch of --steps steps each, --repeats times. The first of these is
not counted, nor are an epoch's first and last step (starting the loader, saving). The ratio is that of the medians over
the epochs; in brackets, its range over the repeats.

"matrix products" is the time that mm, addmm, bmm and baddbmm of the shapes and strides of a step take alone: what it
cannot beat. "operations" are the aten operations of a step. Fairchem has no CGCNN and no ForceNet: they run alone.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ocp_dc.launch import parse_arguments

# isort: split
from fairchem.core.common import distutils
from fairchem.core.common.utils import build_config, new_trainer_context

from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.samples import sample_path
from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.runs.rendering import format_table

STOCK_MODELS = ("schnet", "dimenetplusplus", "gemnet_t")
MODELS = (*STOCK_MODELS, "cgcnn", "forcenet")
BATCH_SIZE = 20
WITHOUT_FIRST_AND_LAST = 2
NEVER = 10**9
_aten = torch.ops.aten
PRODUCTS = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default)


class ClockedLoader:
    """A loader that keeps, in ``asked``, when each batch of the epoch was asked for: the steps lie between."""

    def __init__(self, loader) -> None:
        self.loader = loader
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        self.asked = []
        batches = iter(self.loader)
        for _ in range(len(self)):
            self.asked.append(time.perf_counter())
            yield next(batches)


class RecordedOperations(TorchDispatchMode):
    """Counts the aten operations that run under it, and keeps the matrix products among them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.products: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if func in PRODUCTS:
            self.products.append((func, tree_map_only(torch.Tensor, _empty_alike, args), kwargs or {}))
        return func(*args, **(kwargs or {}))


def _empty_alike(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


class Side:
    """A trainer, an epoch at a time."""

    def __init__(self, name: str, trainer) -> None:
        self.name = name
        self.trainer = trainer
        self.flushes_denormals = name == "ours"
        trainer.train_loader = ClockedLoader(trainer.train_loader)
        self.epochs = 0
        self.seconds: list[float] = []
        self.product_seconds: list[float] = []

    def run_epoch(self) -> float:
        """Seconds a step."""
        torch.set_flush_denormal(self.flushes_denormals)
        self.epochs += 1
        self.trainer.config["optim"]["max_epochs"] = self.epochs
        self.trainer.train(disable_eval_tqdm=True)
        asked = self.trainer.train_loader.asked
        return (asked[-1] - asked[1]) / (len(asked) - WITHOUT_FIRST_AND_LAST)

    def record(self) -> None:
        """The operations of a step, from an epoch of them, and operands like those of its matrix products."""
        with RecordedOperations() as recorded:
            self.run_epoch()
        steps = len(self.trainer.train_loader)
        self.operations = recorded.count / steps
        a_step = recorded.products[: len(recorded.products) // steps]
        self.products = [
            (func, tree_map_only(torch.Tensor, lambda t: torch.randn_like(t, device=self.trainer.device), args), kwargs)
            for func, args, kwargs in a_step
        ]

    def run_products(self) -> float:
        """Seconds that the matrix products of a step take."""
        started = time.perf_counter()
        for func, args, kwargs in self.products:
            func(*args, **kwargs)
        if self.trainer.device != "cpu" and torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def measure(self) -> None:
        self.seconds.append(self.run_epoch())
        self.product_seconds.append(statistics.median(self.run_products() for _ in range(5)))

    def row(self) -> list[str]:
        seconds, limit = statistics.median(self.seconds), statistics.median(self.product_seconds)
        spread = f"{1000 * min(self.seconds):.1f} to {1000 * max(self.seconds):.1f}"
        return [self.name, f"{1000 * seconds:.1f}", spread, f"{1000 * limit:.1f}", f"{self.operations:,.0f}"]


def settings(options: argparse.Namespace, model: str, folder: Path) -> dict:
    """The config that `ocp-dc train` would run, of configs/md17/MODEL.yml at the chosen width, with data of its own."""
    data = folder / "data"
    # a process can open an LMDB once
    convert(sample_path(), data, sizes={"train": options.steps * BATCH_SIZE, "val": 20, "test": 20})
    widths = {} if options.width == "published" else WIDTHS[options.width][options.model]
    arguments = [
        "--config-yml",
        f"md17/{model}",
        f"--run-dir={folder}",
        f"--dataset.train.src={data / 'train'}",
        f"--dataset.val.src={data / 'val'}",
        "--optim.num_workers=0",
        f"--optim.eval_every={NEVER}",
        f"--optim.checkpoint_every={NEVER}",
        *(f"--model.{key}={value}" for key, value in widths.items()),
    ]
    if not options.gpu:
        arguments.append("--cpu")
    return build_config(*parse_arguments("train", arguments))


@contextlib.contextmanager
def both_sides(options: argparse.Namespace, folder: Path) -> Iterator[list[Side]]:
    """Ours and, where fairchem has the model, stock."""
    with contextlib.ExitStack() as stack:
        ours = settings(options, f"{options.model}_irelu", folder / "ours")
        ours["model"]["activation"] = options.activation
        ours["dataset"]["train"]["format"] = options.format
        ours["optim"]["step"] = options.step
        sides = [Side("ours", stack.enter_context(new_trainer_context(config=ours)).trainer)]
        if options.model in STOCK_MODELS:
            stock = settings(options, options.model, folder / "stock")
            # one process group serves both
            stock.update(trainer="ocp", local_rank=0)
            stack.enter_context(mock.patch.object(distutils, "setup"))
            sides.append(Side("stock", stack.enter_context(new_trainer_context(config=stock)).trainer))
        yield sides


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="schnet")
    parser.add_argument("--width", choices=("published", *WIDTHS), default="small", help="default small")
    parser.add_argument("--activation", default="irelu", help="of our side: original, irelu (default), ...")
    parser.add_argument("--format", choices=("lmdb", "md17_packed"), default="lmdb", help="of our side's data")
    parser.add_argument("--step", choices=("eager", "traced", "cuda_graph"), default="traced", help="of our side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40, help="an epoch, 3 to 40 (default)")
    parser.add_argument("--repeats", type=int, default=7, help="counted epochs of each side (default 7)")
    parser.add_argument("--gpu", action="store_true", help="on the GPU")
    options = parser.parse_args()
    if options.width != "published" and options.model not in WIDTHS[options.width]:
        having = [width for width in WIDTHS if options.model in WIDTHS[width]]
        parser.error(f"no width {options.width} for {options.model}: choose published or {', '.join(having)}")
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as folder, both_sides(options, Path(folder)) as sides:
        for side in sides:
            side.run_epoch()
            side.record()
        for _ in range(options.repeats):
            for side in sides:
                side.measure()
    device = torch.cuda.get_device_name() if options.gpu else f"{processor()}, {options.threads} threads"
    print(f"\n{options.model}, {options.width} width, {options.activation}; {device}; torch {torch.__version__}")
    print(format_table([["", "ms a step", "range", "matrix products", "operations"], *(side.row() for side in sides)]))
    if len(sides) == 2:
        ours, stock = (side.seconds for side in sides)
        ratios = [theirs / own for own, theirs in zip(ours, stock, strict=True)]
        ratio = statistics.median(stock) / statistics.median(ours)
        print(f"stock / ours: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
