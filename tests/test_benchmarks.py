"""The scripts that measure: the yardsticks are right, and every script runs on small settings."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, SMALL

import data
import predict
import train

BENCHMARKS = Path(train.__file__).parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a script of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_floor(benchmark, monkeypatch, capsys):
    floor = benchmark("floor")
    videos = data.EvaluationVideos("test")
    # It knows where the digits are.
    numbers = videos.numbers[:3]  # (3 videos, 2 digits, 4)
    drawn = np.zeros((3, 20, 64, 64), np.uint8)
    for n, k, frame in np.ndindex(3, 2, 20):
        y, x = floor.digit_places(numbers[n, k])[:, frame]
        window = drawn[n, frame, y : y + 28, x : x + 28]
        digit = videos.digits[int(numbers[n, k, 0] * len(videos.digits))]
        np.maximum(window, digit, out=window)
    np.testing.assert_array_equal(drawn, videos[np.arange(3)][..., 0])

    monkeypatch.setattr(floor, "ANGLES", 4000)
    monkeypatch.setattr(floor, "STARTS", 100)
    floor.main(count=1)
    assert capsys.readouterr().out.startswith("the floor, 1 test videos: ")
    frames, _ = next(floor.forecasts(videos, np.arange(1)))
    truth = data.to_float(videos[[0]])[0, 10:]
    assert frames.shape == truth.shape and 0 <= frames.min() and frames.max() <= 1
    # A forecast that is told so much errs less than one that repeats the last frame.
    assert np.square(frames - truth).sum() < 0.3 * np.square(truth[:1] - truth[1:]).sum()


def test_tracks(benchmark, monkeypatch, capsys):
    tracks = benchmark("tracks")
    monkeypatch.setattr(tracks.train_network, "__defaults__", (4000,))
    tracks.main(count=3)
    assert "tracks, 3 test videos: " in capsys.readouterr().out


def test_records(benchmark, script, refused, quick_run, tmp_path):
    records = benchmark("records")
    options = "--count", 2, "--out", tmp_path
    status, output, errors = script(records, "copying", f"own={quick_run}", *options)
    assert status == 0, errors
    rows = json.loads((tmp_path / "records.json").read_text())
    assert list(rows) == ["copying", "own", "own, teacher-forced"]
    assert all(f"\n| {name} | " in output for name in rows)
    assert (tmp_path / "own.csv").read_text() == (quick_run / "log.csv").read_text()
    assert rows["own"]["videos"] > 0 and "copying" not in rows["own"]["command"]
    videos = data.EvaluationVideos("test")[[0, 1]]
    copies = data.copy_last(videos[:, :10], 10)
    assert rows["copying"]["mse"] == predict.score(videos[:, 10:], copies)["mse"]
    for name in ("error-by-frame.png", "comparison.gif"):
        assert (tmp_path / name).stat().st_size > 1000

    assert "NAME=PATH" in refused(records, "own", *options)
    assert "differently" in refused(records, "a=x", "a=y", *options)
    assert "--out" in refused(records, "copying", "--count", 3, "--out", tmp_path)
    assert "1 to 10,000" in refused(records, "copying", "--count", 0, "--out", tmp_path)


@pytest.mark.slow
def test_speed(benchmark, monkeypatch, capsys):
    speed = benchmark("speed")
    presets = dict.fromkeys(("tiny", "cpu", "gpu"), SMALL) | {"keras-example": QUICK}
    monkeypatch.setattr(speed, "PRESETS", presets)
    show_layer = speed.show_layer
    monkeypatch.setattr(speed, "show_layer", lambda *_: show_layer(4, 8, batch=2, frames=3))
    speed.main()
    output = capsys.readouterr().out
    assert "training, cpu preset" in output and "making training videos" in output


@pytest.mark.slow
@pytest.mark.parametrize("command", ["cost.py --preset tiny", "scaling.py"])
def test_on_jax(command):
    pytest.importorskip("jax")
    script, *arguments = command.split()
    result = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "nan" not in result.stdout and len(result.stdout.splitlines()) >= 4
