"""Whatever stops a training run, it goes on later, and ends as if nothing had happened.

Twenty processes are killed, one after another, by: python -m pytest -m slow
"""

import dataclasses
import io
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_train import SMALLEST, log_of, options

from extras import cli
import train
from extras.cli import Failure

resource = pytest.importorskip("resource", reason="limits of a process, which Windows lacks")

# Four epochs of the quickest model, the last of which cools down.
QUICK = dataclasses.replace(
    SMALLEST,
    model="forecaster",
    layers=(1, 0, 0),
    motion_radius=0,
    frames=3,
    epochs=4,
    cooldown=0.25,
)


def state(folder):
    """Every array of a run's checkpoint, the optimizer's included, by name."""
    arrays = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with zipfile.ZipFile(folder / train.CHECKPOINT) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(read)
    return arrays


def assert_same_run(one, other):
    """The same weights, to the last bit, the same log, and nothing left over."""
    states = state(one), state(other)
    assert states[0].keys() == states[1].keys() and len(states[0]) > 20
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    for rows in zip(log_of(one), log_of(other), strict=True):
        for row in rows:
            del row["seconds"]
        assert rows[0] == rows[1]
    for name in ("best.keras", "last.keras"):
        models = [train.load_model(folder / name).get_weights() for folder in (one, other)]
        for weights in zip(*models, strict=True):
            np.testing.assert_array_equal(*weights)
    files = [{path.name for path in folder.rglob("*")} - {".lock"} for folder in (one, other)]
    assert files[0] == files[1]


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
        half_written.rename(half_written.with_name(f".unfinished-1-{Path(target).name}"))
        copies.append(copy)
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.os, "replace", rename_and_remember)
        train.train(QUICK, folder)
    return folder, copies


@pytest.mark.parametrize(
    "names",
    [
        ["best.keras", train.CHECKPOINT],  # before the log is written, and after
        pytest.param(
            ["epoch-0003.png", "last.keras", "log.csv", "curve.png", train.BEFORE_COOLDOWN],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_kill_while_a_file_is_written_loses_at_most_an_epoch(script, quick_run, tmp_path, names):
    whole, moments = quick_run
    checkpoints = [n for n, path in enumerate(moments) if path.name.endswith(train.CHECKPOINT)]
    third_epoch = moments[checkpoints[2] + 1 : checkpoints[3] + 1]  # it writes all there is
    assert len(third_epoch) == 7
    for moment in third_epoch:
        if moment.name[3:] in names:
            folder = shutil.copytree(moment, tmp_path / moment.name)
            assert len(list(folder.rglob(".unfinished-*"))) == 1
            assert len(log_of(folder)) in (2, 3)
            assert script(train, "--resume", folder)[0] == 0
            assert_same_run(whole, folder)


def test_a_kill_before_there_is_a_run_lets_it_start_anew(script, quick_run):
    whole, moments = quick_run
    for moment in moments[:3:2]:
        assert not (moment / "config.json").exists()
        status, _, errors = script(train, "--resume", moment)
        assert status == 2 and "there is no run" in errors
    assert script(train, "--preset", "tiny", *options(QUICK), "--run", moment)[0] == 0
    assert_same_run(whole, moment)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_processes_lose_at_most_an_epoch_each(refused, script, tmp_path, kills):
    """In turn while a file is written, anywhere after an epoch, and anywhere at all."""
    config = dataclasses.replace(QUICK, epochs=4 + 6 * kills)
    folder, whole, moment = tmp_path / "run", tmp_path / "whole", random.Random(0)
    closed_loop = train.ClosedLoop(train.build_model(config), config)
    done, left_over = 0, 0
    for kill in range(kills):
        start = ["--preset", "tiny", *options(config), "--run", folder]
        if (folder / "config.json").exists():
            start = ["--resume", folder]
        process = subprocess.Popen(
            [sys.executable, "train.py", *map(str, start)],
            cwd=Path(train.__file__).parent,
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
                if kill == 0:
                    assert "another process" in refused(train, "--resume", folder)
                if kill % 3 == 1:
                    time.sleep(moment.uniform(0, 1))
                else:
                    while process.poll() is None and not list(
                        folder.glob(".unfinished-*-checkpoint.keras")
                    ):
                        pass
        finally:
            process.kill()
            errors = process.communicate()[1].decode()
        assert process.returncode == -9, errors or "the kill came too late"
        left_over += len(list(folder.rglob(".unfinished-*")))
        if (folder / "config.json").exists():
            epochs = train.load_checkpoint(closed_loop, folder, config)
            assert epochs >= done
            done = epochs
    assert script(train, "--resume", folder)[0] == 0
    train.train(config, whole)
    assert_same_run(whole, folder)
    print(f"{kills} kills, {left_over} files half-written, {done} of {config.epochs} epochs done")


def test_two_runs_on_one_folder_are_refused(refused, quick_run, tmp_path):
    folder = shutil.copytree(quick_run[0], tmp_path / "run")
    with cli.folder_lock(folder):
        for arguments in (["--resume", folder], ["--preset", "tiny", "--run", folder]):
            line = refused(train, *arguments)
            assert f"another process is training in {folder}" in line and "--run" in line
    with cli.folder_lock(folder):  # and it is free again
        pass


# What a run reaches when something else goes wrong after its second epoch


@pytest.fixture
def half_way(quick_run, tmp_path):
    """A run of which two of four epochs are done."""
    _, moments = quick_run
    two_done = [path for path in moments if path.name.endswith("last.keras")][2]
    ignore = shutil.ignore_patterns(".unfinished-*")
    return shutil.copytree(two_done, tmp_path / "half-way", ignore=ignore)


def saved_bytes(folder):
    """All files of a run but what every start of it writes."""
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.name != "environment.json"
    }


def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(script, quick_run, half_way):
    before = saved_bytes(half_way)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # bytes; the log has a place
    try:
        status, _, errors = script(train, "--resume", half_way)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1 and len(errors.splitlines()) == 1, errors
    assert "File too large" in errors and f"--resume {half_way}" in errors
    assert saved_bytes(half_way) == before and not list(half_way.rglob(".unfinished-*"))
    assert script(train, "--resume", half_way)[0] == 0
    assert_same_run(quick_run[0], half_way)


@pytest.fixture
def small_disk(tmp_path):
    """Call as small_disk(options): a folder that is a file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only an administrator of Linux can mount a file system")
        return folder

    yield mount
    while not subprocess.run(["umount", folder], capture_output=True).returncode:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 30_000, 200_000, 400_000])
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
    assert not list(folder.rglob(".unfinished-*"))
    ballast.unlink()
    assert script(train, "--resume", folder)[0] == 0
    assert_same_run(quick_run[0], folder)


def test_a_read_only_run_folder_is_refused(refused, small_disk, quick_run, half_way):
    folder = shutil.copytree(half_way, small_disk("size=64m") / "run")
    before = saved_bytes(folder)
    small_disk("remount,ro")
    assert "Read-only file system" in refused(train, "--resume", folder)
    assert saved_bytes(folder) == before


def test_training_stops_at_the_first_loss_that_is_no_number(script, monkeypatch, half_way):
    before, batches = saved_bytes(half_way), []

    class Spoilt(train.ClosedLoopVideos):
        def __getitem__(self, index):
            inputs, targets = super().__getitem__(index)
            return inputs, {name: y * np.float32("nan") for name, y in targets.items()}

    class Counting(train.RunFolder):
        def on_train_batch_end(self, batch, logs):
            batches.append(batch)
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(train, "ClosedLoopVideos", Spoilt)
    monkeypatch.setattr(train, "RunFolder", Counting)
    status, _, errors = script(train, "--resume", half_way)
    assert status == 1 and len(errors.splitlines()) == 1
    assert "no longer a number in epoch 3" in errors and "--learning-rate" in errors
    assert batches == [0]  # of two
    assert saved_bytes(half_way) == before


def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_saved(monkeypatch, half_way):
    before = saved_bytes(half_way)

    class Spoiling(train.RunFolder):
        def copy_averaged_weights(self):
            self.averaged.set_weights([w * np.nan for w in self.trained.get_weights()])

    monkeypatch.setattr(train, "RunFolder", Spoiling)
    with pytest.raises(Failure, match="no longer a number in epoch 3"):
        train.train(train.read_config(half_way), half_way, resume=True)
    assert saved_bytes(half_way) == before
