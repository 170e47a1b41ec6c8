"""Config files are read as fairchem reads them, and what is wrong with them is said with file and line."""

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.config_files import config_file, config_names
from ocp_dc.configuration.reading import read_config
from ocp_dc.errors import InputError


@pytest.mark.parametrize("name", config_names())
def test_gives_what_fairchem_gives(name):
    config = read_config(config_file(name))
    assert config.content == load_config(config_file(name))[0]
    file, line = config.places["model.cutoff"].rsplit(":", 1)
    with open(file) as stream:
        assert stream.read().splitlines()[int(line) - 1].strip() == f"cutoff: {config.content['model']['cutoff']}"


def test_a_file_overrides_what_it_includes(tmp_path):
    (tmp_path / "base.yml").write_text("optim: {lr_initial: 1.0, batch_size: 5}\nlist: [{a: 1}]\n")
    file = tmp_path / "own.yml"
    file.write_text("includes: [base.yml]\n\noptim:\n  lr_initial: 2.0\nlist: 3\n")
    config = read_config(file)
    assert config.content == {"optim": {"lr_initial": 2.0, "batch_size": 5}, "list": 3}
    assert config.places == {
        "optim": f"{file}:3",
        "optim.lr_initial": f"{file}:4",
        "optim.batch_size": f"{tmp_path}/base.yml:1",
        "list": f"{file}:5",
    }


@pytest.mark.parametrize(
    ("own", "unused"),
    [
        ("optim: {lr_initial: 2.0}\n", set()),
        ("optim: {scheduler: CosineAnnealingLR}\n", {"pct_start", "cycle_momentum"}),
        ("optim: {scheduler: OneCycleLR, pct_start: 0.5}\n", {"cycle_momentum"}),
        # was given by the same file: a mistake that is for the checks to name
        ("optim: {scheduler: StepLR, pct_start: 0.5, step_size: 3}\n", {"cycle_momentum"}),
    ],
)
def test_what_a_scheduler_took_is_unused_once_it_is_replaced(tmp_path, own, unused):
    base = "optim:\n  scheduler: OneCycleLR\n  pct_start: 0.05\n  cycle_momentum: false\n  lr_initial: 1.0\n"
    (tmp_path / "base.yml").write_text(base)
    (tmp_path / "own.yml").write_text(f"includes: [base.yml]\n{own}")
    (tmp_path / "last.yml").write_text("includes: [own.yml]\noptim: {lr_initial: 3.0}\n")
    for name in ("own.yml", "last.yml"):
        config = read_config(tmp_path / name)
        assert config.unused == unused
        assert config.content == load_config(tmp_path / name)[0]


MISTAKES = {
    "empty": ("", "is empty; a config is a mapping of sections"),
    "comment alone": ("# nothing\n", "is empty"),
    "list": ("- model\n", "is a sequence; a config is a mapping"),
    "word": ("model\n", "is a scalar; a config is a mapping"),
    "tab": ("model:\n\tname: schnet\n", r"own\.yml:2: not valid YAML: .*; indent with spaces, not with tabs"),
    "syntax": ("model: {name: schnet\noptim: 3\n", r"own\.yml:\d: not valid YAML: "),
    "two documents": ("a: 1\n---\nb: 2\n", r"own\.yml:\d: not valid YAML: "),
    "key twice": ("a: 1\nb: 2\na: 3\n", r"own\.yml:3: a is there already \(.*own\.yml:1\): remove one"),
    "inner key twice": ("a:\n  b: 1\n  b: 1\n", r"own\.yml:3: a\.b is there already"),
    "python object": ("a: !!python/object/apply:os.system [ls]\n", "own.yml:1: .*Python objects are not allowed"),
    "alias of itself": ("a: &a {b: *a}\n", "nested too deeply, or an alias is of what it stands in"),
    "include missing": ("includes: [no.yml]\n", r"own\.yml:1: includes no\.yml, and there is no such file"),
    "include itself": ("includes: [own.yml]\n", r"includes itself \(.*own\.yml -> .*own\.yml\)"),
    "include a word": ("includes: other.yml\n", r"own\.yml:1: includes is 'other\.yml'; give a list"),
    "include numbers": ("includes: [3]\n", "give a list of files"),
    "include two of one key": (
        "includes: [one.yml, two.yml]\n",
        "a.b is set by two includes, at .*one.*2 and",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named_with_file_and_line(tmp_path, text, message):
    (tmp_path / "one.yml").write_text("a:\n  b: 1\n")
    (tmp_path / "two.yml").write_text("a: {b: 1}\n")
    file = tmp_path / "own.yml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(file)


def test_aliases_are_taken_as_long_as_no_one_multiplies_them(tmp_path):
    file = tmp_path / "own.yml"
    levels = [f"l{level}: &l{level} {{a: *l{level - 1}, b: *l{level - 1}}}\n" for level in range(1, 15)]
    file.write_text("l0: &l0 [1, 2]\n" + "".join(levels[:5]))
    assert read_config(file).content["l5"]["a"]["b"]["a"]["b"]["a"] == [1, 2]
    file.write_text("l0: &l0 [1, 2]\n" + "".join(levels))
    with pytest.raises(InputError, match=r"own\.yml is more than 10,000 keys and values, as aliases repeat them"):
        read_config(file)


def test_other_encodings_and_folders_are_refused(tmp_path):
    file = tmp_path / "latin.yml"
    file.write_bytes("# Größe\nmodel: {}\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.yml is not UTF-8 \(byte 4\)"):
        read_config(file)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_config(tmp_path)
