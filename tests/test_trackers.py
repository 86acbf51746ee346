"""A run is reported to TensorBoard and to Weights & Biases: its losses and its pictures."""

import dataclasses

import pytest
from helpers import QUICK, options

import train
from extras import trackers

TWO_EPOCHS = dataclasses.replace(QUICK, epochs=2)


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_run_is_reported(script, tmp_path, monkeypatch, eagerly, name):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = ["--preset", "tiny", *options(TWO_EPOCHS), "--run", tmp_path, "--log", name]
    assert script(train, *command)[0] == 0
    if name == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/forecasts_*.png"))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "validation")).Reload()
    assert [tensor.step for tensor in events.Tensors("epoch_mse")] == [0, 1]
    assert [tensor.step for tensor in events.Tensors("forecasts")] == [0, 1]


def test_a_missing_package_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    line = refused(train, "--log", "wandb", "--run", tmp_path / "run")
    assert "pip install wandb" in line and not (tmp_path / "run").exists()
