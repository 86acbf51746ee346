"""Animations: real beside predicted, told apart by their frames, in files that loop."""

import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from helpers import files_in
from PIL import Image

import animate
import data
import predict
from extras import pictures


def video(frames=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 1), dtype=np.uint8)


def test_context_and_forecast_are_told_apart():
    context, truth, prediction = video(3), video(2, seed=1), video(2, seed=2)
    frames = animate.side_by_side(context, truth, {"predicted": prediction})
    assert frames.dtype == np.uint8 and frames.shape[0] == 5 and frames.shape[3] == 3
    height, width = frames.shape[1:3]
    half = (width - 8) // 2
    # Every pixel becomes a block of 8x8, without blur, within a border of 2 pixels.
    for n, (left, right) in enumerate(zip([*context, *truth], [*context, *prediction])):
        bottom = frames[n, height - 260 :]
        for shown, real in ((bottom[:, :half], left), (bottom[:, -half:], right)):
            blocks = np.kron(real[..., 0], np.ones((8, 8), np.uint8))
            np.testing.assert_array_equal(shown[2:-2, 2:-2], np.stack([blocks] * 3, axis=-1))
        right_border = pictures.REAL_COLOUR if n < 3 else pictures.PREDICTED_COLOUR
        assert tuple(bottom[0, 0]) == pictures.REAL_COLOUR
        assert tuple(bottom[0, -1]) == right_border
    without_truth = animate.side_by_side(context, truth[:1], {"predicted": prediction})
    np.testing.assert_array_equal(without_truth[3], frames[3])
    assert (without_truth[4, -260:, :half] == 255).all()  # blank
    np.testing.assert_array_equal(without_truth[4, :, -half:], frames[4, :, -half:])


def test_gif_loops_and_keeps_its_pixels(tmp_path):
    frames = animate.side_by_side(video(3), video(2, seed=1), {"predicted": video(2, seed=2)})
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


def test_what_stands_still_in_the_frames_stands_still_in_the_gif(tmp_path):
    """A palette for each frame, or dithering, would have a coloured ground flicker."""
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).integers(0, 30, (64, 64))
    ground = np.stack([3 * x + noise, 3 * y + noise, 2 * (x + y // 2) % 255], axis=-1)
    frames = np.repeat(ground.astype(np.uint8)[None], 12, axis=0)
    for n in range(12):
        frames[n, 40:54, 4 * n : 4 * n + 14] = 255, 50, 25
    animate.write_gif(tmp_path / "a.gif", frames)
    gif, shown = Image.open(tmp_path / "a.gif"), []
    for n in range(12):
        gif.seek(n)
        shown.append(np.asarray(gif.convert("RGB")))
    still = (frames == frames[0]).all(axis=(0, 3))
    assert still.mean() > 0.7
    assert (np.array(shown) == shown[0]).all(axis=(0, 3))[still].all()
    assert np.abs(np.array(shown).astype(float) - frames).mean() < 12


def test_script_writes_an_animation_for_each_video_and_one_strip(script, trained_run, tmp_path):
    status, output, _ = script(animate, trained_run, "--out", tmp_path)
    assert status == 0
    assert "--context 2 --horizon 2" in output  # it was trained on other lengths
    paths = [line for line in output.splitlines() if line.startswith(str(tmp_path))]
    assert {str(tmp_path / name) for name in files_in(tmp_path)} == set(paths)
    *gifs, strip = map(Path, paths)
    assert len(gifs) == 4 and all(Image.open(path).n_frames == 20 for path in gifs)
    width, height = Image.open(strip).size
    assert width > 20 * 40 and height > 8 * 40
    # The numbers in the names are those of the validation videos.
    numbers = [int(path.stem.split("-")[-1]) for path in gifs]
    assert numbers == predict.choose_indices(data.EVALUATION_VIDEOS, 4, seed=0).tolist()
    first = np.asarray(Image.open(gifs[0]).convert("RGB"))[-242:-2:6, 2:242:6]
    expected = data.EvaluationVideos("validation", size=40)[numbers[:1]][0, 0]
    assert np.abs(first.astype(int) - expected).max() < 24


def test_two_models_beside_each_other_and_one_after_the_other(
    script, refused, trained_run, tmp_path
):
    one, other = tmp_path / "rate-0.1", tmp_path / "rate-0.2"
    arguments = ["--count", 1, "--context", 1, "--horizon", 1, "--out", tmp_path / "out"]
    for run in (one, other):
        shutil.copytree(trained_run, run)
        assert script(animate, run, *arguments)[0] == 0
    assert len(list((tmp_path / "out").glob("*.gif"))) == 2  # none took the other's name
    assert script(animate, one, "--beside", other, *arguments)[0] == 0
    (path,) = (tmp_path / "out").glob("rate-0.1-and-rate-0.2-*.gif")
    three, two = (
        Image.open(gif).width for gif in (path, next((tmp_path / "out").glob("rate-0.1-v*.gif")))
    )
    assert three - 8 == (two - 8) / 2 * 3 + 8
    assert "other names" in refused(animate, one, "--beside", one, *arguments)
    assert "--beside" in refused(animate, one, "--beside", other, "--page", *arguments)


def test_mp4(script, trained_run, tmp_path):
    arguments = [trained_run, "--count", 1, "--horizon", 3, "--format", "mp4", "--out", tmp_path]
    status, output, _ = script(animate, *arguments)
    assert status == 0 and "--context 2" not in output
    (path,) = tmp_path.glob("*.mp4")
    frames = imageio.imread(path, plugin="pyav")
    assert frames.shape[0] == 13 and frames.shape[3] == 3


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_full_disk_is_an_error_of_the_disk(tmp_path, kind):
    resource = pytest.importorskip("resource")
    path, (_, hard) = tmp_path / f"a.{kind}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="too large"):
            getattr(animate, f"write_{kind}")(path, np.repeat(video(9), 3, axis=-1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not any(tmp_path.iterdir())
