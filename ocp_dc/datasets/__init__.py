"""Getting, converting and describing data; training reads the LMDBs with the host's own ``lmdb`` dataset."""

from ocp_dc.datasets.manifest import Manifest, MoleculeManifest, StructuresManifest, read_manifest
from ocp_dc.datasets.molecule_conversion import convert, open_trajectory, sample_path
from ocp_dc.datasets.structure_conversion import convert_structures, draw_subset, oxide_sample_path
from ocp_dc.statistics import LabelStatistics

__all__ = [
    "LabelStatistics",
    "Manifest",
    "MoleculeManifest",
    "StructuresManifest",
    "convert",
    "convert_structures",
    "draw_subset",
    "open_trajectory",
    "oxide_sample_path",
    "read_manifest",
    "sample_path",
]
