"""What scripts share: the backend's environment, one-line errors, Ctrl-C, files written whole.

Open it to change how scripts start and end. Every other file imports this one before Keras,
because a backend reads its environment variables once, while it is imported.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

# What requirements.txt installs, by the names to import; Keras itself speaks for its backend.
PACKAGES = ("PIL", "filelock", "keras", "matplotlib", "numpy", "pydantic", "skimage", "tyro")

if sys.version_info < (3, 11):  # noqa: UP036, whoever starts it may have an older one
    sys.exit(
        f"this needs Python 3.11 or 3.12, and {sys.executable} is Python {sys.version.split()[0]}: "
        "make a virtual environment with one of them, as by python3.12 -m venv .venv"
    )
missing = [package for package in PACKAGES if not importlib.util.find_spec(package)]
if missing:
    sys.exit(
        f"not installed: {', '.join(missing)}. Activate your virtual environment, or run "
        f"{sys.executable} -m pip install -r requirements.txt"
    )

import filelock

# TensorFlow's start-up notes bury our own first lines. Set this to 0 to read them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Take GPU memory as it is needed, so that other programs on the GPU keep running.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@contextlib.contextmanager
def silent_libraries():
    """Keep what compiled libraries write straight to the error output, descriptor 2, quiet."""
    error_output = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(error_output, 2)
        os.close(nowhere)
        os.close(error_output)


KERAS_NEEDED = "3.13"  # also in requirements.txt; before it, Muon and `remat` are not there

# While they load, TensorFlow's libraries heed no level. Python's errors still show: they are
# raised, and printed later.
quiet = os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
try:
    with silent_libraries() if quiet else contextlib.nullcontext():
        import keras
except (ImportError, ValueError) as error:
    sys.exit(
        f"Keras cannot start its backend ({error}): set KERAS_BACKEND to an installed one, "
        "tensorflow or jax; pip install -r requirements.txt brings TensorFlow"
    )
if tuple(map(int, keras.__version__.split(".")[:2])) < tuple(map(int, KERAS_NEEDED.split("."))):
    sys.exit(
        f"this needs Keras {KERAS_NEEDED} or later, and Keras {keras.__version__} is installed: "
        "pip install -r requirements.txt"
    )
if keras.backend.backend() not in ("tensorflow", "jax"):
    print("this needs KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax", file=sys.stderr)
    sys.exit(2)
# A person's ~/.keras/keras.json may say otherwise. Channels are last in every array of ours.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")


UNFINISHED = ".unfinished-"  # how the names of files begin that are being written


class InputError(ValueError):
    """Something that the user gave us cannot be used; the message says what to do."""


class Failure(RuntimeError):
    """Something went wrong while running; the message says what to do."""


def run(main):
    """Run `main` with the arguments of the command line.

    Exit status: 0, or 2 for wrong usage or input, or 1 for a failure while running, or
    130 after Ctrl-C. Errors are one line on standard error.
    """

    def end(message, status):
        message = " ".join(str(message).split())
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
        sys.exit(status)

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that a console cannot show costs no result
            stream.reconfigure(errors="replace")
    try:
        main()
    except InputError as error:
        end(error, 2)
    except KeyboardInterrupt:
        end("stopped", 130)
    except (Failure, OSError) as error:
        end(error, 1)
    except Exception as error:
        # JAX, TensorFlow, and NumPy when it makes videos, each have their own name for this.
        names = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError")
        if not any(name in f"{type(error)} {error}" for name in names):
            raise
        end("out of memory: smaller frames may fit, or in training a smaller --batch-size", 1)


def make_folder(path):
    """Make a folder to write to, before hours of work are done for it.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}): name another folder"
        ) from None


@contextlib.contextmanager
def polite_ctrl_c():
    """Within, a first Ctrl-C interrupts nothing: the function that is yielded tells of it.

    Otherwise Python raises KeyboardInterrupt wherever it is, and libraries that have it
    raised in their callbacks lose it or make another error of it. A second Ctrl-C does that.
    """
    pressed = threading.Event()

    def note(*_):
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def folder_lock(folder):
    """Keep other processes out of a folder, and remove what killed ones left unfinished in it.

    That is in the folder and in its `samples`; deeper ones may be the folders of other runs.

    The operating system drops the lock when a process ends, in whatever way it ends.

    Raises:
        InputError: another process is in there, or nothing can be written there.
    """
    folder = Path(folder)
    make_folder(folder)
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            unfinished = [*folder.glob(f"{UNFINISHED}*"), *folder.glob(f"samples/{UNFINISHED}*")]
            for leftover in unfinished:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield
    except filelock.Timeout:
        raise InputError(
            f"another process is writing to {folder}: let it end, or name another folder"
        ) from None


@contextlib.contextmanager
def atomic_write(path):
    """Yield a temporary path beside `path`; rename it to `path` once all went well.

    Whoever reads `path` finds the old file or the new one, never half of one. The
    temporary name keeps the ending of `path`, since writers choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:  # on the disk first, for the power may fail
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
