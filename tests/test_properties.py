"""What holds for all data, looked for in examples that hypothesis makes up: conversions, splits, edges, rescaling."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import ase.io
import bad_files
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.conformations import check_conformations
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.splits import grouped_split, random_split
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.edges import periodic_edges
from ocp_dc.errors import InputError
from ocp_dc.rescaling import rescaling_constant

# the same examples at each run, and none kept in a folder
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)
several = settings(few, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

seeds = some.integers(0, 2**32 - 1)


# --- conversions -----------------------------------------------------------------------------------------------------


@few
@given(
    seed=seeds,
    count=some.integers(1, 8),
    natoms=some.integers(1, 5),
    scale=some.floats(1e-6, 1e6, allow_subnormal=False),
)
def test_molecules_come_back_from_lmdbs_as_they_were_to_float32(seed, count, natoms, scale):
    random = np.random.default_rng(seed)
    arrays = {
        "E": scale * random.normal(size=(count, 1)),
        "F": scale * random.normal(size=(count, natoms, 3)),
        "R": 1.5 * np.arange(natoms)[:, None] + 0.1 * random.normal(size=(count, natoms, 3)),
        "z": random.integers(1, 119, natoms),
    }
    train = int(random.integers(1, count + 1))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "made.npz", **arrays)
        convert(Path(folder) / "made.npz", Path(folder) / "out", sizes={"train": train, "test": count - train}, seed=3)
        graphs = {graph.fid: graph for file in Path(folder).glob("out/*/data.lmdb") for graph in read_all(file)}
    assert sorted(graphs) == list(range(count))
    for row, graph in graphs.items():
        assert np.array_equal(graph.pos, arrays["R"][row].astype(np.float32))
        assert np.array_equal(graph.force, arrays["F"][row].astype(np.float32))
        assert graph.y.item() == arrays["E"][row, 0]
        assert np.array_equal(graph.atomic_numbers, arrays["z"])


def read_all(file: Path) -> list:
    with RecordFile(file) as records:
        return [records[row] for row in range(len(records))]


@few
@given(seed=seeds, pbc=some.tuples(some.booleans(), some.booleans(), some.booleans()), cells_away=some.integers(0, 50))
def test_structures_come_back_inside_of_their_cell(seed, pbc, cells_away):
    random = np.random.default_rng(seed)
    cell = np.diag([4.0, 5.0, 6.0]) + random.normal(scale=0.3, size=(3, 3))
    inside = np.array([[0.1, 0.1, 0.1], [0.6, 0.5, 0.2], [0.3, 0.8, 0.7]])
    shifts = random.integers(-cells_away, cells_away + 1, (3, 3)) * np.array(pbc)
    atoms = Atoms("TiO2", (inside + shifts) @ cell, cell=cell, pbc=pbc)
    forces, energy = random.normal(size=(3, 3)), random.normal()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    with tempfile.TemporaryDirectory() as folder:
        ase.io.write(Path(folder) / "made.traj", [atoms])
        convert_structures([Path(folder) / "made.traj"], Path(folder) / "out", sizes={"train": 1})
        (graph,) = read_all(Path(folder) / "out" / "train" / "data.0000.lmdb")
    np.testing.assert_allclose(graph.pos, inside @ cell, atol=1e-5)
    assert np.array_equal(graph.force, forces.astype(np.float32))
    assert graph.y.item() == energy
    assert graph.pbc.flatten().tolist() == list(pbc)


def flip_or_cut(data, content: bytes) -> bytes:
    """Some bytes of a file changed, or its end cut off."""
    damaged = bytearray(content[: data.draw(some.integers(0, len(content)))] if data.draw(some.booleans()) else content)
    for _ in range(data.draw(some.integers(0, 3))) if damaged else ():
        damaged[data.draw(some.integers(0, len(damaged) - 1))] = data.draw(some.integers(0, 255))
    return bytes(damaged)


MAKERS = {
    "npz": bad_files.npz(name=np.array("water"), e_unit=np.array("eV")),
    "xyz": bad_files.xyz(),
    "traj": bad_files.frames("bad.traj"),
    "db": bad_files.frames("bad.db"),
}


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    for make in MAKERS.values():
        make(folder)
    return {ending: (folder / f"bad.{ending}").read_bytes() for ending in MAKERS}


@several
@given(ending=some.sampled_from(list(MAKERS)), data=some.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_and_never_changed(sound_files, ending, data):
    content = flip_or_cut(data, sound_files[ending])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"bad.{ending}"
        file.write_bytes(content)
        try:
            if ending in ("npz", "xyz"):
                trajectory = open_trajectory(file)
                for block in trajectory.blocks():
                    check_conformations(file, block)
            else:
                frames = open_frames(file)
                for row in range(frames.count):
                    frames.structure(row, row)
        except InputError as error:
            assert file.name in str(error)  # noqa: PT017
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == {file.name: content}


# --- splits ----------------------------------------------------------------------------------------------------------


@several
@given(
    sizes=some.fixed_dictionaries({name: some.integers(0, 30) for name in ("train", "val", "test")}),
    left_over=some.integers(0, 10),
    seed=some.integers(0, 2**63 - 1),
)
def test_splits_are_disjoint_as_large_as_asked_for_and_of_their_seed(sizes, left_over, seed):
    assume(sum(sizes.values()))
    count = sum(sizes.values()) + left_over
    split = random_split(count, sizes, seed)
    rows = np.concatenate(list(split.indices.values()))
    assert {name: len(chosen) for name, chosen in split.indices.items()} == {k: n for k, n in sizes.items() if n}
    assert len(np.unique(rows)) == len(rows) == sum(sizes.values())
    assert 0 <= rows.min() <= rows.max() < count
    assert all((np.diff(chosen) > 0).all() for chosen in split.indices.values())
    again = random_split(count, sizes, seed)
    assert all(np.array_equal(again.indices[name], chosen) for name, chosen in split.indices.items())
    larger = random_split(count, {**sizes, "train": sizes["train"] + left_over}, seed)
    for name in ("val", "test"):
        assert np.array_equal(larger.indices.get(name, []), split.indices.get(name, []))
    assert set(split.indices.get("train", ())) <= set(larger.indices.get("train", ()))


@several
@given(groups=some.lists(some.sampled_from("abcdef"), min_size=3, max_size=40), seed=seeds, data=some.data())
def test_no_group_is_in_two_splits(groups, seed, data):
    sizes = {name: data.draw(some.integers(0, len(groups) // 3)) for name in ("train", "val", "test")}
    assume(sum(sizes.values()))
    try:
        split = grouped_split(groups, sizes, seed, "letter")
    except InputError as error:
        assert "no letter may be in two splits" in str(error)  # noqa: PT017
        return
    letters = [{groups[row] for row in rows} for rows in split.indices.values()]
    assert sum(map(len, letters)) == len(set().union(*letters))
    assert {name: len(rows) for name, rows in split.indices.items()} == {k: n for k, n in sizes.items() if n}


# --- edges -----------------------------------------------------------------------------------------------------------

CUTOFF = 3.5


def vectors_of(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> dict[tuple[int, int], list]:
    """By pair of atoms, receiver first, the vectors of its edges, sorted."""
    (sender, receiver), offsets, _ = periodic_edges(
        torch.tensor(positions),
        torch.tensor(cell)[None],
        torch.tensor(pbc)[None],
        torch.tensor([len(positions)]),
        CUTOFF,
        max_neighbors=1_000,
    )
    found: dict[tuple[int, int], list] = {}
    for i, j, offset in zip(receiver.tolist(), sender.tolist(), offsets.double().numpy(), strict=True):
        vector = positions[j] - positions[i] + offset @ cell
        found.setdefault((i, j), []).append(tuple(np.round(vector, 6) + 0.0))
    return {pair: sorted(vectors) for pair, vectors in found.items()}


def images_within(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> int:
    """Pairs of atoms and images within a distance, counted one by one."""
    reach = [range(-4, 5) if periodic else (0,) for periodic in pbc]
    offsets = np.array(np.meshgrid(*reach)).reshape(3, -1).T @ cell
    distances = np.linalg.norm(positions[None, :, None] - positions[:, None, None] + offsets, axis=-1)
    return int(((distances <= cutoff) & (distances > 0.01)).sum())


@few
@given(seed=seeds, natoms=some.integers(1, 5), pbc=some.tuples(some.booleans(), some.booleans(), some.booleans()))
def test_edges_do_not_depend_on_images_and_order(seed, natoms, pbc):
    random, pbc = np.random.default_rng(seed), np.array(pbc)
    cell = np.diag(random.uniform(2.5, 6, 3)) + random.normal(scale=0.4, size=(3, 3))
    positions = random.random((natoms, 3)) @ cell
    # an edge at the very cutoff may be there or not, by rounding
    count = images_within(positions, cell, pbc, CUTOFF)
    assume(images_within(positions, cell, pbc, CUTOFF - 1e-3) == images_within(positions, cell, pbc, CUTOFF + 1e-3))
    edges = vectors_of(positions, cell, pbc)
    assert sum(map(len, edges.values())) == count

    moved = positions + (random.integers(-3, 4, (natoms, 3)) * pbc) @ cell + random.normal(size=3)
    of_moved = vectors_of(moved, cell, pbc)
    assert of_moved.keys() == edges.keys()
    for pair, vectors in edges.items():
        np.testing.assert_allclose(np.sort(of_moved[pair], axis=0), np.sort(vectors, axis=0), atol=1e-5)
    order = random.permutation(natoms)
    permuted = vectors_of(positions[order], cell, pbc)
    assert permuted.keys() == {(i, j) for i in range(natoms) for j in range(natoms) if (order[i], order[j]) in edges}
    for (i, j), vectors in permuted.items():
        assert vectors == edges[order[i], order[j]]


# --- rescaling -------------------------------------------------------------------------------------------------------


@several
@given(label=some.floats(1e-300, 1e300, allow_subnormal=False), exponent=some.integers(-290, 290))
def test_c_is_the_smallest_power_of_ten_that_no_label_exceeds(label, exponent):
    power = float(f"1e{exponent}")
    for value in (label, power, math.nextafter(power, math.inf), math.nextafter(power, 0)):
        constant = rescaling_constant(value)
        mantissa, _, _ = f"{constant:.0e}".partition("e")
        assert float(f"{constant:.0e}") == constant
        assert mantissa == "1"
        assert value <= constant
        assert float(f"{constant / 10:.0e}") < value
        assert abs(value / constant) <= 1
