"""Arrays in .npy, .npz, TIFF, NetCDF, HDF5 and Zarr -> frames.

One letter names each axis of an array: N videos, T frames, H height, W width, C channels.
"NTHW" is many grey videos, "THWC" a single one in colour, "HW" a single frame.
"""

import contextlib
import dataclasses
import itertools
import logging
import math
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from extras.blocks import Block, refuse_text
from extras.cli import InputError
from extras.names import jumps

TIFF = (".tif", ".tiff")
NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5")
NUMBERS = (".npy", ".npz", *NETCDF, ".zarr")  # three channels are colours that are meant
ARRAYS = (*NUMBERS, *TIFF)
OFFICIAL_NAME = "mnist_test_seq.npy"  # Moving MNIST's test set: its frames come first
USUAL_FRAMES = 20  # frames of a Moving MNIST video
BLOCK_BYTES = 2**24  # about what is handed on at a time
READ_BYTES = 2**27  # what is read at a time at most, where a chunk on the disk has many frames
LONGEST_AXIS = 2**24  # an axis has so many coordinates at most
MOST_FRAMES = 2**26  # of an array; headers may promise any number
UNPACKED_BYTES = 2**32  # what an .npz file may take on the disk while it is read
LETTERS = "one letter for each axis: N videos, T frames, H height, W width, C channels"
GUESSES = ["HW", "HWC", "THW", "THWC", "TCHW", "NTHW", "NTHWC", "NTCHW", "NCTHW"]
DEEPEST = 100  # groups within each other

# What people and the CF conventions call the axes
AXES = {
    "T": r"t|(\w+_)?(time|date|datetime)\d*|frames?|steps?|days?|hours?|months?|years?",
    "H": r"h|(\w+_)?(lat|latitude)|n?[yj][_c]?|south_north\w*|rows?|height",
    "W": r"w|(\w+_)?(lon|longitude)|n?[xi][_c]?|west_east\w*|cols?|columns?|width",
    "C": r"c|channels?|bands?|rgb|colou?rs?",
    "N": r"n|videos?|clips?|samples?|sequences?|batch",
    "E": "expver",  # of ERA5's files: where one member has data, the other has none
}


@dataclasses.dataclass(frozen=True)
class Variable:
    """An array that stays on the disk.

    Attributes:
        name: its own name; "" if it has none.
        shape, dtype: as stored.
        read: a slice or an array of numbers for each axis -> that part, in the data's own numbers.
        axes: the names of its axes; () if it names none.
        chunks: lengths of the parts in which it is stored; () if it is in one piece.
        coordinates: the name of an axis -> the stored values along it, or None.
    """

    name: str
    shape: tuple
    dtype: np.dtype
    read: Callable
    axes: tuple = ()
    chunks: tuple = ()
    coordinates: dict = dataclasses.field(default_factory=dict)

    def coordinate(self, n):
        """Values along the axis of number n, floats (length,); None if there are no numbers."""
        values = self.coordinates.get(self.axes[n]) if self.axes else None
        if values is None or values.ndim != 1 or values.size > LONGEST_AXIS:
            return None
        if getattr(values.dtype, "kind", "") not in [*"iuf"]:
            return None
        return np.ma.filled(values[:].astype(float), np.nan)


def read_arrays(path, note, axes=None, variable=None, select=()):
    """Yield the `Block`s of an array's file, in the data's own numbers; missing ones are NaN.

    Args:
        path: a file (for Zarr a folder) whose name ends as one of ARRAYS.
        note: called with each line that the user should read.
        axes: the letters of the array's axes; None: as the file or the shape tells.
        variable: the name of the array, where a file has several; None: the only one, or all
            arrays of an .npz file.
        select: which member of an axis to read, such as ["level=500"].

    Raises:
        InputError: the file cannot be read, or does not say what its axes are.
    """
    with _opened(path, note, variable) as chosen:
        for array in chosen:
            yield from _blocks(array, note, axes, select)


def holds_one_frame(path, axes=None, variable=None, select=()):
    """Whether a file can be read, and holds a single frame; arguments as for `read_arrays`."""

    def note(line):
        """`read_arrays` will say it."""

    with contextlib.suppress(InputError), _opened(path, note, variable) as chosen:
        frames = 0
        for array in chosen:
            axis = _find_axes(array, _select(array, select), axes, note)
            frames += math.prod(array.shape[axis[letter]] for letter in "NT" if letter in axis)
        return frames == 1
    return False


@contextlib.contextmanager
def _opened(path, note, variable):
    """Yield the `Variable`s to read. Raises InputError for whatever goes wrong meanwhile."""
    if path.is_file():
        refuse_text(path)
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of much that is read well
        try:
            yield _choose(path, _open(path, stack, note), variable)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except ImportError as error:
            raise InputError(f"{path} needs one more package: pip install {error.name}") from None
        except Exception as error:  # what a damaged file raises depends on the damage
            needs = {"'imagecodecs'": "imagecodecs", "Filter error": "hdf5plugin"}
            package = next((needs[words] for words in needs if words in str(error)), None)
            why = f"is packed: pip install {package}" if package else f"cannot be read: {error}"
            raise InputError(f"{path} {why}") from None


def _open(path, stack, note):
    """All arrays of a file, a list of `Variable`s."""
    ending = path.suffix.lower()
    if ending == ".npy":
        return [_open_npy(path)]
    if ending == ".npz":
        return _open_npz(path, stack)
    if ending in TIFF:
        return [_open_tiff(path, stack, note)]
    return _open_zarr(path) if ending == ".zarr" else _open_netcdf(path, stack)


def _choose(path, found, variable):
    """Those of a file's arrays to read."""
    names = [array.name for array in found]
    several = path.suffix.lower() == ".npz"
    if several and variable is None and "videos" in names:
        variable = "videos"
    if variable is None or names == [""]:
        axes = min(3, max((len(array.shape) for array in found), default=0))
        chosen = [array for array in found if len(array.shape) >= max(2, axes)]
    else:
        chosen = [a for a in found if variable in (a.name, a.name.rpartition("/")[-1])]
    if not chosen:
        listed = ", ".join(f"{array.name} {array.shape}".lstrip() for array in found) or "none"
        raise InputError(f"it has no array {variable or 'of frames'}: there is {listed}")
    if len(chosen) > 1 and not several:
        listed = ", ".join(array.name for array in chosen)
        raise InputError(f"it has {listed}: choose one, as by --variable {chosen[0].name}")
    return chosen


# Axes ---------------------------------------------------------------------------------------


def _blocks(array, note, axes, select):
    """Yield the `Block`s of one `Variable`; the other arguments are those of `read_arrays`."""
    if array.dtype.kind not in "buif" or 0 in array.shape:
        raise InputError(f"it holds {array.dtype} {array.shape}, and frames of numbers are needed")
    members = _select(array, select)
    axis = _find_axes(array, members, axes, note)
    length = {letter: array.shape[n] for letter, n in axis.items()}
    note(
        " ".join(filter(None, [array.name, "axes", *(f"{x}={length[x]}" for x in length)]))
        + ("" if array.axes or axes else " by its shape; if that is wrong, give --axes")
    )
    frame_bytes = max(4, array.dtype.itemsize) * math.prod(length.get(x, 1) for x in "EHWC")
    if frame_bytes > 2 * READ_BYTES:
        raise InputError(f"its frames of {length['H']} x {length['W']} pixels are too large")
    count = length.get("N", 1) * length.get("T", 1)
    if count > MOST_FRAMES:
        raise InputError(f"it says that it has {count:,} frames: at most {MOST_FRAMES:,} are read")
    if array.dtype.itemsize * math.prod(array.chunks) > 2 * READ_BYTES:
        raise InputError(f"its chunks of {array.chunks} are too large: store it in smaller ones")

    times, ends = range(length.get("T", 1)), []
    known = array.coordinate(axis["T"]) if "T" in axis else None
    if known is not None and len(known) == len(times) and np.isfinite(known).all():
        times = np.argsort(known, kind="stable")
        if (np.diff(times) != 1).any():
            note("frames are put in the order of their times")
        ends = jumps(known[times].tolist())
        if ends:
            others = f" and at {len(ends) - 1} other places" if len(ends) > 1 else ""
            note(f"times jump after frame {ends[0]}{others}: a clip ends there")
    rows, along = slice(None), array.coordinate(axis["H"])
    is_latitude = along is not None and "lat" in array.axes[axis["H"]].lower()
    if is_latitude and along[0] < along[-1]:
        rows = slice(None, None, -1)
        note("rows from south to north are turned, so that north is up")

    # Frames of one chunk are read together, as far as memory allows.
    block = max(1, BLOCK_BYTES // frame_bytes)
    chunk = array.chunks[axis["T"]] if array.chunks and "T" in axis else 1
    together = max(1, min(max(block, chunk), READ_BYTES // frame_bytes))
    together -= together % chunk if together > chunk else 0
    for video in range(length.get("N", 1)):
        for first in range(0, len(times), together):
            part = times[first : first + together]
            frames = _read(array, axis, {**members, axis.get("N"): video}, part)[:, rows]
            stop = first + len(part)
            cuts = {*range(first, stop, block), *(n for n in ends if first < n < stop), stop}
            for start, end in itertools.pairwise(sorted(cuts)):
                new_clip = start == 0 or start in ends
                yield Block(frames[start - first : end - first], new_clip)


def _read(array, axis, members, times):
    """Read frames of a `Variable`: (len(times), height, width, channels).

    Args:
        array: `Variable`.
        axis: letter of an axis -> its number.
        members: number of another axis -> the member to read; 0 where it says nothing.
        times: the numbers of the frames.
    """
    order = [axis[letter] for letter in "ETHWC" if letter in axis]
    rest = [n for n in range(len(array.shape)) if n not in order]
    index = [slice(None)] * len(array.shape)
    for n in rest:
        index[n] = slice(members.get(n, 0), members.get(n, 0) + 1)
    if "T" in axis:
        in_order = (np.diff(times) == 1).all()
        index[axis["T"]] = slice(times[0], times[-1] + 1) if in_order else np.array(times)
    _, _, *frame = (array.shape[axis[letter]] if letter in axis else 1 for letter in "ETHWC")
    versions = array.read(tuple(index)).transpose(*rest, *order).reshape(-1, len(times), *frame)
    frames = versions[0]
    for other in versions[1:]:
        frames = np.where(np.isnan(frames), other, frames)
    return frames


def _select(array, select):
    """["level=500"] -> {number of the axis level: number of its member 500}."""
    found = {}
    for text in select:
        name, _, value = text.partition("=")
        if name not in array.axes:
            raise InputError(f"--select {text}: its axes are {' '.join(array.axes) or 'unnamed'}")
        n = array.axes.index(name)
        members = _members(array, n)
        if value not in members:
            raise InputError(f"--select {text}: {name} has {', '.join(members[:20])}")
        found[n] = members.index(value)
    return found


def _members(array, n):
    """The members of an axis as text: the values along it, or 0, 1, 2."""
    values = array.coordinate(n)
    values = range(array.shape[n]) if values is None else values
    return [str(value).removesuffix(".0") for value in values]


def _find_axes(array, members, axes, note):
    """{letter: number of its axis}, of all axes but those of which `members` has one."""
    free = [n for n in range(len(array.shape)) if n not in members]
    shape = [array.shape[n] for n in free]
    if axes and len(axes) != len(shape):
        raise InputError(f"its shape is {shape}, which --axes {axes} does not fit: {LETTERS}")
    if not axes and any(array.axes):
        found = _letters([array.axes[n].lower() for n in free])
        unknown = [n for n, letter in zip(free, found) if not letter and array.shape[n] > 1]
        if unknown:
            members, name = _members(array, unknown[0]), array.axes[unknown[0]]
            raise InputError(
                f"its axis {name} has {len(members)} members, {', '.join(members[:5])} ...: "
                f"choose one, as by --select {name}={members[0]}, or say by --axes what each "
                f"of {' '.join(array.axes)} is"
            )
    else:
        found = axes or guess_axes(shape)
    axis = {letter: n for letter, n in zip(found, free) if letter}
    length = {letter: array.shape[n] for letter, n in axis.items()}
    if not {"H", "W"} <= axis.keys():
        raise InputError(f"its shape is {shape}, without height and width: give --axes, {LETTERS}")
    if length.get("C", 1) not in (1, 3):
        raise InputError(f"it has {length['C']} channels: choose one or three of them")
    if not axes and length.get("N") == USUAL_FRAMES < length.get("T", 1):
        note(
            f"WARNING: it has {length['N']} videos of {length['T']} frames; if these are "
            f"{length['T']} videos of {length['N']} frames, give --axes "
            + "".join(found).translate(str.maketrans("NT", "TN"))
        )
    return axis


def _letters(names):
    """The letters of axes with these names; "" for one that says nothing."""
    letters = []
    for name in names:
        letter = next((x for x, known in AXES.items() if re.fullmatch(known, name)), "")
        letters.append("" if letter in letters else letter)
    for letter in "WH":  # the last two, unless they have names
        if letter not in letters and "" in letters:
            letters[len(letters) - 1 - letters[::-1].index("")] = letter
    return letters


def guess_axes(shape):
    """The letters of an array's axes, by which of them has the 1 or 3 values of channels.

    Raises:
        InputError: they cannot be told from the shape.
    """
    fit = [
        letters
        for letters in GUESSES
        if len(letters) == len(shape)
        and ("C" not in letters or shape[letters.index("C")] in (1, 3))
    ]
    if not fit or fit == ["NTCHW", "NCTHW"]:
        raise InputError(f"its shape is {shape}: say by --axes what that is, {LETTERS}")
    return fit[0]


# Files --------------------------------------------------------------------------------------


def _open_npy(path, name=""):
    def mapped():
        return np.lib.format.open_memmap(path, mode="r")  # runs no code that a file holds

    try:
        array = mapped()
    except ValueError as error:
        if "object" not in str(error):
            raise
        raise InputError(
            "it is a list of Python objects (dtype object) and no array: save each clip by "
            "np.save, or all of them by np.savez(path, *clips)"
        ) from None
    axes = tuple("TNHW") if path.name == OFFICIAL_NAME and array.ndim == 4 else ()
    # Mapped anew each time: what has been read of a map counts as memory in use.
    return Variable(name, array.shape, array.dtype, lambda i: np.array(mapped()[i]), axes)


def _open_npz(path, stack):
    archive = stack.enter_context(zipfile.ZipFile(path))
    size = sum(member.file_size for member in archive.infolist())
    if size > UNPACKED_BYTES:
        raise InputError(
            f"it has {size / 1e9:.1f} GB of arrays: unpack it by python -m zipfile -e {path.name} "
            "FOLDER, and give that folder"
        )
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    found, refusal = [], None
    for name in archive.namelist():
        try:
            found.append(_open_npy(Path(archive.extract(name, folder)), name.removesuffix(".npy")))
        except InputError as error:  # of Python objects, which may stand beside arrays
            refusal = error
    if refusal and not found:
        raise refusal
    return found


def _open_tiff(path, stack, note):
    from tifffile import EXTRASAMPLE, PHOTOMETRIC, TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is damaged is said once
    # Nothing but this file is read: the formats of some microscopes name others.
    file = stack.enter_context(TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False))
    series = file.series[0]
    if len(file.series) > 1:
        note(f"it has {len(file.series)} series of pictures: the first is read")
    page = series.keyframe
    pages = np.arange(len(series.pages)).reshape(series.shape[: -page.ndim])
    names = {"T": "time", "Y": "y", "X": "x", "S": "rgb", "C": "channel", "Z": "z"}
    if "T" not in series.axes:  # pages without a name, or the depths of a stack, are frames
        names.update(dict.fromkeys("IQ" if set("IQ") & set(series.axes) else "Z", "frame"))
    axes = tuple(names.get(letter, letter) for letter in series.axes)
    shape, dtype = series.shape, series.dtype
    in_colours = page.photometric == PHOTOMETRIC.PALETTE
    if in_colours:
        axes, shape, dtype = (*axes, "rgb"), (*shape, 3), np.dtype(np.uint8)
    extra = len(page.extrasamples) if axes[-1] == "rgb" and not in_colours else 0
    shape = (*shape[:-1], shape[-1] - extra)

    def part(index):
        wanted = pages[index[: pages.ndim]]
        part = file.asarray(key=wanted.ravel().tolist(), series=0)
        part = part.reshape(*wanted.shape, *page.shape)
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            part = ~part if part.dtype == bool else 2**page.bitspersample - 1 - part
        if in_colours:
            part = (np.moveaxis(page.colormap[:, part], 0, -1) >> 8).astype(np.uint8)
        if extra:
            part, last = part[..., :-extra], part[..., -1:]
            # Associated alpha is over black already, and what is unspecified, as infrared, is none.
            if page.extrasamples[-1] == EXTRASAMPLE.UNASSALPHA:
                opaque = last / np.float32(np.iinfo(part.dtype).max)
                part = (part * opaque).astype(part.dtype)
        return part[(..., *index[pages.ndim :])]

    return Variable("", shape, dtype, part, axes)


def _open_netcdf(path, stack):
    """NetCDF of all versions, and HDF5, by the library that knows what is packed or missing."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start in (b"CDF\1", b"CDF\2"):
        # By a damaged header NetCDF's own library crashes, or never comes to an end; SciPy raises.
        import scipy.io

        warnings.filterwarnings("ignore", "Cannot close a netcdf_file")  # which may come late
        scipy.io.netcdf_file(path, mmap=True).close()
    elif not start.startswith(b"CDF"):
        _refuse_other_files(path)
    with contextlib.suppress(ImportError):
        import hdf5plugin  # packings that HDF5 does not know itself

        os.environ.setdefault("HDF5_PLUGIN_PATH", hdf5plugin.PLUGIN_PATH)
    import netCDF4

    def groups(group):
        yield group
        for inner in group.groups.values():
            yield from groups(inner)

    return [
        _netcdf_variable(variable, group, isinstance(variable.datatype, netCDF4.EnumType))
        for group in groups(stack.enter_context(netCDF4.Dataset(path)))
        for name, variable in group.variables.items()
        if getattr(variable.dtype, "kind", "") in [*"buif"] and name not in variable.dimensions
    ]


def _refuse_other_files(path):
    import h5py

    with h5py.File(path, "r", locking=False) as file:

        def elsewhere(name, link):
            if name.count("/") > DEEPEST:
                return f"its groups are more than {DEEPEST} deep"
            item = file[name] if isinstance(link, h5py.HardLink) else link
            if isinstance(item, h5py.ExternalLink):
                return f"{name} is a link to another file, {item.filename}: give that one"
            if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
                return f"{name} is stored in other files: give these"
            return None  # and go on

        if found := file.visititems_links(elsewhere):
            raise InputError(found)


def _netcdf_variable(variable, group, is_bool):
    gain, offset, missing, undetect = radar = _radar_numbers(group)

    def read(index):
        values = variable[index]
        if np.ma.is_masked(values):
            values = values.astype(np.result_type(values.dtype, np.float32)).filled(np.nan)
        values = np.ma.getdata(values)
        if radar != (1, 0, [], None):
            stored = np.where(values == undetect, 0, values)  # nothing was heard: the least value
            values = np.where(np.isin(stored, missing), np.nan, np.float32(stored * gain + offset))
        return values.astype(bool) if is_bool else values

    chunks = variable.chunking()
    if isinstance(chunks, list):
        variable.set_var_chunk_cache(READ_BYTES)  # videos of one chunk are read one by one
    named = not any(axis.startswith("phony_dim") for axis in variable.dimensions)
    return Variable(
        f"{group.path}/{variable.name}".lstrip("/"),
        variable.shape,
        np.dtype(bool) if is_bool else variable.dtype,
        read,
        variable.dimensions if named else (),
        tuple(chunks) if isinstance(chunks, list) else (),
        {axis.name: axis.group().variables.get(axis.name) for axis in variable.get_dims()},
    )


def _radar_numbers(group):
    """What HDF5 files of weather radars (ODIM, KNMI) say: gain, offset, missing, undetected."""
    found = {}
    for place in (group.parent, group):
        for name in ("what", "calibration"):
            if place is not None and name in place.groups:
                found.update(place.groups[name].__dict__)
    formula = re.match(r"GEO=([^*]+)\*PV\+(.+)", str(found.get("calibration_formulas", "")))
    gain, offset = formula.groups() if formula else (found.get("gain", 1), found.get("offset", 0))
    codes = ("nodata", "calibration_missing_data", "calibration_out_of_image")
    missing = [found[code] for code in codes if code in found]
    return float(gain), float(offset), missing, found.get("undetect")


def _open_zarr(path):
    import zarr

    for member in path.rglob("*"):
        if member.is_symlink() or not (member.is_file() or member.is_dir()):
            raise InputError(f"{member} is a link, a pipe or a device: only plain files are read")
    root = zarr.open(path, mode="r")
    members = {"": root} if isinstance(root, zarr.Array) else dict(root.members(max_depth=None))
    arrays = {name: array for name, array in members.items() if isinstance(array, zarr.Array)}
    found = [_zarr_variable(name, array, arrays) for name, array in arrays.items()]
    return [
        variable
        for variable in found
        if variable.dtype.kind in "buif" and variable.name.rpartition("/")[2] not in variable.axes
    ]


def _zarr_variable(name, array, arrays):
    axes = getattr(array.metadata, "dimension_names", None)
    axes = axes or array.attrs.get("_ARRAY_DIMENSIONS", ())
    # Some may have no name; xarray calls them so.
    axes = tuple(axis or f"dim_{n}" for n, axis in enumerate(axes)) if any(axes) else ()
    attributes = dict(array.attrs)
    if axes and array.metadata.zarr_format == 2 and array.fill_value is not None:
        attributes["_FillValue"] = array.fill_value  # as xarray writes it

    def read(index):
        import xarray

        stored = xarray.Variable([*map(str, range(array.ndim))], array.oindex[index], attributes)
        return xarray.conventions.decode_cf_variable("", stored, decode_times=False).values

    folder = name.removesuffix(name.rpartition("/")[2])
    beside = {axis: arrays.get(folder + axis) for axis in axes}
    return Variable(name, array.shape, array.dtype, read, axes, array.chunks, beside)
