"""Input that cannot be used: one line says what is wrong with it and what to do."""

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import animate
import data
import model as models
import predict
import train

# Options ----------------------------------------------------------------------------------

BAD_OPTIONS = [
    (data, "--seed -1", "--seed -1"),
    (data, "--seed x", "--seed"),
    (data, "--offical", "--offical"),
    (data, "--out FILE", "name another folder"),
    (train, "--preset huge", "huge"),
    (train, "--epochs many", "--epochs"),
    (train, "--epoch 3", "--epoch"),
    (train, "--layers 1", "--layers"),
    (train, "--muon=3", "3"),
    (train, "runs/tiny", "runs/tiny"),
    (train, "--size 36", "36 x 36"),
    (train, "--learning-rate inf", "--learning-rate must be at most"),
    (train, "--clip-norm nan", "--clip-norm"),
    (train, "--epochs 10000000000000000000000", "--epochs must be at most"),
    (train, "--run FILE", "name another folder"),
    (train, "--run FILE/run", "name another folder"),
    (train, "--init NOTHING", "no such model"),
    (train, "--resume NOTHING", "there is no run"),
    (train, "--resume FILE", "there is no run"),
    (train, "--config NOTHING --run RUN", "there is no run"),
    (train, "--log mlflow", "tensorboard"),
    (predict, "NOTHING", "no such model"),
    (predict, "--count 0", "--count 0"),
    (predict, "--count 10001", "10,000 videos"),
    (predict, "--count -3", "--count -3"),
    (predict, "--count nan", "--count"),
    (predict, "--context 0", "--context"),
    (predict, "--horizon 0", "--horizon"),
    (predict, "--horizon 10000000000000000000000", "1 to 100,000"),
    (predict, "--seed -1", "--seed -1"),
    (predict, "--seed one", "--seed"),
    (predict, "--coutn 3", "--coutn"),
    (predict, "--data tset", "tset"),
    (predict, "--data NOTHING", "no such file"),
    (predict, "--out FILE", "name another folder"),
    (animate, "--format avi", "gif"),
    (animate, "--count 0", "--count 0"),
    (animate, "--context -5", "--context"),
    (animate, "--fromat gif", "--fromat"),
]


@pytest.mark.parametrize("module, options, reason", BAD_OPTIONS)
def test_bad_options(refused, tmp_path, monkeypatch, module, options, reason):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    assert reason in refused(module, *options.split())
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


BAD_FIELDS = [
    ("batch_size", 0), ("steps_per_epoch", -1), ("epochs", 0), ("validation_videos", 0),
    ("filters", 0), ("digits_per_video", 0), ("context", 0), ("frames", 2), ("size", 24),
    ("layers", (0, 0, 0)), ("layers", (1, -1, 1)), ("layers", (1, 1)), ("layers", "abc"),
    ("motion_radius", -1), ("motion_radius", 0), ("history", 0), ("sheets", 0), ("filters", 3.5), ("filters", "32"), ("filters", True),
    ("filters", None), ("loss", "mse"), ("model", "?"), ("model", []),
    ("learning_rate", float("nan")), ("learning_rate", float("inf")), ("weight_decay", 1e300),
    ("cooldown", 1.5), ("sampling_epochs", -1), ("average", -0.1), ("average", 1.0),
    ("seed", -1), ("seed", 2**32), ("clip_norm", -1.0), ("validation_videos", 10_001),
    ("steps_per_epoch", 10**20), ("frames", 10**9), ("init", 3),
]  # fmt: skip


@pytest.mark.parametrize("field, value", BAD_FIELDS)
def test_bad_configs(refused, tmp_path, field, value):
    fields = dataclasses.asdict(train.PRESETS["tiny"])
    train.write_json(tmp_path / "config.json", {**fields, field: value})
    line = refused(train, "--config", tmp_path / "config.json", "--run", tmp_path / "run")
    assert train.option(field) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"layers": 3}', '{"layers": [1, 2, 1], "colour": "red"}',
     "[" * 100_000, "\udcff"],
    ids=str.__len__,
)  # fmt: skip
def test_what_is_no_config(refused, tmp_path, text):
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    for arguments in (["--resume", tmp_path], ["--config", tmp_path, "--run", tmp_path / "run"]):
        assert "config.json" in refused(train, *arguments)


def test_a_config_takes_the_place_of_a_preset(refused, tiny_run, tmp_path):
    config = tiny_run / "config.json"
    for arguments in (["--preset", "tiny", "--run", tmp_path / "run"], []):
        assert "--run DIR" in refused(train, "--config", config, *arguments)
    assert "no other option" in refused(train, "--config", config, "--resume", tiny_run)


# Videos -----------------------------------------------------------------------------------


class RunsCode:
    """What a pickle makes of this runs code, where it is allowed to."""

    def __reduce__(self):
        return os.mkdir, ("code-has-run",)


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header_that_claims(shape, content=b"1234"):
    """A .npy file with less in it than its header says."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


VIDEO = np.zeros((1, 20, 64, 64), np.uint8)
TERABYTES = (10**9, 20, 64, 64)
BAD_VIDEOS = {
    "empty.npy": b"",
    "empty.npz": b"",
    "cut.npy": saved(VIDEO)[:-1],
    "cut.npz": zipped(videos=saved(VIDEO))[:-9],
    "text.npy": b"not an array",
    "text.npz": b"not an archive",
    "array.npz": saved(np.zeros(3)),
    "texts.npz": zipped(videos=b"text"),
    "nothing.npz": zipped(),
    "many.npz": zipped(a=saved(VIDEO), b=saved(VIDEO)),
    "header.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4', \n",
    "negative.npy": saved(np.zeros((2, 20, 8, 8), np.uint8)).replace(b"(2, ", b"(-2,"),
    "terabytes.npy": header_that_claims(TERABYTES),
    "terabytes.npz": zipped(videos=header_that_claims(TERABYTES)),
    "overflow.npz": zipped(videos=header_that_claims((2**62, 2**62, 64, 64))),
    "gigabytes.npz": zipped(videos=header_that_claims((10**5, 20, 64, 64))),
    "objects.npy": saved(np.array([{}, None])),
    "objects.npz": zipped(videos=saved(np.array([RunsCode()]))),
    "code.npy": pickle.dumps(RunsCode()),
    "rank-2.npy": saved(VIDEO[0, 0]),
    "rank-3.npy": saved(VIDEO[0]),
    "rank-6.npy": saved(VIDEO[..., None, None]),
    "none.npy": saved(VIDEO[:0]),
    "no-frames.npy": saved(VIDEO[:, :0]),
    "one-frame.npy": saved(VIDEO[:, :1]),
    "short.npy": saved(VIDEO[:, :9]),
    "small.npy": saved(VIDEO[..., :4, :4]),
    "odd.npy": saved(VIDEO[..., :50, :50]),
    "colour.npy": saved(np.stack([VIDEO] * 3, axis=-1)),
    "five-channels.npy": saved(np.stack([VIDEO] * 5, axis=-1)),
    "integers.npy": saved(VIDEO.astype(np.int64)),
    "booleans.npy": saved(VIDEO.astype(bool)),
    "complex.npy": saved(VIDEO.astype(complex)),
    "texts.npy": saved(np.full(VIDEO.shape, "a")),
    "records.npy": saved(np.zeros(VIDEO.shape, [("grey", "u1")])),
    "dates.npy": saved(VIDEO.astype("datetime64[s]")),
    "range.npy": saved(np.full(VIDEO.shape, 255.0)),
    "below.npy": saved(np.full(VIDEO.shape, -0.1)),
    "nan.npy": saved(np.full(VIDEO.shape, np.nan)),
    "infinite.npy": saved(np.full(VIDEO.shape, np.inf)),
    "movie.avi": b"RIFF",
    "folder.npy": None,
}
REASONS = {
    "one-frame.npy": "shorter than --context 10",
    "short.npy": "shorter than --context 10",
    "odd.npy": "divisible by 8",
    "colour.npy": "3 channels",
}


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_bad_videos(refused, tiny_run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if BAD_VIDEOS[name] is None:
        Path(name).mkdir()
    else:
        Path(name).write_bytes(BAD_VIDEOS[name])
    for module in (predict, animate):
        line = refused(module, tiny_run, "--data", name, "--out", "out")
        assert REASONS.get(name, name) in line
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert files in ([], [name])  # no result, no half of one


# Models -----------------------------------------------------------------------------------


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


def colour_model(path, _):
    model = models.Forecaster(8, 8, 8, (1, 0, 0), motion_radius=0)
    model.build((None, None, 32, 32, 3))
    model.save(path)


def model_of_nan(path, whole):
    model = keras.models.load_model(whole)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)


BAD_MODELS = {
    "empty.keras": (lambda path, _: path.touch(), "not a .keras model"),
    "text.keras": (lambda path, _: path.write_text("not a model"), "not a .keras model"),
    "folder.keras": (lambda path, _: path.mkdir(), "no best.keras"),
    "log.csv": (lambda path, _: path.write_text("epoch"), "not a .keras model"),
    "weights.h5": (lambda path, _: path.write_text("HDF"), "not a .keras model"),
    "cut.keras": (
        lambda path, whole: path.write_bytes(whole.read_bytes()[:50_000]),
        "may be damaged",
    ),
    "flipped.keras": (
        lambda path, whole: path.write_bytes(whole.read_bytes().replace(b"\0" * 99, b"\1" * 99)),
        "may be damaged",
    ),
    "no-config.keras": (damaged(lambda members: members.pop("config.json")), "may be damaged"),
    "no-weights.keras": (
        damaged(lambda members: members.pop("model.weights.h5")),
        "may be damaged",
    ),
    "half-a-config.keras": (
        damaged(lambda members: members.update({"config.json": "{"})),
        "may be damaged",
    ),
    "list.keras": (
        damaged(lambda members: members.update({"config.json": "[1]"})),
        "may be damaged",
    ),
    "terabytes.keras": (damaged(terabytes_of_weights), "may be damaged"),
    "newer.keras": (reconfigured(attention=True), "another version"),
    "newer-class.keras": (
        reconfigured(class_name="Diffuser", registered_name="next_frame>Diffuser"),
        "another version",
    ),
    "other-filters.keras": (reconfigured(filters=17), "another version"),
    "other-layers.keras": (reconfigured(layers="abc"), "another version"),
    "not-built.keras": (reconfigured(build_config={"input_shape": "x"}), "no weights"),
    "nan.keras": (model_of_nan, "no numbers"),
    "dense.keras": (other_model(keras.layers.Dense(1)), "Sequential"),
    "colour.keras": (colour_model, ""),
    # These want to run code.
    "lambda.keras": (
        other_model(keras.layers.Lambda(lambda x: (os.mkdir("code-has-run"), x)[1])),
        "arbitrary code",
    ),
    "system.keras": (
        reconfigured(
            module="os", class_name="mkdir", registered_name=None, config={"path": "code-has-run"}
        ),
        "another version",
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
        "no weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(refused, tiny_run, tmp_path, monkeypatch, name):
    write, reason = BAD_MODELS[name]
    monkeypatch.chdir(tmp_path)
    write(Path(name), tiny_run / "best.keras")
    if Path("code-has-run").exists():  # while the model was made
        Path("code-has-run").rmdir()
    for line in (
        refused(predict, name, "--out", "out"),
        refused(train, "--init", name, "--run", "run"),
    ):
        assert reason in line and (reason == "" or name in line)
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert files in ([], [name])  # no result, no half of one


# Processes of their own -------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment, command, reason",
    [
        # A terminal without box-drawing characters.
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
         "predict.py --coutn 3", "Unrecognized options: --coutn, 3; see --help"),
        ({"KERAS_BACKEND": "numpy"}, "train.py --preset tiny --run RUN", "KERAS_BACKEND=jax"),
        ({}, "animate.py NOTHING", "no such model"),
    ],
    ids=["locale", "backend", "model"],
)  # fmt: skip
def test_processes_end_in_one_line_and_status_2(tmp_path, environment, command, reason):
    result = subprocess.run(
        [sys.executable, *command.replace("RUN", str(tmp_path / "run")).split()],
        cwd=Path(train.__file__).parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert reason in lines[-1] and "Traceback" not in result.stderr
    assert len(lines) == 1 or environment.get("KERAS_BACKEND") == "numpy", lines
    assert not any(tmp_path.iterdir())
