"""The prepared file: frames of all clips, and what is known of them, in one HDF5 file.

    frames          (frames, height, width, channels), uint8 in 0..255 or float32 in [0, 1]: all
                    clips one after another
    spans           int64 (clips, 2): a clip's first frame, and the one after its last
    description     JSON text in UTF-8: names of the clips, value_range, unit, options by which the
                    sources were read, sources, version, and a digest of frames and spans

Everything in it has checksums. The file can be moved, copied and read by several processes;
readers write nothing. Before the HDF5 part stands a line of text that says what it is.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shlex

import numpy as np

from extras.blocks import state
from extras.cli import InputError, atomic_write

VERSION = 1
FIRST_LINE = b"Video frames prepared by prepare.py, then HDF5\n"
USER_BLOCK = 512  # bytes that HDF5 leaves free for it
LARGEST_DESCRIPTION = 2**28  # bytes
CHUNK_BYTES = 64 * 1024  # read and checked as one: a window of frames takes few of them


def is_prepared(path):
    """Whether a file is a prepared one, perhaps a damaged one."""
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(FIRST_LINE)) == FIRST_LINE
    except OSError:
        return False


def is_range(low, high):
    """Whether there are values from low to high, which float32 can hold as well as low - high."""
    return -1e38 <= low < high <= 1e38


class _Disk(io.FileIO):
    """A file for HDF5, which ends Python if it cannot write: errors are kept for `check`."""

    error = None

    def write(self, content):
        rest = memoryview(content)
        try:
            while rest and not self.error:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(content)

    def truncate(self, size):
        try:
            super().truncate(size)
        except OSError as error:
            self.error = error
        return size

    def check(self):
        if self.error:
            raise self.error


class Writer:
    """Write a prepared file; as a context manager, it is there whole in the end or not at all.

    Args:
        path: the file, with whatever ending. One that is there is replaced.

    Attributes:
        value_range: (low, high), what black and white stand for in the data's unit.
        unit: the unit of `value_range`, such as "dBZ"; "": unknown.
        options: dict, the options by which the sources were read.
        sources: list of what is to be known of each source; goes to JSON.
        frames: the `h5py.Dataset` (frames, height, width, channels); None before there is any.
        names: of the clips so far.
        ends: 0, and after each clip how many frames there are.

    Raises:
        OSError: the disk is full; from `append` or in the end.
    """

    def __init__(self, path):
        self.path = path
        self.value_range = (0.0, 1.0)
        self.unit = ""
        self.options = {}
        self.sources = []
        self.frames = None
        self.names, self.ends = [], [0]

    def __enter__(self):
        import h5py

        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_write(self.path))
            self._disk = stack.enter_context(_Disk(temporary, "w+"))
            # "latest": HDF5's older formats have no checksums for what is not an array.
            self._file = h5py.File(self._disk, "w", libver="latest", userblock_size=USER_BLOCK)
            stack.callback(self._file.close)
            self._stack = stack.pop_all()
        return self

    def append(self, frames):
        """Add frames to the clip that is being written.

        Args:
            frames: (n, height, width, channels), uint8 in 0..255 or float32 in [0, 1], 1 or 3
                channels. The file becomes coloured with the first coloured frames, and float32
                with the first of these; frames before them are converted.
        """
        channels, dtype = frames.shape[-1], frames.dtype
        if self.frames is not None:
            channels = max(channels, self.frames.shape[-1])
            dtype = np.promote_types(dtype, self.frames.dtype)
        if self.frames is None:
            self._create((*frames.shape[1:3], channels), dtype)
        elif (channels, dtype) != (self.frames.shape[-1], self.frames.dtype):
            narrow = self.frames
            self._file.move("frames", "narrow")
            self._create((*frames.shape[1:3], channels), dtype)
            for chunk in narrow.iter_chunks():
                self._add(narrow[chunk])
            del self._file["narrow"]  # HDF5 uses its place for what follows
        self._add(frames)
        self._disk.check()

    def _create(self, shape, dtype):
        frames_in_chunk = max(1, CHUNK_BYTES // (dtype.itemsize * math.prod(shape)))
        self.frames = self._file.create_dataset(
            "frames",
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(frames_in_chunk, *shape),
            fletcher32=True,
        )
        self._digest = hashlib.sha256()

    def _add(self, frames):
        if frames.dtype != self.frames.dtype:
            frames = np.float32(frames) / 255
        count = len(self.frames)
        frames = np.broadcast_to(frames, (len(frames), *self.frames.shape[1:]))  # grey: to all
        frames = np.ascontiguousarray(frames)
        self.frames.resize(count + len(frames), axis=0)
        self.frames[count:] = frames
        self._digest.update(frames)

    def end_clip(self, name):
        """End the clip of the frames since the last one; without any there is none."""
        if self.frames is not None and len(self.frames) > self.ends[-1]:
            self.ends.append(len(self.frames))
            self.names.append(name)

    def __exit__(self, *exception):
        if exception[0] is not None:
            return self._stack.__exit__(*exception)
        with self._stack:
            self._finish()

    def _finish(self):
        if not self.names or self.ends[-1] < len(self.frames):
            raise ValueError("a prepared file needs a clip, and end_clip after each")
        spans = np.stack([self.ends[:-1], self.ends[1:]], axis=1).astype(np.int64)
        self._digest.update(spans)
        self._digest.update(f"{self.frames.shape} {self.frames.dtype}".encode())
        description = {
            "version": VERSION,
            "digest": self._digest.hexdigest(),
            "names": self.names,
            "value_range": [float(value) for value in self.value_range],
            "unit": self.unit,
            "options": self.options,
            "sources": self.sources,
        }
        text = np.frombuffer(json.dumps(description).encode(), np.uint8)
        for name, array in (("spans", spans), ("description", text)):
            self._file.create_dataset(name, data=array, chunks=array.shape, fletcher32=True)
        self._file.close()
        self._disk.seek(0)
        self._disk.write(FIRST_LINE)
        self._disk.check()


class Prepared:
    """A prepared file, to be read. It can be pickled, and read after a fork.

    Attributes:
        path: the file.
        shape: (frames, height, width, channels).
        dtype: uint8 (frames are in 0..255) or float32 (in [0, 1]).
        spans: int64 (clips, 2): each clip's first frame, and the one after its last.
        names: a str for each clip.
        value_range: (low, high), what black and white stand for in the data's unit.
        unit: that unit, a str; "": unknown.
        options: dict, the options by which the sources were read.
        sources: list, what is known of each source.
        digest: hexadecimal SHA-256 of frames and spans.

    Raises:
        InputError: the file is missing, damaged, or none that prepare.py wrote.
    """

    def __init__(self, path):
        self.path = path
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file")
        if not is_prepared(path):
            prepare = shlex.join(["python", "prepare.py", str(path), "OUT"])
            raise InputError(f"{path} is no prepared file: {prepare} makes one")
        self._open()

    def _open(self):
        import h5py

        with self._failing_in_one_line():
            # Without locks: several runs may read it, also from disks that know none.
            file = h5py.File(self.path, "r", locking=False)
            frames = self._dataset(file, "frames", 4, "uint8", "float32")
            spans = self._dataset(file, "spans", 2, "int64")
            text = self._dataset(file, "description", 1, "uint8")
            description = json.loads(bytes(text[:]))
            if description["version"] > VERSION:
                raise InputError(f"{self.path} was prepared by a later version: prepare it again")
            if self.__dict__.setdefault("digest", description["digest"]) != description["digest"]:
                raise InputError(f"{self.path} has changed since it was opened: start again")
            self.shape, self.dtype, self.spans = frames.shape, frames.dtype, spans[:]
            self.names, self.unit = description["names"], description["unit"]
            self.value_range = tuple(description["value_range"])
            self.options, self.sources = description["options"], description["sources"]
            bounds = [0, *self.spans[:, 1]]
            if (
                not is_range(*self.value_range)
                or self.shape[-1] not in (1, 3)
                or not len(self.names) == len(self.spans) > 0
                or (self.spans != np.stack([bounds[:-1], bounds[1:]], axis=1)).any()
                or (np.diff(bounds) <= 0).any()
                or bounds[-1] != len(frames)
            ):
                raise ValueError("clips and frames do not fit")
        self._frames, self._process = frames, os.getpid()
        self._state = state(file.id.get_vfd_handle())

    def _dataset(self, file, name, ndim, *dtypes):
        """A dataset, if it is stored as `Writer` does: with checksums none is in other files."""
        import h5py

        dataset = file[name] if type(file.get(name, getlink=True)) is h5py.HardLink else None
        if (
            not isinstance(dataset, h5py.Dataset)
            or not dataset.fletcher32
            or dataset.compression
            or dataset.dtype not in dtypes
            or dataset.ndim != ndim
            or (name != "frames" and dataset.nbytes > LARGEST_DESCRIPTION)
        ):
            raise ValueError(f"{name} is not as prepare.py writes it")
        return dataset

    @contextlib.contextmanager
    def _failing_in_one_line(self):
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # what a damaged file raises depends on the damage
            raise InputError(
                f"{self.path} is damaged or cut short: copy or prepare it again ({error})"
            ) from None

    def __getstate__(self):
        return {**self.__dict__, "_frames": None, "_process": None}

    def read(self, start, stop):
        """Frames start..stop-1: (stop - start, height, width, channels), in the file's dtype.

        Raises:
            InputError: they are damaged, or the file has changed.
            IndexError: there are no such frames.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"frames {start}..{stop} of {self.shape[0]}")
        if self._process != os.getpid():
            self._open()
        with self._failing_in_one_line():
            frames = self._frames[start:stop]
        # HDF5 reads zeros, without an error, where a file has been cut short meanwhile.
        if state(self._frames.file.id.get_vfd_handle()) != self._state:
            raise InputError(f"{self.path} has changed since it was opened: start again")
        return frames
