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
    frames = animate.side_by_side(context, truth[:1], {"predicted": prediction})
    assert frames.dtype == np.uint8 and frames.shape[0] == 5 and frames.shape[3] == 3
    half = (frames.shape[2] - 8) // 2
    # Every pixel becomes a block of 8x8, without blur, within a border of 2 pixels.
    for n, (left, right) in enumerate(zip([*context, *truth], [*context, *prediction])):
        bottom = frames[n, -260:]
        for shown, frame in ((bottom[:, :half], left), (bottom[:, -half:], right)):
            if n == 4 and frame is left:  # the truth has ended
                assert (shown == 255).all()
                continue
            blocks = np.kron(frame[..., 0], np.ones((8, 8), np.uint8))
            np.testing.assert_array_equal(shown[2:-2, 2:-2], np.stack([blocks] * 3, axis=-1))
            colour = pictures.PREDICTED_COLOUR if n > 2 and frame is right else pictures.REAL_COLOUR
            assert tuple(shown[0, 0]) == tuple(shown[-1, -1]) == colour


def test_gif_loops_and_does_not_flicker(tmp_path):
    """A palette for each frame, or dithering, would have a coloured ground flicker."""
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).integers(0, 30, (64, 64))
    ground = np.stack([3 * x + noise, 3 * y + noise, 2 * (x + y // 2) % 255], axis=-1)
    frames = np.repeat(ground.astype(np.uint8)[None], 12, axis=0)
    for n in range(12):
        frames[n, 40:54, 4 * n : 4 * n + 14] = 255, 50, 25
    animate.write_gif(tmp_path / "a.gif", frames)
    gif, shown, durations = Image.open(tmp_path / "a.gif"), [], []
    for n in range(12):
        gif.seek(n)
        shown.append(np.asarray(gif.convert("RGB")))
        durations.append(gif.info["duration"])
    assert gif.n_frames == 12 and gif.info["loop"] == 0 and durations == [200] * 11 + [1200]
    still = (frames == frames[0]).all(axis=(0, 3))
    assert still.mean() > 0.7
    assert (np.array(shown) == shown[0]).all(axis=(0, 3))[still].all()
    assert np.abs(np.array(shown).astype(float) - frames).mean() < 12


def test_script_writes_an_animation_for_each_video_and_one_strip(script, quick_run, tmp_path):
    status, output, _ = script(animate, quick_run, "--out", tmp_path)
    assert status == 0
    assert "--context 2 --horizon 1" in output  # it was trained on other lengths
    paths = [line for line in output.splitlines() if line.startswith(str(tmp_path))]
    assert {str(tmp_path / name) for name in files_in(tmp_path)} == set(paths)
    *gifs, strip = map(Path, paths)
    assert len(gifs) == 4 and all(Image.open(path).n_frames == 20 for path in gifs)
    width, height = Image.open(strip).size
    assert width > 20 * 32 and height > 8 * 32
    # The numbers in the names are those of the validation videos.
    numbers = [int(path.stem.split("-")[-1]) for path in gifs]
    assert numbers == predict.choose_indices(data.EVALUATION_VIDEOS, 4, seed=0).tolist()
    first = np.asarray(Image.open(gifs[0]).convert("RGB"))[-258:-2:8, 2:258:8]
    expected = data.EvaluationVideos("validation", size=32)[numbers[:1]][0, 0]
    assert np.abs(first.astype(int) - expected).max() < 24


def test_two_models_beside_each_other_and_one_after_the_other(script, refused, quick_run, tmp_path):
    one, other, out = (tmp_path / name for name in ("rate-0.1", "rate-0.2", "out"))
    arguments = ["--count", 1, "--context", 2, "--horizon", 1, "--out", out]
    for run in (one, other):
        shutil.copytree(quick_run, run)
        status, output, _ = script(animate, run, *arguments, "--format", "mp4")
        assert status == 0 and "--context 2" not in output
    paths = list(out.glob("*.mp4"))
    assert len(paths) == 2  # none took the other's name
    frames = imageio.imread(paths[0], plugin="pyav")
    assert frames.shape[0] == 3 and frames.shape[3] == 3
    assert script(animate, one, "--beside", other, *arguments)[0] == 0
    (path,) = out.glob("rate-0.1-and-rate-0.2-*.gif")
    assert Image.open(path).width - 8 == (frames.shape[2] - 8) / 2 * 3 + 8
    assert "other names" in refused(animate, one, "--beside", one, *arguments)


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
