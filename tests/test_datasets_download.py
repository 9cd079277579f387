"""The downloader against a server on this machine: whole or not at all, whatever the mirror does."""

import gzip
import hashlib
import http.server
import socket
import threading

import pytest

from neko_rules.datasets import download as module
from neko_rules.datasets.download import download
from neko_rules.errors import DataError

CONTENT = bytes(range(256)) * 1000
PACKED = gzip.compress(CONTENT)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """One path for each thing that a mirror may do."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body = {"/other": gzip.compress(b"something else"), "/broken": PACKED[:-5], "/text": b"<html>"}.get(
            self.path, PACKED
        )
        self.send_response(404 if self.path == "/missing" else 200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def dead_url():
    """An address at which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("path", ["/good", "/unsized"])
def test_a_good_mirror(path, server, tmp_path, capfd):
    target = tmp_path / "new" / "folder" / "data.gz"
    assert download([server.url + path], target, MD5.upper()) == target
    assert target.read_bytes() == PACKED
    assert [p.name for p in target.parent.iterdir()] == ["data.gz"]
    assert capfd.readouterr() == ("", "")  # no progress bar where nobody sees it


def test_the_digest_of_an_uncompressed_file_is_its_own(server, tmp_path):
    download([server.url + "/good"], tmp_path / "data.bin", hashlib.md5(PACKED).hexdigest())
    with pytest.raises(DataError, match="digest differs"):
        download([server.url + "/good"], tmp_path / "other.bin", MD5)


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    target = tmp_path / "data.gz"
    download([server.url + "/good"], target, MD5)
    download([server.url + "/good"], target, MD5)
    assert server.asked == ["/good"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/cut", "the answer must have"),
        ("/other", "digest differs"),
        ("/broken", "end-of-stream"),
        ("/text", "gzip"),
        ("/missing", "404"),
    ],
)
def test_a_bad_mirror_leaves_nothing_and_the_next_is_asked(path, said, server, tmp_path):
    target = tmp_path / "data.gz"
    with pytest.raises(DataError, match=r"data\.gz must come whole") as caught:
        download([server.url + path], target, MD5)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    download([server.url + path, server.url + "/good"], target, MD5)
    assert server.asked == [path, path, "/good"]
    assert [p.name for p in tmp_path.iterdir()] == ["data.gz"]


def test_a_dead_mirror(server, dead_url, tmp_path):
    with pytest.raises(DataError, match="check the network"):
        download([dead_url, dead_url], tmp_path / "data.gz", MD5)
    assert list(tmp_path.iterdir()) == []
    download([dead_url, server.url + "/good"], tmp_path / "data.gz", MD5)
    assert (tmp_path / "data.gz").read_bytes() == PACKED


def test_a_silent_mirror_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match="timed out"):
            download([f"http://127.0.0.1:{silent.getsockname()[1]}/"], tmp_path / "data.gz", MD5, timeout=0.1)
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(server, tmp_path, monkeypatch):
    seen = []

    def interrupted(read, write, total, label):
        write(read(100))
        seen.extend(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download([server.url + "/good", server.url + "/good"], tmp_path / "data.gz", MD5)
    assert len(seen) == 1
    assert seen[0].endswith(".part")
    assert list(tmp_path.iterdir()) == []
    assert server.asked == ["/good"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="must be writable"):
        download(["http://127.0.0.1/"], tmp_path / "file" / "data.gz", MD5)
