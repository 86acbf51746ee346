"""Moving MNIST, pixel for pixel; the pairs that are trained on."""

import hashlib

import numpy as np
import pytest
from PIL import Image

import data
from extras.cli import InputError


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
