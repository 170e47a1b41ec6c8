"""Getting, converting and describing data.

Training reads the LMDBs with fairchem's own ``lmdb`` dataset, or with ``md17_packed`` of
:mod:`~ocp_dc.datasets.packed`.
"""

from importlib import import_module

# imported when first asked for: most of them need torch
_MODULE_OF = {
    "LabelStatistics": "ocp_dc.statistics",
    "Manifest": "ocp_dc.datasets.manifest",
    "MoleculeManifest": "ocp_dc.datasets.manifest",
    "PackedDataset": "ocp_dc.datasets.packed",
    "StructuresManifest": "ocp_dc.datasets.manifest",
    "convert": "ocp_dc.datasets.molecule_conversion",
    "convert_structures": "ocp_dc.datasets.structure_conversion",
    "draw_subset": "ocp_dc.datasets.oc22_subset",
    "open_trajectory": "ocp_dc.datasets.molecule_files",
    "oxide_sample_path": "ocp_dc.datasets.samples",
    "read_manifest": "ocp_dc.datasets.manifest",
    "sample_path": "ocp_dc.datasets.samples",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
