"""How scripts start and end: quiet, in one line, after Ctrl-C, and with whole files."""

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import data
import model as models
import train
from extras import cli
from extras.cli import Failure, InputError
from helpers import QUICK, SMALL

ROOT = Path(data.__file__).parent


def python(*arguments, **environment):
    """Run Python in the project's folder, in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )


# Errors in one line -----------------------------------------------------------------------


class ResourceExhaustedError(Exception):  # as TensorFlow's and JAX's are, no Python error
    pass


@pytest.mark.parametrize(
    "error, status, line",
    [
        (InputError("no such\n  file"), 2, "no such file"),
        (Failure("no connection"), 1, "no connection"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError("Unable to allocate 80 GiB"), 1, "out of memory: smaller frames may fit"),
        (ResourceExhaustedError("80 GiB"), 1, "out of memory: smaller frames may fit"),
        (RuntimeError("RESOURCE_EXHAUSTED: 80 GiB"), 1, "out of memory: smaller frames may fit"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_script_that_fails_says_why_in_one_line(capsys, monkeypatch, error, status, line):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["/somewhere/script.py"])
    with pytest.raises(SystemExit) as exit:
        cli.run(main)
    assert exit.value.code == status
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith(f"script.py: {line}") and errors.count("\n") == 1


def test_a_fault_of_ours_shows_where_it_is():
    def main():
        raise ValueError("a mistake in the code")

    with pytest.raises(ValueError, match="a mistake in the code"):
        cli.run(main)


@pytest.mark.parametrize(
    "environment, command, reason",
    [
        # A terminal without box-drawing characters.
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
         "predict.py --coutn 3", "--coutn"),
        ({"KERAS_BACKEND": "numpy"}, "train.py --preset tiny --run RUN", "KERAS_BACKEND=jax"),
        ({}, "animate.py NOTHING", "no such model"),
        pytest.param(
            {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""},
            "train.py --preset tiny --run RUN", "JAX_PLATFORMS",
            marks=pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs JAX"),
        ),
    ],
    ids=["locale", "backend", "model", "device"],
)  # fmt: skip
def test_processes_end_in_status_2_without_a_traceback(tmp_path, environment, command, reason):
    result = python(*command.replace("RUN", str(tmp_path / "run")).split(), **environment)
    assert result.returncode == 2, result.stderr
    assert reason in result.stderr and "Traceback" not in result.stderr
    assert not any(tmp_path.iterdir())


# The start --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, reason",
    [
        ("sys.version_info = (3, 10, 13)", "this needs Python 3.11 or 3.12"),
        ("sys.modules['tyro'] = sys.modules['skimage'] = None", "not installed: skimage, tyro."),
    ],
    ids=["python", "packages"],
)
def test_what_must_be_installed_is_named_in_one_line(code, reason):
    result = python("-c", f"import sys; {code}; import animate")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(reason) and sys.executable in line


def test_every_required_package_is_looked_for():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line.split(">=")[0] for line in lines if not line.startswith("#")}
    distributions = importlib.metadata.packages_distributions()
    found = {distributions[package][0].lower() for package in cli.PACKAGES}
    assert found == required - {"tensorflow"}  # JAX may take its place


def test_a_keras_that_is_too_old_is_named_in_one_line():
    code = "import keras; keras.__version__ = '3.12.4'; import train"
    result = python("-c", code, KERAS_BACKEND="numpy")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "Keras 3.12.4 is installed" in line and "pip install -r requirements.txt" in line
    needed = f"keras>={cli.KERAS_NEEDED}"
    assert f"Keras {cli.KERAS_NEEDED} or later" in line
    assert needed in (ROOT / "requirements.txt").read_text().splitlines()


def test_a_backend_that_is_missing_is_named_in_one_line():
    result = python("-c", "import data", KERAS_BACKEND="mxnet")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "cannot start its backend" in line and "KERAS_BACKEND" in line


def forecast_and_loss():
    keras.utils.set_random_seed(1)
    model = train.build_model(SMALL)
    context = np.random.default_rng(0).random((1, 2, 32, 32, 1), "float32")
    inputs, targets = train.ClosedLoopVideos(QUICK)[0]
    loss = train.ClosedLoop(train.build_model(QUICK), QUICK).train_on_batch(inputs, targets)
    return {"forecast": models.rollout(model, context, 3), "loss": loss}


@pytest.fixture(scope="module")
def expected():
    return forecast_and_loss()


@pytest.mark.parametrize("floatx", ["float16", pytest.param("float64", marks=pytest.mark.slow)])
def test_keras_json_changes_nothing(tmp_path, expected, floatx):
    """A person's settings for other projects are not for this one."""
    settings = {"image_data_format": "channels_first", "floatx": floatx}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    result = python(
        "-c",
        "import sys, test_cli; test_cli.np.savez(sys.argv[1], **test_cli.forecast_and_loss())",
        tmp_path / "forecast.npz",
        KERAS_HOME=str(tmp_path),
        KERAS_BACKEND=keras.backend.backend(),
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    got = np.load(tmp_path / "forecast.npz")
    assert got["forecast"].dtype == np.float32
    np.testing.assert_array_equal(got["forecast"], expected["forecast"])
    assert got["loss"] == expected["loss"]


# Folders and files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="name another folder"):
        cli.make_folder(tmp_path / name)


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path):
    for _ in range(2):
        cli.make_folder(tmp_path / "a" / "b")
        assert not any((tmp_path / "a" / "b").iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "text.json"
    with cli.atomic_write(path) as temporary:
        assert temporary.suffix == ".json"  # writers choose a format by it
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), cli.atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["text.json"]
    with cli.atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["text.json"]


def test_a_locked_folder_is_refused_and_free_again_afterwards(tmp_path):
    for _ in range(2):
        with cli.folder_lock(tmp_path):
            message = f"another process is writing to {tmp_path}"
            with pytest.raises(InputError, match=message), cli.folder_lock(tmp_path):
                pass


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / "samples").mkdir()
    names = (f"{cli.UNFINISHED}1-a.keras", f"samples/{cli.UNFINISHED}1-b.png", "c.keras")
    for name in names:
        (tmp_path / name).touch()
    with cli.folder_lock(tmp_path):
        files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert files == {"c.keras", ".lock"}


def test_what_another_run_below_is_writing_stays(tmp_path):
    unfinished = tmp_path / "run" / f"{cli.UNFINISHED}1-best.keras"
    unfinished.parent.mkdir()
    unfinished.touch()
    with cli.folder_lock(tmp_path):
        assert unfinished.exists()


# Ctrl-C -----------------------------------------------------------------------------------


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), cli.polite_ctrl_c() as pressed:
            assert not pressed()
            signal.raise_signal(signal.SIGINT)
            assert pressed()
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_gets_no_ctrl_c():
    seen = []

    def ask():
        with cli.polite_ctrl_c() as pressed:
            seen.append(pressed())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [False]
