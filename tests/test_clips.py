"""Own clips: opened safely, divided into training and validation, and cut into windows."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal

import data
from extras import clips

VIDEOS = data.EvaluationVideos("test", frames=6, size=32)[np.arange(3)]


@pytest.mark.parametrize(
    "array, expected",
    [
        (VIDEOS, VIDEOS), (VIDEOS[..., 0], VIDEOS), (VIDEOS[..., 0] / 255, VIDEOS / 255),
        (VIDEOS.repeat(3, axis=-1), VIDEOS.repeat(3, axis=-1)),
        (np.float16(VIDEOS / 255), np.float16(VIDEOS / 255)), (np.asfortranarray(VIDEOS), VIDEOS),
    ],
)  # fmt: skip
def test_an_array_is_as_many_clips_as_it_has_videos(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    opened = clips.open_clips(tmp_path / "a.npy")
    assert opened.shape == (18, *expected.shape[2:]) and opened.dtype == array.dtype
    assert opened.spans.tolist() == [[0, 6], [6, 12], [12, 18]]
    assert opened.names == ["video 0", "video 1", "video 2"]
    assert opened.value_range == (0, 1) and opened.unit == ""
    np.testing.assert_array_equal(opened.read(7, 12), expected[1, 1:])


class RunsCode:
    """What a pickle makes of this runs code, where it is allowed to."""

    def __reduce__(self):
        return os.mkdir, ("code-has-run",)


def npy(array):
    """-> what a .npy file of this array holds."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


BAD = {
    "empty.npy": b"",
    "cut.npy": npy(VIDEOS)[:-1],
    "text.npy": b"not an array",
    "objects.npy": npy(np.array([RunsCode()])),
    "code.npy": pickle.dumps(RunsCode()),
    "one-frame.npy": npy(VIDEOS[0, 0]),
    "one-clip-in-colour.npy": npy(VIDEOS[0].repeat(2, axis=-1)[None]),
    "rank-6.npy": npy(VIDEOS[..., None]),
    "no-frames.npy": npy(VIDEOS[:, :0]),
    "int16.npy": npy(VIDEOS.astype(np.int16)),
    "movie.mp4": b"\x00\x00\x00\x18ftypmp42",
    "frames": os.mkdir,
    "pipe.npy": os.mkfifo,  # which nobody waits for
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_gets_the_line_that_prepares_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path("my clips") / name
    path.parent.mkdir()
    BAD[name](path) if callable(BAD[name]) else path.write_bytes(BAD[name])
    assert f"python prepare.py 'my clips/{name}' " in refusal(clips.open_clips, path)
    assert not Path("code-has-run").exists()


@pytest.mark.parametrize("size", [500, None])
def test_a_file_that_changes_while_it_is_open_ends_in_one_line(tmp_path, size):
    """Where it has become shorter, to read on would kill the process."""
    path = tmp_path / "a.npy"
    np.save(path, VIDEOS)
    opened, before = clips.open_clips(path), clips.open_clips(path).digest
    os.truncate(path, size) if size else np.save(path, 255 - VIDEOS)
    os.utime(path, (0, 0))
    assert "has changed" in refusal(opened.read, 12, 18)
    assert opened.digest != before


# Training and validation


def split(*lengths):
    """Divide clips of these lengths for videos of 20 frames: -> the spans of both parts, lists."""
    ends = np.cumsum(lengths)
    parts = clips.split_clips(np.stack([ends - lengths, ends], axis=1), 20)
    return [part.tolist() for part in parts]


def test_clips_are_divided_and_no_frame_is_in_both_parts(capsys):
    training, validation = split(*[30] * 25, 4)  # the last one is too short
    assert "fewer than 20 frames are left out: 1" in capsys.readouterr().out
    assert validation == [[120, 150], [420, 450], [720, 750]]
    assert sorted(training + validation) == [[30 * n, 30 * n + 30] for n in range(25)]
    assert split(30, 30) == [[[0, 30]], [[30, 60]]]
    assert capsys.readouterr().out == ""


def test_a_clip_that_is_alone_is_divided_in_time():
    assert split(1000) == [[[0, 900]], [[900, 1000]]]
    assert split(4, 50) == [[[4, 34]], [[34, 54]]]
    assert "clip has 39 frames" in refusal(split, 39)
    too_short = refusal(split, 19, 11)
    assert "clip has 19 frames" in too_short and too_short.endswith("--frames and --context")


# Windows


class Numbered:
    """Frames of one pixel, which is their number."""

    def read(self, start, stop):
        return np.arange(start, stop).reshape(-1, 1, 1, 1)


def test_windows_are_all_that_there_are_and_none_crosses_the_end_of_a_clip():
    spans = np.array([[0, 7], [7, 10], [10, 20], [20, 22]])  # the last one has none
    every = clips.Windows(Numbered(), spans, length=3, step=1)
    starts = np.array([*range(5), 7, *range(10, 18)])
    np.testing.assert_array_equal(every[range(len(every))].squeeze(), starts[:, None] + [0, 1, 2])
    apart = clips.Windows(Numbered(), spans, length=3, step=3)
    assert apart[range(len(apart))][:, 0].ravel().tolist() == [0, 3, 7, 10, 13, 16]


def test_windows_are_drawn_at_random_by_their_seed():
    windows = clips.Windows(Numbered(), np.array([[0, 50], [50, 100]]), length=4, step=1)
    drawn = windows.draw(200, [0, 3])
    starts = set(drawn[:, 0].ravel())
    assert drawn.shape == (200, 4, 1, 1, 1)
    assert starts <= {*range(47), *range(50, 97)} and len(starts) > 60
    np.testing.assert_array_equal(drawn, windows.draw(200, [0, 3]))
    assert (drawn != windows.draw(200, [0, 4])).any()
