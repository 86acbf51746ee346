"""What a run leaves, whatever stops it; and which models and runs are refused in one line."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import (
    QUICK,
    SMALL,
    array,
    assert_same_run,
    before_step,
    files_in,
    load_checkpoint,
    log_of,
    options,
    prepare,
    replace,
)
from PIL import Image

import data
import model as models
import predict
import train
from extras import cli, runs
from extras.cli import InputError

ROOT = Path(train.__file__).parent

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
    assert [row["videos"] for row in log_of(quick_run)] == ["4", "8", "12", "16", "20", "24"]
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
    best = min(log_of(tmp_path), key=lambda row: float(row["val_mse"]))
    logged = [float(best[f"val_mse{which}"]) for which in ("", "_first_frame", "_last_frame")]
    assert logged == pytest.approx([errors.mean(), errors[0], errors[-1]], rel=1e-4)
    copying = np.square(videos[:, 2:] - videos[:, 1:2]).sum(axis=(2, 3, 4)).mean()
    assert errors.mean() < 0.7 * copying


def test_the_averaged_weights_are_scored_and_saved(quick_run):
    model, last = load_checkpoint(quick_run), runs.load_model(quick_run / "last.keras")
    averages = model.optimizer._model_variables_moving_average
    for saved, average in zip(last.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(array(saved), array(average))
    raw = model.trainable_variables
    assert any((array(one) != array(other)).any() for one, other in zip(averages, raw))


# Interruptions ----------------------------------------------------------------------------


def moments_of(run, epoch):
    """What a kill leaves while each file of an epoch, from 0 on, is written: see conftest.py."""
    moments = sorted(run.with_name("moments").iterdir())
    last = [n for n, path in enumerate(moments) if path.name.endswith(runs.CHECKPOINT)]
    # The first checkpoint is written before the first epoch.
    return moments[last[epoch] + 1 : last[epoch + 1] + 1]


def test_a_kill_while_a_file_is_written_loses_at_most_an_epoch(script, quick_run, tmp_path):
    third_epoch = moments_of(quick_run, 2)
    assert len(third_epoch) in (5, 6)  # all that there is, if its score is the best one
    folder = shutil.copytree(third_epoch[-1], tmp_path / "run")  # after the log was written
    assert len(list(folder.rglob(f"{cli.UNFINISHED}*"))) == 1
    assert script(train, "--resume", folder)[0] == 0
    assert_same_run(quick_run, folder)


def test_killed_and_stopped_processes_lose_at_most_an_epoch_each(
    script, refused, quick_run, tmp_path
):
    """The first starts where one was killed before there was a run, and is killed while it writes a
    checkpoint; the second hears Ctrl-C after an epoch.
    """
    (moment,) = quick_run.with_name("moments").glob("02-config.json")
    folder = shutil.copytree(moment, tmp_path / "run")
    assert (folder / runs.CHECKPOINT).exists()
    assert "there is no run" in refused(train, "--resume", folder)
    log = folder / "log.csv"
    for stop, start in (
        (signal.SIGKILL, ["--preset", "tiny", *options(QUICK), "--run", folder]),
        (signal.SIGINT, ["--resume", folder]),
    ):
        before = log.stat().st_mtime if log.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "train.py", *map(str, start)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        while process.poll() is None:
            unfinished = list(folder.glob(f"{cli.UNFINISHED}*-{runs.CHECKPOINT}"))
            an_epoch_is_done = log.exists() and log.stat().st_mtime > before
            if an_epoch_is_done and (unfinished or stop == signal.SIGINT):
                process.send_signal(stop)
                break
            time.sleep(0.001)
        errors = process.communicate(timeout=60)[1]
        if stop == signal.SIGKILL:
            assert process.returncode == -9, errors or "the kill came too late"
            assert len(log_of(folder)) < QUICK.epochs
        else:
            assert process.returncode == 130, errors
            assert f"--resume {folder}" in errors and "Traceback" not in errors
            assert not list(folder.rglob(f"{cli.UNFINISHED}*"))
    assert script(train, "--resume", folder)[0] == 0
    assert_same_run(quick_run, folder)
    assert len(runs.read_json(folder / "environment.json", list)) == 3


# When something goes wrong after its second epoch -----------------------------------------


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


@pytest.mark.parametrize("what", ["a loss", "weights"])
def test_what_is_no_number_stops_training_and_is_not_saved(
    script, monkeypatch, half_way, eagerly, what
):
    """A loss after its own step; the weights that an epoch's last step spoils after the epoch."""
    before, draw_batch = saved_bytes(half_way), train.Batches.__getitem__

    def spoilt_batch(self, index):
        inputs, y = draw_batch(self, index)
        return inputs, y * np.float32("nan")

    def spoil(model, averaged):
        averaged.set_weights([w * np.nan for w in averaged.get_weights()])

    if what == "a loss":
        monkeypatch.setattr(train.Batches, "__getitem__", spoilt_batch)
    else:
        monkeypatch.setattr(runs, "copy_averaged_weights", spoil)
    with before_step(5, pytest.fail if what == "a loss" else str):  # the epoch's second one
        status, _, errors = script(train, "--resume", half_way)
    assert status == 1 and len(errors.splitlines()) == 1
    assert "no longer a number in epoch 3" in errors and "--muon-learning-rate" in errors
    assert saved_bytes(half_way) == before


# Runs that cannot be gone on with ---------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "best.keras", "init.keras", "environment.json"])
def test_nothing_in_a_runs_folder_is_written_over(refused, quick_run, tmp_path, name):
    """The last two a killed run may have left, and then they are only no input."""
    path, options, reason = tmp_path / name, [], f"--resume {tmp_path}"
    if name == "environment.json":
        prepare(path, [np.zeros((40, 32, 32, 1), np.uint8)] * 2)
        options, reason = ["--data", path], "is an input"
    else:
        shutil.copy(quick_run / name.replace("init", "best"), path)
    if name == "init.keras":
        options, reason = ["--init", path], "is an input"
    before = path.read_bytes()
    assert reason in refused(train, "--preset", "tiny", *options, "--run", tmp_path)
    assert path.read_bytes() == before and files_in(tmp_path) == {name}


def test_a_checkpoint_of_another_optimizer_is_refused(monkeypatch, half_way):
    """Keras would begin with a new one, and say so in a warning."""
    before = saved_bytes(half_way)
    make_optimizer = train.make_optimizer

    def make_other_optimizer(*arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.use_ema = False  # a variable less for each weight
        return optimizer

    monkeypatch.setattr(train, "make_optimizer", make_other_optimizer)
    with pytest.raises(InputError, match="checkpoint.keras cannot be loaded"):
        train.train(train.read_config(half_way), half_way, resume=True)
    assert saved_bytes(half_way) == before


RUN_FILES = ["log.csv", "environment.json", "config.json", "checkpoint.keras"]


@pytest.mark.parametrize(
    "name, damage",
    [(name, damage) for name in RUN_FILES for damage in ("missing", "cut")]
    + [("environment.json", "pipe"), ("config.json", "folder")]
    + [("config.json", text) for text in ("[]", '{"depths": 3}')]
    + [("log.csv", change) for change in (("val_mse,", "error,"), ("\n1,", "\n1,1,1,\n1,"))],
    ids=lambda value: ascii(value)[:30],
)
def test_a_damaged_run_is_not_gone_on_with(refused, quick_run, tmp_path, name, damage):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in RUN_FILES:
        shutil.copy(quick_run / file, folder)
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":  # which nobody waits for
        os.mkfifo(path)
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(damage, tuple):
        path.write_text(whole.decode().replace(*damage))
    elif damage != "missing":
        path.write_text(damage)
    before = saved_bytes(folder)
    line = refused(train, "--resume", folder)
    assert name in line and str(folder) in line
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
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)


DAMAGED, CODE = "cannot be loaded", "code-has-run"
MKDIR = {"module": "os", "class_name": "mkdir", "registered_name": None, "config": {"path": CODE}}
BAD_MODELS = {
    "text.keras": (lambda path, _: path.write_text("not a model"), DAMAGED),
    "folder.keras": (lambda path, _: path.mkdir(), "no best.keras"),
    "checkpoint.keras": (lambda path, whole: shutil.copy(whole, path), "is a checkpoint"),
    "log.csv": (lambda path, _: path.write_text("epoch"), "not a .keras model"),
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
