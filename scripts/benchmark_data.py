#!/usr/bin/env python
"""Compare the speed of this package's data path with fairchem's own, on conformations like the embedded sample's.

    python scripts/benchmark_data.py

Prints a table of medians over --repeats, in which ours and fairchem's take turns, and the range of the ratio:

- batches: loading and collating by PyTorch's loader, in this process, one thread, in a random order; `md17_packed`
  against fairchem's `lmdb` dataset and `data_list_collater`, on the same LMDB;
- conversion: an MD17 npz file to LMDBs, `ocp-dc md17 convert` against fairchem's `AtomsToGraphs` (without edges) and
  pickled records, committed a thousand at a time (fairchem's own scripts commit each, in several times the time).
  Each conversion is a process of its own. Memory is the peak above that of the imported packages, files mapped into
  memory not counted. A quarter of the conformations comes first, to show how it grows with their number.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import pickle
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

import ocp_dc.trainers  # noqa: F401  registers md17_packed

# isort: split
import lmdb
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from fairchem.core.datasets import data_list_collater
from fairchem.core.datasets.base_dataset import create_dataset
from fairchem.core.preprocessing import AtomsToGraphs
from torch.utils.data import DataLoader

from ocp_dc.datasets.lmdb import MAP_SIZE
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.packed import collate
from ocp_dc.datasets.samples import sample_path

KEY_MAPPING = {"y": "energy", "force": "forces"}
COMMIT_EVERY = 1000
MEBIBYTE = 2**20


def write_md17(path: Path, count: int) -> None:
    """The embedded sample again and again, each time with other noise in its positions."""
    random = np.random.default_rng(0)
    with np.load(sample_path()) as sample:
        rows = np.arange(count) % len(sample["E"])
        positions = sample["R"][rows] + random.normal(scale=1e-3, size=(count, *sample["R"].shape[1:]))
        np.savez(path, E=sample["E"][rows], F=sample["F"][rows], R=positions, z=sample["z"])


# --- batches ----------------------------------------------------------------------------------------------------------


def seconds_of_batches(dataset_format: str, collater: Callable, folder: Path, size: int) -> float:
    """Median of the seconds that a batch takes, in one pass over a dataset."""
    config = {"src": str(folder), "key_mapping": KEY_MAPPING, "format": dataset_format}
    dataset = create_dataset(config, "train")
    batches = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).split(size)
    batches = [batch.tolist() for batch in batches if len(batch) == size]
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=partial(collater, otf_graph=True))
    seconds, before = [], time.perf_counter()
    for _ in loader:
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    return float(np.median(seconds))


def batch_rows(folder: Path, size: int, repeats: int) -> list[list[str]]:
    times = {"md17_packed": [], "lmdb": []}
    for _ in range(repeats):
        for name, collater in (("md17_packed", collate), ("lmdb", data_list_collater)):
            times[name].append(seconds_of_batches(name, collater, folder, size))
    ours, stock = (1e6 * np.array(times[name]) for name in times)
    return [[f"loading and collating {size}, µs", *compared(ours, stock, stock / ours)]]


# --- conversion -------------------------------------------------------------------------------------------------------


def convert_ours(source: Path, out: Path) -> None:
    with np.load(source) as arrays:
        count = len(arrays["E"])
    convert(source, out, sizes={"train": count - 2, "val": 1, "test": 1})


def convert_by_fairchem(source: Path, out: Path) -> None:
    to_graph = AtomsToGraphs(r_energy=True, r_forces=True, r_fixed=True, r_pbc=True, r_edges=False)
    arrays = dict(np.load(source))
    out.mkdir()
    database = lmdb.open(str(out / "data.lmdb"), map_size=MAP_SIZE, subdir=False, meminit=False, map_async=True)
    transaction = database.begin(write=True)
    for row, (energy, forces, positions) in enumerate(zip(arrays["E"], arrays["F"], arrays["R"], strict=True)):
        atoms = Atoms(arrays["z"], positions, cell=np.diag([100.0] * 3), pbc=False)
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy.item()), forces=forces)
        graph = to_graph.convert(atoms)
        graph.tags = torch.LongTensor(atoms.get_tags())
        graph.sid, graph.fid = 0, row
        transaction.put(f"{row}".encode("ascii"), pickle.dumps(graph, protocol=-1))
        if (row + 1) % COMMIT_EVERY == 0:
            transaction.commit()
            transaction = database.begin(write=True)
    transaction.put(b"length", pickle.dumps(len(arrays["E"]), protocol=-1))
    transaction.commit()
    database.sync()
    database.close()


def measured(conversion: Callable[[Path, Path], None], source: Path, out: Path) -> tuple[float, float]:
    """Seconds, and the MiB by which this process's own memory grew at most."""
    logging.disable()
    torch.set_num_threads(1)
    before, peak, finished = anonymous_memory(), [0], threading.Event()

    def watch() -> None:
        while not finished.wait(0.01):
            peak[0] = max(peak[0], anonymous_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    conversion(source, out)
    seconds = time.perf_counter() - start
    finished.set()
    watcher.join()
    return seconds, peak[0] / MEBIBYTE


def anonymous_memory() -> int:
    """Bytes of this process in memory that belong to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def conversion_rows(folder: Path, count: int, repeats: int) -> list[list[str]]:
    source = folder / f"md17_{count}.npz"
    write_md17(source, count)
    routes = {"ours": convert_ours, "fairchem": convert_by_fairchem}
    figures = {name: [] for name in routes}
    for repeat in range(repeats):
        for name, conversion in routes.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
                out = folder / f"{name}-{count}-{repeat}"
                figures[name].append(executor.submit(measured, conversion, source, out).result())
    (our_seconds, our_peaks), (stock_seconds, stock_peaks) = (np.transpose(figures[name]) for name in routes)
    return [
        [
            f"converting {count:,}, conformations a second",
            *compared(count / our_seconds, count / stock_seconds, stock_seconds / our_seconds),
        ],
        ["its peak memory, MiB", *compared(our_peaks, stock_peaks, stock_peaks / our_peaks)],
    ]


# --- the tables -------------------------------------------------------------------------------------------------------


def compared(ours: np.ndarray, stock: np.ndarray, ratio: np.ndarray) -> list[str]:
    spread = f"{ratio.min():.1f} to {ratio.max():.1f}"
    return [f"{np.median(ours):,.0f}", f"{np.median(stock):,.0f}", f"{np.median(ratio):.1f}", spread]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conformations", type=int, default=12000, help="to convert and to load (default 12000)")
    parser.add_argument("--batch-size", type=int, default=20, help="default 20")
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    options = parser.parse_args()

    logging.disable()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = conversion_rows(folder, options.conformations // 4, options.repeats)
        rows += conversion_rows(folder, options.conformations, options.repeats)
        data = folder / f"ours-{options.conformations}-0" / "train"
        rows += batch_rows(data, options.batch_size, options.repeats)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, ethanol, one thread\n")
    header = ["", "ours", "fairchem's", "ratio", f"its range in {options.repeats} repeats"]
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
