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
from conftest import TRAINED
from helpers import (
    QUICK,
    SMALL,
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
    replace,
)

import data
import model as models
import train
from extras import clips, prepared, runs
from extras.cli import InputError

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


def test_fit_by_hand_gives_the_weights_of_a_run(quick_run):
    keras.utils.set_random_seed(QUICK.seed)
    model = train.build_model(QUICK)
    train.compile_model(model, QUICK)
    steps = QUICK.steps_per_epoch
    model.fit(
        batches_of(QUICK), steps_per_epoch=steps, epochs=QUICK.epochs, shuffle=False, verbose=0
    )
    assert_same_weights(model, quick_run / "last.keras")  # Keras ends with the averages


def test_a_resumed_run_equals_one_of_another_process(script, tmp_path):
    """The same command gives the same weights, whatever comes between; with all parts."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = dataclasses.replace(SMALL, frames=3)
    command = ["--preset", "tiny", *options(config), "--run"]
    subprocess.run(
        [sys.executable, "train.py", *command, whole],
        cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    with interrupt_before_step(3):  # in the second epoch
        status, _, errors = script(train, *command, parts)
    assert status == 130 and f"--resume {parts}" in errors
    assert script(train, "--resume", parts)[0] == 0
    assert_same_run(whole, parts)
    assert len(json.loads((parts / "environment.json").read_text())) == 2


@pytest.mark.jax
def test_a_run_that_is_stopped_in_its_first_epoch_goes_on(script, tmp_path, quick_run):
    parts = tmp_path / "parts"
    with interrupt_before_step(1):
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
    script, refused, quick_run, tmp_path
):
    longer = dataclasses.replace(QUICK, epochs=8)
    whole, parts, late = tmp_path / "whole", tmp_path / "parts", tmp_path / "late"
    train.train(longer, whole)
    with interrupt_before_step(7):  # in the fourth, the last epoch
        assert script(train, "--preset", "tiny", *options(QUICK), "--run", parts)[0] == 130
    shutil.copytree(parts, late)
    assert script(train, "--resume", parts, "--epochs", 8)[0] == 0
    assert train.read_config(parts) == longer
    assert_same_run(whole, parts)
    # Three epochs are done, and of five the learning rates would fall in the fifth alone;
    # of three they would have fallen by now; of four they have, once those are done.
    assert "has done 3 epochs" in refused(train, "--resume", late, "--epochs", 3)
    assert train.read_config(late) == QUICK
    finished = shutil.copytree(quick_run, tmp_path / "finished")
    line = refused(train, "--resume", finished, "--epochs", 8)
    assert "has done 4 epochs" in line and f"--init {finished}" in line
    assert train.read_config(finished) == QUICK


def test_a_run_goes_on_with_its_own_config_alone(quick_run):
    """Also from Python, and the field is named that differs."""
    changes = [
        ("muon_learning_rate", 1e-4),
        ("loss", "binary_crossentropy"),
        ("steps_per_epoch", 1),
    ]
    for name, value in changes:
        config = dataclasses.replace(QUICK, epochs=8, **{name: value})
        with pytest.raises(InputError, match=f"was started with {name} .*only epochs may change"):
            train.train(config, quick_run, resume=True)
    assert train.read_config(quick_run) == QUICK


def test_training_starts_from_given_weights(script, refused, quick_run, tmp_path):
    init, run = quick_run / "best.keras", tmp_path / "run"
    assert "no such model" in refused(train, "--init", tmp_path / "nothing", "--run", run)
    assert not run.exists()
    of_its_size = ["--config", quick_run, "--init", init, "--run", run]
    line = refused(train, *of_its_size, "--filters", 99)
    assert "another model: filters 4;" in line and "--config RUN" in line
    assert not files_in(run)
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
        train.PRESETS[preset], frames=4, context=2, size=32, batch_size=2, steps_per_epoch=2,
        epochs=1, validation_videos=2,
    )  # fmt: skip
    train.train(config, tmp_path / "run")
    (row,) = log_of(tmp_path / "run")
    assert np.isfinite(float(row["loss"])) and 0 < float(row["val_mse"]) < 1024


# Models and optimizers of one's own -------------------------------------------------------


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


ON_CLIPS = replace(QUICK, size=data.SIZE)  # a size is for Moving MNIST alone


def write_clips(path, seed=0):
    """A prepared file of twelve clips of eight colour frames; returns them."""
    shape = (12, 8, 24, 32, 3)
    videos = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with prepared.Writer(path) as writer:
        for n, video in enumerate(videos):
            writer.append(video)
            writer.end_clip(f"clip {n}")
    return videos


@pytest.fixture(scope="module")
def run_on_clips(tmp_path_factory):
    """A run on such clips, and these: only to be read."""
    folder = tmp_path_factory.mktemp("runs")
    videos = write_clips(folder / "clips")
    config = replace(ON_CLIPS, frames=4, epochs=2, data=str(folder / "clips"))
    train.train(config, folder / "run")
    return folder / "run", videos


def test_a_run_on_clips_is_in_their_colours_and_can_be_repeated(script, run_on_clips, tmp_path):
    run, _ = run_on_clips
    assert train.read_config(run).architecture.channels == 3
    assert runs.load_model(run).architecture.channels == 3
    parts = tmp_path / "parts"
    with interrupt_before_step(3):
        assert script(train, "--config", run, "--run", parts)[0] == 130
    assert script(train, "--resume", parts)[0] == 0
    assert_same_run(run, parts)


def test_a_run_is_validated_on_clips_that_it_does_not_train_on(run_on_clips):
    """Of twelve clips the second and the last, in windows of four frames."""
    run, videos = run_on_clips
    videos = data.to_float(videos[[1, 11]].reshape(4, 4, 24, 32, 3))
    indices = [0, 1, 3]  # QUICK validates on three, from all over them
    predictions = models.rollout(runs.load_model(run), videos[indices, :2], 2)
    mse = np.square(predictions - videos[indices, 2:]).sum(axis=(2, 3, 4)).mean()
    best = min(float(row["val_mse"]) for row in log_of(run))
    assert best == pytest.approx(mse, rel=1e-4)


def test_clips_that_have_changed_are_refused(refused, tmp_path):
    clips_path, run = tmp_path / "clips", tmp_path / "run"
    write_clips(clips_path)
    train.train(replace(ON_CLIPS, epochs=1, data=str(clips_path)), run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_clips(clips_path, seed=1)
    line = refused(train, "--resume", run, "--epochs", 2)
    assert f"{clips_path} has changed" in line and f"--init {run}" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_grey_videos_need_grey_weights(refused, run_on_clips, tmp_path):
    run, _ = run_on_clips
    digits = ["--data", "moving-mnist", "--run", tmp_path / "run"]
    line = refused(train, "--config", run, "--init", run, *digits)
    assert "another model: channels 3" in line
    assert not files_in(tmp_path)


# What fit is given ------------------------------------------------------------------------


def batches_of(config, epoch=0):
    videos = data.TrainingVideos(config.digits_per_video, config.frames, config.size)
    return train.Batches(config, videos, epoch)


def test_a_batch_follows_from_seed_epoch_and_index_alone(tmp_path):
    write_clips(tmp_path / "clips")
    opened = clips.open_clips(tmp_path / "clips")
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


def test_teacher_forcing_gives_real_frames_throughout():
    config = dataclasses.replace(SMALL, teacher_forcing=True)
    assert batches_of(config, epoch=2)[0][0]["real_mask"].all()


def test_targets_are_the_next_frames():
    inputs, y = batches_of(SMALL, epoch=1)[1]
    whole = data.to_float(data.TrainingVideos(2, SMALL.frames, SMALL.size).draw(2, [0, 1, 1]))
    np.testing.assert_array_equal(inputs["videos"], whole[:, :-1])
    np.testing.assert_array_equal(y, whole[:, 1:])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"motion_weight": 0.0},
        {"motion_radius": 0},
        pytest.param({"frames": 2}, marks=pytest.mark.jax),
    ],
)
def test_the_motion_has_a_loss_in_training_where_it_is_measured(change):
    config = dataclasses.replace(replace(SMALL, **change), context=1)
    model = train.build_model(config)
    # On JAX each operation would be compiled alone.
    eagerly = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.SGD(0.0), train.squared_error, run_eagerly=eagerly)
    inputs, y = batches_of(config, epoch=2)[0]
    assert not inputs["real_mask"][:, 1:].any()
    predictions = array(model(inputs))
    error = float(np.square(predictions - y).sum(axis=(2, 3, 4)).mean())
    assert model.test_on_batch(inputs, y) == pytest.approx(error, rel=1e-4)
    motion_loss = model.train_on_batch(inputs, y) - error
    if change:
        assert motion_loss == pytest.approx(0, abs=1e-4 * error)
    else:
        assert motion_loss > 0.01 * error
        half = train.build_model(
            replace(config, motion_weight=config.architecture.motion_weight / 2)
        )
        half.set_weights(model.get_weights())
        half(inputs, training=True)
        assert float(sum(half.losses)) == pytest.approx(motion_loss / 2, rel=1e-3)


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_computing_steps_again_gives_the_same_gradient(precision):
    config = replace(QUICK, precision=precision)
    results = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        config = dataclasses.replace(config, remat=remat)
        model = train.build_model(config)
        assert model.remat == remat
        train.compile_model(model, config)
        loss = model.train_on_batch(*batches_of(config)[0])
        # What the optimizer remembers of the gradient: the rate of a first step is zero.
        results.append([loss, *map(array, model.optimizer.momentums)])
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
    ("--epochs 0", "epochs Input should be greater than or equal"),
    ("--adam-learning-rate -1", "adam_learning_rate Input should be greater than 0"),
    ("--global-clipnorm nan", "global_clipnorm"),
    ("--size x", "--size"),
    ("--size 24", "size Input should be greater than or equal to 28"),
    ("--adam-learning-rate inf", "adam_learning_rate Input should be a finite number"),
]
REFUSED = [
    ("--run FILE", "name another folder"),
    ("--run FILE/run", "name another folder"),
    ("--init NOTHING", "no such model"),
    ("--resume NOTHING", "there is no run"),
    ("--resume FILE", "there is no run"),
    ("--config NOTHING --run RUN", "there is no run"),
    ("--context 20", "--frames 20 leaves nothing to predict after --context 20"),
    ("--preset keras-example --remat", "not for keras-example"),
    ("--data NOTHING", "no such file"),
    ("--data FILE", "python prepare.py"),
    ("--data FILE --size 32", "--size is for moving-mnist alone"),
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
    ("size", 27), ("size", (64, 64)), ("layers", ()), ("data", ""), ("colour", "red"),
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
        assert train.read_config(tmp_path) == config


def test_resuming_takes_no_other_options(refused, trained_run, tmp_path):
    resume = ["--resume", trained_run]
    for other in (["--preset", "gpu"], ["--run", tmp_path], ["--config", trained_run]):
        assert "no other option than --epochs" in refused(train, *resume, *other)
    assert "started with batch_size 4, and now it is 9" in refused(
        train, *resume, "--batch-size", 9
    )


def test_options_prevail_over_the_presets(monkeypatch, tmp_path, script):
    given = []
    monkeypatch.setattr(train, "train", lambda config, *_: given.append(config))
    assert script(train, "--preset", "tiny", *options(TRAINED), "--run", tmp_path)[0] == 0
    line = ["--preset", "gpu", "--remat", "--size", 32, "--layers", 8, 3, 4, 1, "--run", tmp_path]
    assert script(train, *line)[0] == 0
    changed = replace(train.PRESETS["gpu"], remat=True, size=32, layers=((8, 3), (4, 1)))
    assert given == [TRAINED, changed]


@pytest.mark.parametrize(
    "change, remark",
    [
        ({"size": 96}, "digits move up to 6.8 pixels a frame, and --motion-radius is 4"),
        ({"size": 128}, "digits move up to 10.0 pixels a frame"),
        ({"size": 96, "motion_radius": 7}, None),
        ({"size": 96, "motion_radius": 0}, None),
        ({"size": 96, "model": "keras-example"}, None),
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
