"""Own clips through the scripts: trained on, moved, forecast in the data's units."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import animate
import model as models
import predict
import train
from extras import runs, sources

ROOT = Path(train.__file__).parent
SMALL = ["--preset", "tiny", "--frames", "6", "--context", "3", "--steps-per-epoch", "2"]
SMALL += ["--epochs", "1", "--batch-size", "2", "--filters", "4", "--encoder-filters", "4"]
SMALL += ["--depths", "1", "0", "0", "--motion-radius", "0", "--size", "24", "32"]
FORECAST = ["--context", "3", "--horizon", "3"]


def moving_squares(count=3, frames=14, height=24, width=32):
    """uint8 videos (count, frames, height, width) of a square that moves to the right."""
    videos = np.zeros((count, frames, height, width), np.uint8)
    for n in range(count):
        for t in range(frames):
            videos[n, t, 8:14, n + t : n + t + 6] = 255
    return videos


@pytest.fixture(scope="module")
def radar_run(tmp_path_factory):
    """A run on squares of 40 dBZ over -32 dBZ, started from the folder that holds them."""
    folder = tmp_path_factory.mktemp("radar")
    np.save(folder / "radar.npy", np.where(moving_squares() > 0, 40.0, -32.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ["--data", "radar.npy", "--range", "-32", "60", "--run", "run"]
        patch.setattr(sys, "argv", ["train.py", *SMALL, *options])
        train.main()
    return folder / "run"


def test_a_run_on_clips_keeps_how_they_are_read(radar_run):
    config = runs.read_config(radar_run)
    assert config["value_range"] == [-32, 60] and config["size"] == [24, 32]
    assert config["data"] == str(radar_run.parent / "radar.npy")


def test_forecasts_come_back_in_the_units_of_the_data(radar_run, script, tmp_path):
    data = radar_run.parent / "radar.npy"
    status, output, errors = script(
        predict, radar_run, "--data", data, *FORECAST, "--out", tmp_path
    )
    assert status == 0, errors
    assert "-32 is black and 60 white" in output
    # Three videos of 14 frames are six windows of 6 frames.
    assert "stretches of 6 frames, context and truth: 6; frames left over" in output
    assert "left over at the ends of clips: 6" in output
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["range"].tolist() == [-32, 60]
        assert arrays["prediction"].dtype == np.float32
        assert -32 <= arrays["prediction"].min() and arrays["prediction"].max() <= 60
        np.testing.assert_allclose(np.unique(arrays["truth"]), [-32, 40], atol=1e-4)
        assert arrays["prediction"].shape == (6, 3, 24, 32, 1)


def test_a_run_does_not_depend_on_where_it_and_its_clips_stand(radar_run, script, tmp_path):
    moved = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(radar_run), str(moved)], check=True)
    source = radar_run.parent / "radar.npy"
    source.rename(tmp_path / "gone.npy")
    try:
        for script_file in (predict, animate):
            arguments = [moved, "--data", "validation", *FORECAST, "--out", tmp_path / "out"]
            status, _, errors = script(script_file, *arguments)
            assert status == 0, errors
        status, output, errors = script(train, "--resume", moved, "--epochs", "2")
        assert status == 0, errors
        assert "Epoch 2/2" in output  # on the clips that it has converted
        assert (
            "training clips: 2; validation: stretches of 6 frames: 2, from radar.npy [2]" in output
        )
    finally:
        (tmp_path / "gone.npy").rename(source)


@pytest.mark.parametrize("height, width", [(24, 32), (28, 36)])
def test_arrays_are_forecast_in_their_own_size(radar_run, script, tmp_path, height, width):
    np.save(tmp_path / "squares.npy", moving_squares(1, 6, height, width))
    arguments = ["--data", tmp_path / "squares.npy", "--range", "0", "255", "--out", tmp_path]
    status, output, errors = script(predict, radar_run, *arguments, *FORECAST)
    assert status == 0, errors
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["prediction"].shape == (1, 3, height, width, 1)
    assert ("these frames keep their size" in output) == ((height, width) != (24, 32))


def test_clips_that_end_with_the_context_are_predicted_and_not_scored(radar_run, script, tmp_path):
    np.save(
        tmp_path / "short.npy", moving_squares(2, 3)[..., None]
    )  # with channels, no other reading
    arguments = ["--data", tmp_path / "short.npy", "--range", "0", "255", "--out", tmp_path]
    status, output, errors = script(predict, radar_run, *arguments, *FORECAST)
    assert status == 0, errors
    assert "nothing to score" in output and not (tmp_path / "scores.json").exists()


def test_forecasts_that_are_worse_than_copying_are_told_so(script, tmp_path):
    np.save(tmp_path / "still.npy", np.repeat(moving_squares(1, 1), 6, axis=1))
    arguments = ["--data", tmp_path / "still.npy", *FORECAST, "--out", tmp_path]
    assert "worse than copying the last frame" in script(predict, runs.SHIPPED, *arguments)[1]
    arguments = ["--count", "2", "--out", tmp_path]
    assert "worse than copying the last frame" not in script(predict, *arguments)[1]


def test_forecasts_are_not_written_over_the_clips_of_a_run(radar_run, refused, tmp_path):
    before = (radar_run / "clips-cache.npy").read_bytes()
    np.save(tmp_path / "other.npy", moving_squares(1))
    arguments = ["--data", tmp_path / "other.npy", "--range", "0", "255", "--out", radar_run]
    assert "name another" in refused(predict, radar_run, *arguments)
    assert (radar_run / "clips-cache.npy").read_bytes() == before


def test_a_single_clip_is_validated_on_at_its_end(script, tmp_path):
    np.save(tmp_path / "alone.npy", moving_squares(1))
    arguments = ["--data", tmp_path / "alone.npy", "--run", tmp_path / "run"]
    _, output, _ = script(train, *SMALL, *arguments)
    assert "stretches of 6 frames: 1, from the end of alone.npy" in output


def test_grey_weights_start_colour_clips(radar_run, script, tmp_path):
    squares = moving_squares()
    np.save(tmp_path / "red.npy", np.stack([squares, squares // 4, squares // 8], axis=-1))
    arguments = ["--config", radar_run, "--init", radar_run, "--run", tmp_path / "run"]
    arguments += ["--data", tmp_path / "red.npy"]
    few = ["--frames", "6", "--context", "3", "--steps-per-epoch", "2", "--epochs", "1"]
    status, output, errors = script(
        train, *arguments, *few, "--batch-size", "2", "--size", "24", "32"
    )
    assert status == 0, errors
    assert "in colour" in output
    assert runs.load_model(tmp_path / "run").architecture.channels == 3


def test_a_console_that_cannot_show_a_name_costs_no_result(radar_run, tmp_path):
    np.save(tmp_path / "клип.npy", moving_squares(1, 6))
    arguments = ["--data", "клип.npy", "--range", "0", "255", *FORECAST, "--out", "out"]
    result = subprocess.run(
        [sys.executable, ROOT / "predict.py", radar_run, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        check=False,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "scores.json").exists()


def test_choose_indices():
    np.testing.assert_array_equal(sources.choose_indices(5, usual_count=3), [0, 1, 2])
    chosen = sources.choose_indices(100, 10, seed=1)
    assert len(set(chosen.tolist())) == 10 and chosen.max() < 100
    np.testing.assert_array_equal(chosen, sources.choose_indices(100, 10, seed=1))
    for count, seed in ((0, None), (101, None), (5, -1)):
        with pytest.raises(ValueError):
            sources.choose_indices(100, count, seed)


@pytest.mark.parametrize(
    "size, horizon, sizes",
    [(64, 10, [50, 50, 3]), (256, 2, [3] * 34 + [1]), (64, 2000, [4] * 25 + [3])],
)
def test_long_and_large_videos_go_fewer_at_a_time(size, horizon, sizes):
    videos = np.broadcast_to(np.uint8(0), (200, 3, size, size, 1))
    batches = sources.batches(videos, np.arange(103), horizon)
    assert [len(batch) for batch in batches] == sizes


def test_batches_are_the_videos_that_were_asked_for():
    videos = np.arange(8, dtype=np.uint8).reshape(4, 2, 1, 1, 1)
    indices = np.array([3, 0, 2])
    (batch,) = sources.batches(videos, indices, 2)
    np.testing.assert_array_equal(batch, videos[indices])


def test_other_clips_are_read_as_those_of_the_run_were(tmp_path):
    """What is given wins, --fps is for videos alone, and --axes for arrays."""
    run = {"stride": 2, "fps": 10.0, "axes": "NHWT"}
    model = SimpleNamespace(architecture=models.Architecture(), frame_size=(24, 32))
    video = moving_squares(1, 12)[0]
    np.save(tmp_path / "videos.npy", np.moveaxis(video[None], 1, -1))
    (tmp_path / "arrays").mkdir()
    shutil.copy(tmp_path / "videos.npy", tmp_path / "arrays")
    first, *others = map(Image.fromarray, video)
    first.save(tmp_path / "20-fps.gif", save_all=True, append_images=others, duration=50)
    for name, given, expected in [
        ("videos.npy", {}, video[::2]),
        ("videos.npy", {"stride": 3}, video[::3]),
        ("20-fps.gif", {}, video[::4]),
        ("20-fps.gif", {"fps": 20.0}, video[::2]),
        ("20-fps.gif", {"stride": 1}, video),
        ("arrays", {}, video[::2]),
    ]:
        path, size = str(tmp_path / name), expected.shape[1:]
        request = predict.Request(
            data=path, context=3, horizon=3, size=size, out=tmp_path / "out", **given
        )
        videos, _ = sources.open_videos(request, model, run)
        np.testing.assert_array_equal(videos.frames[..., 0], expected)
