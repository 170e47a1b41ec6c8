"""The published MD17 files, fetched with resume."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

from ocp_dc.errors import InputError

BASE_URL = "http://www.quantum-machine.org/gdml/data/npz"
# benzene is the 2017 file, as in the paper
FILE_OF_MOLECULE = {
    "aspirin": "md17_aspirin.npz",
    "benzene": "md17_benzene2017.npz",
    "ethanol": "md17_ethanol.npz",
    "malonaldehyde": "md17_malonaldehyde.npz",
    "naphthalene": "md17_naphthalene.npz",
    "salicylic": "md17_salicylic.npz",
    "toluene": "md17_toluene.npz",
    "uracil": "md17_uracil.npz",
}
ALIASES = {"benzene2017": "benzene", "salicylic_acid": "salicylic"}
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 16


def download(molecule: str, folder: str | Path, base_url: str = BASE_URL, show_progress: bool = False) -> Path:
    """Fetches a molecule's npz file, or leaves it as it is where it is already there.

    An interrupted download leaves ``<file>.partial``, from which the next one goes on.

    Args:
        molecule: one of ``FILE_OF_MOLECULE`` or ``ALIASES``.
        folder: where to put the file, which is returned; made if missing.
        base_url: the web folder with the files.
        show_progress: show a progress bar.

    Raises:
        InputError: the molecule is unknown, the server cannot be reached or does not have the file, the connection
            broke, or what came is not an npz file.
    """
    name = FILE_OF_MOLECULE.get(ALIASES.get(molecule.lower(), molecule.lower()))
    if name is None:
        raise InputError(f"{molecule}: no such molecule in MD17; there are {', '.join((*FILE_OF_MOLECULE, *ALIASES))}")
    file = Path(folder) / name
    if file.is_file():
        return file
    url = f"{base_url.rstrip('/')}/{name}"
    partial = file.with_name(f"{name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, partial, show_progress)
    except urllib.error.HTTPError as error:
        raise InputError(
            f"{url}: the server answers {error.code} {error.reason}; try later or see the address"
        ) from error
    except (HTTPException, OSError) as error:
        raise InputError(
            f"{url} could not be fetched to {partial} ({error}); check the network and the disk, then run the same "
            "command again: it goes on from where it stopped"
        ) from error
    if not zipfile.is_zipfile(partial):
        partial.unlink()
        raise InputError(f"{url} did not give an npz file, what came was removed; see the address in a browser")
    return partial.rename(file)


def _fetch(url: str, partial: Path, show_progress: bool) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    try:
        response = _request(url, start)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # nothing is left beyond what is there, or the partial file is not of this file: the size tells
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return
        start, response = 0, _request(url, 0)
    with response:
        if response.status != 206:
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        bar = {"total": total, "initial": start, "desc": partial.stem, "disable": not show_progress}
        with partial.open("ab" if start else "wb") as file, tqdm.wrapattr(file, "write", **bar) as out:
            shutil.copyfileobj(response, out, CHUNK_BYTES)
    size = partial.stat().st_size
    if total is not None and size != total:
        raise OSError(f"the connection ended after {size:,} of {total:,} bytes")


def _request(url: str, start: int) -> HTTPResponse:
    headers = {"Range": f"bytes={start}-"} if start else {}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
