"""Moving MNIST, pixel for pixel; the pairs that are trained on; the official file."""

import hashlib
import http.server
import io
import threading

import keras
import numpy as np
import pytest
from PIL import Image

import data
from extras.cli import Failure, InputError


def slow_video(digits, numbers, frames, size):
    """Moving MNIST as its authors describe it, one digit and one frame at a time."""
    video = np.zeros((frames, size, size, 1), np.uint8)
    for choice, x, y, angle in numbers:
        digit = digits[int(choice * len(digits))]
        dx, dy = 0.1 * np.cos(2 * np.pi * angle), 0.1 * np.sin(2 * np.pi * angle)
        for frame in range(frames):
            x, y = x + dx, y + dy
            if x <= 0:
                x, dx = 0.0, -dx
            if x >= 1:
                x, dx = 1.0, -dx
            if y <= 0:
                y, dy = 0.0, -dy
            if y >= 1:
                y, dy = 1.0, -dy
            left, top = int((size - 28) * x), int((size - 28) * y)
            place = video[frame, top : top + 28, left : left + 28, 0]
            np.maximum(place, digit, out=place)
    return video


@pytest.mark.parametrize(
    "digits_per_video, frames, size", [(2, 20, 64), (1, 60, 64), (3, 12, 80), (2, 3, 28)]
)
def test_videos_are_moving_mnist_pixel_for_pixel(digits_per_video, frames, size):
    digits = data.load_digits("train")
    numbers = np.random.default_rng(3).random((12, digits_per_video, 4))
    expected = np.stack([slow_video(digits, rows, frames, size) for rows in numbers])
    videos = data.move_digits(digits, numbers, frames, size)
    assert videos.dtype == np.uint8
    np.testing.assert_array_equal(videos, expected)


def test_starts_on_a_wall():
    numbers = [[[0, x, y, angle]] for x in (0, 1) for y in (0, 1) for angle in (0.03, 0.28, 0.9)]
    numbers = np.array(numbers, float)
    digits = data.load_digits("test")
    expected = np.stack([slow_video(digits, rows, 40, 64) for rows in numbers])
    np.testing.assert_array_equal(data.move_digits(digits, numbers, 40, 64), expected)


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_what_is_at_rest_stays(start):
    np.testing.assert_allclose(data.bounce(np.array(start), np.array(0.0), 30), start, atol=1e-9)


def test_digits_are_mnist_and_cannot_be_changed():
    assert data.load_digits("train").shape == (60_000, 28, 28)
    assert data.load_digits("test").shape == (10_000, 28, 28)
    with pytest.raises(ValueError):
        data.load_digits("test")[0] = 0


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_digits_are_refused(tmp_path, monkeypatch, damage):
    path = tmp_path / "mnist.npz"
    if damage == "cut":
        path.write_bytes((data.ASSETS / "mnist.npz").read_bytes()[:100_000])
    if damage == "changed":
        digits = data.load_digits("test").copy()
        digits[5, 14, 14] ^= 1
        np.savez(path, x_test=digits)
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    data.load_digits.cache_clear()
    with pytest.raises(InputError, match="git checkout"):
        data.load_digits("test")
    data.load_digits.cache_clear()


def test_unknown_split():
    with pytest.raises(InputError, match="train, test"):
        data.load_digits("valid")


def test_targets_are_the_next_frames():
    videos = data.make_videos(data.load_digits("train"), 3, seed=1)
    x, y = data.shift_frames(videos)
    assert x.shape == y.shape == (3, 19, 64, 64, 1)
    assert x.dtype == y.dtype == np.float32
    assert x.min() == 0 and x.max() == 1
    np.testing.assert_array_equal(y[:, :-1], x[:, 1:])
    np.testing.assert_array_equal(np.round(x[:, 0] * 255), videos[:, 0])
    np.testing.assert_array_equal(np.round(y[:, -1] * 255), videos[:, -1])


def test_same_seed_same_videos_and_a_longer_call_begins_with_a_shorter_one():
    digits = data.load_digits("train")
    videos = data.make_videos(digits, 5, seed=7)
    np.testing.assert_array_equal(videos[:2], data.make_videos(digits, 2, seed=7))
    assert (videos != data.make_videos(digits, 5, seed=8)).any()


@pytest.mark.parametrize(
    "split, sha256",
    [
        ("validation", "6afa9b79f1a751eeeffd271b67ef5b1be9229027a7fc6a64e829e6d4e95f1a14"),
        ("test", "d9e9d0a174df84b2b3ef7ea766cee128a2d4b6515b525bc488bd4f96116d5b6e"),
    ],
)
def test_evaluation_sets_never_change(split, sha256):
    evaluation = data.EvaluationVideos(split)
    assert len(evaluation) == 10_000
    videos = evaluation[np.arange(100)]
    assert hashlib.sha256(videos.tobytes()).hexdigest() == sha256
    np.testing.assert_array_equal(evaluation[[42, 7]], videos[[42, 7]])
    shorter = data.EvaluationVideos(split, frames=12)[np.array([3])]
    np.testing.assert_array_equal(shorter, videos[[3], :12])


def test_validation_and_test_share_no_digit(monkeypatch):
    digits = np.ones((10_000, 28, 28), np.uint8)
    digits[1::2] = 2  # every other digit
    monkeypatch.setattr(data, "load_digits", {"test": digits}.get)
    assert set(np.unique(data.EvaluationVideos("validation")[np.arange(200)])) == {0, 1}
    assert set(np.unique(data.EvaluationVideos("test")[np.arange(200)])) == {0, 2}


def test_fit_is_given_the_videos_of_its_epochs():
    def losses(first_epoch):
        model = keras.Sequential([keras.Input((5, 32, 32, 1)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.set_weights([np.ones((1, 1)), np.zeros(1)])
        videos = data.MovingMNIST(seed=4, batch_size=2, batches=3, frames=6, size=32)
        callbacks = [data.SetEpoch(videos)]
        fit = {"initial_epoch": first_epoch, "epochs": 3, "verbose": 0, "callbacks": callbacks}
        model.fit(videos, **fit)
        return model.fit(videos, **fit).history["loss"]

    expected = []
    for epoch in range(3):
        pairs = data.MovingMNIST(seed=4, batch_size=2, batches=3, epoch=epoch, frames=6, size=32)
        expected.append(np.mean([np.square(x - y).mean() for x, y in pairs]))
    np.testing.assert_allclose(losses(0), expected, rtol=1e-5)
    np.testing.assert_allclose(losses(1), expected[1:], rtol=1e-5)


def test_a_batch_follows_from_seed_epoch_and_index_alone():
    def batch(index, seed=0, epoch=0):
        videos = data.MovingMNIST(seed=seed, batch_size=2, batches=9, epoch=epoch)
        return videos[index][0]

    videos = data.MovingMNIST(seed=0, batch_size=2, batches=9)
    videos[0], videos[5]
    videos.on_epoch_end()
    np.testing.assert_array_equal(videos[3][0], batch(3, epoch=1))
    different = [batch(3), batch(4), batch(3, seed=1), batch(3, epoch=1)]
    for n, one in enumerate(different):
        for other in different[n + 1 :]:
            assert (one != other).any()


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"frames": 0}, {"digits_per_video": 0}, {"size": 27}]
)
def test_impossible_videos_are_refused(wrong):
    with pytest.raises(InputError):
        data.make_videos(data.load_digits("test"), **{"count": 1, "seed": 0, **wrong})


# The official file


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
        data.download_official(tmp_path / "test.npy", url, hashlib.sha256(content).hexdigest())
        assert (tmp_path / "test.npy").read_bytes() == content

    yield fetch
    server.shutdown()
    server.server_close()


def test_the_official_file_is_downloaded_once_and_read_frames_first(download, tmp_path):
    download()
    assert [path.name for path in tmp_path.iterdir()] == ["test.npy"]
    download("missing")  # not even asked: the file is there
    videos = data.load_official(tmp_path / "test.npy")
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
    with pytest.raises(Failure, match="cannot download http.*try again"):
        download(fault)
    assert not any(tmp_path.iterdir())
    download()


def test_without_a_network_a_line_says_so(tmp_path):
    with pytest.raises(Failure, match="check the connection"):
        data.download_official(tmp_path / "test.npy", "http://127.0.0.1:9/")
    assert not any(tmp_path.iterdir())


def test_the_official_file_is_never_needed_but_when_it_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="python data.py --official"):
        data.load_official(tmp_path / "test.npy")


# The script


def test_script_draws_pairs(script, tmp_path):
    status, output, _ = script(data, "--out", tmp_path)
    assert status == 0
    assert "(3, 19, 64, 64, 1)" in output and "float32" in output and "is True" in output
    assert Image.open(tmp_path / "pairs.png").size == (1152, 806)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.png"]


def test_script_refuses_what_it_cannot_use(refused, misread, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--seed -1" in refused(data, "--seed", "-1")
    assert "--seed" in misread(data, "--seed", "x")
    assert "--offical" in misread(data, "--offical")
    (tmp_path / "file").touch()
    assert "name another folder" in refused(data, "--out", tmp_path / "file")
    monkeypatch.setattr(data, "ASSETS", tmp_path / "nowhere")
    data.load_digits.cache_clear()
    assert "mnist.npz is missing" in refused(data, "--out", tmp_path)
    data.load_digits.cache_clear()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
