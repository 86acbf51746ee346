"""What a run leaves, whatever stops it; and which models and runs are refused in one line."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import QUICK, SMALL, assert_same_run, before_step, files_in, options, prepare, replace
from PIL import Image

import data
import model as models
import predict
import train
from extras import cli, runs

# What a run leaves ------------------------------------------------------------------------


def test_a_run_leaves_what_is_needed_to_repeat_it(quick_run):
    assert files_in(quick_run) == {
        "config.json", "environment.json", "log.csv", "curve.png", "best.keras", "last.keras",
        "checkpoint.keras", *(f"epoch-000{n}.png" for n in range(1, 7)),
    }  # fmt: skip
    assert train.read_config(quick_run) == QUICK
    (start,) = json.loads((quick_run / "environment.json").read_text())
    assert start["keras"] == keras.__version__ and start["processes"] == 1
    assert start["backend"].split()[0] == keras.backend.backend() and start["devices"]
    assert [row["videos"] for row in runs.read_log(quick_run)] == ["4", "8", "12", "16", "20", "24"]
    width, height = Image.open(quick_run / "samples" / "epoch-0006.png").size
    assert width > 3 * 32 and height > 2 * 3 * 32
    assert Image.open(quick_run / "curve.png").size == (840, 480)


def test_a_model_learns_and_its_saved_weights_have_the_logged_error(tmp_path):
    config = replace(
        SMALL, encoder_filters=8, filters=8, coarse_filters=8, motion_units=8, size=40,
        batch_size=4, steps_per_epoch=40, sampling_epochs=1, warmup_steps=10, validation_videos=20,
    )  # fmt: skip
    train.train(config, tmp_path)
    evaluation = data.EvaluationVideos("validation", frames=4, size=40)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 20).astype(int)])  # from all over them
    difference = models.rollout(runs.load_model(tmp_path), videos[:, :2], 2) - videos[:, 2:]
    errors = np.square(difference).sum(axis=(2, 3, 4)).mean(axis=0)
    best = min(runs.read_log(tmp_path), key=lambda row: float(row["val_mse"]))
    logged = [float(best[f"val_mse{which}"]) for which in ("", "_first_frame", "_last_frame")]
    assert logged == pytest.approx([errors.mean(), errors[0], errors[-1]], rel=1e-4)
    copying = np.square(videos[:, 2:] - videos[:, 1:2]).sum(axis=(2, 3, 4)).mean()
    assert errors.mean() < 0.7 * copying


def test_best_keras_keeps_the_best_epoch_and_last_keras_the_last(tmp_path):
    model, averaged = train.build_model(QUICK), train.build_model(QUICK)
    train.compile_model(model, QUICK)
    with runs.Run(tmp_path, QUICK, resume=False, digest=None) as run:
        run.restore(model)
        run.start_log(copy_last_mse=9.0)
        for epoch, error in enumerate([3.0, 2.0, 4.0]):
            averaged.set_weights([np.full_like(array, epoch) for array in averaged.get_weights()])
            losses, samples = {"loss": 1.0, "frames_loss": 1.0}, 3 * [np.zeros((1, 1, 32, 32, 1))]
            run.save(epoch, losses, np.array([error]), samples, model, averaged)
    for name, epoch in (("best.keras", 1), ("last.keras", 2)):
        weights = runs.load_model(tmp_path / name).get_weights()
        assert all((array == epoch).all() for array in weights)


# When something goes wrong ----------------------------------------------------------------


def moments_of(run, epoch):
    """What a kill leaves while each file of an epoch, from 0 on, is written: see conftest.py."""
    moments = sorted(run.with_name("moments").iterdir())
    last = [n for n, path in enumerate(moments) if path.name.endswith(runs.CHECKPOINT)]
    # The first checkpoint is written before the first epoch.
    return moments[last[epoch] + 1 : last[epoch + 1] + 1]


def test_a_kill_loses_at_most_an_epoch(script, refused, quick_run, tmp_path):
    third_epoch = moments_of(quick_run, 2)
    assert len(third_epoch) in (5, 6)  # all that there is, if its score is the best one
    folder = shutil.copytree(third_epoch[-1], tmp_path / "run")  # after the log was written
    assert len(list(folder.rglob(f"{cli.UNFINISHED}*"))) == 1
    assert script(train, "--resume", folder)[0] == 0
    assert_same_run(quick_run, folder)
    assert len(runs.read_json(folder / "environment.json", list)) == 2
    # Who is killed before there is a run starts it once more.
    (moment,) = quick_run.with_name("moments").glob("02-config.json")
    folder = shutil.copytree(moment, tmp_path / "again")
    assert (folder / runs.CHECKPOINT).exists()
    assert "there is no run" in refused(train, "--resume", folder)
    status, output, _ = script(train, "--preset", "tiny", *options(QUICK), "--run", folder)
    assert status == 0 and re.search(r" on \w+:0\n.*about \d+ minutes to go", output, re.DOTALL)
    assert_same_run(quick_run, folder)


@pytest.fixture
def half_way(quick_run, tmp_path):
    """A run of which two epochs are done."""
    ignore = shutil.ignore_patterns(f"{cli.UNFINISHED}*")
    return shutil.copytree(moments_of(quick_run, 2)[1], tmp_path / "half-way", ignore=ignore)


def saved_bytes(folder):
    """All files of a run but what every start of it writes."""
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "environment.json"
    }


def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(script, half_way, eagerly):
    resource = pytest.importorskip("resource", reason="limits of a process, which Windows lacks")
    before = saved_bytes(half_way)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # bytes; the log has a place
    try:
        status, _, errors = script(train, "--resume", half_way)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1 and len(errors.splitlines()) == 1, errors
    assert "File too large" in errors and f"--resume {half_way}" in errors
    assert saved_bytes(half_way) == before
    assert len(runs.read_json(half_way / "environment.json", list)) == 2


def spoil(model):
    model.set_weights([weight * np.nan for weight in model.get_weights()])


@pytest.mark.parametrize("what", ["a loss", "weights"])
def test_what_is_no_number_is_not_saved(script, monkeypatch, half_way, eagerly, what):
    """A loss after its own step; the weights that an epoch's last step spoils after the epoch."""
    before = saved_bytes(half_way)
    if what == "a loss":
        loss = {QUICK.loss: lambda y, prediction: np.nan * train.squared_error(y, prediction)}
        monkeypatch.setattr(train, "LOSSES", loss)
    else:
        monkeypatch.setattr(runs, "copy_averaged_weights", lambda _, averaged: spoil(averaged))
    with before_step(5, pytest.fail if what == "a loss" else str):  # the epoch's second one
        status, _, errors = script(train, "--resume", half_way)
    assert status == 1 and len(errors.splitlines()) == 1
    assert "no longer a number in epoch 3" in errors and "--muon-learning-rate" in errors
    assert saved_bytes(half_way) == before


@pytest.mark.parametrize(
    "name, option, reason",
    [("config.json", "", "--resume FOLDER"), ("best.keras", "", "--resume FOLDER"),
     # These a killed run may have left, and then they are only no input.
     ("init.keras", "--init", "is an input"), ("environment.json", "--data", "is an input")],
)  # fmt: skip
def test_no_file_of_a_run_is_written_over(refused, quick_run, tmp_path, name, option, reason):
    path = tmp_path / name
    if option == "--data":
        prepare(path, [np.zeros((40, 32, 32, 1), np.uint8)] * 2)
    else:
        shutil.copy(quick_run / "best.keras", path)
    before, option = path.read_bytes(), [option, path] if option else []
    line = refused(train, "--preset", "tiny", *option, "--run", tmp_path)
    assert reason.replace("FOLDER", str(tmp_path)) in line
    assert path.read_bytes() == before and files_in(tmp_path) == {name}


def instead(old, new):
    return lambda path, whole: path.write_bytes(whole.replace(old, new))


RUN_FILES = ["log.csv", "environment.json", "config.json", "checkpoint.keras"]
DAMAGES = [
    (RUN_FILES, lambda path, _: None, ""),  # it is missing
    (RUN_FILES, lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), ""),
    (["environment.json"], lambda path, _: os.mkfifo(path), "no file"),  # nobody waits for it
    (["log.csv"], instead(b"val_mse,", b"error,"), "a row for each epoch"),
    (["log.csv"], instead(b"\n1,", b"\n1,1,1,\n1,"), "a row for each epoch"),
    (["config.json"], lambda path, _: path.mkdir(), "no run"),
    (["config.json"], lambda path, _: path.write_text("[]"), "hold a dict"),
    (["config.json"], instead(b'"batch_size": 2', b'"batch_size": 0'), "batch_size"),
    (["config.json"], instead(b'"channels": 1', b'"channels": 2'), "channels"),
    (["config.json"], instead(b'"weight_decay": 0.01', b'"weight_decay": Infinity'), "decay"),
    (["config.json"], instead(b'"remat"', b'"colour": "red", "remat"'), "colour"),
]


@pytest.mark.parametrize(
    "name, damage, reason",
    [(name, damage, reason) for names, damage, reason in DAMAGES for name in names],
)
def test_a_damaged_run_is_not_gone_on_with(refused, quick_run, tmp_path, name, damage, reason):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in RUN_FILES:
        shutil.copy(quick_run / file, folder)
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    damage(path, whole)
    before = saved_bytes(folder)
    line = refused(train, "--resume", folder)
    assert name in line and str(folder) in line and reason in line
    if name == "config.json":
        assert name in refused(train, "--config", folder, "--run", tmp_path / "new")
    assert saved_bytes(folder) == before and not (tmp_path / "new").exists()


# Files that are no models -----------------------------------------------------------------


def altered(pattern, replacement):
    """A model's file, of whose config one text takes the place of another."""

    def write(path, whole):
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "config.json":
                    content = re.sub(pattern, replacement, content.decode(), flags=re.DOTALL)
                target.writestr(name, content)

    return write


def other_model(*layers):
    return lambda path, _: keras.Sequential([keras.Input((2,)), *layers]).save(path)


def model_of_nan(path, whole):
    model = runs.load_model(whole)
    spoil(model)
    model.save(path)


DAMAGED, CODE = "cannot be loaded", "code-has-run"
MKDIR = {"module": "os", "class_name": "mkdir", "registered_name": None, "config": {"path": CODE}}
BAD_MODELS = {
    "text.keras": (lambda path, _: path.write_text("not a model"), DAMAGED),
    "folder.keras": (lambda path, _: path.mkdir(), "no best.keras"),
    "checkpoint.keras": (lambda path, whole: shutil.copy(whole, path), "is a checkpoint"),
    "log.csv": (lambda path, _: path.write_text("epoch"), "not a .keras model"),
    "pipe.keras": (lambda path, _: os.mkfifo(path), "no such model"),  # which nobody waits for
    "cut.keras": (lambda path, whole: path.write_bytes(whole.read_bytes()[:-5_000]), DAMAGED),
    "list.keras": (altered(".+", "[1]"), DAMAGED),
    "newer.keras": (altered('"channels":', '"attention": true, "channels":'), DAMAGED),
    "other-layers.keras": (altered(r"\[4, 3\]", "[5, 3]"), DAMAGED),
    "a-weight-less.keras": (altered(r'"weights": \d+', '"weights": 9'), "gained or lost a layer"),
    "nan.keras": (model_of_nan, "no numbers"),
    "dense.keras": (other_model(keras.layers.Dense(1)), "Sequential"),
    # These want to run code.
    "lambda.keras": (other_model(keras.layers.Lambda(lambda x: (os.mkdir(CODE), x)[1])), ""),
    "system.keras": (altered(".+", json.dumps(MKDIR)), ""),
    "precision.keras": (altered('(?<="precision": )"float32"', json.dumps(MKDIR)), ""),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_refused(refused, quick_run, tmp_path, monkeypatch, name):
    write, reason = BAD_MODELS[name]
    monkeypatch.chdir(tmp_path)
    write(Path(name), quick_run / "best.keras")
    if Path(CODE).exists():  # while the model was made
        Path(CODE).rmdir()
    line = refused(predict, name, "--out", "out")
    assert reason in line and name in line
    assert not Path(CODE).exists()
    assert files_in(tmp_path) <= {name}  # no result, no half of one


def test_a_log_with_a_byte_order_mark_is_read(half_way):
    log, rows = half_way / "log.csv", runs.read_log(half_way)
    log.write_text(log.read_text(), encoding="utf-8-sig")
    assert runs.read_log(half_way) == rows
