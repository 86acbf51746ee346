"""Several devices and several processes, and whatever else is run once more on JAX.

`test_on_jax_with_four_devices` runs all tests that are marked `jax`, in one process.
"""

import dataclasses
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import (
    CLIPS,
    QUICK,
    SMALL,
    before_step,
    checkpoint_variables,
    log_without_times,
    options,
    replace,
)

import data
import model as models
import train
from extras import cli, devices, runs

ROOT = Path(train.__file__).parent
FOUR_DEVICES = "--xla_force_host_platform_device_count=4"
ON_JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

# Constant rates, so that a run does not depend on when it should end; two epochs of two batches.
SHORT = dataclasses.replace(QUICK, batch_size=4, epochs=2, cooldown=0.0)

has_jax = importlib.util.find_spec("jax") is not None
on_jax = keras.backend.backend() == "jax"


def on_four_devices(test):
    skip = pytest.mark.skipif(not on_jax, reason="is run on JAX, with four devices, as a whole")
    return pytest.mark.jax(skip(test))


def numbers_of_this_backend():
    """A forecast by the shipped weights; a loss, and weights after a step of gradient descent."""
    context = data.to_float(data.EvaluationVideos("test", frames=4)[[0]])
    forecast = models.rollout(runs.load_model(runs.SHIPPED), context, 4)
    config = replace(SMALL, frames=3, context=1)
    model, rng = train.build_model(config), np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.2, w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(1e-2), train.squared_error, run_eagerly=not on_jax)
    videos = data.TrainingVideos(frames=3, size=SMALL.size)
    loss = model.train_on_batch(*train.Batches(config, videos, epoch=2)[0])  # in closed loop
    return {"forecast": forecast, "loss": loss, **dict(enumerate(model.get_weights()))}


@pytest.mark.skipif(on_jax or not has_jax, reason="runs tests on JAX from another backend")
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_jax_with_four_devices(tmp_path, which):
    numbers = {str(name): value for name, value in numbers_of_this_backend().items()}
    np.savez(tmp_path / "numbers.npz", **numbers)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-pno:cacheprovider", "--durations=0"]
        + ["-m", f"jax and {which}", "tests"],
        cwd=ROOT,
        env={**os.environ, **ON_JAX, "XLA_FLAGS": FOUR_DEVICES, "NUMBERS": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-5000:]
    assert " skipped" not in result.stdout.splitlines()[-1]


@on_four_devices
def test_the_numbers_are_the_same_as_on_the_other_backend():
    expected = np.load(Path(os.environ["NUMBERS"]) / "numbers.npz")
    for name, numbers in numbers_of_this_backend().items():
        np.testing.assert_allclose(numbers, expected[str(name)], rtol=1e-3, atol=2e-3)


def assert_same_log(one, other):
    for rows in zip(log_without_times(one), log_without_times(other), strict=True):
        row, other_row = ({name: float(value) for name, value in r.items()} for r in rows)
        assert row == pytest.approx(other_row, rel=1e-4)


def test_the_rows_of_all_processes_make_up_the_batch(monkeypatch):
    config = dataclasses.replace(SHORT, frames=6, sampling_epochs=100)
    batches = train.Batches(config, data.TrainingVideos(frames=6, size=32), epoch=50)
    assert devices.share(batches) is batches
    whole = batches[1]
    assert not whole[0]["real_mask"].all()  # some are the model's own
    monkeypatch.setattr(devices, "processes", 2)
    pieces = []
    for process in range(2):
        monkeypatch.setattr(devices, "process", process)
        share = devices.share(batches)
        assert len(share) == len(batches)
        pieces.append(share[1])
    together = keras.tree.map_structure(lambda *rows: np.concatenate(rows), *pieces)
    keras.tree.map_structure(np.testing.assert_array_equal, together, whole)


@pytest.mark.skipif(on_jax, reason="JAX can")
def test_another_backend_names_jax(refused, tmp_path):
    line = refused(train, "--preset", "tiny", "--devices", "all", "--run", tmp_path / "run")
    assert "KERAS_BACKEND=jax" in line and not (tmp_path / "run").exists()


@on_four_devices
@pytest.mark.parametrize(
    "line, reason",
    [("--devices 5 --process-count 1", "there are 4"),
     ("--devices some --process-count 1", "should be `all` or a number"),
     ("--devices 4 --process-count 1 --batch-size 6", "cannot be shared equally by 4 devices"),
     ("--devices all --coordinator here:1234", "go together"),
     ("--coordinator here:1234 --process-id 0 --process-count 2", "need --devices all")],
)  # fmt: skip
def test_devices_that_are_not_there_are_refused(refused, tmp_path, line, reason):
    assert reason in refused(train, *line.split(), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@on_four_devices
def test_any_number_of_devices_trains_the_same(tmp_path):
    """... and a run goes on with more devices than it began with."""
    one, four = tmp_path / "one", tmp_path / "four"
    with before_step(3, lambda: shutil.copytree(one, four)):  # in the second epoch
        train.train(SHORT, one)
    with devices.alone():
        devices.start(devices.Devices("4", process_count=1), SHORT.batch_size)
        train.train(SHORT, four, resume=True)
    for variables in zip(*map(checkpoint_variables, (one, four)), strict=True):
        tolerance = 1e-4 * max(1e-3, np.abs(variables[0]).max())
        np.testing.assert_allclose(*variables, atol=tolerance, rtol=0)
    assert_same_log(one, four)
    first, second = runs.read_json(four / "environment.json", list)
    assert len(first["devices"]) == 1 and second["devices"] == [f"cpu:{n}" for n in range(4)]


@pytest.fixture
def two_processes():
    """Call as two_processes("--option", "value"): -> two processes of one training."""
    both = []

    def start(*arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        # JAX warns of proxies; one device each.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {**ON_JAX, "XLA_FLAGS": ""}
        command = [sys.executable, "train.py", *map(str, arguments), "--devices", "all"]
        command += ["--coordinator", coordinator, "--process-count", "2", "--process-id"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        both[:] = (
            subprocess.Popen([*command, number], cwd=ROOT, env=environment, **pipes)
            for number in "01"
        )
        return list(both)

    yield start
    for process in both:
        process.kill()
        process.communicate()


@on_four_devices
def test_two_processes_train_the_same(tmp_path, two_processes):
    processes = two_processes("--preset", "tiny", *options(SHORT), "--run", tmp_path / "run")
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    train.train(SHORT, tmp_path / "whole")
    assert_same_log(tmp_path / "run", tmp_path / "whole")


def assert_ends_and_says_why(process):
    """JAX says it, with a page of its own, or the exchange of gradients fails and we do."""
    errors = process.communicate(timeout=120)[1]
    assert process.returncode not in (None, 0), errors
    assert "another process of this run" in errors or "another task died" in errors, errors


@on_four_devices
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path, two_processes, victim):
    """... with two processes on own clips, and as if one had done it all."""
    np.save(tmp_path / "clips.npy", CLIPS[..., :1])
    config = replace(SHORT, size=data.SIZE, epochs=1000, data=str(tmp_path / "clips.npy"))
    folder = tmp_path / "run"
    processes = two_processes("--preset", "tiny", *options(config), "--run", folder)
    deadline = time.monotonic() + 300
    while not (folder / "log.csv").exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[victim].kill()
    assert_ends_and_says_why(processes[1 - victim])

    config = dataclasses.replace(config, epochs=len(runs.read_log(folder)) + 2)
    processes = two_processes("--resume", folder, "--epochs", config.epochs)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "best validation MSE" in outputs[0][0] and "best" not in outputs[1][0]
    first, second = runs.read_json(folder / "environment.json", list)
    assert first["processes"] == second["processes"] == 2 == len(first["devices"])
    assert not list(folder.rglob(f"{cli.UNFINISHED}*"))
    train.train(config, tmp_path / "whole")
    assert_same_log(folder, tmp_path / "whole")


@on_four_devices
@pytest.mark.slow
def test_what_process_0_refuses_ends_the_other(tmp_path, two_processes):
    (tmp_path / "best.keras").touch()
    first, second = two_processes("--preset", "tiny", *options(SHORT), "--run", tmp_path)
    errors = first.communicate(timeout=120)[1]
    assert first.returncode == 2 and "holds a run already" in errors, errors
    assert_ends_and_says_why(second)
