"""What a run leaves, whatever stops it; and which models and runs are refused in one line."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import (
    QUICK,
    TRAINED,
    array,
    assert_same_run,
    files_in,
    load_checkpoint,
    log_of,
    options,
    prepare,
)
from PIL import Image

import data
import model as models
import predict
import train
from extras import cli, runs
from extras.cli import Failure, InputError

ROOT = Path(train.__file__).parent

# What a run leaves ------------------------------------------------------------------------


def test_a_run_leaves_what_is_needed_to_repeat_it(trained_run):
    assert {path.name for path in trained_run.iterdir()} == {
        "config.json", "environment.json", "log.csv", "curve.png", "samples",
        "best.keras", "last.keras", "checkpoint.keras",
    }  # fmt: skip
    assert train.read_config(trained_run) == TRAINED
    (start,) = json.loads((trained_run / "environment.json").read_text())
    assert start["keras"] == keras.__version__ and start["processes"] == 1
    assert start["backend"].split()[0] == keras.backend.backend() and start["devices"]
    assert [row["videos"] for row in log_of(trained_run)] == ["160", "320", "480"]
    pictures = sorted((trained_run / "samples").iterdir())
    assert [path.name for path in pictures] == [f"epoch-000{n}.png" for n in (1, 2, 3)]
    width, height = Image.open(pictures[0]).size
    assert width > 4 * 40 and height > 2 * 3 * 40
    assert Image.open(trained_run / "curve.png").size == (840, 480)


def test_the_saved_weights_have_the_logged_error(trained_run):
    """... which falls below that of copying the last frame."""
    evaluation = data.EvaluationVideos("validation", frames=4, size=40)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 20).astype(int)])  # from all over them
    difference = models.rollout(runs.load_model(trained_run), videos[:, :2], 2) - videos[:, 2:]
    errors = np.square(difference).sum(axis=(2, 3, 4)).mean(axis=0)
    best = min(log_of(trained_run), key=lambda row: float(row["val_mse"]))
    assert float(best["val_mse"]) == pytest.approx(errors.mean(), rel=1e-4)
    assert float(best["val_mse_first_frame"]) == pytest.approx(errors[0], rel=1e-4)
    assert float(best["val_mse_last_frame"]) == pytest.approx(errors[-1], rel=1e-4)
    copying = np.square(videos[:, 2:] - videos[:, 1:2]).sum(axis=(2, 3, 4)).mean()
    assert errors.mean() < 0.7 * copying
    first, *_, last = (float(row["val_mse"]) for row in log_of(trained_run))
    assert last < 0.8 * first


def test_the_averaged_weights_are_scored_and_saved(trained_run):
    model = load_checkpoint(trained_run)
    assert int(model.optimizer.iterations) == 3 * 40
    last = runs.load_model(trained_run / "last.keras")
    averages = model.optimizer._model_variables_moving_average
    for variables in zip(last.trainable_variables, averages, model.trainable_variables):
        saved, average, raw = map(array, variables)
        np.testing.assert_array_equal(saved, average)
        assert (saved != raw).any()


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
    for moment in (third_epoch[1], third_epoch[-1]):  # before the log is written, and after
        folder = shutil.copytree(moment, tmp_path / moment.name)
        assert len(list(folder.rglob(f"{cli.UNFINISHED}*"))) == 1
        assert script(train, "--resume", folder)[0] == 0
        assert_same_run(quick_run, folder)


def test_a_kill_before_there_is_a_run_lets_it_start_anew(script, refused, quick_run, tmp_path):
    (moment,) = quick_run.with_name("moments").glob("02-config.json")
    folder = shutil.copytree(moment, tmp_path / "run")
    assert not (folder / "config.json").exists() and (folder / runs.CHECKPOINT).exists()
    assert "there is no run" in refused(train, "--resume", folder)
    assert script(train, "--preset", "tiny", *options(QUICK), "--run", folder)[0] == 0
    assert_same_run(quick_run, folder)


def test_another_process_goes_on_to_the_same_result(trained_run, tmp_path):
    """With all parts of a model."""
    folder = shutil.copytree(moments_of(trained_run, 2)[0], tmp_path / "run")
    assert len(log_of(folder)) == 2
    command = [sys.executable, "train.py", "--resume", folder]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    assert_same_run(trained_run, folder)
    assert len(json.loads((folder / "environment.json").read_text())) == 2


def test_stopped_processes_lose_at_most_an_epoch_each(script, quick_run, tmp_path):
    """The first is killed while it writes a checkpoint, the second hears Ctrl-C after an epoch."""
    folder, log = tmp_path / "run", tmp_path / "run" / "log.csv"
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


def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(script, half_way):
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


def test_training_stops_at_the_first_loss_that_is_no_number(script, monkeypatch, half_way):
    before, batches = saved_bytes(half_way), []

    class Spoilt(train.Batches):
        def __getitem__(self, index):
            inputs, y = super().__getitem__(index)
            return inputs, y * np.float32("nan")

    class Counting(runs.Watch):
        def on_train_batch_end(self, batch, logs):
            batches.append(batch)
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(train, "Batches", Spoilt)
    monkeypatch.setattr(runs, "Watch", Counting)
    status, _, errors = script(train, "--resume", half_way)
    assert status == 1 and len(errors.splitlines()) == 1
    assert "no longer a number in epoch 3" in errors and "--muon-learning-rate" in errors
    assert batches == [0]  # of two
    assert saved_bytes(half_way) == before


def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_saved(monkeypatch, half_way):
    before = saved_bytes(half_way)

    def spoil(model, averaged):
        averaged.set_weights([w * np.nan for w in averaged.get_weights()])

    monkeypatch.setattr(runs, "copy_averaged_weights", spoil)
    with pytest.raises(Failure, match="no longer a number in epoch 3"):
        train.train(train.read_config(half_way), half_way, resume=True)
    assert saved_bytes(half_way) == before


# Runs that cannot be gone on with ---------------------------------------------------------


def test_a_run_is_not_overwritten(refused, quick_run, tmp_path):
    for left in ("config.json", "best.keras"):
        shutil.copy(quick_run / left, tmp_path)
        before = saved_bytes(tmp_path)
        assert f"--resume {tmp_path}" in refused(train, "--preset", "tiny", "--run", tmp_path)
        assert saved_bytes(tmp_path) == before
        (tmp_path / left).unlink()


@pytest.mark.parametrize("name", ["last.keras", "log.csv", "init.keras", "environment.json"])
def test_what_a_run_would_write_over_is_refused(refused, quick_run, tmp_path, name):
    """Some of these a killed run may have left, and then they are only no input."""
    path = tmp_path / name
    if path.suffix == ".keras":
        shutil.copy(quick_run / "last.keras", path)
    else:
        prepare(path, [np.zeros((40, 32, 32, 1), np.uint8)] * 2)
    before = path.read_bytes()
    source = "--init" if path.suffix == ".keras" else "--data"
    line = refused(train, "--preset", "tiny", source, path, "--run", tmp_path)
    assert name in line and path.read_bytes() == before and files_in(tmp_path) == {name}


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
NO_CONFIGS = [
    "", "{", "[]", "3", "null", '{"depths": 3}', '{"depths": [1, 2, 1], "colour": "red"}',
    "[" * 100_000, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize(
    "name, damage",
    [(name, damage) for name in RUN_FILES for damage in ("missing", "cut", "folder", "pipe")]
    + [("config.json", text) for text in NO_CONFIGS],
    ids=lambda value: value[:40].encode(errors="replace").decode(),
)
def test_a_damaged_run_is_not_gone_on_with(refused, quick_run, tmp_path, name, damage):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in RUN_FILES:
        shutil.copy(quick_run / file, folder)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "folder":
        (folder / name).mkdir()
    elif damage == "pipe":  # which nobody waits for
        os.mkfifo(folder / name)
    elif damage != "missing":
        content = damage.encode(errors="surrogateescape")
        (folder / name).write_bytes(whole[: len(whole) // 2] if damage == "cut" else content)
    before = saved_bytes(folder)
    line = refused(train, "--resume", folder)
    assert name in line and str(folder) in line
    if name == "config.json":
        assert name in refused(train, "--config", folder, "--run", tmp_path / "new")
    assert saved_bytes(folder) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.replace("\n", ",1\n"),
        lambda log: log.replace("val_mse,", "error,"),
        lambda log: log.replace("\n1,", "\n1e999,"),
        lambda log: log + log.splitlines()[-1] + "\n" + log.splitlines()[-1] + "\n",
    ],
    ids=["a column more", "another column", "no number", "two rows more"],
)
def test_a_log_that_cannot_go_on_is_refused_before_an_epoch_is_trained(refused, half_way, change):
    log = half_way / "log.csv"
    log.write_text(change(log.read_text()))
    before = saved_bytes(half_way)
    assert "log.csv" in refused(train, "--resume", half_way)
    assert saved_bytes(half_way) == before


def test_a_log_with_a_byte_order_mark_is_read(half_way):
    log = half_way / "log.csv"
    rows = runs.read_log(half_way)
    log.write_text(log.read_text(), encoding="utf-8-sig")
    assert runs.read_log(half_way) == rows


def test_a_checkpoint_of_no_epochs_end_is_refused(refused, half_way):
    model = load_checkpoint(half_way)
    model.optimizer.iterations.assign(3)
    model.save(half_way / runs.CHECKPOINT)
    assert "end of an epoch" in refused(train, "--resume", half_way)


# Files that are no models -----------------------------------------------------------------


def damaged(change):
    """A model's file, of which `change` changes the members: a dict, name -> content."""

    def write(path, whole):
        with zipfile.ZipFile(whole) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        change(members)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


def reconfigured(**fields):
    """A model's file whose config has other fields at its top, or in its own "config"."""

    def change(members):
        config = json.loads(members["config.json"])
        for field, value in fields.items():
            (config if field in config else config["config"])[field] = value
        members["config.json"] = json.dumps(config)

    return damaged(change)


def terabytes_of_weights(members):
    file = io.BytesIO(members["model.weights.h5"])
    with h5py.File(file, "a") as arrays:
        names = []
        arrays.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
        del arrays[names[0]]
        arrays.create_dataset(names[0], (10**6, 10**6), "f4", chunks=(1000, 1000))
    members["model.weights.h5"] = file.getvalue()


def other_model(*layers):
    return lambda path, _: keras.Sequential([keras.Input((2,)), *layers]).save(path)


def model_of_nan(path, whole):
    model = keras.models.load_model(whole)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)


DAMAGED, CODE = "cannot be loaded", "code-has-run"
EVAL = {"module": "builtins", "class_name": "function", "config": "eval"}
BAD_MODELS = {
    "empty.keras": (lambda path, _: path.touch(), DAMAGED),
    "text.keras": (lambda path, _: path.write_text("not a model"), DAMAGED),
    "folder.keras": (lambda path, _: path.mkdir(), "no best.keras"),
    "checkpoint.keras": (lambda path, whole: shutil.copy(whole, path), "is a checkpoint"),
    "log.csv": (lambda path, _: path.write_text("epoch"), "not a .keras model"),
    "cut.keras": (lambda path, whole: path.write_bytes(whole.read_bytes()[:50_000]), DAMAGED),
    "flipped.keras": (
        lambda path, whole: path.write_bytes(whole.read_bytes().replace(b"\0" * 99, b"\1" * 99)),
        DAMAGED,
    ),
    "no-config.keras": (damaged(lambda members: members.pop("config.json")), DAMAGED),
    "no-weights.keras": (damaged(lambda members: members.pop("model.weights.h5")), DAMAGED),
    "half-a-config.keras": (damaged(lambda members: members.update({"config.json": "{"})), DAMAGED),
    "list.keras": (damaged(lambda members: members.update({"config.json": "[1]"})), DAMAGED),
    "terabytes.keras": (damaged(terabytes_of_weights), DAMAGED),
    "newer.keras": (reconfigured(attention=True), DAMAGED),
    "other-filters.keras": (reconfigured(filters=17), DAMAGED),
    "other-depths.keras": (reconfigured(depths="abc"), DAMAGED),
    "not-built.keras": (reconfigured(build_config={"input_shape": "x"}), DAMAGED),
    "a-weight-less.keras": (reconfigured(build_config={"weights": 9}), "gained or lost a layer"),
    "nan.keras": (model_of_nan, "no numbers"),
    "dense.keras": (other_model(keras.layers.Dense(1)), "Sequential"),
    # These want to run code.
    "lambda.keras": (other_model(keras.layers.Lambda(lambda x: (os.mkdir(CODE), x)[1])), ""),
    "system.keras": (
        reconfigured(module="os", class_name="mkdir", registered_name=None, config={"path": CODE}),
        "",
    ),
    "builtin.keras": (reconfigured(precision={**EVAL, "registered_name": "function"}), ""),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_refused(refused, trained_run, tmp_path, monkeypatch, name):
    write, reason = BAD_MODELS[name]
    monkeypatch.chdir(tmp_path)
    write(Path(name), trained_run / "best.keras")
    if Path(CODE).exists():  # while the model was made
        Path(CODE).rmdir()
    line = refused(predict, name, "--out", "out")
    assert reason in line and name in line
    assert not Path(CODE).exists()
    assert files_in(tmp_path) <= {name}  # no result, no half of one
