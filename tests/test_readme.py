"""Every command of the README works as it is written, at the smallest size; code, too."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import data
import model as models
from extras import official

ROOT = Path(data.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What makes a command small. It comes last on the line, so it prevails.
TRAIN = "--frames 3 --context 2 --size 32 --steps-per-epoch 1 --epochs 1 --validation-videos 1 "
TRAIN += "--batch-size 1 --encoder-filters 4 --filters 4 --depths 1 0 0 --motion-radius 0"
FORECAST = "--count 1 --context 2 --horizon 2"
SMALL = {
    "data": "",
    "train": TRAIN,
    "predict": FORECAST,
    "animate": FORECAST,
    "make_clips": "--count 2 --frames 12",
    "make_radar": "--count 2 --frames 12",
}


def commands():
    """All commands, in the order of the README: those in blocks and those within the text."""
    found = re.findall(r"^```sh\n(.*?)^```|`(python [^`]+)`", README, re.MULTILINE | re.DOTALL)
    lines = [line for block, inline in found for line in (block or inline).splitlines()]
    lines = [re.sub(r"^pip install .* && ", "", line) for line in lines]
    # Not the tests themselves, nor what needs a network, nor what runs for minutes, nor what
    # test_devices.py runs.
    skipped = "pytest|--official|official|benchmarks/|--devices|film.mp4|NAME"
    lines = [line for line in lines if line.startswith("python") and not re.search(skipped, line)]
    return list(dict.fromkeys(lines))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which commands run as they would in a checkout."""
    for name in ("assets", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(official, "PATH", tmp_path / "official.npy")
    np.save("official.npy", np.swapaxes(data.EvaluationVideos("test")[[0, 1]][..., 0], 0, 1))
    return tmp_path


def test_commands(folder, script):
    for command in commands():
        _, file, *arguments = shlex.split(command)
        name = Path(file).stem
        if "--resume" not in command and "--help" not in command:
            arguments += SMALL[name].split()
        if file.startswith("examples/"):
            subprocess.run([sys.executable, file, *arguments], check=True)
            continue
        status, _, errors = script(importlib.import_module(name), *arguments)
        assert status in (0, None), f"{command}\n{errors[-2000:]}"
    assert len(commands()) >= 15


@pytest.mark.jax
def test_a_closed_loop_around_a_model_trains_what_is_saved(tmp_path, monkeypatch):
    """The Python of extras/README.md, on a model that nothing has built."""
    text = (ROOT / "extras" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(class ClosedLoop.*?)```", text, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    model = models.KerasExample(models.Architecture(filters=4))
    x, y = data.shift_frames(data.make_videos(data.load_digits("train"), 2, seed=0, frames=5))
    real_mask = np.arange(4) < np.full((2, 1), 2)
    names = {"keras": keras, "model": model, "x": x, "y": y, "real_mask": real_mask}
    exec(code, names)  # noqa: S102  it is our own
    loaded = keras.models.load_model("mine.keras")
    forecast = models.rollout(model, x, 2)
    np.testing.assert_array_equal(models.rollout(loaded, x, 2), forecast)


def test_every_file_that_is_named_is_there():
    for readme in (ROOT / "README.md", *ROOT.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (readme.parent / name).exists(), f"{name} in {readme}"
    for name in re.findall(r"`([\w/-]+\.(?:py|txt|html))`", README):
        assert list(ROOT.glob(f"**/{name}")), name


def test_what_to_change_is_where_it_says():
    table = README.split("| To change |")[1].split("\n\n")[0]
    places = re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+)\.py`", table)
    assert len(places) >= 6
    for names, file in places:
        module = importlib.import_module(file.replace("/", "."))
        for name in re.findall(r"`([\w.]+)`", names):
            holder = module
            for part in name.split("."):
                assert hasattr(holder, part), f"{name} in {file}.py"
                holder = getattr(holder, part)


def test_ci_finds_its_command():
    tests = re.findall(r"^pip install .*pytest$", README, re.MULTILINE)
    assert tests == ["pip install -r requirements-dev.txt && python -m pytest"]
