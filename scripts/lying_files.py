"""Small files that announce, or would unfold into, far more than memory holds, and what reads each of them.

`load_test.py` measures how long each takes to be refused, and in how much memory.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ase.io
import numpy as np
import torch
from ase import Atoms
from numpy.lib import format as npy
from torch_geometric.data import Data

from ocp_dc.configuration.reading import read_config
from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.lmdb import RecordWriter
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.shard_tree import ShardFolder
from ocp_dc.datasets.source_checks import check_source
from ocp_dc.datasets.splits import read_index_files
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.runs.slurm import read_slurm_settings
from ocp_dc.trainers.checkpoints import read_checkpoint

MEGABYTE = 2**20
ROWS = 5 * 10**8
# what a compressed file of a megabyte or less unfolds into: enough to be seen, and made in a moment
UNFOLDED = 200 * MEGABYTE
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


@dataclass(frozen=True)
class Lie:
    """A file that lies.

    Attributes:
        name: of what it is, and how it lies.
        make: writes it into a folder.
        read: reads it from there, which is to be refused.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Announced:
    """An array in numpy's format: its header, and so many bytes of zeros, however many the header announces."""

    shape: str
    descr: str = "<f8"
    zeros: int = 0

    @property
    def header(self) -> bytes:
        header = f"{{'descr': '{self.descr}', 'fortran_order': False, 'shape': {self.shape}, }}"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()

    def write(self, stream: BinaryIO) -> None:
        stream.write(self.header)
        for start in range(0, self.zeros, MEGABYTE):
            stream.write(bytes(min(MEGABYTE, self.zeros - start)))


def write_archive(file: Path, members: Mapping[str, Announced | np.ndarray]) -> None:
    """An npz file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in members.items():
            with archive.open(f"{key}.npy", "w") as stream:
                content.write(stream) if isinstance(content, Announced) else npy.write_array(stream, content)


def molecule(**members: Announced) -> Callable[[Path], None]:
    """``lie.npz`` in the layout of MD17, of twenty water molecules where nothing else is given."""

    def make(folder: Path) -> None:
        positions = np.repeat(WATER[None], 20, axis=0)
        honest = {"E": np.zeros((20, 1)), "F": np.ones((20, 3, 3)), "R": positions, "z": np.array([8, 1, 1])}
        write_archive(folder / "lie.npz", honest | members)

    return make


def lying_twice(folder: Path) -> None:
    """The directory of the archive agrees with what the array announces."""
    array = Announced(f"({ROWS}, 1)")
    molecule(E=array)(folder)
    content = (folder / "lie.npz").read_bytes()
    directory = content.find(b"PK\x01\x02")
    size = len(array.header)
    before, after = (number.to_bytes(4, "little") for number in (size, size + 8 * ROWS))
    (folder / "lie.npz").write_bytes(content[:directory] + content[directory:].replace(before, after, 1))


def unfolding_molecules(folder: Path) -> None:
    """Conformations in a byte a number, all atoms at the origin."""
    count = UNFOLDED // 36
    energies = Announced(f"({count}, 1)", "|i1", count)
    vectors = Announced(f"({count}, 3, 3)", "|i1", 9 * count)
    molecule(E=energies, F=vectors, R=vectors)(folder)


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def records(length: object = None, natoms: int = 3, metadata: int | None = None) -> Callable[[Path], None]:
    """An LMDB of two water molecules, in which a number is another: of records, of atoms, of records beside it."""

    def make(folder: Path) -> None:
        fields = {"pos": WATER, "force": WATER, "y": [0.0], "cell": np.eye(3)[None], "pbc": [[0, 0, 0]]}
        graph = set_fields(Data(), **fields, atomic_numbers=[8, 1, 1], natoms=natoms, tags=[0] * 3, fixed=[0] * 3)
        with RecordWriter(folder / "data.lmdb") as writer:
            writer.put(graph)
            writer.put(graph)
            if length is not None:
                writer.count = length
        if metadata:
            write_archive(folder / "metadata.npz", {"natoms": Announced(f"({metadata},)", "<i8")})

    return make


def aliases(depth: int) -> str:
    """YAML whose every level is ten times the one below."""
    levels = [f"  l{n}: &l{n} {{" + ", ".join(f"k{k}: *l{n - 1}" for k in range(10)) + "}" for n in range(1, depth)]
    return "\n".join(["model:", "  l0: &l0 {a: 1}", *levels])


def included(folder: Path) -> None:
    """Each file includes two that both include the next two."""
    for level in range(24):
        for twin in "ab":
            (folder / f"{twin}{level}.yml").write_text(f"includes: [a{level + 1}.yml, b{level + 1}.yml]\n")
    for twin in "ab":
        (folder / f"{twin}24.yml").write_text("model: {}\n")
    (folder / "lie.yml").write_text("includes: [a0.yml, b0.yml]\n")


def tensors(header: dict | None, size: int | None = None) -> Callable[[Path], None]:
    """A safetensors file that is a header alone."""
    content = json.dumps(header).encode()
    return text("lie.safetensors", struct.pack("<Q", size or len(content)) + content)


def announced_tensor(size: int) -> dict:
    return {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}


def unfolding_checkpoint(folder: Path) -> None:
    """A checkpoint that has been compressed, which PyTorch never does."""
    torch.save({"state_dict": {"weight": torch.zeros(UNFOLDED // 4)}}, folder / "whole.pt")
    with (
        zipfile.ZipFile(folder / "whole.pt") as whole,
        zipfile.ZipFile(folder / "lie.pt", "w", zipfile.ZIP_DEFLATED) as lie,
    ):
        for name in whole.namelist():
            lie.writestr(name, whole.read(name))
    (folder / "whole.pt").unlink()


def overlapping_checkpoint(folder: Path) -> None:
    """Many members that are all the same bytes of the file."""
    with zipfile.ZipFile(folder / "one.pt", "w") as file:
        file.writestr("archive/data/0", bytes(MEGABYTE))
    content = (folder / "one.pt").read_bytes()
    (folder / "one.pt").unlink()
    start = content.find(b"PK\x01\x02")
    end = content.find(b"PK\x05\x06")
    entry, count = content[start:end], UNFOLDED // MEGABYTE
    directory = b"".join(entry.replace(b"data/0", b"data/" + bytes([33 + n % 90])) for n in range(count))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    (folder / "lie.pt").write_bytes(content[:start] + directory + tail)


def trajectory_of_ase(folder: Path) -> None:
    """A frame whose positions are announced to be of more atoms."""
    ase.io.write(folder / "lie.traj", Atoms("OH2", positions=np.eye(3)))
    content = (folder / "lie.traj").read_bytes()
    start = content.index(b'{"version"')
    description = content[start:].replace(b"[[3, 3]", b"[[10000000000, 3]")
    (folder / "lie.traj").write_bytes(content[: start - 8] + struct.pack("<Q", len(description)) + description)


def remembered(number: int) -> bytes:
    """A pickled list that is to be remembered as the object of this number."""
    return pickle.PROTO + b"\x04" + pickle.EMPTY_LIST + pickle.LONG_BINPUT + struct.pack("<I", number) + pickle.STOP


def columns(count: int) -> str:
    """A molecule whose forces are announced to have so many."""
    return f"1\nProperties=species:S:1:pos:R:3:forces:R:{count} energy=0\nH 0 0 0 0 0 0\n"


def read_checked(folder: Path) -> None:
    check_source("lie", folder)


def read_npz(folder: Path) -> object:
    return open_trajectory(folder / "lie.npz")


def read_xyz(folder: Path) -> object:
    return open_trajectory(folder / "lie.xyz")


def read_frame(folder: Path) -> object:
    return open_frames(next(folder.glob("lie.*"))).structure(0, fid=0)


def read_yaml(folder: Path) -> object:
    return read_config(folder / "lie.yml")


def read_indices(folder: Path) -> object:
    return read_index_files(folder, {"train": 10})


def read_model(folder: Path) -> object:
    return read_checkpoint(next(folder.glob("lie.*")), torch.device("cpu"))


LIES = (
    Lie("npz: 5·10⁸ energies", molecule(E=Announced(f"({ROWS}, 1)")), read_npz),
    Lie("npz: and the archive agrees", lying_twice, read_npz),
    Lie("npz: atomic numbers of 200 MB", molecule(z=Announced("(1,)", f"|S{UNFOLDED}", UNFOLDED)), read_npz),
    Lie(
        "npz: 6·10⁶ conformations of zeros, converted",
        unfolding_molecules,
        lambda folder: convert(folder / "lie.npz", folder / "out", sizes={"train": 10}),
    ),
    Lie("npz: the same, predicted", unfolding_molecules, lambda folder: read_structures(folder / "lie.npz")[0]),
    Lie("npy: 10¹¹ indices", text("train.npy", Announced(f"({10**11},)", "<i8").header), read_indices),
    Lie("pkl: to remember 6·10⁷ objects", text("train.pkl", remembered(2**26)), read_indices),
    Lie("JSON: lists in lists", text("train.json", "[" * 10**6), read_indices),
    Lie("JSON: a manifest of lists in lists", text("manifest.json", "[" * 10**6), read_manifest),
    Lie("LMDB: 10¹² records", records(length=10**12), read_checked),
    Lie("LMDB: no number of records", records(length="many"), read_checked),
    Lie("LMDB: a molecule of 10⁹ atoms", records(natoms=10**9), read_checked),
    Lie("metadata.npz: 10¹¹ records", records(metadata=10**11), read_checked),
    Lie("metadata.npz: 10¹¹ records, to be subset", records(metadata=10**11), ShardFolder.open),
    Lie("xyz: 10¹¹ atoms", text("lie.xyz", f"{10**11}\n\nH 0 0 0\n"), read_xyz),
    Lie("xyz: 10⁷ columns", text("lie.xyz", columns(10**7)), read_frame),
    Lie("traj: 10¹⁰ atoms", trajectory_of_ase, read_frame),
    Lie("YAML: aliases of aliases", text("lie.yml", aliases(9)), read_yaml),
    Lie("YAML: an alias of itself", text("lie.yml", "model: &a {b: *a}\n"), read_yaml),
    Lie("YAML: lists in lists", text("lie.yml", "model: " + "[" * 10**4), read_yaml),
    Lie("YAML: includes of includes", included, read_yaml),
    Lie(
        "YAML: SLURM's settings, aliases of aliases",
        text("lie.yml", f"{aliases(9)}\nslurm: {{qos: *l8}}\n"),
        lambda folder: read_slurm_settings(folder / "lie.yml"),
    ),
    Lie("safetensors: a header of 1 TB", tensors({}, 2**40), read_model),
    Lie("safetensors: a tensor of 400 GB", tensors({"w": announced_tensor(10**11)}), read_model),
    Lie("safetensors: lists in lists", tensors({"__metadata__": {"ocp_dc": "[" * 10**5}}), read_model),
    Lie("checkpoint: compressed", unfolding_checkpoint, read_model),
    Lie("checkpoint: its parts are one another", overlapping_checkpoint, read_model),
)
