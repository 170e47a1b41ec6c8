"""Every block of README and docs is run as it stands on its page, at small size, or says why it is not."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from page_blocks import RUN, SHOWN, Block, Page, PageError, read_page
from page_runs import REPOSITORY, PageRun, copy_clone, run_command
from yaml import YAMLError

PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md")])
CLONE = ("configs", "scripts")
CLONE_TO_CHANGE = ("configs", "docs", "ocp_dc", "scripts", "tests", "pyproject.toml")
SMALL_SCHNET = "--model.hidden_channels=32 --model.num_filters=32 --model.num_interactions=2 --model.num_gaussians=20"


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory) -> Path:
    """A folder with ``data/ethanol`` and ``checkpoints/my-run``: a small SchNet after 400 steps."""
    folder = tmp_path_factory.mktemp("trained")
    convert = "md17 convert sample data/ethanol --train 800 --val 20 --test 20 --seed 0"
    train = (
        "train --config-yml md17/schnet_recommended --timestamp-id my-run --optim.max_epochs=10 "
        "--dataset.train.src=data/ethanol/train --dataset.val.src=data/ethanol/val --optim.eval_every=1000 "
    )
    for command in (convert, train + SMALL_SCHNET):
        assert run_command(folder, command.split()) == 0
    return folder


def run_page(page: Page, folder: Path, request: pytest.FixtureRequest, with_slow: bool) -> None:
    """Runs a page's blocks in a new folder."""
    folder.mkdir()
    package = REPOSITORY
    if "trained model" in page.given:
        shutil.copytree(request.getfixturevalue("trained_model"), folder, dirs_exist_ok=True)
    if "clone" in page.given:
        copy_clone(folder, CLONE)
    if "clone to change" in page.given:
        copy_clone(folder, CLONE_TO_CHANGE)
        package = folder
    run = PageRun(folder, package)
    for block in page.blocks:
        if block.is_run and (with_slow or block.slow is None):
            run.run(block)


def has_blocks(path: Path, slow: bool) -> bool:
    """Whether a page has blocks to run, slow ones or others; that it can be read is a test of its own."""
    try:
        return any(block.is_run and (block.slow is not None) == slow for block in read_page(path).blocks)
    except PageError:
        return False


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


@pytest.mark.parametrize("name", names(PAGES))
def test_conventions(name):
    page = read_page(REPOSITORY / name)
    kinds = Counter(
        "shown" if block.language in SHOWN or block.language.startswith("{") else "run" if block.is_run else "marked"
        for block in page.blocks
    )
    assert sum(kinds.values()) == len(page.blocks)
    for block in page.blocks:
        assert block.small_code
        assert block.is_run or block.not_run or block.language not in RUN


@pytest.mark.parametrize("name", names([path for path in PAGES if has_blocks(path, slow=False)]))
def test_blocks(name, tmp_path, request, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run_page(read_page(REPOSITORY / name), tmp_path / "page", request, with_slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", names([path for path in PAGES if has_blocks(path, slow=True)]))
def test_slow_blocks(name, tmp_path, request, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run_page(read_page(REPOSITORY / name), tmp_path / "page", request, with_slow=True)


def test_config_keys_are_those_of_the_configs(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import list_config_keys

    page = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
    assert page.endswith(list_config_keys.tables()), list_config_keys.__doc__


def test_most_blocks_are_run():
    blocks = [block for name in names(PAGES) for block in read_page(REPOSITORY / name).blocks]
    marked = [block.place for block in blocks if block.not_run]
    run = [block for block in blocks if block.is_run]
    assert len(run) > 4 * len(marked), f"{len(run)} run, {len(marked)} marked: {marked}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("```\nls\n```", "page.md:1: the language is ''; give bash, python"),
        ("```bash\nls", "page.md:1: the block has no end"),
        ("<!-- not ran: why -->\n```bash\nls\n```", "page.md:1: 'not ran: why' is not one of not run, slow, small"),
        ("<!-- not run: -->\n```bash\nls\n```", "is not one of"),
        ("<!-- small: ls -->\n```bash\nls\n```", "page.md:1: 'small: ls' has no ' => '"),
        ("<!-- insert: file -->\n```python\n1\n```", "page.md:1: 'insert: file' does not say where"),
        ("<!-- slow: why -->\n```text\nls\n```", "page.md:2: blocks of text are not run"),
        ("<!-- given: all -->\n\n# Title", "page.md:1: 'given: all' is not 'given: ' and one of trained model"),
        ("```bash\nls\n```\n<!-- slow: why -->\n", "page.md:4: this comment is not before a block"),
    ],
)
def test_pages_that_break_the_conventions(tmp_path, lines, message):
    page = tmp_path / "page.md"
    page.write_text(lines)
    with pytest.raises(PageError, match=re.escape(message)):
        read_page(page)


def blocks_of(tmp_path: Path, text: str) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(text)
    return read_page(page).blocks


def test_blocks_fail_where_their_commands_do(tmp_path):
    (tmp_path / "folder").mkdir()
    run = PageRun(tmp_path / "folder")
    bash, command, python, yaml, small = blocks_of(
        tmp_path,
        "```bash\nfalse\necho later\n```\n```bash\nocp-dc info nowhere.pt\n```\n```python\nassert False\n```\n"
        "```yaml\n{\n```\n<!-- small: a => b -->\n```bash\nls\n```",
    )
    for block, error in ((bash, "exit status 1"), (command, "exit status 2"), (small, "there is no 'a' in the block")):
        with pytest.raises(PageError, match=error):
            run.run(block)
    with pytest.raises(AssertionError):
        run.run(python)
    with pytest.raises(YAMLError):
        run.run(yaml)


def test_python_blocks_share_names_and_bash_is_small(tmp_path):
    (tmp_path / "folder").mkdir()
    run = PageRun(tmp_path / "folder")
    for block in blocks_of(
        tmp_path,
        "1. item\n\n   ```python\n   text = 'a'\n   ```\n```python\nopen(text, 'w').write(text)\n```\n"
        "<!-- small: 1000 => 1 -->\n```bash\nocp-dc --version | tee version | grep ocp_dc\nhead -c 1000 a > b\n```\n",
    ):
        run.run(block)
    assert (tmp_path / "folder" / "b").read_text() == "a"
    assert (tmp_path / "folder" / "version").read_text().startswith("ocp_dc ")
