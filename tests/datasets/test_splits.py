import json
import os
import pickle

import numpy as np
import pytest

from ocp_dc.datasets.splits import grouped_split, random_split, read_split_dir
from ocp_dc.errors import InputError

GIVEN = {"train": [5, 3, 8], "valid": [1, 0], "test": [9]}


def write_given(folder, suffix=".json", **changes):
    for name, rows in {**GIVEN, **changes}.items():
        file = folder / f"{name}{suffix}"
        if suffix == ".npy":
            np.save(file, np.asarray(rows))
        elif suffix == ".pkl":
            file.write_bytes(pickle.dumps(rows))
        elif suffix == ".json":
            file.write_text(json.dumps(rows))
        else:
            file.write_text("\n".join(map(str, rows)))


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_random_split_is_disjoint_sized_and_repeatable():
    sizes = {"train": 50, "val": 20, "test": 10}
    split = random_split(100, sizes, seed=4)
    assert {name: len(rows) for name, rows in split.indices.items()} == sizes
    together = np.concatenate(list(split.indices.values()))
    assert len(np.unique(together)) == 80
    assert together.max() < 100
    for name, rows in random_split(100, sizes, seed=4).indices.items():
        np.testing.assert_array_equal(rows, split.indices[name])
        assert np.all(np.diff(rows) > 0)
    assert not np.array_equal(random_split(100, sizes, seed=5).indices["train"], split.indices["train"])


def test_random_split_is_what_the_docstring_says():
    order = np.random.default_rng(7).permutation(30)
    indices = random_split(30, {"train": 5, "val": 3, "test": 4}, seed=7).indices
    assert sorted(order[:4]) == indices["test"].tolist()
    assert sorted(order[4:7]) == indices["val"].tolist()
    assert sorted(order[7:12]) == indices["train"].tolist()


def test_larger_training_sets_keep_the_others():
    small = random_split(100, {"train": 10, "val": 5, "test": 5}, seed=0).indices
    large = random_split(100, {"train": 60, "val": 5, "test": 5}, seed=0).indices
    assert small["test"].tolist() == large["test"].tolist()
    assert small["val"].tolist() == large["val"].tolist()
    assert set(small["train"]) < set(large["train"])


def test_random_split_is_uniform():
    drawn = np.zeros(20)
    for seed in range(400):
        drawn[random_split(20, {"train": 10}, seed).indices["train"]] += 1
    assert np.all(np.abs(drawn - 200) < 50)  # five standard deviations


@pytest.mark.parametrize(
    ("sizes", "seed", "message"),
    [
        ({"train": 8, "test": 3}, 0, r"8 train \+ 3 test = 11 conformations, but there are 10"),
        ({"train": -1}, 0, "--train -1"),
        ({}, 0, "no conformations asked for"),
        ({"train": 1}, -3, "--seed -3"),
    ],
)
def test_bad_sizes(sizes, seed, message):
    with pytest.raises(InputError, match=message):
        random_split(10, sizes, seed)


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".json", ".pkl"])
def test_given_split_in_every_format(tmp_path, suffix):
    write_given(tmp_path, suffix)
    split = read_split_dir(tmp_path, 10)
    assert {name: rows.tolist() for name, rows in split.indices.items()} == {
        "train": [3, 5, 8],
        "val": [0, 1],
        "test": [9],
    }
    assert split.method == "given"
    assert set(split.files) == {f"{name}{suffix}" for name in GIVEN}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(tmp_path, protocol):
    write_given(tmp_path)
    (tmp_path / "train.json").unlink()
    (tmp_path / "train.pkl").write_bytes(pickle.dumps([200, 3, 70_000], protocol=protocol))
    assert read_split_dir(tmp_path, 100_000).indices["train"].tolist() == [3, 200, 70_000]


def test_a_file_called_val(tmp_path):
    write_given(tmp_path)
    (tmp_path / "valid.json").rename(tmp_path / "val.json")
    assert read_split_dir(tmp_path, 10).indices["val"].tolist() == [0, 1]


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path):
    write_given(tmp_path)
    (tmp_path / "train.json").unlink()
    marker = tmp_path / "was_run"
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(InputError, match=r"train\.pkl is not a pickled list of integers: it names posix\.mkdir"):
        read_split_dir(tmp_path, 10)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"train": [1]}), "not hold a list of integers"),
        (pickle.dumps([1, 2.0]), "not hold a list of integers"),
        (pickle.dumps([1, True]), "not hold a list of integers"),
        (pickle.dumps([1, [2]]), "not hold a list of integers"),
        (pickle.dumps(np.arange(3)), "it names numpy"),
        (pickle.dumps([1, 2])[:-3], "cannot be read as .pkl"),
        (b"", "cannot be read as .pkl"),
        (pickle.dumps([2**70]), "beyond 64 bits"),
    ],
)
def test_a_pickle_of_anything_else(tmp_path, content, message):
    write_given(tmp_path)
    (tmp_path / "test.json").unlink()
    (tmp_path / "test.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_split_dir(tmp_path, 10)


@pytest.mark.parametrize(
    ("suffix", "changes", "message"),
    [
        (".json", {"train": [1, 2]}, r"train\.json and .*valid\.json share 1 conformations, the first is 1"),
        (".json", {"test": [10]}, r"test\.json: index 10 is out of range, there are 10"),
        (".txt", {"test": [-1]}, r"test\.txt: index -1 is out of range"),
        (".json", {"train": [4, 4]}, "index 4 is there more than once"),
        (".json", {"train": []}, "holds no indices"),
        (".json", {"train": {"a": 1}}, "does not hold a list of integers"),
        (".npy", {"train": [0.5]}, "float64 of shape"),
        (".npy", {"train": [[3, 4]]}, r"int64 of shape \(1, 2\)"),
        (".txt", {"train": ["x"]}, r"train\.txt cannot be read as \.txt"),
    ],
)
def test_bad_given_splits(tmp_path, suffix, changes, message):
    write_given(tmp_path, suffix, **changes)
    with pytest.raises(InputError, match=message):
        read_split_dir(tmp_path, 10)


def test_missing_and_ambiguous_files(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_split_dir(tmp_path / "nowhere", 10)
    write_given(tmp_path)
    (tmp_path / "valid.txt").write_text("1")
    with pytest.raises(InputError, match=r"both valid\.txt and valid\.json"):
        read_split_dir(tmp_path, 10)
    (tmp_path / "valid.txt").unlink()
    (tmp_path / "test.json").unlink()
    with pytest.raises(InputError, match="has no file test"):
        read_split_dir(tmp_path, 10)


# splits that no group is in two of

GROUPS = [f"system {number}" for number in np.random.default_rng(0).integers(12, size=200)]


def test_grouped_split_has_the_sizes_and_no_group_in_two():
    sizes = {"train": 90, "val": 25, "test": 30}
    split = grouped_split(GROUPS, sizes, seed=3, by="system")
    assert (split.method, split.seed, split.by) == ("random", 3, "system")
    assert {name: len(np.unique(rows)) for name, rows in split.indices.items()} == sizes
    groups = {name: {GROUPS[row] for row in rows} for name, rows in split.indices.items()}
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    for name, rows in grouped_split(GROUPS, sizes, seed=3, by="system").indices.items():
        np.testing.assert_array_equal(rows, split.indices[name])
        assert np.all(np.diff(rows) > 0)


def test_grouped_training_sets_are_nested_and_keep_the_others():
    small = grouped_split(GROUPS, {"train": 20, "val": 25, "test": 30}, seed=3, by="system").indices
    large = grouped_split(GROUPS, {"train": 90, "val": 25, "test": 30}, seed=3, by="system").indices
    assert small["test"].tolist() == large["test"].tolist()
    assert small["val"].tolist() == large["val"].tolist()
    assert set(small["train"]) < set(large["train"])


def test_every_group_is_drawn_as_often():
    groups = ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5
    drawn = np.zeros(20)
    for seed in range(400):
        drawn[grouped_split(groups, {"train": 3}, seed, by="letter").indices["train"]] += 1
    assert drawn.sum() == 1200
    assert np.all(np.abs(drawn - 60) < 36)  # five standard deviations


def test_groups_too_few_for_the_splits():
    groups = ["a"] * 5 + ["b"] * 5
    assert len(grouped_split(groups, {"train": 5, "test": 1}, 0, by="file").indices["train"]) == 5
    with pytest.raises(
        InputError, match=r"--train 6: only 5 conformations are left for it, since no file may be in two splits \(2 of"
    ):
        grouped_split(groups, {"train": 6, "test": 1}, 0, by="file")
    with pytest.raises(InputError, match=r"--train 1: only 0 conf"):
        grouped_split(groups, {"train": 1, "val": 1, "test": 1}, 0, by="file")
    with pytest.raises(InputError, match="but there are 10"):
        grouped_split(groups, {"train": 11}, 0, by="file")
