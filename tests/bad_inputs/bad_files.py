"""Files that are wrong in one way each, made in a folder: what the rows of `test_bad_inputs.py` start from."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import ase.io
import lmdb
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.lib import format as npy

COUNT = 20
NUMBERS = np.array([8, 1, 1], np.uint8)
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])

Make = Callable[[Path], None]


def arrays() -> dict[str, np.ndarray]:
    """Of an MD17 file of water."""
    random = np.random.default_rng(0)
    return {
        "E": -47_000 + random.normal(size=(COUNT, 1)),
        "F": random.normal(size=(COUNT, 3, 3)),
        "R": WATER + 0.01 * random.normal(size=(COUNT, 3, 3)),
        "z": NUMBERS,
    }


def npz(**changes) -> Make:
    """``bad.npz`` with arrays replaced, left out (None), or made of what they would be (a function)."""

    def make(folder: Path) -> None:
        merged = arrays()
        for name, change in changes.items():
            merged[name] = change(merged[name]) if callable(change) else change
        kept = {name: value for name, value in merged.items() if value is not None}
        np.savez_compressed(folder / "bad.npz", **kept)

    return make


def at(index: tuple, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """A change of one element."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(float)
        array[index] = value
        return array

    return change


def edited(make: Make, name: str, edit: Callable[[bytes], bytes]) -> Make:
    """A file with its bytes changed."""

    def make_edited(folder: Path) -> None:
        make(folder)
        (folder / name).write_bytes(edit((folder / name).read_bytes()))

    return make_edited


def all_of(*makes: Make) -> Make:
    def make_all(folder: Path) -> None:
        for make in makes:
            make(folder)

    return make_all


def text(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def directory(name: str) -> Make:
    return lambda folder: (folder / name).mkdir(parents=True)


def copied(source: str | Path, name: str) -> Make:
    """A copy of a file or folder, of ``folder`` itself where ``source`` is relative."""

    def make(folder: Path) -> None:
        copy = shutil.copytree if (folder / source).is_dir() else shutil.copyfile
        copy(folder / source, folder / name)

    return make


def member(shape: str, content: bytes = b"", descr: str = "<f8") -> bytes:
    """An array in numpy's format, with what its header says of its shape written as it is given."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def archive(**members: bytes) -> Make:
    """``bad.npz`` of these members, and of good ones where none are given."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "bad.npz", "w", zipfile.ZIP_DEFLATED) as file:
            for name, array in arrays().items():
                buffer = BytesIO()
                npy.write_array(buffer, array)
                file.writestr(f"{name}.npy", members.get(name, buffer.getvalue()))

    return make


def lying_archive(folder: Path) -> None:
    """A header that announces 5·10⁸ conformations, and a directory of the archive that agrees with it."""
    rows = 5 * 10**8
    header = member(f"({rows}, 1)")
    archive(E=header)(folder)
    content = (folder / "bad.npz").read_bytes()
    directory_of_archive = content.find(b"PK\x01\x02")
    size = len(header).to_bytes(4, "little")
    announced = (len(header) + 8 * rows).to_bytes(4, "little")
    changed = content[directory_of_archive:].replace(size, announced, 1)
    (folder / "bad.npz").write_bytes(content[:directory_of_archive] + changed)


def frame(seed: int = 0, positions: np.ndarray = WATER, **labels) -> Atoms:
    random = np.random.default_rng(seed)
    atoms = Atoms(NUMBERS, positions=positions)
    results = {"energy": -14.0 + random.normal(), "forces": random.normal(size=(3, 3)), **labels}
    kept = {name: value for name, value in results.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **kept) if kept else None
    return atoms


def frames(name: str, **changes) -> Make:
    """A file of ten frames of which the fourth differs: in a label, or (a function ``of``) in anything."""
    change = changes.pop("of", lambda atoms: atoms)

    def make(folder: Path) -> None:
        images = [frame(seed, WATER + 0.01 * seed) for seed in range(10)]
        fourth = frame(3, **changes)
        labels = fourth.calc.results if fourth.calc else {}
        images[3] = change(fourth)
        if labels and len(images[3]):
            # which are those of these positions, whatever they are
            images[3].calc = SinglePointCalculator(images[3], **labels)
        ase.io.write(folder / name, images)

    return make


def moved(positions: np.ndarray) -> Callable[[Atoms], Atoms]:
    def change(atoms: Atoms) -> Atoms:
        atoms.positions[:] = positions
        return atoms

    return change


def in_cell(cell, pbc=True) -> Callable[[Atoms], Atoms]:
    def change(atoms: Atoms) -> Atoms:
        atoms.set_cell(cell)
        atoms.pbc = pbc
        return atoms

    return change


def xyz(name: str = "bad.xyz", edit: Callable[[str], str] = str) -> Make:
    """Extended XYZ of water, ten frames, with its text changed."""

    def make(folder: Path) -> None:
        frames(name)(folder)
        (folder / name).write_text(edit((folder / name).read_text()))

    return make


def foreign_database(folder: Path) -> None:
    connection = sqlite3.connect(folder / "bad.db")
    connection.executescript("CREATE TABLE customers (name); INSERT INTO customers VALUES ('Ada')")
    connection.close()


def records(name: str, edit: Callable[[list], None] = lambda graphs: None, source: str = "data/test") -> Make:
    """A split of the embedded sample with its records changed."""

    def make(folder: Path) -> None:
        target = folder / name
        target.mkdir(parents=True)
        shutil.copyfile(folder / source / "manifest.json", target / "manifest.json")
        with (
            lmdb.open(str(next((folder / source).glob("*.lmdb"))), subdir=False, readonly=True, lock=False) as old,
            old.begin() as reading,
        ):
            count = pickle.loads(reading.get(b"length"))
            graphs = [pickle.loads(reading.get(str(row).encode())) for row in range(count)]
        edit(graphs)
        with (
            lmdb.open(str(target / "data.lmdb"), subdir=False, lock=False, map_size=1 << 24) as new,
            new.begin(write=True) as writing,
        ):
            writing.put(b"length", pickle.dumps(len(graphs)))
            for row, graph in enumerate(graphs):
                writing.put(str(row).encode(), pickle.dumps(graph))

    return make


def stated(path: str, **fields) -> Make:
    """A JSON file with fields changed."""

    def make(folder: Path) -> None:
        content = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**content, **fields}))

    return make


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder, and where every link points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsdecode(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
