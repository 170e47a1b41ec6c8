#!/usr/bin/env python
"""Time whole training steps: this package's trainer and models against stock fairchem's, on the embedded sample.

    python scripts/benchmark_training.py --models schnet --width small
    python scripts/benchmark_training.py --width published --threads 2 --activation original --steps 6 --repeats 5
    python scripts/benchmark_training.py --models cgcnn forcenet --against /path/to/another/checkout
    python scripts/benchmark_training.py --figure docs/figures/step_time.png

A step is all of it: loading and collating 20 conformations, forward, loss, metrics, backward, checks, optimizer, log.
The sides take turns, an epoch of --steps steps each, --repeats times. The first of these is not counted, nor are an
epoch's first and last step (starting the loader, saving). The ratio is that of the medians over the epochs; in
brackets, its range over the repeats.

"matrix products" is the time that mm, addmm, bmm and baddbmm of the shapes and strides of a step take alone: what it
cannot beat. "operations" are the aten operations of a step, and "peak" the most memory that its tensors take beyond
what is there before it. Fairchem has no CGCNN and no ForceNet. `--against` adds, in a process of its own, this package
as another checkout has it.

`--figure` draws instead the time of a step of SchNet against the number of atoms, of made-up molecules, and against the
number of conformations in a batch, of ethanol.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import torch
from benchmark_sides import (
    MODELS,
    add_options,
    check_options,
    clock,
    machine,
    ratio,
    trainers_of,
    write_molecule,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ocp_dc.datasets.samples import sample_path
from ocp_dc.terminal import format_table

BATCH_SIZE = 20
WITHOUT_FIRST_AND_LAST = 2
HEADER = ["model", "side", "ms a step", "range", "matrix products", "operations", "peak, MiB", "side / ours (range)"]
ATOMS = (9, 20, 40, 80)
BATCHES = (1, 4, 16, 64, 256)
ETHANOL = 9
# before trainers add their process group's
ENVIRONMENT = dict(os.environ)
# lines of --serve, among what fairchem prints
ANSWER = "benchmark: "
_aten = torch.ops.aten
PRODUCTS = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default)


class ClockedLoader:
    """A loader that keeps, in ``asked``, when each batch of the epoch was asked for: the steps lie between.

    Attributes:
        finish: waits for what a GPU has still to do, before the counted steps and after them.
        watching: a context that the second step is to run in.
    """

    def __init__(self, loader, now: Callable[[], float], finish: Callable[[], None] = lambda: None) -> None:
        self.loader = loader
        self.now = now
        self.finish = finish
        self.asked: list[float] = []
        self.watching: contextlib.AbstractContextManager | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        self.asked = []
        batches = iter(self.loader)
        for position in range(len(self)):
            if self.watching and position == 1:
                self.watching.__enter__()
            if self.watching and position == 2:
                self.watching.__exit__(None, None, None)
            if position in (1, len(self) - 1):
                self.finish()
            self.asked.append(self.now())
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


class PeakMemory:
    """The most bytes that tensors take in its context beyond those before it: ``peak``, when it is left."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.peak = 0

    def __enter__(self) -> PeakMemory:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            activities = [torch.profiler.ProfilerActivity.CPU]
            self.profile = torch.profiler.profile(activities=activities, profile_memory=True)
            self.profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.on_gpu:
            self.peak = torch.cuda.max_memory_allocated() - self.before
            return
        self.profile.__exit__(*error)
        events = self.profile.profiler.kineto_results.events()
        taken = 0
        for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
            taken += event.nbytes()
            self.peak = max(self.peak, taken)


class Side:
    """A trainer, an epoch at a time."""

    def __init__(self, name: str, trainer, now: Callable[[], float]) -> None:
        self.name = name
        self.trainer = trainer
        self.now = now
        self.flushes_denormals = name != "stock"
        finish = [torch.cuda.synchronize] if trainer.device.type == "cuda" else []
        trainer.train_loader = ClockedLoader(trainer.train_loader, now, *finish)
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
        """The operations and memory of a step, and operands like those of its matrix products."""
        memory, recorded = PeakMemory(self.trainer.device), RecordedOperations()
        for context in (memory, recorded):
            self.trainer.train_loader.watching = context
            self.run_epoch()
        self.trainer.train_loader.watching = None
        self.peak, self.operations = memory.peak, recorded.count
        self.products = [
            (func, tree_map_only(torch.Tensor, lambda t: torch.randn_like(t, device=self.trainer.device), args), kwargs)
            for func, args, kwargs in recorded.products
        ]

    def run_products(self) -> float:
        """Seconds that the matrix products of a step take."""
        started = self.now()
        for func, args, kwargs in self.products:
            func(*args, **kwargs)
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return self.now() - started

    def measure(self) -> None:
        self.seconds.append(self.run_epoch())
        self.product_seconds.append(statistics.median(self.run_products() for _ in range(5)))


class Checkout:
    """This package as another folder has it: a side in a process of its own."""

    def __init__(self, options: argparse.Namespace, model: str) -> None:
        self.name = str(options.against)
        self.seconds: list[float] = []
        self.product_seconds: list[float] = []
        given = [f"--{key}={getattr(options, key)}" for key in ("width", "activation", "format", "threads", "steps")]
        # it may be older than optim.step
        given += ["--step=", *["--gpu"] * options.gpu]
        command = [sys.executable, __file__, "--serve", "--models", model, *given]
        environment = {**ENVIRONMENT, "PYTHONPATH": str(options.against.resolve())}
        self._process = subprocess.Popen(
            command, env=environment, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Checkout:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def record(self) -> None:
        self.operations, self.peak = self._ask("record")

    def run_epoch(self) -> None:
        self._ask("run_epoch")

    def measure(self) -> None:
        seconds, product_seconds = self._ask("measure")
        self.seconds.append(seconds)
        self.product_seconds.append(product_seconds)

    def _ask(self, what: str) -> list[float]:
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise SystemExit(f"{self.name}: the benchmark of this checkout ended early")


def serve(side: Side) -> None:
    """What a :class:`Checkout` asks for, a line each."""
    for line in sys.stdin:
        what = line.strip()
        getattr(side, what)()
        answer = {"record": lambda: [side.operations, side.peak], "run_epoch": list}.get(
            what, lambda: [side.seconds[-1], side.product_seconds[-1]]
        )
        print(f"{ANSWER}{json.dumps(answer())}", flush=True)


@contextlib.contextmanager
def sides_of(
    options: argparse.Namespace, model: str, source: Path, batch_size: int = BATCH_SIZE
) -> Iterator[list[Side | Checkout]]:
    sizes = {"train": options.steps * batch_size, "val": 1, "test": 1}
    overrides = [f"--optim.batch_size={batch_size}", "--optim.eval_batch_size=1"]
    if options.step:
        overrides.append(f"--optim.step={options.step}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        names = ["ours"] if options.serve else ["ours", "stock"]
        trainers = stack.enter_context(trainers_of(names, options, model, source, sizes, Path(folder), *overrides))
        sides = [Side(name, trainer, clock(options)) for name, trainer in trainers.items()]
        if options.against:
            sides.append(stack.enter_context(Checkout(options, model)))
        yield sides


def measure(sides: list[Side | Checkout], repeats: int) -> None:
    for side in sides:
        side.run_epoch()
    for _ in range(repeats):
        for side in sides:
            side.measure()


def row(model: str, side: Side | Checkout, ours: Side) -> list[str]:
    seconds, limit = statistics.median(side.seconds), statistics.median(side.product_seconds)
    return [
        model,
        side.name,
        f"{1000 * seconds:.1f}",
        f"{1000 * min(side.seconds):.1f} to {1000 * max(side.seconds):.1f}",
        f"{1000 * limit:.1f}",
        f"{side.operations:,.0f}",
        f"{side.peak / 2**20:,.1f}",
        "" if side is ours else ratio(ours.seconds, side.seconds),
    ]


def print_tables(options: argparse.Namespace) -> None:
    """One for each model, as soon as it is measured."""
    step = f", {options.step} step" if options.step else ""
    for model in options.models:
        with sides_of(options, model, sample_path()) as sides:
            for side in sides:
                side.record()
            measure(sides, options.repeats)
            rows = [HEADER, *(row(model, side, sides[0]) for side in sides)]
        print(f"\n{options.width} width, {options.activation}{step}; {machine(options)}")
        print(format_table(rows), flush=True)


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(options: argparse.Namespace) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    by_atoms, by_batch = figure.subplots(1, 2, sharey=True)
    draw_panel(options, by_atoms, f"atoms, {BATCH_SIZE} conformations a batch", {n: (n, BATCH_SIZE) for n in ATOMS})
    draw_panel(options, by_batch, f"conformations a batch, {ETHANOL} atoms", {n: (ETHANOL, n) for n in BATCHES})
    by_atoms.set_ylabel("ms a training step")
    by_atoms.legend()
    figure.suptitle(f"SchNet, {options.width} width, {options.activation}; {machine(options)}", fontsize=9)
    figure.savefig(options.figure, dpi=130)


def draw_panel(options: argparse.Namespace, panel, label: str, points: dict[int, tuple[int, int]]) -> None:
    medians: dict[str, list[float]] = {}
    for atoms, batch_size in points.values():
        for name, seconds in times(options, atoms, batch_size).items():
            medians.setdefault(name, []).append(1000 * seconds)
            print(f"{atoms} atoms, batches of {batch_size}, {name}: {1000 * seconds:.1f} ms")
    for name, milliseconds in medians.items():
        panel.plot(list(points), milliseconds, "o-", label={"stock": "stock fairchem"}.get(name, name))
    panel.set(xlabel=label, xscale="log", yscale="log", xticks=list(points), xticklabels=list(points))
    panel.minorticks_off()
    panel.grid(alpha=0.3)


def times(options: argparse.Namespace, atoms: int, batch_size: int) -> dict[str, float]:
    """Seconds a step of each side."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "molecule.npz"
        write_molecule(source, atoms, options.steps * batch_size + 2)
        with sides_of(options, "schnet", source, batch_size) as sides:
            for side in sides:
                side.run_epoch()
            for _ in range(options.repeats):
                for side in sides:
                    side.seconds.append(side.run_epoch())
            return {side.name: statistics.median(side.seconds) for side in sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["schnet"], help="default schnet")
    add_options(parser)
    parser.add_argument("--step", default="traced", help="of our side: optim.step of its config (default traced)")
    parser.add_argument("--against", type=Path, help="another checkout of this package, as a side of its own")
    parser.add_argument("--steps", type=int, help="an epoch, 3 to 40 (default 40, of the figure 5)")
    parser.add_argument("--repeats", type=int, help="counted epochs of each side (default 7, of the figure 3)")
    parser.add_argument("--figure", type=Path, help="draw the time of a step into this PNG instead")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    check_options(parser, options, options.models)
    options.steps = options.steps or (5 if options.figure else 40)
    options.repeats = options.repeats or (3 if options.figure else 7)
    if options.serve:
        with sides_of(options, *options.models, sample_path()) as sides:
            serve(sides[0])
    elif options.figure:
        draw(options)
    else:
        print_tables(options)


if __name__ == "__main__":
    main()
