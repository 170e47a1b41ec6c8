"""The configs that come with this package, by names such as ``md17/schnet_dc``."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from ocp_dc.errors import InputError

CONFIGS = Path(__file__).parent / "configs"
COLLECTIONS = ("md17", "oc22")
# to include in a config of one's own
NOT_RUNNABLE = "base"


def config_names() -> list[str]:
    """The names of all configs that can be run, sorted."""
    files = (file for collection in COLLECTIONS for file in (CONFIGS / collection).glob("*.yml"))
    return sorted(f"{file.parent.name}/{file.stem}" for file in files if file.stem != NOT_RUNNABLE)


def has_config(name: str) -> bool:
    """Whether there is a shipped config of that name."""
    return (CONFIGS / f"{name}.yml").is_file()


def config_file(name: str) -> Path:
    """The file of a shipped config.

    Args:
        name: with or without ``.yml``.

    Raises:
        InputError: there is none; the message has those of similar names.
    """
    known, wanted = config_names(), name.removesuffix(".yml")
    if wanted not in known:
        similar = get_close_matches(wanted, known, n=3) or known[:1]
        raise InputError(
            f"{name}: no such file, and no config of this package has that name (similar: {', '.join(similar)}; "
            "`ocp-dc configs` lists them all)"
        )
    return CONFIGS / f"{wanted}.yml"


def config_path(text: str) -> Path:
    """What ``--config-yml`` means: an existing file, or else the shipped config of that name.

    Raises:
        InputError: it is neither.
    """
    path = Path(text)
    return path if path.is_file() else config_file(text)


def summary(name: str) -> str:
    """The first sentence of a shipped config's leading comment.

    Raises:
        InputError: there is no such config.
    """
    lines = config_file(name).read_text("utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    return comment.split(". ")[0].removesuffix(".")
