"""A run is reported to TensorBoard and to Weights & Biases: its losses and its pictures."""

import pytest
from helpers import QUICK, options, replace

import train
from extras import trackers


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_run_is_reported(script, tmp_path, monkeypatch, eagerly, name):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    line = ["--preset", "tiny", *options(replace(QUICK, epochs=2)), "--run", tmp_path]
    assert script(train, *line, "--log", name)[0] == 0
    if name == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/forecasts_*.png"))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "validation")).Reload()
    for what in ("epoch_mse", "forecasts"):
        assert [tensor.step for tensor in events.Tensors(what)] == [0, 1]


def test_a_missing_package_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    line = refused(train, "--log", "wandb", "--run", tmp_path / "run")
    assert "pip install wandb" in line and not (tmp_path / "run").exists()
