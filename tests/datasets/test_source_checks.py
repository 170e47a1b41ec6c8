"""LMDBs are looked through before they are used."""

import contextlib
import os
import pickle
import shutil

import lmdb
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from ocp_dc.datasets.conformations import MAX_ATOMIC_NUMBER
from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.lmdb import RecordWriter
from ocp_dc.datasets.source_checks import Expected, SourceWatch, check_source
from ocp_dc.errors import InputError
from ocp_dc.models import build_model
from ocp_dc.trainers.config_keys import known_elements

MOLECULE = {
    "pos": [[0, 0, 0], [0, 0, 1.1]],
    "force": np.zeros((2, 3)),
    "y": -3.0,
    "pbc": np.zeros((1, 3)),
    "cell": 50 * np.eye(3)[None],
    "atomic_numbers": [6, 8],
    "natoms": 2,
}


def record(**changes):
    fields = {name: value for name, value in {**MOLECULE, **changes}.items() if value is not None}
    return set_fields(Data(), **fields)


@pytest.fixture
def written(tmp_path):
    def write(*records):
        file = tmp_path / "data.0000.lmdb"
        with RecordWriter(file) as writer:
            for each in records:
                writer.put(each)
        return tmp_path

    return write


MISTAKES = {
    "NaN energy": ({"y": np.nan}, "NaN or infinite y; remove it, or get or convert the data again"),
    "infinite position": ({"pos": [[0, 0, 0], [0, 0, np.inf]]}, "NaN or infinite pos"),
    "infinite force": ({"force": np.full((2, 3), np.inf)}, "NaN or infinite force"),
    "no energy": ({"y": None}, r"has no energy \(y or energy or E\)"),
    "no forces": ({"force": None}, r"has no forces \(force or forces\)"),
    "no positions": ({"pos": None}, "has no pos"),
    "no atoms": ({"atomic_numbers": None}, "has no atomic_numbers"),
    "forces of other atoms": ({"force": np.zeros((3, 3))}, r"force of shape \(3, 3\), where \(2, 3\) is needed"),
    "atomic number 0": ({"atomic_numbers": [0, 8]}, "an atomic number is 0"),
    "unknown element": ({"atomic_numbers": [6, 92]}, "has U, which the model does not know"),
    "atoms on one another": ({"pos": [[0, 0, 0], [0, 0, 0.01]]}, "two atoms are 0.01 Angstrom apart"),
    "no edges": ({"pos": [[0, 0, 0], [0, 0, 7]]}, r"no two atoms are within model\.cutoff, 6\.0 Angstrom"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_an_unsound_record_is_named(written, changes, message):
    folder = written(record(), record(**changes))
    expected = Expected(key_mapping={"E": "energy", "force": "forces"}, cutoff=6.0, elements=range(1, 84))
    check_source("dataset.train.src is data", folder, expected)
    with pytest.raises(InputError, match=f"data.0000.lmdb: record 1.*{message}"):
        check_source("dataset.train.src is data", folder, expected, every_record=True)


def test_sound_records_pass(written):
    renamed = record(y=None)
    renamed.E = torch.tensor([1.0])
    single = record(pos=[[0, 0, 0]], force=np.zeros((1, 3)), atomic_numbers=[6], natoms=1)
    apart_but_periodic = record(pos=[[0, 0, 0], [0, 0, 7]], pbc=np.ones((1, 3)))
    folder = written(record(), renamed, single, apart_but_periodic)
    check_source("data", folder, Expected(key_mapping={"E": "energy"}, cutoff=6.0), every_record=True)
    unlabelled = written_beside(folder, record(y=None, force=None))
    check_source("data", unlabelled, Expected(labelled=False), every_record=True)


def written_beside(folder, *records):
    (folder / "other").mkdir()
    with RecordWriter(folder / "other" / "data.lmdb") as writer:
        for each in records:
            writer.put(each)
    return folder / "other"


def test_files_that_are_not_whole_are_refused(sample_data, written, tmp_path):
    with pytest.raises(InputError, match=r"dataset\.val\.src is nowhere: no LMDB there"):
        check_source("dataset.val.src is nowhere", tmp_path / "nowhere")
    with pytest.raises(InputError, match="data: there are no records in it"):
        check_source("data", written())
    split = shutil.copytree(sample_data / "train", tmp_path / "train")
    (file,) = split.glob("*.lmdb")
    check_source("data", split, every_record=True)
    size = file.stat().st_size
    os.truncate(file, size // 2)
    with pytest.raises(InputError, match=r"is cut short: .* bytes are there; get the file again"):
        check_source("data", split)


def test_numbers_of_records_must_agree(sample_data, tmp_path):
    split = shutil.copytree(sample_data / "train", tmp_path / "train")
    (file,) = split.glob("*.lmdb")
    with lmdb.open(str(file), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        count = pickle.loads(transaction.get(b"length"))
        transaction.put(b"length", pickle.dumps(count - 1))
    with pytest.raises(InputError, match=f"{count - 1} records, where its manifest has {count}"):
        check_source("data", split)
    (split / "manifest.json").unlink()
    with pytest.raises(InputError, match=rf"{count - 1} records, where .*metadata\.npz has {count}"):
        check_source("data", split)


def test_a_file_that_shrinks_or_goes_is_noticed(tmp_path):
    file = tmp_path / "data.lmdb"
    file.write_bytes(b"1234")
    watch = SourceWatch([file])
    watch.check()
    file.write_bytes(b"12")
    with pytest.raises(InputError, match="cut short while it was read, to 2 of 4 bytes"):
        watch.check()
    file.unlink()
    with pytest.raises(InputError, match="has been removed while it was read"):
        watch.check()


# elements in the middle of the table lack radii in ForceNet's
TRIED = (1, 2, 35, 36, 37, 53, 54, 55, *range(83, 104), MAX_ATOMIC_NUMBER)
SMALL = {
    "schnet": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 5},
    "cgcnn": {"atom_embedding_size": 8, "num_graph_conv_layers": 1, "fc_feat_size": 8, "num_gaussians": 5},
    "dimenetplusplus": {
        "hidden_channels": 8,
        "out_emb_channels": 8,
        "num_blocks": 1,
        "int_emb_size": 4,
        "num_spherical": 2,
        "num_radial": 2,
    },
    "forcenet": {"hidden_channels": 8, "decoder_hidden_channels": 8, "num_interactions": 1, "basis": "gauss"},
}


@pytest.mark.parametrize("name", SMALL)
def test_known_elements_are_those_that_a_model_has_energies_for(name):
    settings = {"name": f"{name}_irelu", "activation": "original", "use_pbc": False, "otf_graph": True}
    settings |= {"cutoff": 6.0, "regress_forces": False, **SMALL[name]}
    model = build_model(settings)
    known = []
    for number in TRIED:
        with contextlib.suppress(IndexError, KeyError, RuntimeError):
            batch = Batch.from_data_list([record(atomic_numbers=[6, number])])
            known += [number] * bool(model(batch)["energy"].isfinite().all())
    assert [number for number in TRIED if number in known_elements(settings)] == known
