"""What a run leaves, whatever stops it; and which models and runs are refused in one line.

Twenty processes are killed, one after another, and disks are filled, by: python -m pytest -m slow
"""

import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import TRAINED
from helpers import QUICK, array, assert_same_run, files_in, load_checkpoint, log_of, options
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
    assert width > 6 * 40 and height > 2 * 3 * 40
    assert Image.open(trained_run / "curve.png").size == (840, 480)


def test_the_saved_weights_have_the_logged_error(trained_run):
    model = runs.load_model(trained_run)
    evaluation = data.EvaluationVideos("validation", frames=6, size=40)
    videos = data.to_float(evaluation[np.linspace(0, 9999, 20).astype(int)])  # from all over them
    difference = models.rollout(model, videos[:, :3], 3) - videos[:, 3:]
    errors = np.square(difference).sum(axis=(2, 3, 4)).mean(axis=0)
    best = min(log_of(trained_run), key=lambda row: float(row["val_mse"]))
    assert float(best["val_mse"]) == pytest.approx(errors.mean(), rel=1e-4)
    assert float(best["val_mse_first_frame"]) == pytest.approx(errors[0], rel=1e-4)
    assert float(best["val_mse_last_frame"]) == pytest.approx(errors[-1], rel=1e-4)


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


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """An uninterrupted run, and what a kill would have left just before each file was renamed."""
    folder, moments = tmp_path_factory.mktemp("whole") / "run", tmp_path_factory.mktemp("moments")
    rename, copies = os.replace, []

    def rename_and_remember(source, target):
        copy = moments / f"{len(copies):02d}-{Path(target).name}"
        shutil.copytree(folder, copy)
        half_written = copy / Path(source).relative_to(folder)
        os.truncate(half_written, half_written.stat().st_size // 2)
        half_written.rename(half_written.with_name(f"{cli.UNFINISHED}1-{Path(target).name}"))
        copies.append(copy)
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.os, "replace", rename_and_remember)
        train.train(QUICK, folder)
    return folder, copies


@pytest.mark.parametrize(
    "names",
    [
        ["best.keras", runs.CHECKPOINT],  # before the log is written, and after
        pytest.param(
            ["epoch-0003.png", "last.keras", "log.csv", "curve.png"], marks=pytest.mark.slow
        ),
    ],
)
def test_a_kill_while_a_file_is_written_loses_at_most_an_epoch(script, quick_run, tmp_path, names):
    whole, moments = quick_run
    checkpoints = [n for n, path in enumerate(moments) if path.name.endswith(runs.CHECKPOINT)]
    third_epoch = moments[checkpoints[2] + 1 : checkpoints[3] + 1]
    assert len(third_epoch) in (5, 6)  # all that there is, if its score is the best one
    for moment in third_epoch:
        if moment.name[3:] in names:
            folder = shutil.copytree(moment, tmp_path / moment.name)
            assert len(list(folder.rglob(f"{cli.UNFINISHED}*"))) == 1
            assert len(log_of(folder)) in (2, 3)
            assert script(train, "--resume", folder)[0] == 0
            assert_same_run(whole, folder)


def test_a_kill_before_there_is_a_run_lets_it_start_anew(script, refused, quick_run):
    whole, moments = quick_run
    for moment in moments[:3:2]:
        assert not (moment / "config.json").exists()
        assert "there is no run" in refused(train, "--resume", moment)
    assert script(train, "--preset", "tiny", *options(QUICK), "--run", moment)[0] == 0
    assert_same_run(whole, moment)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_processes_lose_at_most_an_epoch_each(script, tmp_path, kills):
    """In turn while a file is written, anywhere after an epoch, and anywhere at all."""
    config = dataclasses.replace(QUICK, epochs=4 + 6 * kills)
    folder, whole, moment = tmp_path / "run", tmp_path / "whole", random.Random(0)
    done, left_over = 0, 0
    for kill in range(kills):
        start = ["--preset", "tiny", *options(config), "--run", folder]
        if (folder / "config.json").exists():
            start = ["--resume", folder]
        process = subprocess.Popen(
            [sys.executable, "train.py", *map(str, start)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            began = time.monotonic()
            if kill % 3 == 2:
                time.sleep(moment.uniform(0, 15))
            else:
                log = folder / "log.csv"
                before = log.stat().st_mtime if log.exists() else 0
                while process.poll() is None and time.monotonic() - began < 120:
                    if log.exists() and log.stat().st_mtime > before:
                        break
                    time.sleep(0.001)
                if kill % 3 == 1:
                    time.sleep(moment.uniform(0, 1))
                else:
                    while process.poll() is None and not list(
                        folder.glob(f"{cli.UNFINISHED}*-{runs.CHECKPOINT}")
                    ):
                        pass
        finally:
            process.kill()
            errors = process.communicate()[1].decode()
        assert process.returncode == -9, errors or "the kill came too late"
        left_over += len(list(folder.rglob(f"{cli.UNFINISHED}*")))
        if (folder / "config.json").exists():
            steps = int(load_checkpoint(folder).optimizer.iterations)
            epochs = steps // config.steps_per_epoch
            assert epochs >= done
            done = epochs
    assert script(train, "--resume", folder)[0] == 0
    train.train(config, whole)
    assert_same_run(whole, folder)
    print(f"{kills} kills, {left_over} files half-written, {done} of {config.epochs} epochs done")


# When something goes wrong after its second epoch -----------------------------------------


@pytest.fixture
def half_way(quick_run, tmp_path):
    """A run of which two of four epochs are done."""
    _, moments = quick_run
    two_done = [path for path in moments if path.name.endswith("last.keras")][2]
    ignore = shutil.ignore_patterns(f"{cli.UNFINISHED}*")
    return shutil.copytree(two_done, tmp_path / "half-way", ignore=ignore)


def saved_bytes(folder):
    """All files of a run but what every start of it writes."""
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.name != "environment.json"
    }


def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(script, quick_run, half_way):
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
    assert saved_bytes(half_way) == before and not list(half_way.rglob(f"{cli.UNFINISHED}*"))
    assert script(train, "--resume", half_way)[0] == 0
    assert_same_run(quick_run[0], half_way)


@pytest.fixture
def small_disk(tmp_path):
    """Call as small_disk(options): a folder that is a file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if (
            not shutil.which("mount")
            or subprocess.run(command, check=False, capture_output=True).returncode
        ):
            pytest.skip("only an administrator of Linux can mount a file system")
        return folder

    yield mount
    while not subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 30_000, 100_000])  # bytes; a run leaves more
def test_a_full_disk(script, small_disk, quick_run, half_way, free):
    folder = shutil.copytree(half_way, small_disk("size=64m") / "run")
    before = saved_bytes(folder)
    ballast = folder.parent / "ballast"
    disk = shutil.disk_usage(folder)
    ballast.write_bytes(bytes(max(0, disk.free - free)))
    status, _, errors = script(train, "--resume", folder)
    assert status in (1, 2) and len(errors.splitlines()) == 1, errors
    assert "No space left" in errors
    assert before.keys() <= saved_bytes(folder).keys()
    assert not list(folder.rglob(f"{cli.UNFINISHED}*"))
    ballast.unlink()
    assert script(train, "--resume", folder)[0] == 0
    assert_same_run(quick_run[0], folder)


def test_a_read_only_run_folder_is_refused(refused, small_disk, half_way):
    folder = shutil.copytree(half_way, small_disk("size=64m") / "run")
    before = saved_bytes(folder)
    small_disk("remount,ro")
    assert "Read-only file system" in refused(train, "--resume", folder)
    assert saved_bytes(folder) == before


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


def test_a_run_is_not_overwritten(refused, trained_run):
    before = (trained_run / "config.json").read_bytes()
    assert f"--resume {trained_run}" in refused(train, "--preset", "tiny", "--run", trained_run)
    assert (trained_run / "config.json").read_bytes() == before


def test_a_run_without_a_checkpoint_is_refused(refused, tmp_path):
    runs.write_json(tmp_path / "config.json", dataclasses.asdict(QUICK))
    runs.write_json(tmp_path / "environment.json", [{}])
    assert "checkpoint.keras" in refused(train, "--resume", tmp_path)
    (tmp_path / "checkpoint.keras").write_bytes(b"not weights")
    assert "cannot be loaded" in refused(train, "--resume", tmp_path)


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


@pytest.mark.parametrize("name", ["log.csv", "environment.json", "config.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "folder"])
def test_a_damaged_run_is_not_gone_on_with(refused, quick_run, tmp_path, name, damage):
    folder = shutil.copytree(quick_run[0], tmp_path / "run")
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut":
        (folder / name).write_bytes(whole[: len(whole) // 2])
    if damage == "folder":
        (folder / name).mkdir()
    assert name in refused(train, "--resume", folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"depths": 3}', '{"depths": [1, 2, 1], "colour": "red"}',
     "[" * 100_000, "\udcff"],
    ids=str.__len__,
)  # fmt: skip
def test_what_is_no_config(refused, tmp_path, text):
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    for arguments in (["--resume", tmp_path], ["--config", tmp_path, "--run", tmp_path / "run"]):
        line = refused(train, *arguments)
        assert str(tmp_path) in line and "config" in line
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


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


DAMAGED = "cannot be loaded"
BAD_MODELS = {
    "empty.keras": (lambda path, _: path.touch(), DAMAGED),
    "text.keras": (lambda path, _: path.write_text("not a model"), DAMAGED),
    "folder.keras": (lambda path, _: path.mkdir(), "no best.keras"),
    "checkpoint.keras": (lambda path, whole: shutil.copy(whole, path), "is a checkpoint"),
    "log.csv": (lambda path, _: path.write_text("epoch"), "not a .keras model"),
    "weights.h5": (lambda path, _: path.write_text("HDF"), "not a .keras model"),
    "cut.keras": (
        lambda path, whole: path.write_bytes(whole.read_bytes()[:50_000]),
        DAMAGED,
    ),
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
    "lambda.keras": (
        other_model(keras.layers.Lambda(lambda x: (os.mkdir("code-has-run"), x)[1])),
        "",
    ),
    "system.keras": (
        reconfigured(
            module="os", class_name="mkdir", registered_name=None, config={"path": "code-has-run"}
        ),
        "",
    ),
    "builtin.keras": (
        reconfigured(
            precision={
                "module": "builtins",
                "class_name": "function",
                "config": "eval",
                "registered_name": "function",
            }
        ),
        "",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_refused(refused, trained_run, tmp_path, monkeypatch, name):
    write, reason = BAD_MODELS[name]
    monkeypatch.chdir(tmp_path)
    write(Path(name), trained_run / "best.keras")
    if Path("code-has-run").exists():  # while the model was made
        Path("code-has-run").rmdir()
    for line in (
        refused(predict, name, "--out", "out"),
        refused(train, "--init", name, "--run", "run"),
    ):
        assert reason in line and name in line
    assert not Path("code-has-run").exists()
    assert files_in(tmp_path) <= {name}  # no result, no half of one
