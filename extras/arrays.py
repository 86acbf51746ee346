"""Arrays in .npy, .npz, HDF5 and NetCDF-4 files -> videos; open it for the order of axes.

One letter names each axis of an array: N videos, T frames, H height, W width, C channels.
"NTHW" is many grey videos, "THWC" a single one in colour.
"""

import dataclasses
import mmap
import tempfile
import zipfile

from extras.cli import InputError

import numpy as np

NUMPY = (".npy", ".npz")
HDF5 = (".h5", ".hdf5", ".he5", ".nc", ".nc4")
OFFICIAL_NAME = "mnist_test_seq.npy"  # Moving MNIST's test set: its frames come first
USUAL_FRAMES = 20  # frames of a Moving MNIST video
LETTERS = "one letter for each axis: N videos, T frames, H height, W width, C channels"


@dataclasses.dataclass(frozen=True)
class Videos:
    """Videos in an array that stays on disk.

    Attributes:
        name: the file's own name for the array; "" if it has none.
        values: a NumPy memory map, or an `h5py.Dataset`.
        axes: the letters of its axes, as this file's first lines say.
    """

    name: str
    values: object
    axes: str

    def __len__(self):
        return self.values.shape[self.axes.index("N")] if "N" in self.axes else 1

    def frames(self, video, stride=1):
        """Yield a video's frames, (height, width, channels), in the data's units; no data is NaN."""
        order = [letter for letter in self.axes if letter in "HWC"]
        for time in range(0, self.values.shape[self.axes.index("T")], stride):
            if time % 100 == 0:
                release(self.values)
            place = {"N": video, "T": time}
            frame = self.values[tuple(place.get(letter, slice(None)) for letter in self.axes)]
            frame = unpack(frame, getattr(self.values, "attrs", {}))
            if "C" in order:
                yield np.transpose(frame, [order.index(letter) for letter in "HWC"])
            else:
                yield np.transpose(frame, [order.index(letter) for letter in "HW"])[..., None]


def release(values):
    """Let go of what has been read of a memory map, which counts as memory in use otherwise."""
    if isinstance(values, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        values._mmap.madvise(mmap.MADV_DONTNEED)


def unpack(values, attributes):
    """Packed numbers of a NetCDF file -> what they stand for (CF conventions, section 8.1)."""
    unpacked = values
    if "scale_factor" in attributes or "add_offset" in attributes:
        unpacked = values * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
    for name in ("_FillValue", "missing_value"):
        if name in attributes:
            unpacked = np.where(values == attributes[name], np.nan, unpacked)
    return unpacked


def open_videos(path, name=None, axes=None, folder=None):
    """Open the arrays of a file that hold videos; those with less than three axes hold none.

    Args:
        path: a file whose name ends as one of NUMPY or HDF5.
        name: which of its arrays; None: an .npz file's "videos", or all that it has; the
            only one of an HDF5 file.
        axes: the letters of the array's axes; None: see `guess_axes`.
        folder: an existing folder, to which the arrays of an .npz file are unpacked.

    Returns:
        A list of `Videos`.

    Raises:
        ValueError, OSError and others: the file is damaged, or holds something else.
        InputError: a package is missing.
    """
    if path.suffix.lower() in HDF5:
        arrays = open_hdf5(path)
        if name is None and len(arrays) > 1:
            raise ValueError(
                f"it holds several arrays: name one, as in {path.name}:{next(iter(arrays))} "
                f"(there are {', '.join(arrays)})"
            )
    elif path.suffix.lower() == ".npz":
        arrays = open_npz(path, folder)
        name = "videos" if name is None and "videos" in arrays else name
    else:
        arrays = {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        if axes is None and path.name == OFFICIAL_NAME and arrays[""].ndim == 4:
            axes = "TNHW"
    if name is not None:
        if name not in arrays:
            raise ValueError(f"it has no array {name}; there are {', '.join(arrays)}")
        arrays = {name: arrays[name]}
    if not arrays:
        raise ValueError("it holds no array with three axes or more")
    videos = []
    for name, array in arrays.items():
        if array.dtype.kind not in "buif":
            raise ValueError(f"it holds {array.dtype}, and numbers are needed")
        letters = check_axes(axes, array.shape) if axes else guess_axes(array.shape)
        videos.append(Videos(name, array, letters))
    return videos


def open_hdf5(path):
    """HDF5 or NetCDF-4 file -> dict: name -> `h5py.Dataset`."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: one more package is needed: pip install h5py") from None
    arrays = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and item.ndim >= 3:
            arrays[name] = item

    # Frames of one compressed chunk are read one after another: the chunk has to stay unpacked.
    h5py.File(path, "r", rdcc_nbytes=2**28).visititems(note)
    return arrays


def open_npz(path, folder):
    """.npz file -> dict: name -> memory map of the array, unpacked to a new folder in `folder`."""
    folder = tempfile.mkdtemp(dir=folder)
    with zipfile.ZipFile(path) as file:
        arrays = {
            member.removesuffix(".npy"): np.load(file.extract(member, folder), mmap_mode="r")
            for member in file.namelist()
        }
    return {name: array for name, array in arrays.items() if array.ndim >= 3}


def guess_axes(shape):
    """The letters of an array's axes, by which of them has the 1 or 3 values of channels.

    Raises:
        ValueError: they cannot be told from the shape.
    """
    if shape[-1] == 4:
        raise ValueError(
            f"its shape is {shape}, so that it seems to hold red, green, blue and alpha: leave "
            "alpha out, as in array[..., :3]"
        )
    has_channels = [length in (1, 3) for length in shape]
    if 0 not in shape:
        if len(shape) == 3:
            return "THW"
        if len(shape) == 4:
            return "THWC" if has_channels[3] else "TCHW" if has_channels[1] else "NTHW"
        if len(shape) == 5 and has_channels[4]:
            return "NTHWC"
        if len(shape) == 5 and has_channels[1] != has_channels[2]:
            return "NTCHW" if has_channels[2] else "NCTHW"
    raise ValueError(f"its shape is {shape}: say by --axes what that is, {LETTERS}")


def check_axes(axes, shape):
    """Check the letters that --axes gives against an array's shape, and return them.

    Raises:
        ValueError: they do not fit.
    """
    if len(axes) != len(shape) or 0 in shape:
        raise ValueError(f"its shape is {shape}, which --axes {axes} does not fit: {LETTERS}")
    if "C" in axes and shape[axes.index("C")] not in (1, 3):
        channels = shape[axes.index("C")]
        raise ValueError(f"it has {channels} channels by --axes {axes}: 1 or 3 are needed")
    return axes
