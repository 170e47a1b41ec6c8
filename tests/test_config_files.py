import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fairchem.core.common.utils import load_config

import ocp_dc
from ocp_dc.config_commands import add_config_commands
from ocp_dc.config_files import CONFIGS, config_file, config_names, config_path, summary
from ocp_dc.errors import InputError

ROOT = Path(__file__).parent.parent


def typed(content) -> str:
    """Equal only for equal values of equal types: 1, 1.0 and true differ."""
    return json.dumps(content, sort_keys=True)


def resolved(path) -> str:
    content, _, conflicts = load_config(path)
    assert not conflicts
    return typed(content)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_config_commands(parser.add_subparsers())
    args = parser.parse_args(["configs", *arguments])
    return args.func(args)


def test_names_are_those_of_the_runnable_files():
    folders = [ROOT / "configs" / name for name in ("md17", "oc22")]
    files = {f"{folder.name}/{file.stem}" for folder in folders for file in folder.glob("*.yml")}
    assert config_names() == sorted(files - {"md17/base", "oc22/base"})
    assert all("model" in load_config(config_file(name))[0] for name in config_names())


@pytest.mark.parametrize("name", ["md17/schnet_dc", "md17/schnet_dc.yml"])
def test_a_name_is_a_shipped_config_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path(name) == config_file(name) == Path(ocp_dc.__file__).parent / "configs/md17/schnet_dc.yml"
    assert config_file(name).samefile(ROOT / "configs" / "md17" / "schnet_dc.yml")


def test_an_existing_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "md17").mkdir()
    (tmp_path / "md17" / "schnet_dc.yml").write_text("model: {name: mine}")
    assert config_path("md17/schnet_dc.yml") == Path("md17/schnet_dc.yml")
    assert config_path("md17/schnet_dc") == CONFIGS / "md17" / "schnet_dc.yml"


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("md17/schnett_dc", "md17/schnet_dc, "),
        ("schnet_dc.yml", "md17/schnet_dc"),
        ("configs/oc22/cgcn_dc.yml", "oc22/cgcnn_dc"),
        ("md17/base", "md17/"),
        ("../models/schnet", "schnet"),
        ("zzz", "md17/cgcnn;"),
    ],
)
def test_an_unknown_name_is_told_similar_ones(name, similar):
    for find in (config_path, config_file, summary):
        with pytest.raises(InputError) as error:
            find(name)
        assert str(error.value).startswith(f"{name}: no such file, and no config")
        assert similar in str(error.value)


def test_summaries_say_what_each_config_is():
    summaries = [summary(name) for name in config_names()]
    assert summary("md17/schnet_dc") == "SchNet, the paper's method: IReLU, labels divided by C = 1,000,000"
    assert all(line[0].isupper() and len(line) < 95 and line[-1] not in "., " for line in summaries)
    of_md17 = [line for name, line in zip(config_names(), summaries, strict=True) if name.startswith("md17/")]
    assert len(of_md17) == len(set(of_md17))


def test_the_summary_is_the_whole_first_sentence(monkeypatch, tmp_path):
    (tmp_path / "md17").mkdir()
    (tmp_path / "md17" / "a.yml").write_text(
        "# A sentence of\n# two lines with 1.5 in it. Another.\nmodel: {}\n# more.\n"
    )
    monkeypatch.setattr("ocp_dc.config_files.CONFIGS", tmp_path)
    assert summary("md17/a") == "A sentence of two lines with 1.5 in it"


def test_lists_all_configs(capsys):
    assert run() == 0
    *lines, folder = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == config_names()
    starts = {line.index(summary(line.split()[0])) for line in lines}
    assert len(starts) == 1
    assert folder == f"in {CONFIGS}"


@pytest.mark.parametrize("name", config_names())
def test_prints_what_a_config_resolves_to(name, capsys):
    assert run(name) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"# {config_file(name)}\n")
    assert typed(yaml.safe_load(printed)) == resolved(config_file(name))


def test_prints_the_path(capsys):
    assert run("--path", "oc22/schnet") == 0
    assert capsys.readouterr().out == f"{CONFIGS / 'oc22' / 'schnet.yml'}\n"
    with pytest.raises(InputError, match="--path needs the NAME"):
        run("--path")
    with pytest.raises(InputError, match="oc22/schnet"):
        run("--path", "oc22/schnett")


@pytest.fixture(params=["copy", "folder_link", "collection_links", "relative"])
def elsewhere(request, tmp_path, monkeypatch) -> Path:
    """The configs, reached in another way."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    if request.param == "copy":
        installed = tmp_path / "site-packages" / "ocp_dc" / "configs"
        shutil.copytree(ROOT / "configs", installed)
        return installed
    if request.param == "folder_link":
        (tmp_path / "link").symlink_to(ROOT / "configs")
        return tmp_path / "link"
    if request.param == "collection_links":
        for name in ("md17", "oc22"):
            (work / name).symlink_to(ROOT / "configs" / name)
        return work
    monkeypatch.chdir(ROOT / "configs" / "oc22")
    return Path("..")


def test_configs_resolve_alike_from_anywhere(elsewhere):
    for name in config_names():
        assert resolved(elsewhere / f"{name}.yml") == resolved(config_file(name)), name


def test_files_in_the_working_folder_are_not_taken_for_includes(tmp_path, monkeypatch):
    expected = {name: resolved(config_file(name)) for name in config_names()}
    monkeypatch.chdir(tmp_path)
    for file in (file for folder in ("common", "models", "md17") for file in (CONFIGS / folder).glob("*.yml")):
        for copy in (tmp_path / file.name, tmp_path / file.parent.name / file.name):
            copy.parent.mkdir(exist_ok=True)
            copy.write_text("model: {name: mine}")
    assert {name: resolved(config_file(name)) for name in config_names()} == expected


def test_finding_a_config_imports_nothing_heavy():
    program = """
import importlib.util, sys, types
package = types.ModuleType("ocp_dc")
package.__path__ = [sys.argv[1]]
sys.modules["ocp_dc"] = package
import ocp_dc.config_commands, ocp_dc.config_files
ocp_dc.config_files.summary("md17/schnet_dc")
assert not {"torch", "fairchem", "numpy", "yaml"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program, str(Path(ocp_dc.__file__).parent)], check=True)
