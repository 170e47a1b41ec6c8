"""Where the conformations come from: the user's files, a download, and their conversion once for all runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ocp_dc.datasets.download import FILE_OF_MOLECULE, download
from ocp_dc.datasets.manifest import Manifest, read_manifest
from ocp_dc.datasets.md17 import convert, open_trajectory, sha256_of
from ocp_dc.datasets.splits import SPLIT_NAMES, Split, read_split_dir
from ocp_dc.errors import InputError
from ocp_dc.experiments.locks import file_lock, is_locked

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


@dataclass(frozen=True)
class Source:
    """The files of conformations and how they are split.

    Attributes:
        path: a file of one molecule, or a folder of ``md17_<molecule>.npz``, to which missing ones are downloaded.
        split_seed: of the random split.
        split_dir: given splits instead: index files in ``<split_dir>/<molecule>``, or in ``split_dir`` itself where
            ``path`` is a file.
    """

    path: Path
    split_seed: int = 0
    split_dir: Path | None = None

    def only_molecule(self) -> str | None:
        """The molecule of a file, None for a folder.

        Raises:
            InputError: the file is missing, unreadable, or of no molecule of MD17.
        """
        if self.path.is_dir():
            return None
        if not self.path.exists():
            raise InputError(
                f"--data {self.path}: there is no such file or folder; name a file, the word sample, or a folder (make "
                "it first) to which the published files are downloaded"
            )
        trajectory = open_trajectory(self.path)
        if trajectory.formula not in MOLECULE_OF_FORMULA:
            raise InputError(
                f"--data {self.path} holds {trajectory.molecule}, {trajectory.formula}; the paper's molecules are "
                f"{', '.join(f'{name} ({formula})' for formula, name in MOLECULE_OF_FORMULA.items())}"
            )
        return MOLECULE_OF_FORMULA[trajectory.formula]

    def indices_dir(self, molecule: str) -> Path | None:
        """The folder of a molecule's index files; None where splits are random."""
        if self.split_dir is None:
            return None
        of_molecule = self.split_dir / molecule
        return self.split_dir if self.path.is_file() and not of_molecule.is_dir() else of_molecule

    def sizes(self, molecule: str, sizes: dict[str, int]) -> dict[str, int]:
        """Conformations in each split: those asked for, or as many as the index files name."""
        indices_dir = self.indices_dir(molecule)
        if indices_dir is None:
            return sizes
        return {name: len(rows) for name, rows in _given_split(indices_dir).indices.items()}

    def prepare(self, molecule: str, sizes: dict[str, int], folder: Path) -> dict[str, Manifest]:
        """Converts a molecule to ``folder``, once: other processes wait, and an earlier conversion is used.

        Raises:
            InputError: the file cannot be had or converted, or ``folder`` holds something else.
        """
        lock = folder.with_name(f".{molecule}.lock")
        if is_locked(lock):
            tqdm.write(f"waiting for another process, which prepares {molecule}")
        with file_lock(lock):
            if not folder.exists():
                convert(
                    self._file(molecule),
                    folder,
                    sizes=sizes,
                    seed=self.split_seed,
                    split_dir=self.indices_dir(molecule),
                    show_progress=True,
                )
            manifests = {name: read_manifest(folder / name) for name in SPLIT_NAMES}
            self._require_as_asked(molecule, sizes, folder, manifests)
        return manifests

    def _file(self, molecule: str) -> Path:
        if self.path.is_file():
            return self.path
        with file_lock(self.path / f".{FILE_OF_MOLECULE[molecule]}.lock"):
            return download(molecule, self.path, show_progress=True)

    def _require_as_asked(
        self, molecule: str, sizes: dict[str, int], folder: Path, manifests: dict[str, Manifest | None]
    ) -> None:
        remedy = "choose another --out, or remove that folder and the runs made with it"
        if not all(manifests.values()):
            raise InputError(f"{folder} is not a conversion to train, val and test; {remedy}")
        if {name: manifest.count for name, manifest in manifests.items()} != sizes:
            raise InputError(f"{folder} has splits of other sizes than the {sizes} asked for; {remedy}")
        manifest = manifests["train"]
        if manifest.split_files != self._split_files(molecule):
            raise InputError(f"{folder} was not split by --split-dir {self.split_dir}; {remedy}")
        file = self.path if self.path.is_file() else self.path / FILE_OF_MOLECULE[molecule]
        if file.exists() and sha256_of(file) != manifest.source_sha256:
            raise InputError(f"{folder} was converted from another {manifest.source_file} than {file}; {remedy}")

    def _split_files(self, molecule: str) -> dict[str, str]:
        indices_dir = self.indices_dir(molecule)
        return _given_split(indices_dir).files if indices_dir else {}


@functools.cache
def _given_split(folder: Path) -> Split:
    # whether the file of conformations has these rows is for the conversion to see
    return read_split_dir(folder, count=2**63 - 1)
