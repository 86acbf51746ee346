"""Every command of the README works as it is written; here at the smallest size."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data

ROOT = Path(data.__file__).parent
README = (ROOT / "README.md").read_text()

# What makes a command small. It comes last on the line, so it prevails.
SMALL = {
    "data.py": "",
    "train.py": "--frames 3 --context 2 --size 32 --steps-per-epoch 1 --epochs 1 "
    "--validation-videos 1 --batch-size 1 --sample-every 1",
    "predict.py": "--count 1 --horizon 2",
    "animate.py": "--count 1 --horizon 2",
    "make_clips.py": "--count 2 --frames 12",
}


def commands():
    """All commands, in the order of the README: those in blocks and those within the text."""
    found = re.findall(r"^```sh\n(.*?)^```|`((?:\w+=\w+ )?python [^`]+)`", README, re.M | re.S)
    lines = [line for block, inline in found for line in (block or inline).splitlines()]
    lines = [re.sub(r"^pip install .* && ", "", line) for line in lines]
    # Not the tests themselves, nor what needs a network, nor what runs for minutes, nor what
    # test_devices.py runs.
    skipped = "pytest|--official|benchmarks/|notebooks/|--devices"
    return [line for line in lines if not re.search(skipped, line)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the scripts to run them in, and in it what a reader would have made."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in [*ROOT.glob("*.py"), ROOT / "page.html"]:
        shutil.copy(path, folder)
    for name in ("assets", "examples"):
        (folder / name).symlink_to(ROOT / name)
    videos = data.evaluation_videos("test", [0, 1])[..., 0]
    np.save(folder / "clips.npy", videos)
    (folder / "downloads").mkdir()
    np.save(folder / data.OFFICIAL_PATH, np.swapaxes(videos, 0, 1))
    return folder


def test_commands(checkout):
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}
    done = set()
    for command in commands():
        if command in done or "NAME" in command:
            continue
        done.add(command)
        script = re.search(r"\w+\.py", command)[0]
        small = "" if "--resume" in command or "--help" in command else SMALL[script]
        if "clips.npy" in command:
            small = "--horizon 2"  # it has two videos: fewer than are usually taken
        result = subprocess.run(
            f"{command} {small}", shell=True, cwd=checkout, env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"
    assert len(done) >= 12


def test_every_file_that_is_named_is_there():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([\w-]+\.(?:py|txt|html))`", README):
        assert (ROOT / name).exists(), name


def test_what_to_change_is_where_it_says():
    table = README.split("| To change |")[1].split("\n\n")[0]
    places = re.findall(r"((?:`\w+`(?:, | and )?)+) in `(\w+)\.py`", table)
    assert len(places) >= 6
    for names, file in places:
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(file), name), f"{name} in {file}.py"


def test_ci_finds_its_command():
    tests = re.findall(r"^pip install .*pytest$", README, re.M)
    assert tests == ["pip install -r requirements-dev.txt && python -m pytest"]
