"""Train on several devices, in one process or several, on one host or several.

    train.py --devices all                                     every GPU of this host
    srun train.py --devices all                                every process that Slurm starts
    train.py --devices all --coordinator HOST:PORT --process-id 0 --process-count 2

Skip this file until you have more than one. Data parallelism, by `keras.distribution` on the JAX
backend: every device holds the whole model and takes its share of a batch, and the gradients are
averaged over all of them. What is trained depends on the batch, and not on how many devices share
it. The processes of a run are equals: each draws the whole batch and keeps its share, and forecasts
the same validation videos. Process 0 alone writes and prints.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from pathlib import Path

import keras

from extras.cli import Failure, InputError

# Which of a run's processes this is, and how many there are; `start` sets them.
process, processes = 0, 1


@dataclasses.dataclass(frozen=True)
class Devices:
    """Several devices, hosts or processes; needs KERAS_BACKEND=jax."""

    devices: str | None = None
    """`all`, or how many of this host's, to share each batch."""
    coordinator: str | None = None
    """HOST:PORT of process 0; launchers tell it: Slurm, Open MPI, Kubernetes, Cloud TPU."""
    process_id: int | None = None
    """Which of the processes this is, from 0 on."""
    process_count: int | None = None
    """How many there are; 1: this one is alone, whatever a launcher says."""


def start(options, batch_size):
    """Join a run's other processes, if there are any, and choose the devices to train on.

    To be called before anything else makes JAX look for its devices.

    Args:
        options: a `Devices`.
        batch_size: videos in a batch, which the devices will share.

    Keras's distribution is then a `DataParallel` over the devices of all processes.

    Raises:
        InputError: these cannot be used, or not together.
        Failure: the processes cannot reach each other.
    """
    global process, processes
    given = [options.coordinator, options.process_id, options.process_count]
    if options.devices is None:
        if given != [None, None, None]:
            raise InputError("--coordinator, --process-id and --process-count need --devices all")
        available = len(list_devices())
        if available > 1:
            print(f"Only the first of {available} devices is used; --devices all uses them all.")
        return
    if keras.backend.backend() != "jax":
        raise InputError("--devices needs the JAX backend: KERAS_BACKEND=jax python train.py ...")
    if options.devices != "all" and not options.devices.isdecimal():
        raise InputError(f"--devices {options.devices}: should be `all` or a number")
    if options.process_count != 1:
        if given != [None, None, None] and None in given:
            raise InputError("--coordinator, --process-id and --process-count go together")
        connect(*given)
        # Keras has these for itself only. What a distribution shows of them, `num_processes`
        # and `data_shard_id`, came after Keras 3.13.
        from keras.src.backend import distribution_lib

        process, processes = distribution_lib.process_id(), distribution_lib.num_processes()
    if process > 0:
        sys.stdout = open(os.devnull, "w")

    available = list_devices()
    count = len(available) if options.devices == "all" else int(options.devices)
    if processes > 1 and options.devices != "all":
        raise InputError(f"--devices {count}: several processes take all of theirs: say all")
    if not 1 <= count <= len(available):
        raise InputError(f"--devices {count}: there are {len(available)}, from {available[0]} on")
    if batch_size % count:
        raise InputError(f"--batch-size {batch_size} cannot be shared equally by {count} devices")
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=available[:count], auto_shard_dataset=False)
    )


def list_devices():
    """Names of the backend's devices. Raises InputError: JAX_PLATFORMS asks for others."""
    try:
        return keras.distribution.list_devices()
    except (AssertionError, RuntimeError) as error:  # JAX's; the first is raised without a word
        raise InputError(
            "JAX cannot use the devices that JAX_PLATFORMS names: unset it to take those that are "
            f"there. {error}"
        ) from None


def computes_bfloat16():
    """Whether TensorFlow multiplies in bfloat16 faster than in float32 on this CPU (Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    # Intel's AVX512_BF16 alone, without AMX, was slower than float32; AMD's was faster.
    fast = "amx_bf16" in text or ("AuthenticAMD" in text and "avx512_bf16" in text)
    on_cpu = list_devices()[0].startswith("cpu")
    return fast and on_cpu and keras.backend.backend() == "tensorflow"


def connect(coordinator, process_id, process_count):
    """Meet the other processes; return without, if nobody says that there are any."""
    # If there is no seed yet, Keras lets the processes agree on one; training sets its own.
    keras.utils.set_random_seed(0)
    if coordinator and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"--coordinator {coordinator}: should be HOST:PORT")
    try:
        keras.distribution.initialize(coordinator, process_count, process_id)
    except ValueError as error:
        if coordinator:
            raise InputError(f"--coordinator {coordinator}: {error}") from None
    except RuntimeError as error:
        raise Failure(f"the processes of the run cannot meet: {error}") from None


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
        # The libraries by which gradients are exchanged between CPUs and between GPUs.
        if any(name in str(error) for name in ("Gloo", "NCCL")):
            print(
                f"{os.path.basename(sys.argv[0])}: another process of this run has ended, or its "
                "host cannot be reached: see what it says; --resume goes on, with any number of "
                "processes",
                file=sys.stderr,
            )
        elif not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def in_use():
    """Names of the devices that a run trains on."""
    distribution = keras.distribution.distribution()
    return distribution.device_mesh.devices.tolist() if distribution else list_devices()[:1]


@contextlib.contextmanager
def alone():
    """Within, new variables and computations belong to this process's first device alone."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


class Share(keras.utils.PyDataset):
    """The rows of each batch that belong to this process; see `share`."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        def rows(array):
            count = len(array) // processes
            return array[process * count : (process + 1) * count]

        return keras.tree.map_structure(rows, self.batches[index])


def share(batches):
    """A `PyDataset` of whole batches -> what this process trains on of them.

    Random numbers are drawn for whole batches, so that what is trained does not depend on the
    processes.
    """
    return batches if processes == 1 else Share(batches)
