"""Animations: real beside predicted, told apart by their frames, in files that loop."""

import numpy as np
import pytest
from PIL import Image

import animate
import data
from helpers import files_in
from extras import pictures as drawing


def video(frames=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 1), dtype=np.uint8)


def test_context_and_forecast_are_told_apart():
    context, truth, prediction = video(3), video(2, seed=1), video(2, seed=2)
    frames = animate.side_by_side(context, truth, prediction)
    assert frames.dtype == np.uint8 and frames.shape[0] == 5 and frames.shape[3] == 3
    height, width = frames.shape[1:3]
    half = (width - 8) // 2
    # Every pixel becomes a block of 8x8, without blur, within a border of 2 pixels.
    for n, (left, right) in enumerate(zip([*context, *truth], [*context, *prediction])):
        bottom = frames[n, height - 260 :]
        for shown, real in ((bottom[:, :half], left), (bottom[:, -half:], right)):
            blocks = np.kron(real[..., 0], np.ones((8, 8), np.uint8))
            np.testing.assert_array_equal(shown[2:-2, 2:-2], np.stack([blocks] * 3, axis=-1))
        right_border = drawing.REAL_COLOUR if n < 3 else drawing.PREDICTED_COLOUR
        assert tuple(bottom[0, 0]) == drawing.REAL_COLOUR
        assert tuple(bottom[0, -1]) == right_border


def test_without_truth_the_real_side_is_blank():
    frames = animate.side_by_side(video(3), video(1), video(2))
    width = frames.shape[2] // 2 - 8
    assert (frames[3, 40:, :width] < 255).any()
    assert (frames[4, 40:, :width] == 255).all()
    assert (frames[4, 40:, -width:] < 255).any()


def test_gif_loops_and_keeps_its_pixels(tmp_path):
    frames = animate.side_by_side(video(3), video(2, seed=1), video(2, seed=2))
    animate.write_gif(tmp_path / "a.gif", frames)
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == 5 and gif.info["loop"] == 0
    durations = []
    for n in range(5):
        gif.seek(n)
        durations.append(gif.info["duration"])
        shown = np.asarray(gif.convert("RGB")).astype(int)
        assert np.abs(shown - frames[n])[28:].max() < 24  # 256 colours have to do
    assert durations == [200, 200, 200, 200, 1200]


def test_script_writes_an_animation_for_each_video_and_one_strip(script, trained_run, tmp_path):
    status, output, _ = script(animate, trained_run, "--out", tmp_path)
    assert status == 0
    written = {str(tmp_path / name) for name in files_in(tmp_path)}
    assert written == {line for line in output.splitlines() if line.startswith(str(tmp_path))}
    gifs = sorted(tmp_path.glob("*.gif"))
    assert len(gifs) == 4 and len(written) == 5
    assert all(Image.open(path).n_frames == 20 for path in gifs)
    (strip,) = tmp_path.glob("*.png")
    width, height = Image.open(strip).size
    assert width > 20 * 40 and height > 8 * 40
    # The numbers in the names are those of the validation videos.
    number = int(gifs[0].stem.split("-")[1])
    gif = Image.open(gifs[0])
    first = np.asarray(gif.convert("RGB"))[-242:-2:6, 2:242:6]
    expected = data.EvaluationVideos("validation", size=40)[[number]][0, 0]
    assert np.abs(first.astype(int) - expected).max() < 24


def test_mp4(script, trained_run, tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("av")
    arguments = [trained_run, "--count", 1, "--horizon", 3, "--format", "mp4", "--out", tmp_path]
    assert script(animate, *arguments)[0] == 0
    (path,) = tmp_path.glob("*.mp4")
    frames = imageio.imread(path, plugin="pyav")
    assert frames.shape[0] == 13 and frames.shape[3] == 3


def test_mp4_without_its_packages_says_what_to_install(refused, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(animate.importlib.util, "find_spec", lambda name: None)
    arguments = [trained_run, "--count", 1, "--horizon", 1, "--format", "mp4", "--out", tmp_path]
    assert "pip install imageio av" in refused(animate, *arguments)
    assert not list(tmp_path.iterdir())


def test_clips_without_truth_are_animated(script, trained_run, tmp_path):
    np.save(tmp_path / "clip.npy", data.EvaluationVideos("test", frames=10)[[0]])
    arguments = ["--data", tmp_path / "clip.npy", "--out", tmp_path / "out"]
    assert script(animate, trained_run, *arguments)[0] == 0
    assert Image.open(tmp_path / "out" / "clip-0000.gif").n_frames == 20


def test_help(script):
    status, output, _ = script(animate, "--help")
    assert status == 0 and "--horizon" in output and "validation" in output
