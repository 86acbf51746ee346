"""Training: it learns, it repeats, it goes on; what fit is given; and what a config may say."""

import dataclasses
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import (
    CLIPS,
    QUICK,
    SMALL,
    TRAINED,
    array,
    assert_same_run,
    assert_same_weights,
    fields,
    files_in,
    interrupt_before_step,
    load_checkpoint,
    log_of,
    option,
    options,
    prepare,
    replace,
)

import data
import model as models
import train
from extras import clips, runs
from method import motion

# Runs -------------------------------------------------------------------------------------


def test_fit_by_hand_gives_the_weights_of_a_run(quick_run):
    keras.utils.set_random_seed(QUICK.seed)
    model = train.build_model(QUICK)
    train.compile_model(model, QUICK)
    steps = QUICK.steps_per_epoch
    model.fit(
        batches_of(QUICK), steps_per_epoch=steps, epochs=QUICK.epochs, shuffle=False, verbose=0
    )
    assert_same_weights(model, quick_run / "last.keras")  # Keras ends with the averages


def test_a_run_that_is_stopped_goes_on_and_its_end_can_be_postponed(
    script, refused, quick_run, tmp_path
):
    shorter = dataclasses.replace(QUICK, epochs=4)
    parts, late = tmp_path / "parts", tmp_path / "late"
    for step, line in (
        (1, ["--preset", "tiny", *options(shorter), "--run", parts]),  # in the first epoch
        (7, ["--resume", parts]),  # in the fourth, the last one
    ):
        with interrupt_before_step(step):
            status, _, errors = script(train, *line)
        assert status == 130 and f"--resume {parts}" in errors
    shutil.copytree(parts, late)
    assert script(train, "--resume", parts, "--epochs", QUICK.epochs)[0] == 0
    assert train.read_config(parts) == QUICK
    assert_same_run(quick_run, parts)
    # Three epochs are done: of three the learning rates would have fallen by now.
    assert "has done 3 epochs" in refused(train, "--resume", late, "--epochs", 3)
    assert train.read_config(late) == shorter


def test_a_run_in_float16_goes_on_after_steps_that_the_scaling_of_its_loss_has_skipped(
    tmp_path, eagerly
):
    config = replace(QUICK, precision="mixed_float16", steps_per_epoch=4, epochs=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, whole)
    with interrupt_before_step(6), pytest.raises(KeyboardInterrupt):
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


def test_training_starts_from_given_weights_and_its_config_repeats_it(
    script, refused, quick_run, tmp_path
):
    given, run, again = (tmp_path / name for name in ("given", "run", "again"))
    shutil.copytree(quick_run, given)
    of_its_size = ["--config", given, "--init", given, "--run", run]
    line = refused(train, *of_its_size, "--filters", 99)
    assert "another model: filters 4;" in line and "--config RUN" in line
    assert not files_in(run)
    # With learning rates that change nothing.
    small = ["--epochs", "1", "--muon-learning-rate", "1e-9", "--adam-learning-rate", "1e-9"]
    status, output, _ = script(train, *of_its_size, *small)
    assert status == 0
    assert_same_weights(given / "best.keras", run / "init.keras")
    weights = (runs.load_model(path).get_weights() for path in (given, run / "last.keras"))
    for before, after in zip(*weights, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    # The error is to be compared with that of copying the last frame.
    evaluation = data.EvaluationVideos("validation", frames=3, size=32)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 3).astype(int)])
    mse = np.square(videos[:, 2] - videos[:, 1]).sum(axis=(1, 2, 3)).mean()
    said = re.search(r"Copying the last frame gives a val_mse of (\S+);", output)
    assert float(said[1]) == pytest.approx(mse, rel=1e-4)
    # The copy of the weights beside the config is enough to repeat it.
    (given / "best.keras").unlink()
    assert script(train, "--config", run / "config.json", "--run", again)[0] == 0
    assert_same_run(run, again)


@pytest.mark.parametrize(
    "preset",
    ["keras-example", pytest.param("cpu", marks=pytest.mark.slow),
     pytest.param("gpu", marks=pytest.mark.slow)],
)  # fmt: skip
def test_other_presets_train(tmp_path, preset):
    config = dataclasses.replace(
        train.PRESETS[preset], frames=4, context=2, size=32, batch_size=2, steps_per_epoch=2,
        epochs=1, validation_videos=2,
    )  # fmt: skip
    train.train(config, tmp_path / "run")
    (row,) = log_of(tmp_path / "run")
    assert np.isfinite(float(row["loss"])) and 0 < float(row["val_mse"]) < 1024


def test_frozen_layers_stay_as_they_are(tmp_path, monkeypatch, quick_run):
    build_model = train.build_model

    def build_and_freeze(config):
        model = build_model(config)
        model.encoder.trainable = model.down.trainable = False
        return model

    monkeypatch.setattr(train, "build_model", build_and_freeze)
    config = dataclasses.replace(QUICK, epochs=1, init=str(quick_run))
    train.train(config, tmp_path / "run")
    old, new = runs.load_model(quick_run), runs.load_model(tmp_path / "run" / "last.keras")
    frozen = {id(weight) for layer in (old.encoder, old.down) for weight in layer.weights}
    for weight, trained in zip(old.weights, new.weights, strict=True):
        same = (array(weight) == array(trained)).all()
        assert same == (id(weight) in frozen), weight.path


def test_an_optimizer_of_keras_can_take_the_place_of_ours(script, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "make_optimizer", lambda *_: keras.optimizers.Adam(1e-4))
    run = tmp_path / "run"
    train.train(dataclasses.replace(QUICK, epochs=1), run)
    assert script(train, "--resume", run, "--epochs", 2)[0] == 0
    assert [row["learning_rate"] for row in log_of(run)] == ["0.0001", "0.0001"]
    assert_same_weights(load_checkpoint(run), run / "last.keras")  # without an average


# Own clips --------------------------------------------------------------------------------


def test_a_run_on_clips_is_in_their_colours_and_can_be_repeated(script, run_on_clips, tmp_path):
    """... and goes on where they have moved to."""
    assert train.read_config(run_on_clips).architecture.channels == 3
    assert runs.load_model(run_on_clips).architecture.channels == 3
    parts, moved = tmp_path / "parts", tmp_path / "moved"
    with interrupt_before_step(3):
        assert script(train, "--config", run_on_clips, "--run", parts)[0] == 130
    shutil.copy(run_on_clips.with_name("clips"), moved)
    assert script(train, "--resume", parts, "--data", moved)[0] == 0
    assert_same_run(run_on_clips, parts)


def test_a_run_is_validated_on_clips_that_it_does_not_train_on(run_on_clips):
    """Of twelve clips the second and the last, in windows of four frames."""
    videos = data.to_float(CLIPS[[1, 11]].reshape(4, 4, 24, 32, 3))
    indices = [0, 1, 3]  # QUICK validates on three, from all over them
    predictions = models.rollout(runs.load_model(run_on_clips), videos[indices, :2], 2)
    mse = np.square(predictions - videos[indices, 2:]).sum(axis=(2, 3, 4)).mean()
    best = min(float(row["val_mse"]) for row in log_of(run_on_clips))
    assert best == pytest.approx(mse, rel=1e-4)


def test_a_run_on_clips_is_refused_others(refused, run_on_clips, tmp_path):
    prepare(tmp_path / "others", 255 - CLIPS)
    line = refused(train, "--resume", run_on_clips, "--data", tmp_path / "others")
    assert f"{tmp_path / 'others'} has changed" in line and f"--init {run_on_clips}" in line
    assert len(runs.read_json(run_on_clips / "environment.json", list)) == 1
    digits = ["--data", "moving-mnist", "--run", tmp_path / "run"]
    line = refused(train, "--config", run_on_clips, "--init", run_on_clips, *digits)
    assert "frames have 1 channels; this model is for 3" in line and not (tmp_path / "run").exists()


# What fit is given ------------------------------------------------------------------------


def batches_of(config, epoch=0):
    videos = data.TrainingVideos(config.digits_per_video, config.frames, config.size)
    return train.Batches(config, videos, epoch)


def test_a_batch_follows_from_seed_epoch_and_index_alone(run_on_clips):
    opened = clips.open_clips(run_on_clips.with_name("clips"))
    windows = clips.Windows(opened, opened.spans, SMALL.frames, step=1)
    digits = data.TrainingVideos(frames=SMALL.frames, size=SMALL.size)

    def batch(videos, index, epoch=0, seed=0):
        config = dataclasses.replace(SMALL, seed=seed)
        return train.Batches(config, videos, epoch)[index][0]["videos"]

    for videos, shape in ((windows, (2, 3, 24, 32, 3)), (digits, (2, 3, 32, 32, 1))):
        x = batch(videos, 1)
        assert x.shape == shape and x.dtype == np.float32
        np.testing.assert_array_equal(x, batch(videos, 1))
        for other in (batch(videos, 0), batch(videos, 1, epoch=1), batch(videos, 1, seed=1)):
            assert (x != other).any()
    inputs, y = train.Batches(SMALL, digits, epoch=1)[1]
    whole = data.to_float(digits.draw(2, [0, 1, 1]))
    np.testing.assert_array_equal(inputs["videos"], whole[:, :-1])
    np.testing.assert_array_equal(y, whole[:, 1:])  # the next frames


def test_scheduled_sampling_gives_way_to_the_models_own_frames():
    config = dataclasses.replace(
        SMALL, frames=20, context=10, batch_size=50, epochs=100, sampling_epochs=50
    )

    def real_mask(epoch):
        return batches_of(config, epoch)[0][0]["real_mask"]

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
    forced = dataclasses.replace(config, teacher_forcing=True)
    assert batches_of(forced, epoch=50)[0][0]["real_mask"].all()


@pytest.mark.parametrize(
    "change", [{}, {"motion_weight": 0.0}, {"motion_radius": 0}, {"frames": 2}]
)
def test_the_motion_has_a_loss_in_training_where_it_is_measured(change):
    config = dataclasses.replace(replace(SMALL, **change), context=1)
    model = train.build_model(config)
    model.compile(keras.optimizers.SGD(0.0), train.squared_error, run_eagerly=True)
    inputs, y = batches_of(config, epoch=2)[0]
    assert not inputs["real_mask"][:, 1:].any()
    predictions = array(model(inputs))
    error = float(np.square(predictions - y).sum(axis=(2, 3, 4)).mean())
    assert model.test_on_batch(inputs, y) == pytest.approx(error, rel=1e-4)
    motion_loss = model.train_on_batch(inputs, y) - error
    if change:
        assert motion_loss == pytest.approx(0, abs=1e-4 * error)
        return
    # Of the motion that is predicted at each frame, to the next real one.
    _, block_motion = model.unroll(inputs, training=True)
    entropy = float(motion.cross_entropy(inputs["videos"], block_motion[:, :-1]))
    assert motion_loss == pytest.approx(0.1 * entropy, rel=1e-3) and motion_loss > 0.01 * error


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_computing_steps_again_gives_the_same_gradient(monkeypatch, precision):
    results, steps, step = [], [], models.Forecaster.step_outputs

    def counted_step(self, *arguments, **options):
        steps.append(self.remat)
        return step(self, *arguments, **options)

    monkeypatch.setattr(models.Forecaster, "step_outputs", counted_step)
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        config = replace(QUICK, precision=precision, remat=remat)
        model = train.build_model(config)
        train.compile_model(model, config)
        model.run_eagerly = True
        loss = model.train_on_batch(*batches_of(config)[0])
        # What the optimizer remembers of the gradient: the rate of a first step is zero.
        results.append([loss, *map(array, model.optimizer.momentums)])
    assert steps.count(True) > steps.count(False)
    assert any(np.abs(gradient).max() > 0 for gradient in results[0][1:])
    tolerance = 1e-4 if precision == "float32" else 0.05
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(1e-3, np.abs(one).max()))


# What the command line and a config may say -----------------------------------------------


BAD_FIELDS = {
    "batch_size": 0, "steps_per_epoch": -1, "epochs": 0, "validation_videos": 0, "context": 0,
    "digits_per_video": 0, "filters": 3.5, "coarse_filters": "many", "encoder_filters": None,
    "depths": (1, -1, 1), "motion_radius": -1, "motion_history": 0, "channels": 2, "layers": (),
    "muon_learning_rate": float("nan"), "adam_learning_rate": float("inf"), "cooldown": 1.5,
    "sampling_epochs": -1, "average": "often", "seed": 2**32, "global_clipnorm": -1.0, "init": 3,
    "loss": "mse", "model": [], "size": (64, 64), "data": "", "colour": "red",
}  # fmt: skip


@pytest.mark.parametrize("field, value", BAD_FIELDS.items())
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
        assert train.read_config(tmp_path) == config


def test_options_prevail_over_the_presets(monkeypatch, tmp_path, script):
    given = []
    monkeypatch.setattr(train, "train", lambda config, *_: given.append(config))
    assert script(train, "--preset", "tiny", *options(TRAINED), "--run", tmp_path)[0] == 0
    line = ["--preset", "gpu", "--remat", "--data", "mine", "--layers", 8, 3, 4, 1]
    assert script(train, *line, "--run", tmp_path)[0] == 0
    mine = str(Path("mine").absolute())  # so that the run can be gone on with from anywhere
    changed = replace(train.PRESETS["gpu"], remat=True, data=mine, layers=((8, 3), (4, 1)))
    assert given == [TRAINED, changed]


@pytest.mark.parametrize(
    "change, remark",
    [
        ({"size": 96}, "digits move up to 6.8 pixels a frame, and --motion-radius is 4"),
        ({"size": 128}, "digits move up to 10.0 pixels a frame"),
        ({"size": 96, "motion_radius": 7}, None),
        ({"size": 96, "motion_radius": 0}, None),
        ({"size": 96, "model": "keras-example"}, "not used by --model keras-example"),
        ({"layers": ((8, 3),)}, "--layers: not used by --model forecaster"),
        ({"size": 96, "data": "clips"}, None),
        ({"epochs": 2}, "never reaches its closed loop: lower --sampling-epochs"),
        ({"epochs": 2, "teacher_forcing": True}, "All frames in training are real"),
        ({"cooldown": 0.0}, "The learning rates stay as they are to the end"),
        ({"warmup_steps": 300}, "--warmup-steps 300 are longer than the whole run"),
    ],
)
def test_a_config_says_what_it_hardly_means(change, remark):
    (*remarks,) = replace(train.PRESETS["tiny"], **change).remarks()
    assert len(remarks) == (remark is not None)
    assert remark is None or remark in remarks[0]


def test_help_explains_every_field(script):
    status, output, _ = script(train, "--preset", "gpu", "--help")
    assert status == 0
    for field in fields(train.PRESETS["gpu"]):
        if field != "channels":  # it follows from the data
            assert option(field) in output
    assert "mixed_bfloat16)" in output  # the defaults are those of the preset
