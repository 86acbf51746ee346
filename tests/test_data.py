"""Moving MNIST, pixel for pixel; the pairs that are trained on; the official test file."""

import hashlib

import numpy as np
import pytest

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
            if not 0 < x < 1:
                x, dx = np.clip(x, 0, 1), -dx
            if not 0 < y < 1:
                y, dy = np.clip(y, 0, 1), -dy
            left, top = int((size - 28) * x), int((size - 28) * y)
            place = video[frame, top : top + 28, left : left + 28, 0]
            np.maximum(place, digit, out=place)
    return video


@pytest.mark.parametrize("digits_per_video, frames, size", [(2, 20, 64), (1, 60, 64), (3, 12, 80)])
def test_videos_are_moving_mnist_pixel_for_pixel(digits_per_video, frames, size):
    digits = data.load_digits("train")
    numbers = np.random.default_rng(3).random((12, digits_per_video, 4))
    numbers[:8, 0, 1:3] = 2 * [(0, 0), (0, 1), (1, 0), (1, 1)]  # they start in a corner
    expected = np.stack([slow_video(digits, rows, frames, size) for rows in numbers])
    videos = data.move_digits(digits, numbers, frames, size)
    assert videos.dtype == np.uint8
    np.testing.assert_array_equal(videos, expected)


def test_damaged_digits_are_refused(tmp_path, monkeypatch):
    digits = data.load_digits("test").copy()
    digits[5, 14, 14] ^= 1
    np.savez(tmp_path / "mnist.npz", x_test=digits)
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    with pytest.raises(InputError, match="git checkout"):
        data.load_digits.__wrapped__("test")  # without its cache


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


def test_training_videos_follow_from_the_seed_and_never_repeat(monkeypatch):
    training = data.TrainingVideos(digits_per_video=1, frames=4, size=40)
    videos = training.draw(2, [0, 1, 2])
    assert videos.shape == (2, 4, 40, 40, 1) and videos.dtype == np.uint8
    np.testing.assert_array_equal(videos, training.draw(2, [0, 1, 2]))
    for seed in ([1, 1, 2], [0, 2, 1], [0, 1, 3]):
        assert (videos != training.draw(2, seed)).any()
    # They are made of training digits.
    digits = {split: np.full((9, 28, 28), n, np.uint8) for n, split in ((1, "test"), (2, "train"))}
    monkeypatch.setattr(data, "load_digits", digits.get)
    assert set(np.unique(data.TrainingVideos().draw(3, [0]))) == {0, 2}


def test_a_share_of_the_training_videos_has_a_single_digit(monkeypatch):
    monkeypatch.setattr(data, "load_digits", lambda split: np.ones((9, 28, 28), np.uint8))
    for share, singles in ((0.25, 1), (1, 4)):
        lit = data.TrainingVideos(single_digit_share=share).draw(4, [0]).sum(axis=(2, 3, 4))
        assert ((lit == 28 * 28).all(axis=1) == (np.arange(4) < singles)).all()


def test_long_and_large_videos_go_fewer_at_a_time():
    numbers, indices = np.arange(103, dtype=np.uint8).reshape(103, 1, 1, 1, 1), np.arange(103)[::-1]
    for size, horizon, sizes in (
        (64, 10, [50, 50, 3]),
        (256, 2, [3] * 34 + [1]),
        (64, 2000, [4] * 25 + [3]),
    ):
        videos = np.broadcast_to(numbers, (103, 3, size, size, 1))
        batches = list(data.batches(videos, indices, horizon))
        assert [len(batch) for batch in batches] == sizes
        np.testing.assert_array_equal(np.concatenate(batches)[:, :1, :1, :1], numbers[indices])


def test_the_official_file_is_downloaded_whole_and_once(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, content = tmp_path / "source.npy", b"as if it were videos" * 100
    monkeypatch.setattr(data, "OFFICIAL_URL", source.as_uri())
    monkeypatch.setattr(data, "OFFICIAL_SHA256", hashlib.sha256(content).hexdigest())
    # A download that went wrong leaves nothing, and can be repeated.
    for sent, reason in ((None, "try again"), (content[:99], "nothing was kept")):
        if sent:
            source.write_bytes(sent)
        status, _, errors = script(data, "--download")
        line = errors.splitlines()[-1]
        assert status == 1 and line.startswith("data.py: ")
        assert data.OFFICIAL_URL in line and reason in line
        assert not any(data.OFFICIAL_PATH.parent.iterdir())
    source.write_bytes(content)
    status, output, errors = script(data, "--download")
    assert status == 0 and str(data.OFFICIAL_PATH) in output, errors
    assert data.OFFICIAL_PATH.read_bytes() == content
    assert list(data.OFFICIAL_PATH.parent.iterdir()) == [data.OFFICIAL_PATH]
    source.unlink()  # not even asked for: the file is there
    assert data.download_official() == data.OFFICIAL_PATH
    data.OFFICIAL_PATH.write_bytes(b"x" + content[1:])
    with pytest.raises(InputError, match="damaged"):
        data.download_official()
