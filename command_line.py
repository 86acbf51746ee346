"""What the scripts share as programs: a quiet start, one-line errors, files written whole.

Nothing here is about video. Every other file imports this one before Keras, because a
backend reads its environment variables once, while it is imported.
"""

import contextlib
import os
import sys
from pathlib import Path

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


# While they load, TensorFlow's libraries heed no level. Python's errors still show: they are
# raised, and printed later.
with silent_libraries() if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" else contextlib.nullcontext():
    import keras  # noqa: F401


class InputError(ValueError):
    """Something that the user gave us cannot be used; the message says what to do."""


class Failure(RuntimeError):
    """Something went wrong while running; the message says what to do."""


def run(main):
    """Run `main` with the arguments of the command line.

    `main` is a function whose signature and docstring make the options and `--help`.
    Exit status: 0, or 2 for wrong usage or input, or 1 for a failure while running, or
    130 after Ctrl-C. Errors are one line on standard error.
    """
    script = Path(sys.argv[0]).name
    try:
        main()
    except InputError as error:
        print(f"{script}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{script}: stopped", file=sys.stderr)
        sys.exit(130)
    except (Failure, OSError, MemoryError) as error:
        print(f"{script}: {error or 'out of memory'}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary path beside `path`; rename it to `path` once all went well.

    Whoever reads `path` finds the old file or the new one, never half of one. The
    temporary name keeps the ending of `path`, since writers choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
