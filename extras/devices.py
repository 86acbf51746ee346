"""Train on several devices, in one process or in several, on one host or on several.

    train.py --devices all                                     every GPU of this host
    srun train.py --devices all                                every process that Slurm starts
    train.py --devices all --coordinator HOST:PORT --process-id 0 --process-count 2

Data parallelism, by `keras.distribution` on the JAX backend: every device holds the whole
model and takes its share of a batch, and the gradients are averaged over all of them. What
is trained depends on the batch, and not on how many devices share it.

The processes of a run are equals: each makes its own share of the videos and forecasts the
same validation videos. Process 0 alone writes and prints.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback

from extras.cli import Failure, InputError, silent_libraries  # comes before Keras

import keras
import numpy as np

# Which of a run's processes this is, and how many there are; `start` sets them.
process, processes = 0, 1


def start(devices, coordinator=None, process_id=None, process_count=None):
    """Join a run's other processes, if there are any, and choose the devices to train on.

    To be called before anything else makes JAX look for its devices.

    Args:
        devices: "all", or how many, as a string.
        coordinator: "HOST:PORT" of process 0, which listens there.
        process_id, process_count: which process this is, and of how many, as strings.
            Without these three the launcher says so (JAX knows Slurm, Open MPI, Kubernetes
            and Cloud TPU), and if there is none, this process is alone. With a
            `process_count` of 1 it is alone in any case.

    Returns:
        A `keras.distribution.DataParallel` over the devices of all processes.

    Raises:
        InputError: these cannot be used, or not together.
        Failure: the processes cannot reach each other.
    """
    global process, processes
    if keras.backend.backend() != "jax":
        raise InputError("--devices needs the JAX backend: KERAS_BACKEND=jax python train.py ...")
    numbers = {"--devices": devices, "--process-id": process_id, "--process-count": process_count}
    for name, number in numbers.items():
        if number and not number.isdecimal() and (name, number) != ("--devices", "all"):
            raise InputError(f"{name} {number}: should be a number")
    given = [coordinator, process_id, process_count]
    if process_count != "1":
        if any(given) and not all(given):
            raise InputError("--coordinator, --process-id and --process-count go together")
        connect(*given)
        # Keras has these for itself only. What a distribution shows of them, `num_processes`
        # and `data_shard_id`, came after Keras 3.13.
        from keras.src.backend import distribution_lib

        process, processes = distribution_lib.process_id(), distribution_lib.num_processes()
    if processes > 1 and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":  # see cli.py
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if process > 0:
        sys.stdout = open(os.devnull, "w")

    available = keras.distribution.list_devices()
    if devices == "all":
        devices = len(available)
    elif processes > 1:
        raise InputError(f"--devices {devices}: several processes take all of theirs: say all")
    if not 1 <= int(devices) <= len(available):
        raise InputError(f"--devices {devices}: there are {len(available)}, from {available[0]} on")
    return keras.distribution.DataParallel(
        devices=available[: int(devices)], auto_shard_dataset=False
    )


def connect(coordinator, process_id, process_count):
    """Meet the other processes; return without, if nobody says that there are any."""
    # If there is no seed yet, Keras lets the processes agree on one; training sets its own.
    with silent_libraries():  # this loads TensorFlow, too, where there is one
        keras.utils.set_random_seed(0)
    if coordinator and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"--coordinator {coordinator}: should be HOST:PORT")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)  # Python's errors, and nobody else's
    at_abort = ctypes.CDLL(None).signal
    at_abort(int(signal.SIGABRT), abort_handler)
    try:
        with silent_libraries():
            keras.distribution.initialize(
                coordinator, process_count and int(process_count), process_id and int(process_id)
            )
    except ValueError as error:
        at_abort(int(signal.SIGABRT), None)  # there is no other process
        if coordinator:
            raise InputError(f"--coordinator {coordinator}: {error}") from None
    except RuntimeError as error:
        raise Failure(f"the processes of the run cannot meet: {error}") from None


# When one process ends --------------------------------------------------------------------

ending = threading.Lock()  # whoever has it ends the process, in one line


def end_for_want_of_another(*_):
    """End this process, for it cannot go on."""
    ending.acquire()
    program = os.path.basename(sys.argv[0])
    message = "another process of this run has ended, or its host cannot be reached: see what it "
    print(
        f"{program}: {message}says; --resume goes on, with any number of processes",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


# For JAX's client, which asks process 0 who is alive. When process 0 is gone or never comes, or
# says that another one is gone (after 100 seconds without a sign of life), the client writes a
# page to descriptor 2 and calls abort(). A signal handler of Python's would run after that, which
# is never; so this is one of C's, and must live as long as the process.
abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end_for_want_of_another)


@contextlib.contextmanager
def ending_together():
    """Around a program: if this process fails, it ends at once, and so the others do, too.

    Without an error, JAX has it wait at its end until the others have come to theirs.
    """
    try:
        yield
    except (SystemExit, Exception) as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if processes == 1 or status == 0:
            raise
        if not isinstance(error, SystemExit):
            # The libraries by which gradients are exchanged between CPUs and between GPUs.
            if any(name in str(error) for name in ("Gloo", "NCCL")):
                end_for_want_of_another()
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


# While they train -------------------------------------------------------------------------


@contextlib.contextmanager
def over(distribution):
    """Within, new variables and `fit` belong to a distribution; None: to the first device."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(distribution)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def meet(distribution):
    """Wait until all processes have come here."""
    if processes == 1:
        return
    everywhere = keras.distribution.TensorLayout([None], distribution.device_mesh)
    # What lies on all devices must be the same, so JAX compares it between the processes.
    keras.distribution.distribute_tensor(np.zeros(1, "float32"), everywhere)


def own_rows(batch_size, parts, part):
    """The rows of a batch that this process makes for one of the parts it is trained in.

    Args:
        batch_size: rows of a batch, of all processes together.
        parts: how many parts a batch is divided into, one after the other.
        part: which of them, from 0 on.

    Returns:
        A slice.
    """
    rows = batch_size // (parts * processes)
    start = (part * processes + process) * rows
    return slice(start, start + rows)
