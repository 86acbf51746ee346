"""How scripts start and end: quiet, in one line, after Ctrl-C, and with whole files."""

import importlib.util
import os
import signal
import subprocess
import sys
import unittest.mock
from pathlib import Path

import pytest

import data
from extras import cli
from extras.cli import InputError

ROOT = Path(data.__file__).parent


def started(*arguments, **environment):
    """Start Python in the project's folder, in a process of its own that hears Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever starts the tests in the background has them ignore some signals.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in cli.STOPPING],  # noqa: PLW1509
    )


def ended(process):
    """-> exit status, output, error output."""
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def python(*arguments, **environment):
    return ended(started(*arguments, **environment))


# Errors in one line -----------------------------------------------------------------------


class ResourceExhaustedError(Exception):  # as TensorFlow's and JAX's are, no Python error
    pass


@pytest.mark.parametrize(
    "error, status, line",
    [
        (InputError("no such\n  file"), 2, "no such file"),
        (InputError("\x1b[2J\udcff\u202e"), 2, r"\x1b[2J\udcff\u202e"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError(13, "Permission denied", "a.npy"), 1, "a.npy: Permission denied"),
        (KeyboardInterrupt(), 130, "stopped"),
        (KeyboardInterrupt("; go on with"), 130, "stopped; go on with"),
        (MemoryError("Unable to allocate 80 GiB"), 1, "out of memory: smaller frames may fit"),
        (ResourceExhaustedError("80 GiB"), 1, "out of memory: smaller frames may fit"),
    ],
    ids=repr,
)
def test_a_script_that_fails_says_why_in_one_line(capsys, monkeypatch, error, status, line):
    monkeypatch.setattr(sys, "argv", ["/somewhere/script.py"])
    with pytest.raises(SystemExit) as exit:
        cli.run(unittest.mock.Mock(side_effect=error))
    assert exit.value.code == status
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith(f"script.py: {line}") and errors.count("\n") == 1
    with pytest.raises(ValueError, match="a mistake in the code"):  # which shows where it is
        cli.run(unittest.mock.Mock(side_effect=ValueError("a mistake in the code")))


@pytest.mark.parametrize(
    "before, main, ended",
    [
        ("pass", "raise_signal(SIGTERM)", (130, "", "-c: stopped\n")),
        # What `nohup` ignores stays ignored.
        ("signal(SIGHUP, SIG_IGN)", "print(raise_signal(SIGHUP))", (0, "None\n", "")),
        # A console that cannot show a name costs no result.
        ("name = '\\u043a\\u043b.mp4'", "print(name) or print(name, file=sys.stderr)",
         (0, *2 * ["??.mp4\n"])),
        # Whoever reads no further, as `head`, has been answered.
        ("import os; reading, writing = os.pipe(); os.close(reading); os.dup2(writing, 1)",
         "print(1, flush=True)", (1, "", "")),
    ],
)  # fmt: skip
def test_what_a_script_survives_and_what_ends_it(before, main, ended):
    code = f"import sys; from signal import *; {before}; from extras import cli; "
    environment = {"PYTHONIOENCODING": "cp1252:strict"}
    assert python("-c", f"{code}cli.run(lambda: {main})", **environment) == ended


# The start --------------------------------------------------------------------------------


needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is missing")


@pytest.mark.parametrize(
    "before, command, ended_in, reasons",
    [
        ("pass", "animate.py NOTHING --out FOLDER", 2, ["no such model"]),
        ("sys.version_info = (3, 10, 13)", "train.py", 1, ["needs Python 3.11", sys.executable]),
        ("sys.modules['tyro'] = sys.modules['skimage'] = None",
         "train.py", 1, ["not installed: skimage, tyro.", sys.executable]),
        ("sys.modules['keras'] = types.SimpleNamespace(__spec__=1, __version__='3.12.4')",
         "train.py", 1, ["Keras 3.12.4 is installed", "pip install -r requirements.txt"]),
        ("os.environ['KERAS_BACKEND'] = 'mxnet'",
         "train.py", 1, ["cannot start its backend", "set KERAS_BACKEND to an installed one"]),
        pytest.param(
            "os.environ.update(KERAS_BACKEND='jax', JAX_PLATFORMS='cuda', CUDA_VISIBLE_DEVICES='')",
            "train.py --preset tiny --run FOLDER/run", 2, ["JAX_PLATFORMS"], marks=needs_jax),
    ],
    ids=["model", "python", "packages", "old Keras", "unknown backend", "device"],
)  # fmt: skip
def test_what_is_missing_is_named_in_one_line(tmp_path, before, command, ended_in, reasons):
    arguments = command.replace("FOLDER", str(tmp_path)).split()
    code = f"import os, runpy, sys, types; sys.argv = {arguments}; {before}; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    status, output, errors = python("-c", code, TF_CPP_MIN_LOG_LEVEL="3")
    assert status == ended_in and output == "", errors
    (line,) = errors.splitlines()
    assert line.startswith(f"{arguments[0]}: ") and all(reason in line for reason in reasons), line
    assert not any(tmp_path.iterdir())


def loading(folder, code):
    """An environment in which TensorFlow does that while it loads."""
    (folder / "tensorflow.py").write_text(code)
    return {"PYTHONPATH": str(folder), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.mark.parametrize("end", ["os.abort()", "raise ImportError('numpy.core')"])
def test_a_backend_that_fails_while_it_loads_shows_its_last_words(tmp_path, end):
    words = "compiled to use AVX instructions\n"
    environment = loading(tmp_path, f"import os\nos.write(2, {words.encode()})\n{end}")
    status, output, errors = python("train.py", "--help", **environment)
    assert status != 0 and output == ""
    assert errors.startswith(words) and "Traceback" not in errors
    assert "raise" not in end or "Keras cannot start its backend (numpy.core)" in errors


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_while_libraries_load_ends_in_one_line(tmp_path, name):
    """Also in a library that would lose it, and with what it has written so far left out."""
    code = f"""
import os, pathlib, time
os.write(2, b"a note of the library's\\n")
pathlib.Path({str(tmp_path / "loading")!r}).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""
    process = started("data.py", "--out", tmp_path / "out", **loading(tmp_path, code))
    while not (tmp_path / "loading").exists():
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, getattr(signal, name))  # as a terminal does it
    status, output, errors = ended(process)
    assert (status, output, errors.strip()) == (130, "", "stopped")
    assert not (tmp_path / "out").exists()


def test_the_first_ctrl_c_is_answered_at_once_and_the_second_interrupts(capfd):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` has it
        for first in ("SIGINT", "SIGTERM"):
            with pytest.raises(KeyboardInterrupt), cli.stop_politely() as asked:
                signal.raise_signal(signal.SIGHUP)
                assert not asked()
                signal.raise_signal(getattr(signal, first))
                assert asked()
                signal.raise_signal(getattr(signal, first))
            assert capfd.readouterr().err.count("stopping after this step") == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_second_ctrl_c_ends_what_does_not_return():
    code = """
import hashlib
from extras import cli
cli.PATIENCE = 0.1
with cli.stop_politely():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)  # minutes
"""
    process = started("-c", code)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert "once more to stop" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "text.json"
    with cli.atomic_write(path) as temporary:
        assert temporary.suffix == ".json"  # writers choose a format by it
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), cli.atomic_write(path) as temporary:
        temporary.write_text("half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(path.parent) == ["text.json"]
    with pytest.raises(FileNotFoundError) as missing, cli.atomic_write(path):
        pass  # nothing has been written
    assert missing.value.filename == path
