"""What scripts share: one-line errors, Ctrl-C, files written whole.

Open it to change how scripts start and end.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np

from method.errors import Failure, InputError

# Each of them stops a script in one line.
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
PATIENCE = 5  # seconds after a second Ctrl-C
UNFINISHED = ".unfinished-"  # how the names of files begin that are being written


def run(main):
    """Run `main` with the arguments of the command line.

    Exit status: 0, or 2 for wrong usage or input, or 1 for a failure while running, or
    130 after Ctrl-C. Errors are one line on standard error. The script ends without a word where
    what it prints has no more reader, as with `| head`.
    """

    def end(message, status):
        message = visible(" ".join(str(message).split()))
        with contextlib.suppress(OSError):  # the status still tells if nobody can read the line
            print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
        sys.exit(status)

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that a console cannot show costs no result
            stream.reconfigure(errors="replace")
    try:
        main()
    except InputError as error:
        end(error, 2)
    except KeyboardInterrupt as interrupt:
        end(f"stopped{interrupt}", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes in the end
        sys.exit(1)
    except OSError as error:
        end(reason(error), 1)
    except Failure as error:
        end(error, 1)
    except Exception as error:
        # JAX, TensorFlow, and NumPy when it makes videos, each have their own name for this.
        names = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError")
        if not any(name in f"{type(error)} {error}" for name in names):
            raise
        end("out of memory: smaller frames may fit, or in training a smaller --batch-size", 1)


def reason(error):
    """An OSError as a person would say it: without its number."""
    return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)


def visible(text):
    """A text with escapes for what steers a terminal, or is no text: names hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def say(*lines):
    """Print lines that may hold names."""
    print(*map(visible, lines), sep="\n", flush=True)


def option(field):
    """A field of a config as its option is typed: "batch_size" -> "--batch-size"."""
    return f"--{field.replace('_', '-')}"


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


def refuse_input(output, *inputs):
    """Raise an InputError if a file to be written is one that is read, however it is spelt."""
    for path in inputs:
        both = path and os.path.exists(path) and os.path.exists(output)
        if both and os.path.samefile(output, path):
            raise InputError(f"{output} is an input, and would be overwritten: name another place")


@contextlib.contextmanager
def stop_politely():
    """Within, a first Ctrl-C interrupts nothing: the function that is yielded tells of it.

    Otherwise Python raises KeyboardInterrupt wherever it is, and libraries that have it
    raised in their callbacks lose it or make another error of it. A second Ctrl-C does that, and
    ends the process if no KeyboardInterrupt is raised within PATIENCE.
    """
    asked, ended = threading.Event(), threading.Event()

    def note(number, _):
        asked.set()
        signal.signal(number, signal.default_int_handler)

    def wait_for_press():
        """Whether a signal that stops came before the end."""
        while number := os.read(reading, 1):
            if number[0] in STOPPING:
                return True
        return False

    def answer():
        # At once, by a thread of its own: Python calls `note` only when the step, which may take
        # half a minute, has returned to it.
        if wait_for_press():
            os.write(2, b"\nstopping after this step; once more to stop at once\n")
        if wait_for_press() and not ended.wait(PATIENCE):
            os._exit(130)  # the step does not return

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup_before = signal.set_wakeup_fd(writing)  # each signal now writes a byte there
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, note)
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield asked.is_set
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        ended.set()
        os.close(writing)  # ends the thread
        thread.join()
        os.close(reading)


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
    except OSError as error:
        if str(error.filename) == str(temporary):
            error.filename = path  # the name that a person knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_npz(path, arrays):
    """Write a compressed .npz file part by part, so that no array need be in memory as a whole.

    Args:
        path: the file.
        arrays: for each name (shape, dtype, an iterable of parts along the first axis).
    """
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, (shape, dtype, parts) in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
                np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
                for part in parts:
                    file.write(np.ascontiguousarray(part, dtype).data)
