"""The official test file: downloaded whole or not at all, and read as it is."""

import hashlib
import http.server
import io
import threading

import numpy as np
import pytest

import data
from extras import official
from extras.cli import Failure, InputError


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "official.npy").write_bytes(b"damaged")
    with pytest.raises(InputError, match="delete it and get it again"):
        official.load(tmp_path / "official.npy")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, in the ways that servers do."""

    content = b""
    fault = ""

    def do_GET(self):
        content = self.content
        if self.fault == "missing":
            return self.send_error(404)
        if self.fault == "silent":
            return None  # and the connection is closed
        if "page" in self.fault:
            content = b"<html>" + bytes(len(content) - 6 if "padded" in self.fault else 0)
        if self.fault == "wrong":
            content = content[:-1] + b"?"
        self.send_response(200)
        if "unmeasured" not in self.fault:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if "cut" in self.fault else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Call as download(fault): fetches a small file in the official layout from this machine."""
    videos = data.EvaluationVideos("test")[[3, 4, 5]][..., 0]
    file = io.BytesIO()
    np.save(file, np.swapaxes(videos, 0, 1))
    content = file.getvalue()
    monkeypatch.setattr(Server, "content", content)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def fetch(fault=""):
        monkeypatch.setattr(Server, "fault", fault)
        url = f"http://127.0.0.1:{server.server_port}/"
        official.download(tmp_path / "test.npy", url, hashlib.sha256(content).hexdigest())
        assert (tmp_path / "test.npy").read_bytes() == content

    yield fetch
    server.shutdown()
    server.server_close()


def test_the_official_file_is_downloaded_once_and_read_frames_first(download, tmp_path):
    download()
    assert [path.name for path in tmp_path.iterdir()] == ["test.npy"]
    download("missing")  # not even asked: the file is there
    videos = official.load(tmp_path / "test.npy")
    np.testing.assert_array_equal(videos[[0, 2]], data.EvaluationVideos("test")[[3, 5]])


@pytest.mark.parametrize(
    "fault",
    [
        "cut",
        "unmeasured cut",
        "wrong",
        "page",
        "unmeasured page",
        "padded page",
        "missing",
        "silent",
    ],
)
def test_a_download_that_went_wrong_leaves_nothing_and_can_be_repeated(download, tmp_path, fault):
    with pytest.raises(Failure, match="cannot download http.*try again|nothing was kept"):
        download(fault)
    assert not any(tmp_path.iterdir())
    download()


def test_without_a_network_a_line_says_so(tmp_path):
    with pytest.raises(Failure, match="check the connection"):
        official.download(tmp_path / "test.npy", "http://127.0.0.1:9/")
    assert not any(tmp_path.iterdir())


def test_the_official_file_is_never_needed_but_when_it_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="python -m extras.official"):
        official.load(tmp_path / "test.npy")
