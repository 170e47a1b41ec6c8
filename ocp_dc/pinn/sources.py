"""Where the data of a run come from: PDEBench's files, or data made by the same recipe and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

import ocp_dc
from ocp_dc.locks import file_lock
from ocp_dc.pinn.equations import Equation
from ocp_dc.pinn.extra import import_h5py
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.generation import RECIPES, SOLVERS, generate
from ocp_dc.pinn.hdf5 import read_field, write_fields
from ocp_dc.runs.records import read_record, write_record

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileSource:
    """A sample of a file of PDEBench's, or of a folder that has it."""

    path: Path
    sample: int

    def prepare(self, equation: Equation) -> tuple[Path, dict]:
        """Reads it once, so that what is wrong is known before anything is run.

        Returns:
            The file, and what ``experiment.json`` says of the data.

        Raises:
            InputError: it cannot be used.
        """
        shape = list(read_field(self.path, equation, self.sample).values.shape)
        about = f"sample {self.sample} of {equation.file}"
        return self.path, {"about": about, "row": self.sample, "shape": shape}


@dataclass(frozen=True)
class GeneratedSource:
    """A sample that is generated on first use and kept in a folder, in PDEBench's layout, with a manifest.

    Attributes:
        folder: for all generated data.
        sample: its number, which seeds it.
        cells: along each coordinate.
        times: from the first to the last.
    """

    folder: Path
    sample: int
    cells: int
    times: int

    def prepare(self, equation: Equation) -> tuple[Path, dict]:
        """Generates it if it is not there; the same as :meth:`FileSource.prepare`."""
        path = self.folder / f"{equation.name}-{self.cells}x{self.times}-{self.sample}" / equation.file
        content = self._content(equation)
        with file_lock(path.parent / "lock"):
            manifest = read_record(path.parent / MANIFEST)
            if not manifest or manifest["content"] != content or not path.is_file():
                write_fields(path, equation, [generate(equation, self.sample, self.cells, self.times)])
                modules = (ocp_dc, np, scipy, import_h5py())
                versions = {module.__name__: module.__version__ for module in modules}
                write_record(path.parent / MANIFEST, {"content": content, "versions": versions})
        about = f"sample {self.sample} made by PDEBench's recipe ({SOLVERS[equation.name]})"
        return path, {"about": about, "row": 0, **content}

    def _content(self, equation: Equation) -> dict:
        return {
            "equation": equation.name,
            "recipe": RECIPES[equation.name],
            "solver": SOLVERS[equation.name],
            "seed": self.sample,
            "shape": [self.times, *[self.cells] * equation.space, len(equation.components)],
        }


def field_of(description: dict, equation: Equation) -> Field:
    """The data of a run, by what its ``experiment.json`` says."""
    return read_field(Path(description["data_path"]), equation, description["data"]["row"])
