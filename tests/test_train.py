"""Training: it learns, it repeats, it goes on; what fit is given; and what a config may say."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import data
import train
from conftest import TRAINED
from extras import clips, runs
from helpers import (
    QUICK,
    SMALL,
    array,
    assert_same_run,
    assert_same_weights,
    fields,
    files_in,
    log_of,
    option,
    options,
    replace,
    stopping_at_step,
)

ROOT = Path(train.__file__).parent


# Runs -------------------------------------------------------------------------------------


def test_training_learns_to_forecast(trained_run):
    errors = [float(row["val_mse"]) for row in log_of(trained_run)]
    assert errors[-1] < 0.8 * errors[0]
    evaluation = data.EvaluationVideos("validation", frames=6, size=40)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 20).astype(int)])
    copy_last = np.square(videos[:, 3:] - videos[:, 2:3]).sum(axis=(2, 3, 4)).mean()
    black = np.square(videos[:, 3:]).sum(axis=(2, 3, 4)).mean()
    assert errors[-1] < 0.7 * copy_last < black


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """A run of QUICK, all four epochs of it: only to be read."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    train.train(QUICK, folder)
    return folder


def test_a_resumed_run_equals_one_of_another_process(script, tmp_path, monkeypatch):
    """The same command gives the same weights, whatever comes between; with all parts."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = dataclasses.replace(SMALL, frames=3)
    command = ["--preset", "tiny", *options(config), "--run"]
    subprocess.run(
        [sys.executable, "train.py", *command, whole],
        cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(runs, "ScoreAndSave", stopping_at_step(3))  # in the second epoch
        status, _, errors = script(train, *command, parts)
    assert status == 130 and f"--resume {parts}" in errors
    assert script(train, "--resume", parts)[0] == 0
    assert_same_run(whole, parts)
    assert len(json.loads((parts / "environment.json").read_text())) == 2


@pytest.mark.jax
def test_a_run_that_is_stopped_in_its_first_epoch_goes_on(script, tmp_path, monkeypatch, quick_run):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "ScoreAndSave", stopping_at_step(1))
        status, _, _ = script(train, "--preset", "tiny", *options(QUICK), "--run", parts)
    assert status == 130
    assert script(train, "--resume", parts)[0] == 0
    assert_same_run(quick_run, parts)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(script, quick_run, tmp_path):
    folder = shutil.copytree(quick_run, tmp_path / "run")
    status, output, _ = script(train, "--resume", folder)
    assert status == 0 and "best validation MSE" in output
    assert "for copying the last frame" in output
    for name in ("log.csv", "best.keras", "last.keras", "checkpoint.keras"):
        assert (folder / name).read_bytes() == (quick_run / name).read_bytes()


def test_the_end_can_be_postponed_until_the_learning_rates_fall(
    script, refused, quick_run, tmp_path, monkeypatch
):
    longer = dataclasses.replace(QUICK, epochs=8)
    whole, parts, late = tmp_path / "whole", tmp_path / "parts", tmp_path / "late"
    train.train(longer, whole)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "ScoreAndSave", stopping_at_step(7))  # in the fourth, the last epoch
        assert script(train, "--preset", "tiny", *options(QUICK), "--run", parts)[0] == 130
    shutil.copytree(parts, late)
    assert script(train, "--resume", parts, "--epochs", 8)[0] == 0
    assert runs.read_config(parts, train.Config) == longer
    assert_same_run(whole, parts)
    # Three epochs are done, and of five the learning rates would fall in the fifth alone;
    # of three they would have fallen by now; of four they have, once those are done.
    assert "has done 3 epochs" in refused(train, "--resume", late, "--epochs", 3)
    assert runs.read_config(late, train.Config) == QUICK
    finished = shutil.copytree(quick_run, tmp_path / "finished")
    line = refused(train, "--resume", finished, "--epochs", 8)
    assert "has done 4 epochs" in line and f"--init {finished}" in line
    assert runs.read_config(finished, train.Config) == QUICK


def test_training_starts_from_given_weights(script, refused, misread, quick_run, tmp_path):
    init, run = quick_run / "best.keras", tmp_path / "run"
    assert "no such model" in refused(train, "--init", tmp_path / "nothing", "--run", run)
    assert not run.exists()
    of_its_size = ["--config", quick_run, "--init", init, "--run", run]
    line = refused(train, *of_its_size, "--filters", 99, "--data", tmp_path / "nothing")
    assert "another size, with --filters 4;" in line and "--config" in line
    assert not run.exists()  # it is said before clips are looked at
    # With learning rates that change nothing.
    small = ["--epochs", "1", "--muon-learning-rate", "1e-9", "--adam-learning-rate", "1e-9"]
    status, output, _ = script(train, *of_its_size, *small)
    assert status == 0
    assert_same_weights(init, run / "init.keras")
    given, trained = (runs.load_model(path).get_weights() for path in (init, run / "last.keras"))
    for weights in zip(given, trained, strict=True):
        np.testing.assert_allclose(*weights, atol=1e-6)
    # The error is to be compared with that of copying the last frame.
    evaluation = data.EvaluationVideos("validation", frames=3, size=32)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 3).astype(int)])
    mse = np.square(videos[:, 2] - videos[:, 1]).sum(axis=(1, 2, 3)).mean()
    said = re.search(r"Copying the last frame gives a val_mse of (\S+);", output)
    assert float(said[1]) == pytest.approx(mse, rel=1e-4)


def test_a_config_repeats_its_run(script, refused, quick_run, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    shutil.copytree(quick_run, tmp_path / "given")
    given = ["--init", tmp_path / "given", "--preset", "tiny", *options(QUICK)]
    assert script(train, *given, "--run", first)[0] == 0
    (tmp_path / "given" / "best.keras").unlink()  # its copy beside the config is enough
    assert "--run DIR" in refused(train, "--config", first)
    assert script(train, "--config", first / "config.json", "--run", again)[0] == 0
    assert_same_run(first, again)


def test_a_real_ctrl_c_leaves_a_run_to_go_on_with(tmp_path):
    """In a process of its own, at whatever moment comes after the first epoch."""
    config = dataclasses.replace(QUICK, epochs=1000)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "train.py", "--preset", "tiny", *options(config), "--run", folder],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
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
    runs.load_model(folder / "last.keras")


@pytest.mark.parametrize(
    "preset",
    ["keras-example", pytest.param("cpu", marks=pytest.mark.slow),
     pytest.param("gpu", marks=pytest.mark.slow)],
)  # fmt: skip
def test_other_presets_train(tmp_path, preset):
    config = dataclasses.replace(
        train.PRESETS[preset], frames=4, context=2, size=(32,), batch_size=2, steps_per_epoch=2,
        epochs=1, validation_videos=2,
    )  # fmt: skip
    train.train(config, tmp_path / "run")
    (row,) = log_of(tmp_path / "run")
    assert np.isfinite(float(row["loss"])) and 0 < float(row["val_mse"]) < 1024


# Own clips --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_clips(tmp_path_factory):
    """Twelve clips of eight colour frames, as a file."""
    shape = (12, 8, 24, 32, 3)
    path = tmp_path_factory.mktemp("clips") / "clips.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def run_on_clips(own_clips, tmp_path_factory):
    """A run on the clips: only to be read."""
    config = dataclasses.replace(QUICK, frames=4, size=(24, 32), epochs=2, data=str(own_clips))
    folder = tmp_path_factory.mktemp("runs") / "clips"
    train.train(config, folder)
    return folder


def test_a_run_on_clips_is_in_their_colours_and_can_be_repeated(
    script, run_on_clips, tmp_path, monkeypatch
):
    assert runs.read_config(run_on_clips, train.Config).architecture.channels == 3
    assert runs.load_model(run_on_clips).architecture.channels == 3
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "ScoreAndSave", stopping_at_step(3))
        assert script(train, "--config", run_on_clips, "--run", parts)[0] == 130
    monkeypatch.setattr(clips, "write_cache", None)  # they are not converted again
    assert script(train, "--resume", parts)[0] == 0
    assert_same_run(run_on_clips, parts)


def test_a_run_is_validated_on_clips_that_it_does_not_train_on(run_on_clips, own_clips):
    """Of twelve clips the second and the last, in windows of four frames."""
    import model as models

    videos = data.to_float(np.load(own_clips)[[1, 11]].reshape(4, 4, 24, 32, 3))
    indices = [0, 1, 3]  # QUICK validates on three, from all over them
    predictions = models.rollout(runs.load_model(run_on_clips), videos[indices, :2], 2)
    mse = np.square(predictions - videos[indices, 2:]).sum(axis=(2, 3, 4)).mean()
    best = min(float(row["val_mse"]) for row in log_of(run_on_clips))
    assert best == pytest.approx(mse, rel=1e-4)


def test_a_batch_of_clips_follows_from_seed_epoch_and_index_alone():
    frames = np.random.default_rng(0).integers(0, 256, (500, 2, 2, 3), np.uint8)
    windows = clips.Windows(frames, np.array([[0, 500]]), SMALL.frames, step=1)

    def batch(index, epoch=0, seed=0):
        config = dataclasses.replace(SMALL, seed=seed)
        return train.ClosedLoopVideos(config, epoch, windows)[index][0]["videos"]

    np.testing.assert_array_equal(batch(1), batch(1))
    for other in (batch(0), batch(1, epoch=1), batch(1, seed=1)):
        assert (batch(1) != other).any()
    assert batch(1).shape == (2, 3, 2, 2, 3) and batch(1).dtype == np.float32


def test_moving_mnist_needs_grey_weights(refused, run_on_clips, tmp_path):
    digits = ["--data", "moving-mnist", "--size", 32, "--run", tmp_path / "run"]
    line = refused(train, "--config", run_on_clips, "--init", run_on_clips, *digits)
    assert "for colour" in line
    assert not (tmp_path / "run" / "config.json").exists()


# What fit is given ------------------------------------------------------------------------


def test_scheduled_sampling_gives_way_to_the_models_own_frames():
    config = dataclasses.replace(
        SMALL, frames=20, context=10, batch_size=50, epochs=100, sampling_epochs=50
    )

    def real_mask(epoch):
        return train.ClosedLoopVideos(config, epoch)[0][0]["real_mask"]

    for epoch in (0, 20, 50, 99):
        assert real_mask(epoch).shape == (50, 19)
        assert real_mask(epoch)[:, :10].all()
    assert real_mask(0).all()
    assert 0.4 < real_mask(25)[:, 10].mean() < 0.6
    # Once a model goes on by itself it stays so.
    assert (real_mask(25)[:, 10:] <= real_mask(25)[:, 9:-1]).all()
    assert not real_mask(50)[:, 10:].any() and not real_mask(99)[:, 10:].any()
    np.testing.assert_array_equal(real_mask(25), real_mask(25))
    assert (real_mask(25) != real_mask(26)).any()


def test_teacher_forcing_gives_real_frames_throughout():
    config = dataclasses.replace(SMALL, teacher_forcing=True)
    assert train.ClosedLoopVideos(config, epoch=2)[0][0]["real_mask"].all()


def test_targets_are_the_next_frames_and_the_motion_of_whole_videos():
    videos = train.ClosedLoopVideos(SMALL, epoch=1)
    inputs, targets = videos[1]
    whole = data.to_float(videos.draw(1))
    np.testing.assert_array_equal(inputs["videos"], whole[:, :-1])
    np.testing.assert_array_equal(targets["frames"], whole[:, 1:])
    np.testing.assert_array_equal(targets["motion"], whole)


def test_fit_trains_the_closed_loop():
    model = train.build_model(QUICK)
    closed_loop = train.ClosedLoop(model, QUICK)
    inputs, _ = train.ClosedLoopVideos(dataclasses.replace(QUICK, frames=6), epoch=2)[0]
    assert not inputs["real_mask"][:, 2:].any()
    expected = array(model(inputs["videos"], real_mask=inputs["real_mask"]))
    predictions = closed_loop.predict_on_batch(inputs)["frames"]
    np.testing.assert_allclose(predictions, expected, atol=1e-5)
    teacher_forced = array(model(inputs["videos"]))
    assert np.abs(predictions - teacher_forced).max() > 1e-3


def test_squared_error_is_summed_over_pixels():
    y, prediction = np.zeros((2, 3, 4, 4, 1)), np.full((2, 3, 4, 4, 1), 0.5)
    assert float(train.squared_error(y, prediction)) == 4 * 4 * 0.25


@pytest.mark.parametrize(
    "change",
    [pytest.param({}, marks=pytest.mark.jax), {"motion_weight": 0.0}, {"motion_radius": 0}],
)
def test_where_no_motion_is_measured_it_has_no_loss(change):
    config = replace(SMALL, **change)
    inputs, targets = train.ClosedLoopVideos(config)[0]
    closed_loop = train.ClosedLoop(train.build_model(config), config)
    logs = closed_loop.test_on_batch(inputs, targets, return_dict=True)
    assert np.isfinite(logs["loss"])
    if change:
        assert "motion_loss" not in logs
    else:
        total = logs["frames_loss"] + SMALL.motion_weight * logs["motion_loss"]
        assert logs["loss"] == pytest.approx(total, rel=1e-4) and logs["motion_loss"] > 0


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_computing_steps_again_gives_the_same_gradient(precision):
    config = replace(QUICK, precision=precision)
    inputs, targets = train.ClosedLoopVideos(config)[0]
    results = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        config = dataclasses.replace(config, remat=remat)
        closed_loop = train.ClosedLoop(train.build_model(config), config)
        assert closed_loop.model.remat == remat
        loss = closed_loop.train_on_batch(inputs, targets, return_dict=True)["loss"]
        # What the optimizer remembers of the gradient: the rate of a first step is zero.
        results.append([loss, *map(array, closed_loop.optimizer.momentums)])
    assert any(np.abs(gradient).max() > 0 for gradient in results[0][1:])
    tolerance = 1e-4 if precision == "float32" else 0.05
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(1e-3, np.abs(one).max()))


# What the command line and a config may say -----------------------------------------------


MISREAD = [
    ("--data=", "at least 1 character"),
    ("--preset huge", "huge"),
    ("--epochs many", "--epochs"),
    ("--epoch 3", "--epoch"),
    ("--depths 1", "--depths"),
    ("--remat=3", "3"),
    ("runs/tiny", "runs/tiny"),
    ("--log mlflow", "tensorboard"),
    ("--epochs 0", "epochs Input should be greater than 0"),
    ("--adam-learning-rate -1", "adam_learning_rate Input should be greater than 0"),
    ("--global-clipnorm nan", "global_clipnorm"),
    ("--size x", "--size"),
    ("--size 32 40 48", "size Tuple should have at most 2 items"),
    ("--adam-learning-rate inf", "adam_learning_rate Input should be a finite number"),
]
REFUSED = [
    ("--run FILE", "name another folder"),
    ("--run FILE/run", "name another folder"),
    ("--init NOTHING", "no such model"),
    ("--resume NOTHING", "there is no run"),
    ("--resume FILE", "there is no run"),
    ("--config NOTHING --run RUN", "there is no run"),
    ("--size 24", "at least 28"),
    ("--size 32 40", "square"),
    ("--context 20", "--frames 20 leaves nothing to predict after --context 20"),
    ("--preset keras-example --remat", "not for keras-example"),
    ("--data NOTHING", "no such file"),
]


def test_a_preset_beside_a_config_is_refused(refused, trained_run, tmp_path):
    line = refused(train, "--config", trained_run, "--preset", "gpu", "--run", tmp_path / "run")
    assert "give one of them" in line


@pytest.mark.parametrize("line, reason", MISREAD)
def test_what_cannot_be_read_is_said_in_a_box(misread, tmp_path, monkeypatch, line, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in misread(train, *line.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("line, reason", REFUSED)
def test_what_cannot_be_trained_is_refused_in_a_line(refused, tmp_path, monkeypatch, line, reason):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    assert reason in refused(train, *line.split())
    assert files_in(tmp_path) == {"FILE"}


BAD_FIELDS = [
    ("batch_size", 0), ("steps_per_epoch", -1), ("epochs", 0), ("validation_videos", 0),
    ("filters", 0), ("digits_per_video", 0), ("context", 0),
    ("depths", (1, -1, 1)), ("depths", (1, 1)), ("depths", "abc"),
    ("motion_radius", -1), ("filters", 3.5), ("filters", "many"),
    ("filters", None), ("loss", "mse"), ("model", "?"), ("model", []),
    ("muon_learning_rate", float("nan")), ("adam_learning_rate", float("inf")),
    ("cooldown", 1.5), ("sampling_epochs", -1), ("average", "often"),
    ("seed", -1), ("seed", 2**32), ("global_clipnorm", -1.0), ("channels", 2), ("init", 3),
    ("size", (0,)), ("size", ()),
]  # fmt: skip


@pytest.mark.parametrize("field, value", BAD_FIELDS)
def test_a_bad_field_of_a_config_is_named(refused, tmp_path, field, value):
    content = dataclasses.asdict(train.PRESETS["tiny"])
    part = content["architecture"] if field in content["architecture"] else content
    part[field] = value
    runs.write_json(tmp_path / "config.json", content)
    line = refused(train, "--config", tmp_path / "config.json", "--run", tmp_path / "run")
    assert "config.json" in line and field in line
    assert not (tmp_path / "run").exists()


def test_a_config_survives_its_file(tmp_path):
    for config in train.PRESETS.values():
        runs.write_json(tmp_path / "config.json", dataclasses.asdict(config))
        assert runs.read_config(tmp_path, train.Config) == config


def test_resuming_takes_no_other_options(refused, trained_run, tmp_path):
    for other in (["--batch-size", 9], ["--preset", "gpu"], ["--run", tmp_path]):
        line = refused(train, "--resume", trained_run, *other)
        assert "no other option than --epochs" in line
    line = refused(train, "--config", trained_run, "--resume", trained_run)
    assert "no other option" in line


def test_options_prevail_over_the_presets(monkeypatch, tmp_path, script):
    given = []
    monkeypatch.setattr(train, "train", lambda config, *_: given.append(config))
    monkeypatch.setattr(runs, "read_log", lambda *_: [{"val_mse": "1", "epoch": "1"}])
    assert script(train, "--preset", "tiny", *options(TRAINED), "--run", tmp_path)[0] == 0
    changed = dataclasses.replace(
        train.PRESETS["gpu"], remat=True, size=(32, 32), data="moving-mnist"
    )
    line = ["--preset", "gpu", "--remat", "--size", 32, 32, "--run", tmp_path]
    assert script(train, *line)[0] == 0
    assert given == [TRAINED, changed]


def test_help_explains_every_field(script):
    status, output, _ = script(train, "--preset", "gpu", "--help")
    assert status == 0
    for field in fields(train.PRESETS["gpu"]):
        if field != "channels":  # it follows from the data
            assert option(field) in output
    assert "mixed_bfloat16)" in output  # the defaults are those of the preset
