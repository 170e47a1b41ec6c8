import functools
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ocp_dc.datasets import md17_commands
from ocp_dc.datasets.download import download
from ocp_dc.datasets.manifest import sha256_of
from ocp_dc.errors import InputError


def npz_bytes():
    buffer = io.BytesIO()
    np.savez(buffer, E=np.random.default_rng(0).normal(size=(5000, 1)))
    return buffer.getvalue()


@pytest.fixture
def server():
    """Serves ``files`` with Range support; ``cut`` ends the next answer early, ``ranges`` records what was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = self.server.files.get(self.path.rsplit("/", 1)[1])
            self.server.ranges.append(self.headers.get("Range"))
            if content is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range") if self.server.honours_ranges else None
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if asked and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = self.server.cut or len(content)
            self.server.cut = None
            self.wfile.write(content[start:stop])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.ranges, server.cut, server.honours_ranges = {}, [], None, True
    server.url = f"http://127.0.0.1:{server.server_port}/npz"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("molecule", "name"),
    [
        ("aspirin", "md17_aspirin.npz"),
        ("Benzene", "md17_benzene2017.npz"),
        ("benzene2017", "md17_benzene2017.npz"),
        ("salicylic_acid", "md17_salicylic.npz"),
    ],
)
def test_fetches_the_molecules_file(server, tmp_path, molecule, name):
    server.files[name] = npz_bytes()
    file = download(molecule, tmp_path / "data", server.url)
    assert file == tmp_path / "data" / name
    assert file.read_bytes() == server.files[name]


def test_resumes_after_a_broken_connection(server, tmp_path):
    content = server.files["md17_uracil.npz"] = npz_bytes()
    server.cut = 10_000
    with pytest.raises(InputError, match="10,000 of"):
        download("uracil", tmp_path, server.url)
    assert [file.name for file in tmp_path.iterdir()] == ["md17_uracil.npz.partial"]
    assert download("uracil", tmp_path, server.url).read_bytes() == content
    assert server.ranges == [None, "bytes=10000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["md17_uracil.npz"]


def test_starts_again_where_the_server_knows_no_ranges(server, tmp_path):
    content = server.files["md17_uracil.npz"] = npz_bytes()
    server.honours_ranges = False
    (tmp_path / "md17_uracil.npz.partial").write_bytes(b"old" * 100)
    assert download("uracil", tmp_path, server.url).read_bytes() == content


def test_a_complete_partial_file_is_not_fetched_again(server, tmp_path):
    content = server.files["md17_uracil.npz"] = npz_bytes()
    (tmp_path / "md17_uracil.npz.partial").write_bytes(content)
    assert download("uracil", tmp_path, server.url).read_bytes() == content
    assert len(server.ranges) == 1


def test_a_partial_file_longer_than_the_file_is_dropped(server, tmp_path):
    content = server.files["md17_uracil.npz"] = npz_bytes()
    (tmp_path / "md17_uracil.npz.partial").write_bytes(content + b"more")
    assert download("uracil", tmp_path, server.url).read_bytes() == content


def test_what_is_there_is_not_fetched(server, tmp_path):
    (tmp_path / "md17_toluene.npz").write_bytes(b"here")
    assert download("toluene", tmp_path, server.url).read_bytes() == b"here"
    assert server.ranges == []


def test_no_npz_is_removed(server, tmp_path):
    server.files["md17_ethanol.npz"] = b"<html>moved</html>"
    with pytest.raises(InputError, match="did not give an npz file"):
        download("ethanol", tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []


def test_unknown_molecule_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"caffeine: no such molecule.*aspirin.*uracil.*salicylic_acid"):
        download("caffeine", tmp_path)


def test_missing_on_the_server(server, tmp_path):
    with pytest.raises(InputError, match="404"):
        download("ethanol", tmp_path, server.url)


def test_offline(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"could not be fetched.*check the network"):
        download("ethanol", tmp_path, server.url)


def test_command_prints_the_sha256(server, tmp_path, run_command, monkeypatch, capsys):
    server.files["md17_ethanol.npz"] = npz_bytes()
    monkeypatch.setattr(md17_commands, "download", functools.partial(download, base_url=server.url))
    assert run_command("download", "ethanol", "--to", tmp_path) == 0
    printed = capsys.readouterr()
    assert sha256_of(tmp_path / "md17_ethanol.npz") in printed.out
    assert "100%" in printed.err
    assert zipfile.is_zipfile(tmp_path / "md17_ethanol.npz")
