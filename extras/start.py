"""What a script needs before it imports anything else. Only scripts import this file."""

import contextlib
import importlib.util
import os
import signal
import sys

# What requirements.txt installs, by the names to import; Keras itself speaks for its backend.
PACKAGES = ("PIL", "h5py", "imageio", "keras", "matplotlib", "numpy", "pydantic", "skimage", "tyro")
KERAS_NEEDED = (3, 13, 2)  # also in requirements.txt, which says why


for name in ("stdin", "stdout", "stderr"):  # in the order of their descriptors
    if getattr(sys, name) is None:  # closed, as by 2>&-
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))

error_output = os.dup(2)
held_back = None  # where error output goes while libraries load, see `quiet`
LOADED = b"loaded"


def stop(*_):
    if held_back is not None:
        os.write(held_back, LOADED)
    os.write(error_output, b"\nstopped\n")
    os._exit(130)


# While libraries load there is nothing to lose, and some of them would lose the interrupt instead.
# `cli.run` takes over.
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
        signal.signal(getattr(signal, name), stop)


def end(message):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


if sys.version_info < (3, 11):  # noqa: UP036, whoever starts it may have an older one
    end(
        f"this needs Python 3.11 to 3.13, and {sys.executable} is Python "
        f"{sys.version.split()[0]}: make a virtual environment with one of them, as by "
        "python3.12 -m venv .venv"
    )
missing = [package for package in PACKAGES if not importlib.util.find_spec(package)]
if missing:
    end(
        f"not installed: {', '.join(missing)}. Activate your virtual environment, or run "
        f"{sys.executable} -m pip install -r requirements.txt"
    )


# Pictures are files here. A notebook hands its own backend to the programs that it starts.
os.environ["MPLBACKEND"] = "agg"


@contextlib.contextmanager
def quiet():
    """Hold back what libraries write to the error output; show it if they fail or kill the process.

    TensorFlow ignores the log level while it loads.
    """
    global held_back
    reading, held_back = os.pipe()
    if os.fork() == 0:  # a process that still lives when this one has been killed
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        os.close(held_back)
        text = open(reading, "rb").read()
        if not text.endswith(LOADED):
            os.write(2, text)
        os._exit(0)
    os.close(reading)
    os.dup2(held_back, 2)
    try:
        yield
        os.write(held_back, LOADED)
    finally:
        os.dup2(error_output, 2)
        os.close(held_back)
        held_back = None
        os.wait()


def load_keras():
    """Import Keras and its backend quietly; end the script in one line if that fails."""
    # TensorFlow's start-up notes bury our own first lines. Set this to 0 to read them.
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Take GPU memory as it is needed, so that other programs on the GPU keep running.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    wants_quiet = level == "3" and hasattr(os, "fork")  # not on Windows
    try:
        with quiet() if wants_quiet else contextlib.nullcontext():
            import keras
    except (ImportError, ValueError) as error:
        end(
            f"Keras cannot start its backend ({error}): set KERAS_BACKEND to an installed one, "
            "tensorflow or jax; pip install -r requirements.txt brings TensorFlow"
        )
    if tuple(int(part) for part in keras.__version__.split(".")[:3]) < KERAS_NEEDED:
        needed = ".".join(map(str, KERAS_NEEDED))
        end(
            f"this needs Keras {needed} or later, and Keras {keras.__version__} is installed: "
            "pip install -r requirements.txt"
        )
    if keras.backend.backend() not in ("tensorflow", "jax"):
        end(f"KERAS_BACKEND is {keras.backend.backend()}: this needs tensorflow or jax")
