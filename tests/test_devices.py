"""Several devices, several processes, and gradients in less memory.

Many of these tests need JAX with four devices: `test_on_jax_with_four_devices` runs them so.
"""

import dataclasses
import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from test_interruptions import QUICK
from test_train import log_of, options

from extras import clips
from extras import cli
from extras import devices
import train

ROOT = Path(train.__file__).parent
FOUR_DEVICES = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    "JAX_PLATFORMS": "cpu",
}

# Constant rates, so that a run does not depend on when it should end; two epochs of two batches.
SHORT = dataclasses.replace(QUICK, batch_size=8, epochs=2, cooldown=0.0)

has_jax = importlib.util.find_spec("jax") is not None
on_jax = keras.backend.backend() == "jax"
needs_four_devices = pytest.mark.skipif(
    not on_jax or len(keras.distribution.list_devices()) < 4, reason="needs JAX and four devices"
)


@pytest.mark.skipif(on_jax or not has_jax, reason="runs these tests on JAX from another backend")
def test_on_jax_with_four_devices(request):
    slow = request.config.getoption("markexpr") == "slow"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-pno:cacheprovider", "--durations=0"]
        + ["-m", "slow" if slow else "not slow", __file__],
        cwd=ROOT,
        env={**os.environ, **FOUR_DEVICES},
        capture_output=True,
        text=True,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-5000:]


def trained(config, folder, distribution=None, **options):
    """A run's weights, and the optimizer's variables; and the rows of its log."""
    train.train(config, folder, distribution=distribution, **options)
    closed_loop = train.ClosedLoop(train.build_model(config), config)
    train.load_checkpoint(closed_loop, folder, config)
    variables = closed_loop.trainable_variables + closed_loop.optimizer.variables
    log = [{k: float(v) for k, v in row.items() if v} for row in log_of(folder)]
    for row in log:
        del row["seconds"]
    return [keras.ops.convert_to_numpy(variable) for variable in variables], log


def assert_same_log(one, other):
    for row, other_row in zip(one, other, strict=True):
        assert row == pytest.approx(other_row, rel=1e-4)


def assert_same_up_to_rounding(one, other, tolerance=1e-4):
    for weights in zip(one, other, strict=True):
        largest = max(1e-3, np.abs(weights[0]).max())
        np.testing.assert_allclose(*weights, atol=tolerance * largest, rtol=0)


# In less memory


@pytest.mark.parametrize("muon", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_batch_trained_in_parts_gives_the_same_weights(tmp_path, muon):
    config = dataclasses.replace(SHORT, muon=muon)
    parts = dataclasses.replace(config, accumulate=4)
    whole, log = trained(config, tmp_path / "whole")
    in_parts, log_of_parts = trained(parts, tmp_path / "parts")
    # The counter of steps comes first, and counts parts; the gradients so far are zeros again.
    weights = len(train.build_model(config).trainable_variables)
    averages = slice(weights + 1, 2 * weights + 1)
    assert_same_up_to_rounding(whole[:weights], in_parts[:weights])
    assert_same_up_to_rounding(whole[averages], in_parts[averages])
    assert_same_log(log, log_of_parts)


@pytest.mark.slow
def test_a_run_in_parts_goes_on_as_if_never_stopped(tmp_path):
    config = dataclasses.replace(SHORT, accumulate=2, batch_size=4)
    whole, log = trained(config, tmp_path / "whole")
    train.train(dataclasses.replace(config, epochs=1), tmp_path / "run")
    resumed, log_of_resumed = trained(config, tmp_path / "run", resume=True)
    for weights in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(*weights)
    assert log == log_of_resumed


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_computing_steps_again_gives_the_same_gradient(precision):
    config = dataclasses.replace(SHORT, precision=precision, batch_size=2)
    inputs, targets = train.ClosedLoopVideos(config)[0]
    results = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        closed_loop = train.ClosedLoop(
            train.build_model(config), dataclasses.replace(config, remat=remat)
        )
        loss = closed_loop.train_on_batch(inputs, targets, return_dict=True)["loss"]
        # What the optimizer remembers of the gradient: the rate of a first step is zero.
        results.append([loss, *map(keras.ops.convert_to_numpy, closed_loop.optimizer.momentums)])
    assert any(np.abs(gradient).max() > 0 for gradient in results[0][1:])
    assert_same_up_to_rounding(*results, tolerance=1e-4 if precision == "float32" else 0.05)


# Which rows a process makes


@pytest.mark.parametrize("own_clips", [False, True])
def test_the_rows_of_all_processes_make_up_the_batch(monkeypatch, own_clips):
    config = dataclasses.replace(SHORT, frames=6, sampling_epochs=100, accumulate=2)
    windows = None
    if own_clips:
        frames = np.random.default_rng(0).integers(0, 256, (90, 32, 32, 1), np.uint8)
        windows = clips.Windows(frames, np.array([[0, 40], [40, 90]]), config.frames, step=1)
    whole = train.ClosedLoopVideos(dataclasses.replace(config, accumulate=1), 50, windows)
    shared = train.ClosedLoopVideos(config, 50, windows)
    assert len(shared) == 2 * len(whole) == 4
    assert not whole[1][0]["real"].all()  # some are the model's own
    for batch in range(2):
        pieces = []
        for part in range(2):
            for process in range(2):
                monkeypatch.setattr(devices, "processes", 2)
                monkeypatch.setattr(devices, "process", process)
                pieces.append(shared[2 * batch + part])
        monkeypatch.undo()
        for side in (0, 1):
            for name, rows in whole[batch][side].items():
                together = np.concatenate([piece[side][name] for piece in pieces])
                np.testing.assert_array_equal(together, rows, err_msg=name)


# Wrong usage


@pytest.mark.parametrize(
    "line, reason",
    [
        ("--coordinator here:1234 --process-id 0 --process-count 2", "need --devices all"),
        ("--batch-size 6 --accumulate 4", "cannot be divided into --accumulate 4"),
        ("--accumulate 0", "--accumulate must be above 0"),
        ("--preset keras-example --remat", "not for keras-example"),
        ("--preset keras-example --accumulate 5", "not for keras-example"),
    ],
)
def test_bad_options(refused, tmp_path, line, reason):
    assert reason in refused(train, *line.split(), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(on_jax, reason="JAX can")
def test_another_backend_names_jax(refused, tmp_path):
    line = refused(train, "--preset", "tiny", "--devices", "all", "--run", tmp_path / "run")
    assert "KERAS_BACKEND=jax" in line


@needs_four_devices
@pytest.mark.parametrize(
    "line, reason",
    [
        ("--devices 5", "there are 4"),
        ("--devices 0", "there are 4"),
        ("--devices some", "should be a number"),
        ("--devices 4 --batch-size 6", "cannot be shared equally by 4 devices"),
        ("--devices 4 --batch-size 8 --accumulate 4", "in 4 parts each"),
    ],
)
def test_bad_options_on_jax(refused, tmp_path, line, reason):
    alone = ["--process-count", "1"]
    assert reason in refused(train, *line.split(), *alone, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not on_jax, reason="another backend says that it is not JAX")
@pytest.mark.parametrize(
    "line, reason",
    [
        ("--coordinator here:1234", "go together"),
        ("--coordinator here --process-id 0 --process-count 2", "should be HOST:PORT"),
        ("--coordinator here:1 --process-id one --process-count 2", "should be a number"),
    ],
)
def test_bad_options_for_several_processes(refused, tmp_path, line, reason):
    assert reason in refused(train, "--devices", "all", *line.split(), "--run", tmp_path / "run")


# Several devices


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    return trained(SHORT, tmp_path_factory.mktemp("one") / "run")


@needs_four_devices
@pytest.mark.parametrize(
    "count, accumulate", [("2", 1), ("4", 1), pytest.param("4", 2, marks=pytest.mark.slow)]
)
def test_any_number_of_devices_trains_the_same(tmp_path, on_one_device, count, accumulate):
    config = dataclasses.replace(SHORT, accumulate=accumulate)
    distribution = devices.start(count, process_count="1")
    weights, log = trained(config, tmp_path / "run", distribution)
    count_of_weights = len(train.build_model(config).trainable_variables)
    assert_same_up_to_rounding(weights[:count_of_weights], on_one_device[0][:count_of_weights])
    assert_same_log(log, on_one_device[1])
    (start,) = train.read_json(tmp_path / "run" / "environment.json", list)
    assert start["devices"] == [f"cpu:{n}" for n in range(int(count))] and start["processes"] == 1


@needs_four_devices
@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, on_one_device):
    train.train(dataclasses.replace(SHORT, epochs=1), tmp_path / "run")
    distribution = devices.start("2", process_count="1")
    weights, log = trained(SHORT, tmp_path / "run", distribution, resume=True)
    assert_same_up_to_rounding(weights, on_one_device[0])
    assert_same_log(log, on_one_device[1])


# Several processes


@pytest.fixture
def two_processes():
    """Call as two_processes("--option", "value"): -> two processes of one training."""
    started = []

    def start(*arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        for number in "01":
            # JAX warns of proxies; one device each.
            environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
            environment |= {"KERAS_BACKEND": "jax", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
            started.append(
                subprocess.Popen(
                    [sys.executable, "train.py", "--preset", "tiny", *map(str, arguments)]
                    + ["--devices", "all", "--coordinator", coordinator]
                    + ["--process-id", number, "--process-count", "2"],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def assert_ends_in_one_line(process, reason, status=1):
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == status, errors
    assert len(errors.splitlines()) == 1 and reason in errors, errors


@needs_four_devices
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_process_is_killed_the_other_ends_and_the_run_goes_on(
    tmp_path, two_processes, victim
):
    """... with one process, and as if that had done it all."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    endless = dataclasses.replace(SHORT, epochs=10_000)
    processes = two_processes(*options(endless), "--run", folder)
    deadline = time.monotonic() + 300
    while not (folder / "log.csv").exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[victim].kill()
    began = time.monotonic()
    assert_ends_in_one_line(processes[1 - victim], "another process of this run has ended")
    assert time.monotonic() - began < 60

    with cli.folder_lock(folder):  # nobody has it
        epochs = len(log_of(folder)) + 1
    config = dataclasses.replace(endless, epochs=epochs)
    resumed, log = trained(config, folder, resume=True)
    expected, expected_log = trained(config, whole)
    assert_same_up_to_rounding(resumed, expected, tolerance=1e-3)
    assert_same_log(log, expected_log)
    first, second = train.read_json(folder / "environment.json", list)
    assert first["processes"] == 2 and len(first["devices"]) == 2 and second["processes"] == 1
    assert not list(folder.rglob(".unfinished-*"))


@needs_four_devices
@pytest.mark.slow
def test_two_processes_train_on_own_clips_to_the_end_and_go_on(tmp_path, two_processes):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "clips.npy", rng.integers(0, 256, (12, 5, 32, 32), np.uint8))
    config = dataclasses.replace(SHORT, data=str(tmp_path / "clips.npy"))
    processes = two_processes(*options(config), "--run", tmp_path / "run")
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "best validation MSE" in outputs[0][0] and "best" not in outputs[1][0]
    _, log = trained(config, tmp_path / "alone")
    _, log_of_both = trained(dataclasses.replace(config, epochs=3), tmp_path / "run", resume=True)
    assert_same_log(log_of_both[:2], log)


@needs_four_devices
@pytest.mark.slow
def test_what_process_0_refuses_ends_the_other(tmp_path, two_processes):
    train.train(dataclasses.replace(SHORT, epochs=1), tmp_path / "run")
    first, second = two_processes(*options(SHORT), "--run", tmp_path / "run")
    assert_ends_in_one_line(first, "holds a run already", status=2)
    assert_ends_in_one_line(second, "another process of this run has ended")
