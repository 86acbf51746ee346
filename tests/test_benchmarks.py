"""The scripts that measure run on small settings; prepare.py, which writes gigabytes, does not."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

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
    monkeypatch.setattr(floor, "ANGLES", 4000)
    monkeypatch.setattr(floor, "STARTS", 100)
    floor.main(count=1)
    error = re.match(r"the floor, 1 test videos: ([\d.]+) ", capsys.readouterr().out)[1]
    video = data.EvaluationVideos("test")[[0]]
    copying = predict.score(video[:, 10:], data.copy_last(video[:, :10], 10))["mean"]["mse"]
    assert float(error) < 0.1 * copying  # it is told so much


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
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, *command.split()]
    output = subprocess.check_output(line, cwd=BENCHMARKS, env=environment, text=True)
    assert "nan" not in output and len(output.splitlines()) >= 4
