"""The scripts that measure: the yardsticks are right, and every script runs on small settings."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import SMALL, replace

import data
import predict
import train

BENCHMARKS = Path(train.__file__).parent / "benchmarks"
on_tensorflow = keras.backend.backend() == "tensorflow"


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
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("the floor, 1 test videos: ")
    frames, variances = next(floor.forecasts(videos, np.arange(1)))
    truth = data.to_float(videos[[0]])[0, 10:]
    assert frames.shape == truth.shape and 0 <= frames.min() and frames.max() <= 1
    # A forecast that is told so much errs less than one that repeats the last frame.
    assert np.square(frames - truth).sum() < 0.3 * np.square(truth[:1] - truth[1:]).sum()
    assert variances.shape == (10,) and (variances > 0).all()


def test_tracks(benchmark, monkeypatch, capsys):
    tracks = benchmark("tracks")
    context = data.to_float(data.EvaluationVideos("test")[np.arange(4)])[:, :10]

    class Resting:
        """Predicts that a digit stays where it was last."""

        def predict(self, inputs, **options):
            logits = 100 * np.eye(tracks.PLACES, dtype=np.float32)[inputs[:, 0, -1]]
            return np.repeat(logits[:, None], tracks.HORIZON, axis=1)

    forecast = tracks.forecast(Resting(), context)
    np.testing.assert_allclose(forecast, np.repeat(context[:, -1:], 10, axis=1), atol=1e-5)
    monkeypatch.setattr(tracks.train_network, "__defaults__", (4000,))
    tracks.main(count=3)
    assert "tracks, 3 test videos: " in capsys.readouterr().out


def test_records(benchmark, script, refused, trained_run, tmp_path):
    records = benchmark("records")
    options = "--count", 2, "--out", tmp_path
    status, output, errors = script(records, "copying", f"own={trained_run}", *options)
    assert status == 0, errors
    rows = json.loads((tmp_path / "records.json").read_text())
    assert list(rows) == ["copying", "own", "own, 2 sprites"]
    assert all(f"\n| {name} | " in output for name in rows)
    assert (tmp_path / "own.csv").read_text() == (trained_run / "log.csv").read_text()
    assert rows["own"]["videos"] > 0 and "copying" not in rows["own"]["command"]
    videos = data.EvaluationVideos("test")[[0, 1]]
    copies = data.copy_last(videos[:, :10], 10)
    assert rows["copying"]["mse"] == predict.score(videos[:, 10:], copies)["mse"]
    for name in ("error-by-frame.png", "comparison.gif"):
        assert (tmp_path / name).stat().st_size > 1000

    for name in ("own", "a/b=RUN", "=RUN"):
        assert "NAME=PATH" in refused(records, name.replace("RUN", str(trained_run)), *options)
    assert "differently" in refused(records, "a=x", "a=y", *options)
    assert "--out" in refused(records, "copying", "--count", 3, "--out", tmp_path)
    assert "1 to 10,000" in refused(records, "copying", "--count", 0, "--out", tmp_path)


def test_records_score_bfloat16_in_float32(benchmark):
    records = benchmark("records")
    model = train.build_model(replace(SMALL, precision="mixed_bfloat16"))
    copy = records.in_float32(model)
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float32"}
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_speed(benchmark, monkeypatch, capsys):
    speed = benchmark("speed")
    tiny = replace(SMALL, depths=(1, 0, 0))
    example = replace(tiny, model="keras-example", layers=((4, 3), (4, 3)))
    presets = dict.fromkeys(("tiny", "cpu", "gpu"), tiny) | {"keras-example": example}
    monkeypatch.setattr(speed, "PRESETS", presets)
    show_layer = speed.show_layer
    monkeypatch.setattr(speed, "show_layer", lambda *_: show_layer(4, 8, batch=2, frames=3))
    speed.main()
    output = capsys.readouterr().out
    assert "training, cpu preset" in output and "making training videos" in output
    assert not on_tensorflow or "  ConvLSTM2D layers" in output


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
