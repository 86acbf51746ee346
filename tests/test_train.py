"""Training: it learns, it repeats, it goes on; what fit is given; and what a config may say."""

import dataclasses
import shutil
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import (
    CLIPS,
    QUICK,
    SMALL,
    array,
    assert_same_run,
    assert_same_weights,
    before_step,
    files_in,
    interrupt,
    load_checkpoint,
    options,
    prepare,
    replace,
)

import data
import model as models
import train
from extras import runs
from method import motion

# Runs -------------------------------------------------------------------------------------


def test_fit_by_hand_gives_the_weights_of_a_run(quick_run):
    keras.utils.set_random_seed(QUICK.seed)
    model = train.build_model(QUICK)
    train.compile_model(model, QUICK)
    lengths = {"steps_per_epoch": QUICK.steps_per_epoch, "epochs": QUICK.epochs}
    model.fit(batches_of(QUICK), **lengths, shuffle=False, verbose=0)
    assert_same_weights(model, quick_run / "last.keras")  # Keras ends with the averages


def test_a_stopped_run_goes_on_and_may_end_later(script, refused, quick_run, tmp_path):
    shorter = dataclasses.replace(QUICK, epochs=4)
    parts, late = tmp_path / "parts", tmp_path / "late"
    # In the fourth epoch, the last one: as by Ctrl-C, which a shell may have it ignore
    with before_step(7, lambda: signal.raise_signal(signal.SIGTERM)):
        line = ["--preset", "tiny", *options(shorter), "--run", parts]
        status, _, errors = script(train, *line)
    assert status == 130 and f"--resume {parts}" in errors and len(runs.read_log(parts)) == 3
    shutil.copytree(parts, late)
    assert script(train, "--resume", parts, "--epochs", QUICK.epochs)[0] == 0
    assert train.read_config(parts) == QUICK
    assert_same_run(quick_run, parts)
    # Three epochs are done: of three the learning rates would have fallen by now.
    assert "has done 3 epochs" in refused(train, "--resume", late, "--epochs", 3)
    assert train.read_config(late) == shorter


def test_a_run_in_float16_goes_on_after_skipped_steps(tmp_path, eagerly):
    """Keras scales its loss, and skips the steps for which the scale was too large."""
    config = replace(SMALL, precision="mixed_float16", frames=3, steps_per_epoch=4, epochs=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, whole)
    with before_step(6, interrupt), pytest.raises(KeyboardInterrupt):
        train.train(config, parts)
    train.train(config, parts, resume=True)
    assert_same_run(whole, parts)
    assert 0 < int(load_checkpoint(whole).optimizer.iterations) < 8


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(script, quick_run, tmp_path):
    folder = shutil.copytree(quick_run, tmp_path / "run\x1b[31m")
    status, output, _ = script(train, "--resume", folder)
    assert status == 0 and "best validation MSE" in output
    assert "\x1b" not in output  # names do not steer a terminal
    assert "for copying the last frame" in output
    for name in ("log.csv", "best.keras", "last.keras", "checkpoint.keras"):
        assert (folder / name).read_bytes() == (quick_run / name).read_bytes()


def test_init_starts_from_given_weights(script, refused, quick_run, tmp_path, eagerly):
    """... and keeps a copy of them beside the config, which is enough to repeat the run."""
    given, run, again = (tmp_path / name for name in ("given", "run", "again"))
    shutil.copytree(quick_run, given)
    of_its_size = ["--config", given, "--init", given, "--run", run]
    line = refused(train, *of_its_size, "--layers", 5, 3)
    assert "another model: layers ((4, 3), (4, 3));" in line and "--config RUN" in line
    assert not files_in(run)
    # With learning rates that change nothing.
    small = ["--epochs", "1", "--muon-learning-rate", "1e-9", "--adam-learning-rate", "1e-9"]
    status, output, _ = script(train, *of_its_size, *small)
    assert status == 0
    assert_same_weights(given / "best.keras", run / "init.keras")
    old, new = (runs.load_model(path) for path in (given, run / "last.keras"))
    for before, after in zip(old.trainable_weights, new.trainable_weights, strict=True):
        np.testing.assert_allclose(array(before), array(after), atol=1e-6)
    # The error is to be compared with that of copying the last frame.
    evaluation = data.EvaluationVideos("validation", frames=3, size=32)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 3).astype(int)])
    mse = np.square(videos[:, 2] - videos[:, 1]).sum(axis=(1, 2, 3)).mean()
    said = output.split("Copying the last frame gives a val_mse of ")[1].split(";")[0]
    assert float(said) == pytest.approx(mse, rel=1e-4)
    (given / "best.keras").unlink()
    assert script(train, "--config", run / "config.json", "--run", again)[0] == 0
    assert_same_run(run, again)


def test_frozen_layers_stay_as_they_are(tmp_path, monkeypatch, quick_run, eagerly):
    build_model = train.build_model

    def build_and_freeze(config):
        model = build_model(config)
        model.conv_lstms[0].trainable = False
        return model

    monkeypatch.setattr(train, "build_model", build_and_freeze)
    config = dataclasses.replace(QUICK, epochs=1, init=str(quick_run))
    train.train(config, tmp_path / "run")
    old, new = runs.load_model(quick_run), runs.load_model(tmp_path / "run" / "last.keras")
    frozen = {id(weight) for weight in old.conv_lstms[0].weights}
    for weight, trained in zip(old.weights, new.weights, strict=True):
        same = (array(weight) == array(trained)).all()
        assert same == (id(weight) in frozen), weight.path


def test_an_optimizer_of_keras_works(script, refused, quick_run, tmp_path, monkeypatch, eagerly):
    monkeypatch.setattr(train, "make_optimizer", lambda *_: keras.optimizers.Adam(1e-4))
    run = tmp_path / "run"
    train.train(dataclasses.replace(QUICK, epochs=1), run)
    assert script(train, "--resume", run, "--epochs", 2)[0] == 0
    assert [row["learning_rate"] for row in runs.read_log(run)] == ["0.0001", "0.0001"]
    assert_same_weights(load_checkpoint(run), run / "last.keras")  # without an average
    # Not in a run of the other one: Keras would begin with a new one, and say so in a warning.
    other = shutil.copytree(quick_run, tmp_path / "other")
    assert "checkpoint.keras cannot be loaded" in refused(train, "--resume", other)
    assert len(runs.read_json(other / "environment.json", list)) == 1


# Own clips --------------------------------------------------------------------------------


def test_a_run_on_clips_is_repeated_and_goes_on_where_they_are(script, run_on_clips, tmp_path):
    parts, moved = tmp_path / "parts", tmp_path / "moved"
    with before_step(1, interrupt):  # in the first epoch
        assert script(train, "--config", run_on_clips, "--run", parts)[0] == 130
    shutil.copy(run_on_clips.with_name("clips"), moved)
    assert script(train, "--resume", parts, "--data", moved)[0] == 0
    assert_same_run(run_on_clips, parts)


def test_a_run_is_validated_on_clips_that_it_does_not_train_on(run_on_clips):
    """Of twelve clips the second and the last, in colour, in windows of four frames."""
    videos = data.to_float(CLIPS[[1, 11]].reshape(4, 4, 24, 32, 3))[[0, 1, 3]]  # from all over them
    predictions = models.rollout(runs.load_model(run_on_clips), videos[:, :2], 2)
    mse = np.square(predictions - videos[:, 2:]).sum(axis=(2, 3, 4)).mean()
    best = min(float(row["val_mse"]) for row in runs.read_log(run_on_clips))
    assert best == pytest.approx(mse, rel=1e-4)


def test_a_run_on_clips_is_refused_others(refused, run_on_clips, tmp_path):
    prepare(tmp_path / "others", 255 - CLIPS)
    line = refused(train, "--resume", run_on_clips, "--data", tmp_path / "others")
    assert f"{tmp_path / 'others'} has changed" in line and f"--init {run_on_clips}" in line
    assert len(runs.read_json(run_on_clips / "environment.json", list)) == 1
    digits = ["--data", "moving-mnist", "--run", tmp_path / "run"]
    line = refused(train, "--config", run_on_clips, "--init", run_on_clips, *digits)
    assert "frames have 1 channel; this model is for 3" in line and not (tmp_path / "run").exists()


def test_a_batch_is_measured_by_the_frames_that_it_holds(
    refused, run_on_clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "LARGEST_BATCH", 1)
    line = refused(train, "--config", run_on_clips, "--run", tmp_path / "run")
    assert "--frames 4 of 24 x 32 makes more than 1 pixels" in line
    assert not (tmp_path / "run").exists()


# What fit is given ------------------------------------------------------------------------


def batches_of(config, epoch=0):
    videos = data.TrainingVideos(config.digits_per_video, config.frames, config.size)
    return train.Batches(config, videos, epoch)


def test_digits_are_those_that_a_config_asks_for():
    changes = {"digits_per_video": 3, "frames": 7, "size": 40, "single_digit_share": 0.5}
    training, validation, digest = train.open_sets(dataclasses.replace(SMALL, **changes))
    assert training == data.TrainingVideos(3, 7, 40, single_digit_share=0.5)
    assert validation == data.EvaluationVideos("validation", 3, 7, 40) and digest is None


def test_a_batch_follows_from_seed_epoch_and_index_alone():
    def batch(index, epoch=0, seed=0):
        return batches_of(dataclasses.replace(SMALL, seed=seed), epoch)[index][0]["videos"]

    x = batch(1)
    assert x.shape == (2, 3, 32, 32, 1) and x.dtype == np.float32
    np.testing.assert_array_equal(x, batch(1))
    for other in (batch(0), batch(1, epoch=1), batch(1, seed=1)):
        assert (x != other).any()
    inputs, y = batches_of(SMALL, epoch=1)[1]
    whole = data.to_float(data.TrainingVideos(frames=4, size=32).draw(2, [0, 1, 1]))
    np.testing.assert_array_equal(inputs["videos"], whole[:, :-1])
    np.testing.assert_array_equal(y, whole[:, 1:])  # the next frames


def test_scheduled_sampling_gives_way_to_the_models_own_frames():
    config = dataclasses.replace(
        SMALL, frames=20, context=10, batch_size=50, epochs=100, sampling_epochs=50
    )
    first, half, later, other, last = (
        batches_of(config, epoch)[0][0]["real_mask"] for epoch in (0, 25, 50, 26, 99)
    )
    assert first.shape == (50, 19) and first.all()
    assert half[:, :10].all() and 0.4 < half[:, 10].mean() < 0.6 and (half != other).any()
    # Once a model goes on by itself it stays so.
    assert (half[:, 10:] <= half[:, 9:-1]).all()
    for mask in (later, last):
        assert mask[:, :10].all() and not mask[:, 10:].any()
    forced = dataclasses.replace(config, teacher_forcing=True)
    assert batches_of(forced, epoch=50)[0][0]["real_mask"].all()


@pytest.mark.parametrize("change", [{}, {"motion_weight": 0.0}, {"frames": 2}])
def test_the_motion_has_a_loss_in_training_where_it_is_measured(change):
    config = dataclasses.replace(replace(SMALL, **change), context=1, size=36)  # padded to 40
    model = train.build_model(config)
    model.compile(keras.optimizers.SGD(0.0), train.squared_error, run_eagerly=True)
    inputs, y = batches_of(config, epoch=2)[0]
    assert not inputs["real_mask"][:, 1:].any()
    predictions = array(model(inputs))
    error = float(np.square(predictions - y).sum(axis=(2, 3, 4)).mean())
    assert model.test_on_batch(inputs, y) == pytest.approx(error, rel=1e-4)
    # A `sample_weight` for each video; Keras divides by the number of videos all the same.
    first = float(np.square(predictions - y)[0].sum(axis=(1, 2, 3)).mean())
    weighted = model.test_on_batch(inputs, y, np.array([1.0, 0.0]))
    assert weighted == pytest.approx(first / 2, rel=1e-4)
    motion_loss = model.train_on_batch(inputs, y) - error
    if change:
        assert motion_loss == pytest.approx(0, abs=1e-4 * error)
        return
    # Of the motion that is predicted at each frame, to the next real one.
    _, block_motion = model.unroll(**inputs, training=True)
    entropy = float(motion.cross_entropy(inputs["videos"], block_motion[:, :-1]))
    assert motion_loss == pytest.approx(0.1 * entropy, rel=1e-3) and motion_loss > 0.01 * error


def test_computing_steps_again_gives_the_same_gradient(monkeypatch):
    results, steps, step = [], [], models.Forecaster.step_outputs

    def counted_step(self, *arguments, **options):
        steps.append(self.remat)
        return step(self, *arguments, **options)

    monkeypatch.setattr(models.Forecaster, "step_outputs", counted_step)
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        config = replace(SMALL, depths=(1, 0, 0), motion_radius=0, frames=3, remat=remat)
        model = train.build_model(config)
        model.compile(keras.optimizers.SGD(1.0), train.squared_error, run_eagerly=True)
        results.append([model.train_on_batch(*batches_of(config)[0]), *model.get_weights()])
    assert steps.count(True) > steps.count(False)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * max(1e-3, np.abs(one).max()))


# What the command line and a config may say -----------------------------------------------


def test_options_prevail_over_the_presets(monkeypatch, tmp_path, script):
    given = []
    monkeypatch.setattr(train, "train", lambda config, *_: given.append(config))
    assert script(train, "--preset", "tiny", *options(SMALL), "--run", tmp_path)[0] == 0
    line = ["--preset", "gpu", "--remat", "--data", "mine", "--layers", 8, 3, 4, 1]
    assert script(train, *line, "--run", tmp_path)[0] == 0
    mine = str(Path("mine").absolute())  # so that the run can be gone on with from anywhere
    changed = replace(train.PRESETS["gpu"], remat=True, data=mine, layers=((8, 3), (4, 1)))
    assert given == [SMALL, changed]


@pytest.mark.parametrize(
    "change, remark",
    [({"size": 96}, "digits move up to 6.8 pixels a frame, and --motion-radius is 4"),
     ({"size": 96, "motion_radius": 7}, None),
     ({"size": 96, "model": "keras-example"}, "not used by --model keras-example"),
     ({"size": 96, "data": "clips"}, None),
     ({"epochs": 2}, "never reaches its closed loop: lower --sampling-epochs"),
     ({"epochs": 2, "teacher_forcing": True}, "All frames in training are real"),
     ({"cooldown": 0.0}, "The learning rates stay as they are to the end"),
     ({"warmup_steps": 300}, "--warmup-steps 300 are longer than the whole run")],
)  # fmt: skip
def test_a_config_says_what_it_hardly_means(change, remark):
    (*remarks,) = replace(train.PRESETS["tiny"], **change).remarks()
    assert len(remarks) == (remark is not None)
    assert remark is None or remark in remarks[0]


def test_a_preset_says_nothing_of_options_that_nobody_gave():
    said = {name: list(preset.remarks()) for name, preset in train.PRESETS.items()}
    assert len(said.pop("keras-example")) == 2  # teacher forcing, and constant rates
    assert not any(said.values())


def test_a_clock_that_no_file_can_note_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((1970, 1, 1, *6 * [0])))
    assert "the year 1970" in refused(train, "--preset", "tiny", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()
