"""What the README says works as it is written: its commands, its code, its links, its numbers."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers import prepare

import data
import model as models
from extras import runs

ROOT = Path(data.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL_PRINT = (ROOT / "extras" / "README.md").read_text(encoding="utf-8")

# What makes a command small. It comes last on the line, so it prevails.
TRAIN = "--frames 3 --context 2 --steps-per-epoch 1 --epochs 1 --validation-videos 1 "
TRAIN += "--batch-size 1 --encoder-filters 4 --filters 4 --depths 1 0 0 --motion-radius 0"
FORECAST = "--count 1 --context 2 --horizon 2"
DRAW = "--count 2 --frames 12"
SMALL = {"train": TRAIN, "predict": FORECAST, "animate": FORECAST}
SMALL |= {"data": "", "prepare": "", "make_clips": DRAW, "make_radar": DRAW}


def commands():
    """All commands of the README, in its order: those in blocks and those within the text."""
    found = re.findall(r"^```sh\n(.*?)^```|`(python [^`]+)`", README, re.MULTILINE | re.DOTALL)
    lines = [line for block, inline in found for line in re.split(r"\n| && ", block or inline)]
    # Not the tests themselves, nor what needs a network or runs for minutes.
    skipped = "pytest|--help|official|benchmarks/"
    lines = [line for line in lines if line.startswith("python ") and not re.search(skipped, line)]
    return list(dict.fromkeys(lines))


def test_commands(tmp_path, monkeypatch, script, eagerly):
    for folder in ("examples", "assets"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    for command in commands():
        _, file, *arguments = shlex.split(command)
        name = Path(file).stem
        if "--resume" not in arguments:
            arguments += SMALL[name].split()
        if name == "train" and not {"--data", "--resume"} & set(arguments):
            arguments += ["--size", "32"]
        if "film.mp4" in arguments:
            shutil.copy("clips/clip-001.mp4", "film.mp4")
        if file.startswith("examples/"):
            subprocess.run([sys.executable, file, *arguments], check=True)
        else:
            status, _, errors = script(importlib.import_module(name), *arguments)
            assert status == 0, f"{command}\n{errors[-2000:]}"
    assert len(commands()) >= 18
    tests = re.findall(r"^pip install .*pytest$", README, re.MULTILINE)  # .ci/run uses it
    assert tests == ["pip install -r requirements-dev.txt && python -m pytest"]


def test_python_example(tmp_path, monkeypatch, eagerly):
    """The Python of extras/README.md: a model is trained by hand and saved; clips are drawn."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", SMALL_PRINT, re.DOTALL)[1], names)  # noqa: S102  our own
    loaded = runs.load_model("mine.keras")
    forecast = models.rollout(loaded, names["x"][:, :6], horizon=6)
    np.testing.assert_allclose(forecast, names["forecast"], atol=1e-5)
    prepare("clips.prepared", 2 * [np.zeros((24, 32, 32, 1), np.uint8)])
    exec(re.search(r"`(training, .*?)`", SMALL_PRINT)[1], names)  # noqa: S102  our own
    for videos, count in (("training.draw(count=8, seed=[0])", 8), ("validation[[0, 1]]", 2)):
        assert f"`{videos}`" in SMALL_PRINT
        assert eval(videos, names).shape == (count, 12, 32, 32, 1)


def test_numbers_are_those_of_the_records():
    records = json.loads((ROOT / "benchmarks" / "logs" / "records.json").read_text())
    rows = set()
    for record in records.values():
        mean, frames = record["mean"], " ".join(f"{mse:.0f}" for mse in record["mse"])
        ssim = f"{mean['ssim']:.3f} ({mean['ssim_range2']:.3f})"
        rows.add(f"{mean['mse']:.1f} | {ssim} | {frames}")
    results = README.split("## Results")[1].split("## Change things")[0]
    table = re.findall(r"^\| .*\d \d+ \|$", results.replace("**", ""), re.MULTILINE)
    assert len(table) == 8
    for line in table:
        assert line.split(" | ", 2)[2].removesuffix(" |") in rows, line

    def error(name):
        return f"{records[name]['mean']['mse']:.1f}"

    training = README.split("## Train")[1].split("## Your own clips")[0]
    means = {f"{record['mean']['mse']:.1f}" for record in records.values()}
    for line in re.findall(r"^\| `.* \|$", training, re.MULTILINE):
        told = re.findall(r"\d+\.\d", line.split(" | ")[-1])
        assert told and set(told) <= means, line
    for name in ("tiny", "hour", "gpu", "forecaster"):
        assert f"{error(name)}, {error(f'{name}, 2 sprites')}" in training
    for notebook in ("next_frame_prediction", "prediccion_de_fotogramas"):
        text = (ROOT / "notebooks" / f"{notebook}.py").read_text(encoding="utf-8")
        assert f"**{error('floor')}**" in text and f"**{error('tracks')}**" in text


def test_links_lead_somewhere():
    for readme in (ROOT / "README.md", *ROOT.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        for name, anchor in re.findall(r"\]\((?!\w+:)([\w./-]*)(?:#([\w-]+))?\)", text):
            target = readme.parent / name if name else readme
            assert target.exists(), f"{name} in {readme}"
            if anchor:
                headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in headings]
                assert anchor in map(str.lower, slugs), f"#{anchor} in {readme}"
    for name in re.findall(r"`([\w/-]+\.(?:py|txt|html))`", README + SMALL_PRINT):
        assert list(ROOT.glob(f"**/{name}")), name


def test_what_to_change_is_where_it_says():
    table = README.split("| To change |")[1].split("\n\n")[0]
    places = re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+)\.py`", table)
    assert len(places) >= 6
    for names, file in places:
        module = importlib.import_module(file.replace("/", "."))
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(module, name), f"{name} in {file}.py"
