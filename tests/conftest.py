"""What several tests share: running a script within this process, and two short trainings."""

import dataclasses
import functools
import os
import shutil
import sys
from pathlib import Path

import filelock
import keras
import pytest
from helpers import CLIPS, ON_CLIPS, QUICK, prepare

import train
from extras import cli


@pytest.fixture
def script(monkeypatch, capsys):
    """Call as script(module, "--option", "value"): -> exit status, output, error output."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.run(module.main)
            status = 0
        except SystemExit as exit:
            status = exit.code
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


@pytest.fixture
def refused(script):
    """Call as refused(module, *arguments): -> the one line of ours that says why."""

    def run(module, *arguments):
        status, _, errors = script(module, *arguments)
        assert status == 2, errors
        lines = errors.splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"{module.__name__}.py: "), errors
        return lines[0]

    return run


@pytest.fixture
def eagerly(monkeypatch):
    """Training steps are not compiled: that takes longer than a few of them."""
    compile_eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
    monkeypatch.setattr(keras.Model, "compile", compile_eagerly)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """Call as shared(name, make): a folder that one process of the tests has had made."""
    base = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        base = base.parent

    def folder_of(name, make):
        folder = base / name
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                make(folder)
        return folder

    return folder_of


def train_and_remember(folder):
    """Train; "moments" has what a kill would leave just before each file gets its name."""
    run, moments = folder / "run", folder / "moments"
    moments.mkdir()
    rename = os.replace

    def rename_and_remember(source, target):
        copy = moments / f"{len(list(moments.iterdir())):02d}-{Path(target).name}"
        shutil.copytree(run, copy)
        half_written = copy / Path(source).relative_to(run)
        os.truncate(half_written, half_written.stat().st_size // 2)
        half_written.rename(half_written.with_name(f"{cli.UNFINISHED}1-{Path(target).name}"))
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.os, "replace", rename_and_remember)
        train.train(QUICK, run)


# Only to be read:


@pytest.fixture(scope="session")
def quick_run(shared):
    """The folder of a run of QUICK, beside "moments": see `train_and_remember`."""
    return shared("quick", train_and_remember) / "run"


@pytest.fixture(scope="session")
def run_on_clips(shared):
    """A run on CLIPS, in dBZ; they are in "clips" beside it."""

    def make(folder):
        prepare(folder / "clips", CLIPS, value_range=(-32, 60), unit="dBZ")
        train.train(dataclasses.replace(ON_CLIPS, data=str(folder / "clips")), folder / "run")

    return shared("on-clips", make) / "run"
