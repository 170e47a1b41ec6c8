"""Getting, converting and describing data; training reads the LMDBs with the host's own ``lmdb`` dataset."""

from ocp_dc.datasets.manifest import LabelStatistics, Manifest, read_manifest
from ocp_dc.datasets.md17 import convert, open_trajectory, sample_path

__all__ = ["LabelStatistics", "Manifest", "convert", "open_trajectory", "read_manifest", "sample_path"]
