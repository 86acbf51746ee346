"""What several tests share: running a script within this process, and one short training."""

import sys
import time

import pytest
from helpers import SMALL, replace

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
def misread(script):
    """Call as misread(module, *arguments): -> what is in the box by which tyro says why."""

    def run(module, *arguments):
        status, _, errors = script(module, *arguments)
        assert status == 2 and "Traceback" not in errors, errors
        text = " ".join(" ".join(line.strip("│╭╮╰╯─- ") for line in errors.splitlines()).split())
        assert text and not text.startswith(f"{module.__name__}.py: "), errors  # not our own line
        return text

    return run


TRAINED = replace(
    SMALL,
    encoder_filters=8,
    filters=8,
    coarse_filters=8,
    motion_units=8,
    frames=6,
    context=3,
    size=40,
    batch_size=4,
    steps_per_epoch=40,
    sampling_epochs=1,
    warmup_steps=10,
    validation_videos=20,
)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, worker_id):
    """The folder of a short training, one for all processes of the tests: only to be read."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder, finished = shared / "trained" / "run", shared / "trained" / "finished"
    try:
        finished.parent.mkdir()
    except FileExistsError:  # another process trains it, or has done so
        deadline = time.monotonic() + 300
        while not finished.exists():
            assert time.monotonic() < deadline, "another process failed to train it"
            time.sleep(0.2)
    else:
        train.train(TRAINED, folder)
        finished.touch()
    return folder
