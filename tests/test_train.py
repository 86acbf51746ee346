"""These tests also run on the JAX backend: see test_backends.py."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import data
import model as models
import train

# The smallest training that has every part: three epochs of two batches.
SMALLEST = dataclasses.replace(
    train.PRESETS["tiny"],
    frames=4,
    context=2,
    size=32,
    batch_size=2,
    steps_per_epoch=2,
    epochs=3,
    validation_videos=3,
    warmup_steps=1,
)


def log_of(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def options(config):
    """The command line that gives the `tiny` preset the fields of a config."""
    for field, value in dataclasses.asdict(config).items():
        if value != getattr(train.PRESETS["tiny"], field):
            values = value if isinstance(value, tuple) else (value,)
            yield from (train.option(field), *map(str, values))


def test_training_learns_to_forecast(tiny_run):
    rows = log_of(tiny_run)
    errors = [float(row["val_mse"]) for row in rows]
    assert errors[-1] < errors[0]
    videos = data.to_float(data.evaluation_videos("validation", np.arange(40), frames=12))
    copy_last = np.square(videos[:, 6:] - videos[:, 5:6]).sum(axis=(2, 3, 4)).mean()
    black = np.square(videos[:, 6:]).sum(axis=(2, 3, 4)).mean()
    assert errors[-1] < 0.9 * black < copy_last  # black frames are the better guess of the two


def test_a_run_leaves_what_is_needed_to_repeat_it(tiny_run):
    names = {path.name for path in tiny_run.iterdir()} - {".lock"}
    assert names == {
        "config.json", "environment.json", "log.csv", "curve.png", "samples",
        "best.keras", "last.keras", "checkpoint.keras", "before-cooldown.keras",
    }  # fmt: skip
    config = train.read_config(tiny_run)
    assert config == dataclasses.replace(train.PRESETS["tiny"], steps_per_epoch=40, epochs=3)
    (start,) = json.loads((tiny_run / "environment.json").read_text())
    assert "--preset tiny" in start["command"] and start["keras"] == keras.__version__
    assert start["backend"].split()[0] == keras.backend.backend() and start["devices"]
    assert [row["videos"] for row in log_of(tiny_run)] == ["160", "320", "480"]
    assert len(list((tiny_run / "samples").iterdir())) == 3
    assert Image.open(tiny_run / "curve.png").size == (840, 480)


def test_the_saved_weights_have_the_logged_error(tiny_run):
    model = keras.models.load_model(tiny_run / "best.keras")
    videos = data.to_float(data.evaluation_videos("validation", np.arange(40), frames=12))
    forecast = models.rollout(model, videos[:, :6], 6)
    error = np.square(forecast - videos[:, 6:]).sum(axis=(2, 3, 4)).mean()
    best = min(float(row["val_mse"]) for row in log_of(tiny_run))
    assert error == pytest.approx(best, rel=1e-4)


def stopping_at_step(step):
    """A RunFolder that is interrupted, as by Ctrl-C, before the training step of that number."""

    class StoppingRunFolder(train.RunFolder):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == step:
                raise KeyboardInterrupt

    return StoppingRunFolder


def state(folder):
    """All weights of a run of SMALLEST, its optimizer's included."""
    closed_loop = train.ClosedLoop(train.build_model(SMALLEST), SMALLEST)
    assert train.load_checkpoint(closed_loop, folder, SMALLEST) == 3
    variables = [*closed_loop.weights, *closed_loop.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train.train(SMALLEST, folder)
    return folder


@pytest.mark.parametrize("stop_at_step", [1, 3], ids=["first epoch", "second epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    script, tmp_path, monkeypatch, uninterrupted, stop_at_step
):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(train, "RunFolder", stopping_at_step(stop_at_step))
        status, _, errors = script(train, "--preset", "tiny", *options(SMALLEST), "--run", parts)
    assert status == 130 and f"--resume {parts}" in errors
    assert script(train, "--resume", parts)[0] == 0

    for one, other in zip(state(uninterrupted), state(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    best = [keras.models.load_model(folder / "best.keras") for folder in (uninterrupted, parts)]
    for one, other in zip(*(model.get_weights() for model in best), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(log_of(uninterrupted), log_of(parts), strict=True):
        del one["seconds"], other["seconds"]
        assert one == other
    assert len(json.loads((parts / "environment.json").read_text())) == 2


LONGER = dataclasses.replace(SMALLEST, epochs=5, cooldown=0.4)  # from the fourth epoch on


@pytest.mark.parametrize("interrupted", [False, True], ids=["finished", "before it ends"])
def test_the_end_of_a_run_can_be_postponed(script, tmp_path, monkeypatch, interrupted):
    """Finished, it goes back to where its learning rates began to fall."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(LONGER, whole)
    shorter = dataclasses.replace(LONGER, epochs=3)  # cools down in its third epoch
    with monkeypatch.context() as patch:
        if interrupted:
            patch.setattr(train, "RunFolder", stopping_at_step(3))
        options_ = [*options(shorter), "--run", parts]
        assert script(train, "--preset", "tiny", *options_)[0] == (130 if interrupted else 0)
    before = (parts / "log.csv").read_bytes()
    status, output, _ = script(train, "--resume", parts, "--epochs", 5)
    assert status == 0

    assert train.read_config(parts) == LONGER
    for name in ("last.keras", "best.keras"):
        one, other = (keras.models.load_model(folder / name) for folder in (whole, parts))
        for weights in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(*weights)
    if not interrupted:  # what came of the first end is not lost
        assert "back to epoch 2" in output
        assert (parts / "3-epochs-log.csv").read_bytes() == before
        keras.models.load_model(parts / "3-epochs-best.keras")


def test_the_end_cannot_come_before_what_is_done(refused, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    assert "has done 3 epochs" in refused(train, "--resume", folder, "--epochs", 2)
    assert train.read_config(folder) == SMALLEST


def test_training_starts_from_given_weights(script, refused, uninterrupted, tmp_path):
    init, run = uninterrupted / "best.keras", tmp_path / "run"
    assert "--filters" in refused(train, "--init", init, "--filters", 99, "--run", run)
    assert "no such model" in refused(train, "--init", tmp_path / "nothing", "--run", run)
    assert not run.exists()
    # The cpu preset, but the model of the file; and learning rates that change nothing.
    small = "--frames 4 --context 2 --size 32 --batch-size 2 --steps-per-epoch 2 --epochs 1"
    small += " --validation-videos 3 --learning-rate 1e-9 --adam-learning-rate 1e-9"
    assert script(train, "--init", init, "--run", run, *small.split())[0] == 0
    given, copy, trained = (
        keras.models.load_model(path).get_weights()
        for path in (init, run / "init.keras", run / "last.keras")
    )
    for weights in zip(given, copy, trained, strict=True):
        np.testing.assert_array_equal(*weights[:2])
        np.testing.assert_allclose(weights[0], weights[2], atol=1e-6)


def test_a_config_repeats_its_run(script, refused, uninterrupted, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    shutil.copytree(uninterrupted, tmp_path / "given")
    given = ["--init", tmp_path / "given", "--preset", "tiny", *options(SMALLEST)]
    assert script(train, *given, "--run", first)[0] == 0
    (tmp_path / "given" / "best.keras").unlink()  # its copy beside the config is enough
    repeat = ["--config", first / "config.json", "--run", again]
    assert "--filters" in refused(train, *repeat, "--filters", 99)
    assert script(train, *repeat)[0] == 0
    for one, other in zip(state(first), state(again), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(log_of(first), log_of(again), strict=True):
        del one["seconds"], other["seconds"]
        assert one == other


def test_the_same_command_gives_the_same_weights(uninterrupted, tmp_path):
    """In a process of its own, with another random hash of Python's."""
    command = [sys.executable, "train.py", "--preset", "tiny", *options(SMALLEST)]
    subprocess.run(
        [*command, "--run", tmp_path / "run"],
        cwd=Path(train.__file__).parent, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    for one, other in zip(state(uninterrupted), state(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("service", ["tensorboard", "wandb"])
def test_a_run_is_reported(script, tmp_path, monkeypatch, service):
    pytest.importorskip(service)
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = dataclasses.replace(SMALLEST, layers=(1, 0, 0), frames=3, epochs=2, sample_every=2)
    command = ["--preset", "tiny", *options(config), "--run", tmp_path, "--log", service]
    assert script(train, *command)[0] == 0
    if service == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/forecasts_*.png"))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "validation")).Reload()
    assert [tensor.step for tensor in events.Tensors("epoch_mse")] == [0, 1]
    assert [tensor.step for tensor in events.Tensors("forecasts")] == [1]


def test_a_missing_package_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    line = refused(train, "--log", "wandb", "--run", tmp_path / "run")
    assert "pip install wandb" in line and not (tmp_path / "run").exists()


def test_the_averaged_weights_are_scored_and_saved(uninterrupted):
    closed_loop = train.ClosedLoop(train.build_model(SMALLEST), SMALLEST)
    train.load_checkpoint(closed_loop, uninterrupted, SMALLEST)
    last = keras.models.load_model(uninterrupted / "last.keras")
    averages = closed_loop.optimizer._model_variables_moving_average
    for variables in zip(last.trainable_variables, averages, closed_loop.trainable_variables):
        saved, average, raw = map(keras.ops.convert_to_numpy, variables)
        np.testing.assert_array_equal(saved, average)
        assert (saved != raw).any()


def test_a_real_ctrl_c_leaves_a_run_to_go_on_with(tmp_path):
    """In a process of its own, at whatever moment comes after the first epoch."""
    config = dataclasses.replace(SMALLEST, epochs=1000)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "train.py", "--preset", "tiny", *options(config), "--run", folder],
        cwd=Path(train.__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "best.keras").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert f"--resume {folder}" in errors and "Traceback" not in errors
    assert not list(folder.rglob(".unfinished*"))
    keras.models.load_model(folder / "last.keras")


# What fit is given


def test_scheduled_sampling_gives_way_to_the_models_own_frames():
    config = dataclasses.replace(
        SMALLEST, frames=20, context=10, batch_size=50, epochs=100, sampling_epochs=50
    )

    def real(epoch):
        return train.ClosedLoopVideos(config, epoch)[0][0]["real"]

    for epoch in (0, 20, 50, 99):
        assert real(epoch).shape == (50, 19)
        assert real(epoch)[:, :10].all()
    assert real(0).all()
    assert 0.4 < real(25)[:, 10].mean() < 0.6
    # Once a model goes on by itself it stays so.
    assert (real(25)[:, 10:] <= real(25)[:, 9:-1]).all()
    assert not real(50)[:, 10:].any() and not real(99)[:, 10:].any()
    np.testing.assert_array_equal(real(25), real(25))
    assert (real(25) != real(26)).any()


def test_teacher_forcing_gives_real_frames_throughout():
    config = dataclasses.replace(SMALLEST, teacher_forcing=True)
    assert train.ClosedLoopVideos(config, epoch=2)[0][0]["real"].all()


def test_fit_trains_the_closed_loop():
    model = train.build_model(SMALLEST)
    closed_loop = train.ClosedLoop(model, SMALLEST)
    inputs, _ = train.ClosedLoopVideos(SMALLEST, epoch=2)[0]
    assert not inputs["real"][:, 2:].any()
    expected = keras.ops.convert_to_numpy(model(inputs["videos"], real=inputs["real"]))
    predictions = closed_loop.predict_on_batch(inputs)["frames"]
    np.testing.assert_allclose(predictions, expected, atol=1e-5)
    teacher_forced = keras.ops.convert_to_numpy(model(inputs["videos"]))
    assert np.abs(predictions - teacher_forced).max() > 1e-3


def test_squared_error_is_summed_over_pixels():
    y, prediction = np.zeros((2, 3, 4, 4, 1)), np.full((2, 3, 4, 4, 1), 0.5)
    assert float(train.squared_error(y, prediction)) == 4 * 4 * 0.25


def test_the_motion_loss_of_sheets_is_least_for_the_motion_that_is_then_measured():
    """One digit moves by (2, -3), so it came from 2 pixels above and 3 to the right."""
    digit = data.to_float(data.load_digits("test")[0])
    videos = np.zeros((1, 3, 64, 64, 1), "float32")
    for n in range(3):
        videos[0, n, 10 + 2 * n : 38 + 2 * n, 20 - 3 * n : 48 - 3 * n, 0] = digit
    model = train.build_model(dataclasses.replace(SMALLEST, size=64))
    states = model.empty_states(1, 64, 64)
    _, states = model.step(videos[:, 0], states)
    assert float(states["motion_error"][0]) == 0  # there was nothing yet that could move
    prediction, states = model.step(videos[:, 1], states)
    errors = []
    for dy, dx in ((-2, 3), (-2, 2), (1, 1)):
        logits = np.zeros((2, 2, 9), "float32")  # (sheets, vertical and horizontal, displacements)
        logits[:, 0, 4 + dy] = logits[:, 1, 4 + dx] = 9
        _, after = model.step(videos[:, 2], {**states, "motion": logits.reshape(2, 18)})
        errors.append(float(after["motion_error"][0]))
    assert errors == sorted(errors)
    brightness = 2 * digit.sum()  # both sheets hold the digit
    assert errors[0] < 0.01 * brightness and errors[1] == pytest.approx(9 * brightness, rel=0.01)
    _, own = model.step(prediction, states)
    assert float(own["motion_error"][0]) == 0  # nothing was measured


def test_motion_loss_is_least_for_the_motion_that_is_then_measured():
    videos = data.to_float(data.make_videos(data.load_digits("test"), 2, seed=4, frames=4))
    measured = np.stack(
        [
            keras.ops.convert_to_numpy(models.match(videos[:, n + 1], videos[:, n], 4))
            for n in range(3)
        ],
        axis=1,
    )  # (videos, 3, 16, 16, 18)
    right = np.log(measured + 1e-9)
    wrong = np.roll(right, 1, axis=-1)
    unknown = np.zeros_like(right)
    losses = [float(train.motion_cross_entropy(videos, m)) for m in (right, unknown, wrong)]
    assert losses == sorted(losses)
    # Two axes, 9 displacements each, at every pixel as it is bright.
    brightness = videos[:, 1:].sum() / (2 * 3)
    assert losses[1] == pytest.approx(2 * np.log(9) * brightness, rel=1e-4)
    assert losses[0] < 0.1 * losses[1]


@pytest.mark.parametrize(
    "change",
    [
        {"motion_loss": 0.0},
        {"model": "forecaster", "motion_loss": 0.0},
        {"model": "forecaster", "history": 0},
        {"model": "forecaster", "motion_radius": 0},
    ],
)
def test_where_no_motion_is_measured_it_has_no_loss(change):
    config = dataclasses.replace(SMALLEST, **change)
    inputs, targets = train.ClosedLoopVideos(config)[0]
    logs = train.ClosedLoop(train.build_model(config), config).train_on_batch(
        inputs, targets, return_dict=True
    )
    assert np.isfinite(logs["loss"]) and "motion_loss" not in logs


def step_of_the_optimizer(config, gradient):
    """What the optimizer does to a kernel and a bias in its first step."""
    kernel = keras.Variable(np.zeros((3, 3, 4, 8), "float32"), name="kernel")
    bias = keras.Variable(np.zeros(8, "float32"), name="bias")
    optimizer = train.make_optimizer(config)
    optimizer.apply([gradient, np.ones(8, "float32")], [kernel, bias])
    return keras.ops.convert_to_numpy(kernel), keras.ops.convert_to_numpy(bias)


FIRST_STEP = dataclasses.replace(SMALLEST, warmup_steps=0, average=0.0, clip_norm=0.0)


def test_muon_moves_a_kernel_by_an_orthogonal_matrix():
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32")
    kernel, bias = step_of_the_optimizer(FIRST_STEP, gradient)
    matrix = kernel.reshape(36, 8) / (FIRST_STEP.learning_rate * 0.2 * 36**0.5)
    singular_values = np.linalg.svd(matrix, compute_uv=False)
    assert 0.6 < singular_values.min() and singular_values.max() < 1.3  # Newton-Schulz's range
    u, _, v = np.linalg.svd(gradient.reshape(36, 8), full_matrices=False)
    assert (matrix * (u @ v)).sum() < -0.8 * 8  # downhill, along the gradient's directions
    np.testing.assert_allclose(bias, -FIRST_STEP.adam_learning_rate, rtol=1e-3)


def test_adam_moves_everything_without_muon():
    gradient = np.ones((3, 3, 4, 8), "float32")
    kernel, bias = step_of_the_optimizer(dataclasses.replace(FIRST_STEP, muon=False), gradient)
    np.testing.assert_allclose(kernel, -1e-3, rtol=1e-3)
    np.testing.assert_allclose(bias, -1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "kind, heads",
    [
        ("sheets", {"motion_head"}),
        ("forecaster", {"coarse_motion_head", "motion_head", "synthesis_head"}),
    ],
)
def test_muon_is_kept_from_the_first_convolution_and_the_heads(kind, heads):
    config = dataclasses.replace(SMALLEST, model=kind)
    model = train.build_model(config)
    optimizer = train.make_optimizer(config)
    adam = {v.path.split("/")[1] for v in model.trainable_variables
            if len(v.shape) > 1 and optimizer._should_use_adamw(v)}  # fmt: skip
    assert adam == {"encoder", *heads}


def test_a_dense_kernel_takes_the_same_step_as_a_convolution_of_one_pixel():
    gradient = np.random.default_rng(0).normal(size=(36, 8)).astype("float32")
    moved = []
    for shape in ((36, 8), (1, 1, 36, 8)):
        kernel = keras.Variable(np.zeros(shape, "float32"), name="kernel")
        train.make_optimizer(FIRST_STEP).apply([gradient.reshape(shape)], [kernel])
        moved.append(keras.ops.convert_to_numpy(kernel).reshape(36, 8))
    np.testing.assert_allclose(*moved, rtol=1e-4)


def test_the_average_of_the_weights_warms_up():
    weight = keras.Variable(np.zeros(1, "float32"))
    optimizer = train.make_optimizer(dataclasses.replace(FIRST_STEP, average=0.9))
    expected = 0.0
    for step in range(200):
        optimizer.apply([np.ones(1, "float32")], [weight])
        momentum = min(0.9, step / (step + 9))
        expected = momentum * expected + (1 - momentum) * float(weight.value[0])
    (average,) = optimizer._model_variables_moving_average
    assert float(average.value[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "cooldown, expected",
    [
        (0.2, {0: 0, 10: 2.5e-3, 20: 5e-3, 60: 5e-3, 80: 5e-3, 90: 2.5e-3, 100: 0}),
        (0.0, {0: 0, 10: 2.5e-3, 20: 5e-3, 100: 5e-3, 1000: 5e-3}),
    ],
)
def test_learning_rate_warms_up_stays_and_ends_at_zero(cooldown, expected):
    config = dataclasses.replace(
        SMALLEST, epochs=10, steps_per_epoch=10, warmup_steps=20, cooldown=cooldown,
        learning_rate=5e-3,
    )  # fmt: skip
    optimizer = train.make_optimizer(config)
    rate = {}
    for step in expected:
        optimizer.iterations.assign(step)
        rate[step] = float(optimizer.learning_rate)
    assert rate == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("preset", ["forecaster", "gpu", "keras-example"])
def test_other_presets_train(tmp_path, preset):
    config = dataclasses.replace(
        train.PRESETS[preset], frames=4, context=2, size=32, batch_size=2, steps_per_epoch=2,
        epochs=1, validation_videos=2,
    )  # fmt: skip
    train.train(config, tmp_path / "run")
    (row,) = log_of(tmp_path / "run")
    assert np.isfinite(float(row["loss"])) and 0 < float(row["val_mse"]) < 1024


# Bad input


def test_a_run_is_not_overwritten(refused, tiny_run):
    before = (tiny_run / "config.json").read_bytes()
    assert f"--resume {tiny_run}" in refused(train, "--preset", "tiny", "--run", tiny_run)
    assert (tiny_run / "config.json").read_bytes() == before


def test_resuming_needs_a_run_and_takes_no_other_options(refused, tiny_run, tmp_path):
    for other in (["--batch-size", 9], ["--preset", "cpu"], ["--run", tmp_path]):
        assert "no other option than --epochs" in refused(train, "--resume", tiny_run, *other)
    train.write_json(tmp_path / "config.json", dataclasses.asdict(SMALLEST))
    assert "checkpoint.keras" in refused(train, "--resume", tmp_path)
    (tmp_path / "checkpoint.keras").write_bytes(b"not weights")
    assert "cannot be loaded" in refused(train, "--resume", tmp_path)


@pytest.mark.parametrize("name", ["log.csv", "environment.json", "config.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "folder"])
def test_a_damaged_run_is_not_gone_on_with(refused, uninterrupted, tmp_path, name, damage):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut":
        (folder / name).write_bytes(whole[: len(whole) // 2])
    if damage == "folder":
        (folder / name).mkdir()
    assert name in refused(train, "--resume", folder)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(script, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    status, output, _ = script(train, "--resume", folder)
    assert status == 0 and "best validation MSE" in output
    for name in ("log.csv", "best.keras", "last.keras", "checkpoint.keras"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_out_of_memory_is_one_line(script, tmp_path, monkeypatch):
    class ResourceExhaustedError(Exception):  # as TensorFlow's and JAX's are, no Python error
        pass

    def no_memory(model, config):
        raise ResourceExhaustedError("RESOURCE_EXHAUSTED: while allocating 80 GiB")

    monkeypatch.setattr(train, "ClosedLoop", no_memory)
    status, _, errors = script(train, "--run", tmp_path / "run")
    assert status == 1 and "--batch-size" in errors and len(errors.splitlines()) == 1


def test_help_explains_every_field(script):
    status, output, _ = script(train, "--preset", "gpu", "--help")
    assert status == 0
    for field in dataclasses.fields(train.Config):
        assert train.option(field.name) in output
    assert "mixed_bfloat16)" in output  # the defaults are those of the preset
