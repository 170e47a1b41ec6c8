"""What a user may give that cannot be used: how each command ends, what it says, and that no file of theirs changes.

A row is a name, what is made in an empty folder, the command that is run there, its exit status and what it must say.
Whatever the row: no traceback, no escape sequence of a terminal, one line of error where the status is 2, all files as
they were, and, where a command fails, no others.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ase.io
import bad_files
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.db import connect
from bad_files import (
    all_of,
    archive,
    at,
    copied,
    directory,
    edited,
    foreign_database,
    frame,
    frames,
    in_cell,
    lying_archive,
    member,
    moved,
    npz,
    records,
    stated,
    text,
    xyz,
)

from ocp_dc import cli
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.samples import oxide_sample_path
from ocp_dc.locks import is_locked, passing_lock

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Row:
    """A command that is run in a folder.

    Attributes:
        make: puts files into it.
        command: words after ``ocp-dc``.
        says: what must be printed (regular expressions): to standard error, where the status is not 0.
        status: the exit status.
        given: what else is there: ``data`` (of the embedded sample), ``oxides``, ``checkpoint.pt`` (of a model of the
            sample).
        leaves: whether a command that fails may write files; those that were there never change.
        after: looks at the folder when the command has ended.
    """

    name: str
    make: Callable[[Path], None]
    command: str
    says: tuple[str, ...] = ()
    status: int = 2
    given: tuple[str, ...] = ()
    leaves: bool = False
    after: Callable[[Path], None] = lambda folder: None


def md17(name, make, *says, command="md17 convert bad.npz out --train 10 --val 5 --test 5", **others) -> Row:
    return Row(f"npz: {name}", make, command, says, **others)


def extxyz(name, make, *says, command="md17 convert bad.xyz out --train 5 --units eV", **others) -> Row:
    return Row(f"xyz: {name}", make, command, says, **others)


def oc22(name, make, *says, file="bad.traj", options="--train 5", **others) -> Row:
    return Row(f"frames: {name}", make, f"oc22 convert {file} out {options}", says, **others)


def subset(name, make, *says, command="oc22 subset oxides out --train 5 --val 2 --split val --jobs 1", **others) -> Row:
    return Row(f"subset: {name}", make, command, says, given=("oxides",), **others)


def evaluate(name, make, *says, options="--data data/test", **others) -> Row:
    command = f"evaluate --cpu --checkpoint checkpoint.pt {options}"
    return Row(f"evaluate: {name}", make, command, says, given=("data", "checkpoint.pt"), **others)


def predict(name, make, *says, options="data/test --to out.extxyz", **others) -> Row:
    return Row(
        f"predict: {name}",
        make,
        f"predict checkpoint.pt {options} --cpu",
        says,
        given=("data", "checkpoint.pt"),
        **others,
    )


def nothing(folder: Path) -> None:
    pass


def flipped(content: bytes) -> bytes:
    middle = content.find(b"F.npy") + 400
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def in_each(name: str, value: float, row: int = 1) -> Callable[[list], None]:
    def edit(graphs: list) -> None:
        graphs[row][name].view(-1)[0] = value

    return edit


def without_forces(folder: Path) -> None:
    ase.io.write(folder / "bad.traj", [frame(seed, forces=np.zeros((3, 3))) for seed in range(8)])


def with_a_link(folder: Path) -> None:
    shutil.rmtree(folder / "out" / "test")
    (folder / "out" / "test").symlink_to("../data/test")


def not_utf8(folder: Path) -> None:
    npz()(folder)
    (folder / "bad.npz").rename(folder / "\udcff.npz")


def far_in_a_cell(atoms: Atoms) -> Atoms:
    return in_cell(5 * np.eye(3))(moved(bad_files.WATER + 1e4)(atoms))


def with_database(folder: Path) -> None:
    with connect(folder / "good.db", use_lock_file=False) as database:
        for seed in range(8):
            database.write(frame(seed))


def in_another_order(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers[::-1], atoms.positions[::-1], calculator=atoms.calc)


def in_kcal(folder: Path) -> None:
    for split in ("train", "val"):
        stated(f"oxides/{split}/manifest.json", energy_unit="kcal/mol")(folder)


def still_in_kcal(folder: Path) -> None:
    manifest = read_manifest(folder / "out" / "train")
    assert (manifest.energy_unit, manifest.force_unit) == ("kcal/mol", "kcal/mol/Ang")
    energies = []
    for split in ("oxides", "out"):
        with RecordFile(next((folder / split / "train").glob("*.lmdb"))) as graphs:
            energies.append({graph.fid: float(graph.y) for graph in map(graphs.__getitem__, range(len(graphs)))})
    assert energies[1].items() <= energies[0].items()


def with_nan_weights(folder: Path) -> None:
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=False)
    for weight in checkpoint["state_dict"].values():
        if weight.is_floating_point():
            weight.fill_(NAN)
    (folder / "checkpoint.pt").unlink()
    torch.save({**checkpoint, "ema": None}, folder / "checkpoint.pt")


def refuse_nan(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def result_is_json(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text(), parse_constant=refuse_nan)
    assert result["energy_mae"] is None
    assert result["conformations"] == 20


def a_run(folder: Path) -> None:
    run = folder / "runs" / "ethanol"
    run.mkdir(parents=True)
    description = {"cell": "schnet-original-ethanol-50000-b30", "seed": 0, "steps": 10, "log": "log"}
    (run / "experiment.json").write_text(json.dumps(description))


def a_result(content: str):
    return all_of(a_run, text("runs/ethanol/result.json", content))


CONVERTED = copied("data", "out")
GOOD = all_of(npz(), CONVERTED)
AGAIN = "md17 convert bad.npz out --train 10 --overwrite"
RESULT = '{"checkpoint": "x", "data": "y", "energy_mae": 1.0}'

ROWS = [
    # --- numbers that float32, or nobody, can use
    md17("NaN energy", npz(E=at((3, 0), NAN)), "bad.npz: conformation 3 has NaN or infinite energies; remove it"),
    md17("infinite force", npz(F=at((3, 1, 1), INF)), "conformation 3 has NaN or infinite forces"),
    md17("NaN position", npz(R=at((3, 1, 1), NAN)), "conformation 3 has NaN or infinite positions"),
    md17("position of 1e39", npz(R=at((3, 1, 1), 1e39)), r"conformation 3 has positions beyond 3\.4e\+38, .*float32"),
    md17("position of 1e200", npz(R=at((3, 1, 1), 1e200)), "conformation 3 has positions beyond", "check its units"),
    md17("force of 1e39", npz(F=at((3, 1, 1), -1e39)), "conformation 3 has forces beyond"),
    md17("energy of 1e300", npz(E=at((3, 0), 1e300)), "conformation 3 has energies beyond"),
    md17(
        "shifted by 1e8",
        npz(R=lambda R: R + 1e8),
        r"conformation \d+ has an atom 1e\+08 Angstrom from the origin",
        "8 Angstrom apart; move the atoms to the origin",
    ),
    md17("shifted by 1e5", npz(R=lambda R: R + 1e5), "an atom 100001 Angstrom from the origin"),
    md17("one atom of 1e30", npz(R=at((3, 1, 1), 1e30)), r"conformation 3 has an atom 1e\+30 Angstrom"),
    md17("shifted by 1000 is fine", npz(R=lambda R: R + 1e3), "written: out/train", status=0),
    md17("coincident atoms", npz(R=lambda R: R[:, [0, 0, 1]]), "atoms 0 and 1 are 0 Angstrom apart, less than 0.1"),
    md17("positions in nm", npz(R=lambda R: R / 10), "check that positions are in Angstrom"),
    md17("all forces 0", npz(F=lambda F: 0 * F), "bad.npz: all forces are 0"),
    md17("all labels 0", npz(F=lambda F: 0 * F, E=lambda E: 0 * E), "bad.npz: all forces are 0"),
    # --- arrays that are not those of a molecule
    md17("element 0", npz(z=np.array([8, 0, 1])), "atom 1 has the atomic number 0"),
    md17("element 119", npz(z=np.array([8, 1, 119])), "atom 2 has the atomic number 119"),
    md17("elements as numbers with a point", npz(z=np.array([8.0, 1, 1])), r"float64 of shape \(3,\); one row of"),
    md17("elements of each conformation", npz(z=np.tile(bad_files.NUMBERS, (20, 1))), r"shape \(20, 3\)"),
    md17("no energies", npz(E=None), "bad.npz has no E; there is: F, R, z"),
    md17("no forces", npz(F=None), "has no F;"),
    md17("nothing of ours", npz(E=None, F=None, R=None, z=None, x=np.zeros(3)), "has no E and no F", "there is: x"),
    md17("fewer energies", npz(E=lambda E: E[:7]), r"the shapes disagree: E \(7, 1\), F \(20, 3, 3\)"),
    md17("other atoms in z", npz(z=np.array([8, 1])), r"the shapes disagree", r"z \(2,\)"),
    md17("no conformations", npz(E=lambda E: E[:0], F=lambda F: F[:0], R=lambda R: R[:0]), "the shapes disagree"),
    md17("a scalar", npz(E=np.array(1.0)), "the shapes disagree"),
    md17("objects", npz(E=lambda E: E.astype(object)), "E holds pickled objects, which are never loaded"),
    md17("complex numbers", npz(F=lambda F: F * 1j), "F holds complex128; store real numbers"),
    md17("words", npz(E=lambda E: E.astype("U20")), "E holds <U20; store real numbers"),
    md17(
        "6,000 atoms",
        npz(z=np.ones(6000, np.uint8), R=np.zeros((1, 6000, 3)), F=np.zeros((1, 6000, 3)), E=np.zeros(1)),
        "has 6,000 atoms in a conformation; molecules of up to 5,000",
    ),
    md17("unknown unit", npz(e_unit=np.array("furlong")), "'furlong', which is not one of kcal/mol"),
    md17(
        "another unit than asked for",
        npz(e_unit=np.array("eV")),
        "states its energies in eV, --units says kJ/mol",
        command="md17 convert bad.npz out --train 5 --units kJ/mol",
    ),
    md17("positions in Bohr", npz(r_unit=np.array("bohr")), "r_unit is 'bohr'; convert positions"),
    # --- files that are not what their name says
    md17("text", text("bad.npz", "E,F,R\n"), "bad.npz is not an npz file, or it is damaged"),
    md17("empty", text("bad.npz", ""), "bad.npz is not an npz file"),
    md17("cut short", edited(npz(), "bad.npz", lambda content: content[: len(content) // 2]), "is not an npz file"),
    md17("a flipped byte", edited(npz(), "bad.npz", flipped), "bad.npz is not an npz file, or it is damaged"),
    md17(
        "unknown compression",
        edited(npz(), "bad.npz", lambda content: content.replace(b"\x08\x00\x00\x00", b"\x63\x00\x00\x00")),
        "is not an npz file, or it is damaged",
    ),
    md17("10^9 rows in 700 bytes", archive(E=member("(1000000000, 1)")), "E announces 8,000,000,128 bytes and has 128"),
    md17("5·10^8 rows, agreed upon", lying_archive, "E announces 4,000,000,128 bytes, which the file is too small for"),
    md17("bytes are missing", archive(F=member("(20, 3, 3)", bytes(99))), "F announces 1,568 bytes and has 227"),
    md17("a negative number of rows", archive(E=member("(-5, 1)")), "E announces"),
    md17("a header that is none", archive(E=b"\x93NUMPY\x01\x00\x10\x00{'descr': spam   "), "E is not a numpy array"),
    md17("no header", archive(E=b"1, 2, 3"), "E is not a numpy array"),
    md17(
        "a header of a megabyte",
        archive(E=b"\x93NUMPY\x02\x00\x00\x00\x10\x00" + b" " * (1 << 20)),
        "E is not a numpy array",
    ),
    md17("a folder", directory("bad.npz"), "bad.npz is a folder; give a file"),
    md17("missing", nothing, "bad.npz: there is no such file"),
    md17(
        "another ending",
        text("bad.csv", ""),
        "only .npz, .xyz, .extxyz files",
        command="md17 convert bad.csv out --train 5",
    ),
    md17("escapes in its name", npz(name=np.array("w\x1b[31mred\x07")), r"molecule +w\\x1b\[31mred\\x07", status=0),
    md17("escapes in its unit", npz(e_unit=np.array("\x1b[2J")), r"'\\x1b\[2J', which is not one of"),
    md17(
        "a name that is not UTF-8",
        not_utf8,
        r"molecule +\\udcff",
        command="md17 convert \udcff.npz \udcffout --train 5",
        status=0,
    ),
    md17("inspected: a folder", directory("bad.npz"), "bad.npz", command="md17 inspect bad.npz"),
    md17("inspected: NaN", npz(E=at((3, 0), NAN)), "conformation 3 has NaN", command="md17 inspect bad.npz"),
    # --- what is asked for
    md17("nothing asked for", npz(), "no conformations asked for", command="md17 convert bad.npz out"),
    md17("a negative size", npz(), "--train -3: the number", command="md17 convert bad.npz out --train -3"),
    md17(
        "more than there is",
        npz(),
        "asked for 21 train = 21 conformations, but there are 20",
        command="md17 convert bad.npz out --train 21",
    ),
    md17("a negative seed", npz(), "--seed -1", command="md17 convert bad.npz out --train 3 --seed -1"),
    md17(
        "an unknown unit asked for",
        npz(),
        "--units 'furlong'",
        command="md17 convert bad.npz out --train 3 --units furlong",
    ),
    md17("an unknown option", npz(), "unknown arguments: --trian 3", command="md17 convert bad.npz out --trian 3"),
    md17(
        "no folder of splits",
        npz(),
        "--split-dir no: there is no such folder",
        command="md17 convert bad.npz out --split-dir no",
    ),
    md17(
        "splits and sizes",
        npz(),
        "--split-dir gives the splits; leave out",
        command="md17 convert bad.npz out --split-dir s --train 3",
    ),
    *(
        md17(
            f"split files: {name}",
            all_of(npz(), text("s/train.txt", "0 1"), text("s/val.txt", "2"), text(f"s/test{ending}", content)),
            *says,
            command="md17 convert bad.npz out --split-dir s",
        )
        for name, ending, content, *says in (
            ("out of range", ".txt", "20", "index 20 is out of range, there are 20"),
            ("in two splits", ".txt", "1 5", "train.txt and s/test.txt share 1 conformations, the first is 1"),
            ("twice in one", ".txt", "5 5", "index 5 is there more than once"),
            ("words", ".txt", "five", "s/test.txt cannot be read as .txt"),
            ("empty", ".txt", "", "s/test.txt holds no indices"),
            ("huge", ".json", "[99999999999999999999]", "an index beyond 64 bits"),
            ("with a point", ".json", "[1.5]", "does not hold a list of integers"),
            ("code", ".pkl", pickle.dumps(os.getcwd), "it names posix.getcwd, which was not run"),
        )
    ),
    # --- OUT is somebody's
    md17("OUT exists", all_of(npz(), directory("out")), "out exists; choose another place, or give --overwrite"),
    md17("OUT is a file", all_of(npz(), text("out", "mine")), "out is not something ocp-dc has written", command=AGAIN),
    md17(
        "OUT is the root", npz(), "/ is the root of all files", command="md17 convert bad.npz / --train 5 --overwrite"
    ),
    md17(
        "OUT is in a file",
        all_of(npz(), text("file", "")),
        "out could not be written",
        command="md17 convert bad.npz file/out --train 5",
    ),
    md17(
        "OUT holds the input",
        all_of(GOOD, copied("bad.npz", "out/train/metadata.npz.npz")),
        "is read, and out would be written over it",
        command="md17 convert out/train/metadata.npz.npz out --train 5 --overwrite",
        given=("data",),
    ),
    md17(
        "a file in OUT",
        all_of(GOOD, text("out/thesis.tex", "years")),
        "out/thesis.tex is not something ocp-dc has written",
        command=AGAIN,
        given=("data",),
    ),
    md17(
        "a file in a split of OUT",
        all_of(GOOD, text("out/train/notes.txt", "years")),
        "out/train/notes.txt is not something",
        command=AGAIN,
        given=("data",),
    ),
    md17(
        "a folder in a split of OUT",
        all_of(GOOD, text("out/train/data.lmdb-old/x", "")),
        "data.lmdb-old is not something",
        command=AGAIN,
        given=("data",),
    ),
    md17(
        "a hidden file in OUT",
        all_of(GOOD, text("out/.git", "")),
        r"out/\.git is not something",
        command=AGAIN,
        given=("data",),
    ),
    md17(
        "a split that is a link", all_of(GOOD, with_a_link), "out/test is not something", command=AGAIN, given=("data",)
    ),
    # --- extended XYZ
    extxyz("empty", text("bad.xyz", ""), "bad.xyz is empty"),
    extxyz(
        "not a number of atoms", text("bad.xyz", "water\n"), "conformation 0 starts with 'water', not with its number"
    ),
    extxyz("no atoms", xyz(edit=lambda words: f"0\n\n{words}"), r"conformation 0 has no atoms \(0 are announced\)"),
    extxyz("less than no atoms", text("bad.xyz", "-3\n"), "conformation 0 has no atoms"),
    extxyz("10^30 atoms", text("bad.xyz", f"1{30 * '0'}\n\n"), "conformation 0 is cut short"),
    extxyz(
        "lines are missing",
        xyz(edit=lambda words: words.rstrip("\n").rsplit("\n", 1)[0] + "\n"),
        "conformation 9 is cut short: 3 atoms",
    ),
    extxyz(
        "cut in a line",
        xyz(edit=lambda words: words[:-40]),
        "conformation 9 is cut short: 3 atoms are announced; get the file again",
    ),
    extxyz(
        "no energy",
        xyz(edit=lambda words: words.replace("energy=", "enrgy=")),
        "conformation 0 cannot be read",
        "energy is missing",
    ),
    extxyz("no forces", xyz(edit=lambda words: words.replace("forces:R", "frces:R")), "forces is missing"),
    extxyz("an unknown element", xyz(edit=lambda words: words.replace("O  ", "Qq ", 1)), "there is no element 'Qq'"),
    extxyz(
        "another molecule", frames("bad.xyz", of=in_another_order), "conformation 3 has other atoms than conformation 0"
    ),
    extxyz(
        "periodic", frames("bad.xyz", of=in_cell(5 * np.eye(3))), "it is periodic, and only molecules are converted"
    ),
    extxyz("binary", text("bad.xyz", bytes(range(256))), "conformation 0 starts with"),
    extxyz("a folder", directory("bad.xyz"), "bad.xyz is a folder"),
    extxyz(
        "far away", frames("bad.xyz", of=moved(bad_files.WATER + 1e6)), "conformation 3 has an atom 1e\\+06 Angstrom"
    ),
    # --- frames of ASE
    oc22(
        "far away",
        frames("bad.traj", of=moved(bad_files.WATER + 1e8)),
        "bad.traj: frame 3 has an atom 1e\\+08 Angstrom",
    ),
    oc22("1e39 away", frames("bad.traj", of=moved(bad_files.WATER + 1e39)), "frame 3: positions beyond"),
    oc22("far away in a cell is wrapped", frames("bad.traj", of=far_in_a_cell), "written", status=0),
    oc22("force of 1e39", frames("bad.traj", forces=np.full((3, 3), 1e39)), "frame 3: forces beyond"),
    oc22("energy of 1e300", frames("bad.traj", energy=1e300), "frame 3: energy beyond"),
    oc22("NaN energy", frames("bad.traj", energy=NAN), "frame 3: NaN or infinite energy"),
    oc22("cell of 1e39", frames("bad.traj", of=in_cell(1e39 * np.eye(3))), "frame 3: cell beyond"),
    oc22("NaN position", frames("bad.traj", of=moved(NAN)), "frame 3: NaN or infinite positions"),
    oc22("NaN cell", frames("bad.traj", of=in_cell(NAN * np.eye(3))), "frame 3: NaN or infinite cell"),
    oc22(
        "periodic without a cell",
        frames("bad.traj", of=in_cell(np.zeros((3, 3)))),
        "frame 3 is periodic along a, but has no such lattice vector",
    ),
    oc22("flat cell", frames("bad.traj", of=in_cell(np.ones((3, 3)))), "frame 3: the cell .* is flat"),
    oc22("coincident images", frames("bad.traj", of=in_cell([1.0, 0.97, 9.0])), "Angstrom apart, less than 0.1"),
    oc22(
        "coincident atoms",
        frames("bad.traj", of=moved(np.zeros((3, 3)))),
        "frame 3: atoms 0 and 1 are 0 Angstrom apart",
    ),
    oc22("no atoms", frames("bad.traj", of=lambda atoms: atoms[:0]), "frame 3 has no atoms; remove it"),
    oc22("no labels", frames("bad.traj", energy=None, forces=None), "frame 3 has no energy or no forces"),
    oc22("all forces 0", without_forces, "bad.traj: all forces are 0"),
    oc22("empty", text("bad.traj", ""), "bad.traj cannot be read"),
    oc22("text", text("bad.traj", "hello"), "bad.traj cannot be read"),
    oc22("cut short", edited(frames("bad.traj"), "bad.traj", lambda content: content[:300]), "bad.traj"),
    oc22("a folder", directory("bad.traj"), "bad.traj is a folder"),
    oc22("another ending", text("bad.cif", ""), "bad.cif: only .traj, .xyz", file="bad.cif"),
    oc22("given twice", frames("bad.traj"), "is given twice", file="bad.traj ./bad.traj"),
    oc22("empty database", text("bad.db", ""), "bad.db is empty", file="bad.db"),
    oc22(
        "database of text", text("bad.db", "hello" * 99), "bad.db cannot be read as an SQLite database", file="bad.db"
    ),
    oc22(
        "another's database",
        foreign_database,
        "bad.db is an SQLite database, but not one of ASE",
        "customers; it was not changed",
        file="bad.db",
    ),
    oc22("a database is only read", with_database, "written: out/train", file="good.db", status=0),
    Row("inspect: another's database", foreign_database, "oc22 inspect bad.db", ("not one of ASE",)),
    oc22("an unknown key", frames("bad.traj"), "frame 0 has no 'system'", options="--train 5 --split-by system"),
    oc22(
        "cutoff -1", frames("bad.traj"), "--cutoff -1.0: it must be a positive number", options="--train 5 --cutoff -1"
    ),
    oc22("cutoff nan", frames("bad.traj"), "--cutoff nan", options="--train 5 --cutoff nan"),
    oc22("neighbours without a cutoff", frames("bad.traj"), "give --cutoff too", options="--train 5 --max-neighbors 3"),
    oc22("shards of nothing", frames("bad.traj"), "--shard-size 0", options="--train 5 --shard-size 0"),
    # --- subsets
    subset("no source", nothing, "no/train: there is no such file or folder", command="oc22 subset no out --train 5"),
    subset(
        "no such split",
        nothing,
        "oxides/val_ood: there is no such file",
        command="oc22 subset oxides out --train 5 --val 2",
    ),
    subset(
        "validation from training",
        nothing,
        "--split train: validation frames",
        command="oc22 subset oxides out --train 5 --val 2 --split train",
    ),
    subset(
        "OUT in the source",
        nothing,
        "oxides is read, and oxides/train/sub would be written",
        command="oc22 subset oxides oxides/train/sub --train 5",
    ),
    subset(
        "OUT beside the splits",
        nothing,
        "oxides is read, and oxides/sub would be",
        command="oc22 subset oxides oxides/sub --train 5",
    ),
    subset(
        "OUT is the source",
        nothing,
        "oxides is read, and oxides would be",
        command="oc22 subset oxides oxides --train 5",
    ),
    subset("OUT is the root", nothing, "root of all files", command="oc22 subset oxides / --train 5"),
    subset("no processes", nothing, "--jobs 0", command="oc22 subset oxides out --train 5 --jobs 0"),
    subset("in kcal/mol stays so", in_kcal, "kcal/mol, Ang, kcal/mol/Ang", status=0, after=still_in_kcal),
    subset(
        "in two units",
        stated("oxides/train/manifest.json", energy_unit="kcal/mol"),
        "the energies are in different units: oxides/train in kcal/mol, oxides/val in eV",
    ),
    subset("in Bohr", stated("oxides/train/manifest.json", length_unit="Bohr"), "lengths in Bohr"),
    subset(
        "cut short", edited(nothing, "oxides/train/data.0000.lmdb", lambda content: content[:9000]), "data.0000.lmdb"
    ),
    subset(
        "infinite position",
        all_of(
            records("tree/train", in_each("pos", INF, row=0), source="oxides/train"), copied("oxides/val", "tree/val")
        ),
        "record 0: NaN or infinite positions",
        command="oc22 subset tree out --train 20 --jobs 1",
        leaves=True,
    ),
    # --- evaluation
    evaluate(
        "batch of nothing", nothing, "--batch-size is 0; give 1 or more", options="--data data/test --batch-size 0"
    ),
    evaluate("less than nothing", nothing, "--batch-size is -1", options="--data data/test --batch-size -1"),
    evaluate(
        "no folder for the result",
        nothing,
        "no/x.json: there is no such folder",
        options="--data data/test --out no/x.json",
    ),
    evaluate("result is a folder", nothing, "data is a folder", options="--data data/test --out data --overwrite"),
    evaluate(
        "result is the checkpoint",
        nothing,
        "checkpoint.pt is not of `ocp-dc evaluate`, so --overwrite does not",
        options="--data data/test --out checkpoint.pt --overwrite",
    ),
    evaluate(
        "result is the data",
        nothing,
        "is not of `ocp-dc evaluate`",
        options="--data data/test --out data/test/data.lmdb --overwrite",
    ),
    evaluate(
        "result is another's",
        text("mine.json", '{"a": 1}'),
        "mine.json is not of `ocp-dc evaluate`",
        options="--data data/test --out mine.json --overwrite",
    ),
    evaluate(
        "result is a run's",
        text("result.json", '{"status": "finished"}'),
        "result.json is not of",
        options="--data data/test --overwrite",
    ),
    evaluate("result exists", text("result.json", RESULT), "result.json exists; name another file with --out, or give"),
    evaluate(
        "details are another's",
        text("x_structures.csv", "a,b"),
        "x_structures.csv is not of",
        options="--data data/test --out x.json --details --overwrite",
    ),
    evaluate(
        "other elements",
        nothing,
        "has [A-Z][a-z]?, and the model was trained on H, C, O: give structures",
        "--any-element",
        options="--data slabs.traj",
    ),
    evaluate("unknown unit", nothing, "energy unit 'furlong'", options="--data slabs.traj --energy-unit furlong"),
    evaluate(
        "another unit than stated",
        nothing,
        "states its energies in kcal/mol, the given energy unit is eV",
        options="--data data/test --energy-unit eV",
    ),
    evaluate(
        "NaN energy",
        records("bad", in_each("y", NAN)),
        r"bad: structure ethanol_pbe_\d+ has NaN or infinite energy|bad: structure .* has NaN or infinite energy",
        options="--data bad",
    ),
    evaluate(
        "infinite force",
        records("bad", in_each("force", INF)),
        "bad: structure .* has NaN or infinite forces",
        options="--data bad",
    ),
    evaluate(
        "infinite position",
        records("bad", in_each("pos", INF)),
        "bad: structure .* has NaN or infinite pos",
        options="--data bad",
    ),
    evaluate(
        "element 0",
        records("bad", in_each("atomic_numbers", 0)),
        "bad: structure .* has X, and the model",
        options="--data bad",
    ),
    evaluate(
        "element 0 in the first",
        records("bad", in_each("atomic_numbers", 0, row=0)),
        "record 0: an atomic number is 0",
        options="--data bad",
    ),
    evaluate("no records", records("bad", list.clear), "there are no records in it", options="--data bad"),
    evaluate(
        "a record is missing", records("bad", list.pop), "19 records, where its manifest has 20", options="--data bad"
    ),
    evaluate(
        "cut short",
        all_of(copied("data/test", "bad"), edited(nothing, "bad/data.lmdb", lambda content: content[:9000])),
        "bad/data.lmdb is cut short",
        options="--data bad",
    ),
    evaluate("not an LMDB", text("bad.lmdb", "hello" * 9999), "bad.lmdb is not an LMDB", options="--data bad.lmdb"),
    evaluate(
        "no labels",
        frames("bad.traj", energy=None, forces=None),
        "structure 3 has no energy and no forces",
        options="--data bad.traj",
    ),
    evaluate("empty file", text("bad.xyz", ""), "bad.xyz is empty", options="--data bad.xyz"),
    evaluate(
        "far away",
        frames("bad.traj", of=moved(bad_files.WATER + 1e8)),
        "structure 3 has an atom 1e\\+08",
        options="--data bad.traj",
    ),
    evaluate(
        "weights of NaN",
        with_nan_weights,
        "predictions for 20 of 20 structures are not finite",
        "null in result.json",
        status=1,
        leaves=True,
        after=result_is_json,
    ),
    Row(
        "evaluate: no checkpoint",
        nothing,
        "evaluate --checkpoint no.pt --data data/test",
        ("checkpoint no.pt: no such file",),
        given=("data",),
    ),
    Row(
        "evaluate: checkpoint of text",
        text("bad.pt", "hello"),
        "evaluate --checkpoint bad.pt --data data/test",
        ("checkpoint bad.pt cannot be read",),
        given=("data",),
    ),
    # --- predictions
    predict(
        "over its input",
        copied(oxide_sample_path(), "in.xyz"),
        "in.xyz is read, and would be replaced",
        options="in.xyz --to in.xyz --overwrite",
    ),
    predict("exists", text("out.extxyz", "mine"), "out.extxyz exists; name another file with --to"),
    predict("another ending", nothing, "out.pdf: predictions are written to .extxyz", options="data/test --to out.pdf"),
    predict("no folder", nothing, "no/out.npz: there is no such folder", options="data/test --to no/out.npz"),
    predict("batch of nothing", nothing, "--batch-size is 0", options="data/test --to out.npz --batch-size 0"),
    predict("other elements", nothing, "the model was trained on H, C, O", options="slabs.traj --to out.npz"),
    predict(
        "no atoms",
        frames("bad.traj", of=lambda atoms: atoms[:0]),
        "structure 3 has no atoms",
        options="bad.traj --to out.npz",
    ),
    predict("another's database", foreign_database, "not one of ASE", options="bad.db --to out.npz"),
    predict("weights of NaN", with_nan_weights, "energy or forces of C2H6O are not finite"),
    # --- reports and runs
    Row("report: no folder", nothing, "report no", ("no: there is no such folder",)),
    Row(
        "report: over a file",
        all_of(a_run, text("thesis.md", "years")),
        "report . --to thesis.md",
        ("thesis.md exists; name another file with --to",),
    ),
    Row(
        "report: CSV over a file",
        all_of(a_run, text("thesis.csv", "years")),
        "report . --format csv --to thesis.csv",
        ("thesis.csv exists",),
    ),
    Row(
        "report: over a folder",
        all_of(a_run, directory("mine")),
        "report . --to mine",
        ("mine is a folder; name a file with --to",),
    ),
    Row(
        "report: figures to a file",
        all_of(a_run, text("mine", "")),
        "report . --format png --to mine",
        ("--to mine is a file",),
    ),
    Row(
        "report: NaN",
        a_result('{"status": "finished", "quantities": {"energy MAE": {"value": NaN, "unit": "eV"}}}'),
        "report .",
        ("result.json is damaged", "NaN, which is no number"),
    ),
    Row("report: half a result", a_result('{"status": "fini'), "report .", ("result.json is damaged",)),
    Row("report: an older result", a_result('{"status": "finished"}'), "report .", ("lacks quantities",)),
    Row(
        "reproduce: a conversion",
        nothing,
        "reproduce table1 --scale smoke --data data --model schnet --out runs",
        ("data is a conversion of ethanol_pbe.npz: name the file",),
        given=("data",),
    ),
    Row(
        "reproduce: a split",
        nothing,
        "reproduce table1 --scale smoke --data data/train --model schnet --out runs",
        ("is a conversion of ethanol_pbe.npz",),
        given=("data",),
    ),
    Row(
        "reproduce: no data",
        nothing,
        "reproduce table1 --scale smoke --data no.npz --out runs",
        ("no.npz: there is no such file or folder",),
    ),
    Row(
        "reproduce: no seeds",
        nothing,
        "reproduce table1 --scale smoke --data sample --seeds 0",
        ("--seeds 0: at least one seed",),
    ),
    Row(
        "reproduce: 10^7 seeds",
        nothing,
        "reproduce table1 --scale smoke --data sample --seeds 10000000 --dry-run",
        ("--seeds 10000000",),
    ),
    Row("reproduce: no jobs", nothing, "reproduce table1 --scale smoke --data sample --jobs 0", ("--jobs 0",)),
    Row(
        "reproduce: no such run",
        nothing,
        "reproduce table1 --scale smoke --data sample --only-index 999",
        ("--only-index 999: the plan has runs 0 to",),
    ),
    Row(
        "fit: no batches",
        nothing,
        "fit-scale-factors --config-yml x.yml --out f.json --num-batches 0",
        ("--num-batches 0",),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input(row, request, tmp_path, monkeypatch, capsys):
    fixtures = {"data": "sample_data", "oxides": "oxide_data", "checkpoint.pt": "ethanol_checkpoint"}
    for name in row.given:
        copied(request.getfixturevalue(fixtures[name]), name)(tmp_path)
    if "slabs.traj" in row.command:
        copied(oxide_sample_path(), "slabs.traj")(tmp_path)
    row.make(tmp_path)
    before = bad_files.contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    status = cli.main(shlex.split(row.command))
    printed = capsys.readouterr()
    after = bad_files.contents(tmp_path)

    assert status == row.status, printed.err
    where = printed.err if status else printed.out
    for pattern in row.says:
        assert re.search(pattern, where), where
    assert "Traceback" not in printed.err
    assert not re.search(r"[\x07\x1b]", re.sub(r"\x1b\[A", "", printed.out + printed.err))
    if status:
        assert printed.err.splitlines()[-1].startswith("ocp-dc: error: ")
    assert {name: after.get(name) for name in before} == before
    if status and not row.leaves:
        assert sorted(after) == sorted(before)
    row.after(tmp_path)


def test_an_error_of_our_own_is_told_in_a_line_and_shown_on_demand(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ZeroDivisionError("of \x1b[31m zero")

    npz()(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ocp_dc.datasets.molecule_conversion.random_split", fail)
    command = ["md17", "convert", "bad.npz", "out", "--train", "3"]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        r"ocp-dc: error: ZeroDivisionError: of \x1b[31m zero; `ocp-dc --debug COMMAND …` shows where"
    )
    assert error.count("\n") == 1
    assert cli.main(["--debug", *command]) == 1
    assert "in random_split" not in error
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["--debug", "md17", "convert", "no.npz", "out"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_keeps_the_earlier_conversion_and_says_so(sample_data, tmp_path, monkeypatch, capsys):
    def on_a_full_disk(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    npz()(tmp_path)
    copied(sample_data, "out")(tmp_path)
    before = bad_files.contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ocp_dc.datasets.molecule_conversion.write_npz", on_a_full_disk)
    assert cli.main(["md17", "convert", "bad.npz", "out", "--train", "3", "--overwrite"]) == 2
    assert "No space left on device; the earlier conversion there is as it was" in capsys.readouterr().err
    assert bad_files.contents(tmp_path) == before
    monkeypatch.setattr("ocp_dc.config_commands.format_table", on_a_full_disk)
    assert cli.main(["configs"]) == 2
    assert "No space left on device; check the free space" in capsys.readouterr().err


def in_shell(command: str, **environment) -> subprocess.CompletedProcess:
    program = f"{shlex.quote(sys.executable)} -m ocp_dc.cli"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('ocp-dc', program)}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_output_that_cannot_be_written_or_that_nobody_reads():
    full = in_shell("ocp-dc configs > /dev/full")
    assert full.returncode == 2
    assert re.fullmatch(r"ocp-dc: error: .*No space left on device; check .*\n", full.stderr)
    for command in ("configs", "--help"):
        unread = in_shell(f"(sleep 0.3; ocp-dc {command}) | true")
        # argparse does not mind
        assert unread.returncode in ((141,) if command == "configs" else (0, 141))
        assert unread.stderr == ""
    closed = in_shell("ocp-dc configs >&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_an_ascii_terminal():
    shown = in_shell("ocp-dc predict --help", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert r"eV/\xc5" in shown.stdout
    wrong = in_shell("ocp-dc configs Å", PYTHONIOENCODING="ascii")
    assert wrong.returncode == 2
    assert r"\xc5" in wrong.stderr


def test_a_lock_that_passes_leaves_no_file(tmp_path):
    path = tmp_path / "data" / ".lock"
    with passing_lock(path):
        assert is_locked(path)
    assert list(path.parent.iterdir()) == []
    # a waiting process does not take a lock on a file that is not there any more
    with path.open("a") as removed:
        path.unlink()
        fcntl.flock(removed, fcntl.LOCK_EX)
        with passing_lock(path):
            assert is_locked(path)
