"""Where the conformations come from: the user's files, a download, and their conversion once for all runs."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.download import FILE_OF_MOLECULE, download
from ocp_dc.datasets.manifest import Manifest, read_manifest, sha256_of
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.oc22_subset import draw_subset
from ocp_dc.datasets.samples import SAMPLE_WORD, oxide_sample_path, sample_path
from ocp_dc.datasets.splits import Split, read_index_files
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.errors import InputError
from ocp_dc.locks import file_lock, is_locked, passing_lock

MOLECULE_OF_FORMULA = {
    "C9H8O4": "aspirin",
    "C6H6": "benzene",
    "C2H6O": "ethanol",
    "C3H4O2": "malonaldehyde",
    "C10H8": "naphthalene",
    "C7H6O3": "salicylic",
    "C7H8": "toluene",
    "C4H4N2O2": "uracil",
}
OTHER_FOLDER = "choose another --out, or remove that folder and the runs made with it"


@dataclass(frozen=True)
class Source(ABC):
    """Files of conformations and how they are split.

    Attributes:
        path: see the subclasses.
        split_seed: of the random split.
        split_dir: index files that give the splits instead.
    """

    path: Path
    split_seed: int = 0
    split_dir: Path | None = None
    split_names: ClassVar[tuple[str, ...]] = SPLIT_NAMES

    @property
    def test_split(self) -> str:
        """The split that errors are taken on."""
        return self.split_names[-1]

    def only_molecule(self) -> str | None:
        """The molecule of a file of one; None where there are several, or it is none of MD17's.

        Raises:
            InputError: the file is missing, unreadable, or of another molecule than MD17's.
        """
        return None

    def indices_dir(self, molecule: str) -> Path | None:
        """The folder of the index files; None where splits are random."""
        return self.split_dir

    def sizes(self, molecule: str, sizes: dict[str, int]) -> dict[str, int]:
        """Conformations in each split: those asked for, or as many as the index files name."""
        indices_dir = self.indices_dir(molecule)
        if indices_dir is None:
            return sizes
        return {name: len(rows) for name, rows in _given_split(indices_dir, self.split_names).indices.items()}

    def prepare(self, molecule: str, sizes: dict[str, int], folder: Path) -> dict[str, Manifest]:
        """Converts to ``folder``, once: other processes wait, and an earlier conversion is used.

        Raises:
            InputError: the source cannot be had or converted, or ``folder`` holds something else.
        """
        lock = folder.with_name(f".{molecule}.lock")
        if is_locked(lock):
            tqdm.write(f"waiting for another process, which prepares {molecule}")
        with file_lock(lock):
            if not folder.exists():
                self._convert(molecule, sizes, folder)
            manifests = {name: read_manifest(folder / name) for name in sizes}
            self._require_as_asked(molecule, sizes, folder, manifests)
        return manifests

    @abstractmethod
    def _convert(self, molecule: str, sizes: dict[str, int], folder: Path) -> None: ...

    def _require_as_asked(
        self, molecule: str, sizes: dict[str, int], folder: Path, manifests: dict[str, Manifest | None]
    ) -> None:
        if not all(manifests.values()):
            raise InputError(f"{folder} is not a conversion to {', '.join(sizes)}; {OTHER_FOLDER}")
        if {name: manifest.count for name, manifest in manifests.items()} != sizes:
            raise InputError(f"{folder} has splits of other sizes than the {sizes} asked for; {OTHER_FOLDER}")
        manifest, indices_dir = manifests["train"], self.indices_dir(molecule)
        if manifest.split_files != (_given_split(indices_dir, self.split_names).files if indices_dir else {}):
            raise InputError(f"{folder} was not split by --split-dir {self.split_dir}; {OTHER_FOLDER}")
        file = self._source_file(molecule)
        if file.is_file() and sha256_of(file) != manifest.source_sha256:
            raise InputError(f"{folder} was converted from another {manifest.source_file} than {file}; {OTHER_FOLDER}")

    def _source_file(self, molecule: str) -> Path:
        return self.path


class MoleculeSource(Source):
    """``path``: a file of one molecule, or a folder of ``md17_<molecule>.npz``, to which missing ones are downloaded.

    ``split_dir``: index files in ``<split_dir>/<molecule>``, or in ``split_dir`` itself where ``path`` is a file.
    """

    def only_molecule(self) -> str | None:
        _refuse_conversion(self.path)
        if self.path.is_dir():
            return None
        _require_existing(self.path, "a folder (make it first) to which the published files are downloaded")
        trajectory = open_trajectory(self.path)
        if trajectory.formula not in MOLECULE_OF_FORMULA:
            raise InputError(
                f"--data {self.path} holds {trajectory.molecule}, {trajectory.formula}; the paper's molecules are "
                f"{', '.join(f'{name} ({formula})' for formula, name in MOLECULE_OF_FORMULA.items())}"
            )
        return MOLECULE_OF_FORMULA[trajectory.formula]

    def indices_dir(self, molecule: str) -> Path | None:
        if self.split_dir is None:
            return None
        of_molecule = self.split_dir / molecule
        return self.split_dir if self.path.is_file() and not of_molecule.is_dir() else of_molecule

    def _convert(self, molecule: str, sizes: dict[str, int], folder: Path) -> None:
        convert(
            self._file(molecule),
            folder,
            sizes=sizes,
            seed=self.split_seed,
            split_dir=self.indices_dir(molecule),
            show_progress=True,
        )

    def _file(self, molecule: str) -> Path:
        if self.path.is_file():
            return self.path
        with passing_lock(self.path / f".{FILE_OF_MOLECULE[molecule]}.lock"):
            return download(molecule, self.path, show_progress=True)

    def _source_file(self, molecule: str) -> Path:
        return self.path if self.path.is_file() else self.path / FILE_OF_MOLECULE[molecule]


def molecule_files(given: Path | None, out: Path) -> Path:
    """What ``--data`` means for molecules: a file, the embedded sample, or a folder, by default one in ``out``."""
    path = given or out / "downloads"
    return sample_path() if str(path) == SAMPLE_WORD else path


def one_molecule(given: Path | None, out: Path, otherwise: str) -> tuple[MoleculeSource, str]:
    """What ``--data`` means for a single molecule: that of a file, or ``otherwise`` from a folder."""
    source = MoleculeSource(molecule_files(given, out).resolve())
    return source, (source.only_molecule() if given else None) or otherwise


class FrameSource(Source):
    """``path``: a file of labelled periodic structures that ASE reads, the embedded sample among them."""

    def _convert(self, molecule: str, sizes: dict[str, int], folder: Path) -> None:
        _require_existing(self.path, "the folder of OC22's S2EF-total LMDBs")
        convert_structures(
            [self.path], folder, sizes=sizes, seed=self.split_seed, split_dir=self.split_dir, show_progress=True
        )


class OC22Source(Source):
    """``path``: the folder of OC22's S2EF-total LMDBs, with train and val_ood in it.

    Networks are tested on frames of val_ood, as in the paper, which are also those for validation: its errors are
    taken after the last step, so nothing is chosen by them.
    """

    split_names = ("train", "val")

    def sizes(self, molecule: str, sizes: dict[str, int]) -> dict[str, int]:
        return super().sizes(molecule, {"train": sizes["train"], "val": sizes["test"]})

    def _convert(self, molecule: str, sizes: dict[str, int], folder: Path) -> None:
        _require_existing(self.path, "the folder of OC22's S2EF-total LMDBs")
        draw_subset(
            self.path,
            folder,
            sizes=sizes,
            seed=self.split_seed,
            split_dir=self.split_dir,
            jobs=len(os.sched_getaffinity(0)),
            show_progress=True,
        )


def structure_files(given: Path) -> tuple[type[Source], Path]:
    """What ``--data`` means for periodic structures: a file, the embedded sample, or the folder of OC22's LMDBs."""
    path = oxide_sample_path() if str(given) == SAMPLE_WORD else given
    return (FrameSource if path.is_file() else OC22Source), path


def _refuse_conversion(path: Path) -> None:
    """What `ocp-dc md17 convert` has made is split already, and has no files to convert in it."""
    folders = (path, *(path / name for name in SPLIT_NAMES)) if path.is_dir() else ()
    if manifest := next(filter(None, map(read_manifest, folders)), None):
        raise InputError(
            f"--data {path} is a conversion of {manifest.source_file}: name the file that it was converted from, the "
            "word sample, or a folder of the published files"
        )


def _require_existing(path: Path, instead: str) -> None:
    if not path.exists():
        raise InputError(f"--data {path}: there is no such file or folder; name a file, the word sample, or {instead}")


@functools.cache
def _given_split(folder: Path, names: tuple[str, ...]) -> Split:
    # whether there are these rows is for the conversion to see
    return read_index_files(folder, dict.fromkeys(names, 2**63 - 1))
