"""Your own clips: videos, folders of frames and arrays -> one array of frames that stays on disk.

A clip is a video file (MP4, WebM, GIF and others), numbered frames in a folder (PNG, JPEG,
TIFF and others), or a video in an array (see arrays.py). Frames come out as a viewer shows
them: turned and mirrored as the file says, with square pixels, transparent ones over black.
Clips are converted once, into two files:

    clips-cache.npy     (frames, height, width, channels): all clips one after another; uint8
                        in 0..255 if all files have 8 bits, else float32 in [0, 1]
    clips-cache.json    which clips these are, what they were made of and how: they are
                        converted again if a file's content or an option differs

Models read windows of these frames. No window crosses the end of a clip.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import itertools
import json
import os
import re
import tempfile
from pathlib import Path

from extras.cli import UNFINISHED, InputError, atomic_write

import numpy as np

from extras import arrays, convert, decode
from extras.decode import PICTURES, VIDEOS

ARRAYS = arrays.NUMPY + arrays.HDF5
CACHE, DESCRIPTION = "clips-cache.npy", "clips-cache.json"
OUTPUTS = (".gif", ".mp4", ".npz")  # what is written beside them


@dataclasses.dataclass(frozen=True)
class Clips:
    """All clips, one after another.

    Attributes:
        frames: memory map (frames, height, width, channels), uint8 in 0..255, or float32 in
            [0, 1].
        spans: integer array (clips, 2): a clip's first frame, and the one after its last.
        names: a name for each clip.
    """

    frames: np.ndarray
    spans: np.ndarray
    names: list


@dataclasses.dataclass(frozen=True)
class Options:
    """How clips are read; the fields are arguments of `open_clips`."""

    size: tuple | None
    value_range: tuple | None
    axes: str | None
    stride: int
    fps: float | None


def open_clips(
    source, folder, size=None, channels=None, value_range=None, axes=None, stride=1, fps=None
):
    """Open clips; convert them first, where that is not done yet, and say how they are read.

    Args:
        source: a video, a folder of videos, of frames, of arrays or of such folders, or an
            array's file ("rain.h5", or "rain.h5:name" where it has several arrays).
        folder: where `clips-cache.npy` and `clips-cache.json` are, or will be.
        size: height and width of a frame in pixels, or one number for both: frames are
            resized and centre-cropped; None: their own, and all must have the same.
        channels: 1 (grey) or 3 (RGB); None: 3 if anything is in colour, else 1.
        value_range: (low, high), in the data's units: what is black and what is white. Values
            outside count as the nearer of the two, NaN as low. None: 0 to 255 for uint8, and
            0 to 1 for bool and floats.
        axes: the order of an array's axes, see arrays.py; None: as its shape tells.
        stride: keep every stride-th frame.
        fps: frames a second, to sample videos by the times of their frames.

    Returns:
        `Clips`.

    Raises:
        InputError: there are no clips, none can be read, an option does not fit them, or the folder
            is among them.
    """
    options = check_options(size, value_range, axes, stride, fps)
    if not str(source):
        raise InputError("--data is empty: give a file or folder")
    folder, source = Path(folder), os.path.abspath(source)
    path, array = split_name(source)
    among_clips = folder.resolve().is_relative_to(path.resolve())
    if among_clips or (path.parent == folder.absolute() and path.suffix in OUTPUTS):
        raise InputError(
            f"{folder} is where the clips of --data {source} are: pictures that are written there "
            "would count as clips, or take their places; name another folder"
        )
    files = find_files(path)
    if read_cache(folder, source, files, channels, options) is None:
        if not files:
            raise InputError(
                f"--data {path}: found no clips there: expected videos ({' '.join(VIDEOS)}), "
                f"numbered frames ({' '.join(PICTURES)}) or arrays ({' '.join(ARRAYS)})"
                if path.exists()
                else f"--data {path}: no such file or folder"
            )
        write_cache(folder, source, files, array, channels, options)
    return open_cache(folder)


def open_cache(folder):
    """Open the clips that a folder keeps, whatever has become of their files since.

    Returns:
        `Clips`.

    Raises:
        InputError: there are none.
    """
    try:
        known = json.loads((Path(folder) / DESCRIPTION).read_text())
        frames = np.load(Path(folder) / CACHE, mmap_mode="r")
        ends = np.cumsum(list(known["clips"].values()))
        lines = known["lines"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} keeps no converted clips: {error}") from None
    for line in lines:
        print(line)
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return Clips(frames, spans, list(known["clips"]))


def check_options(size, value_range, axes, stride, fps):
    """The arguments of `open_clips` as `Options`. Raises InputError for what makes no sense."""
    if size is not None:
        size = height_and_width(size)
        if len(size) != 2 or min(size) < convert.SMALLEST:
            raise InputError(
                f"--size {' '.join(map(str, size))}: give height and width, or one number for "
                f"both, of at least {convert.SMALLEST} pixels"
            )
    if value_range is not None:
        value_range = tuple(float(value) for value in value_range)
        if not (
            len(value_range) == 2 and np.isfinite(value_range).all() and np.diff(value_range) > 0
        ):
            raise InputError(
                f"--range {' '.join(f'{value:g}' for value in value_range)}: give LOW and HIGH, "
                "numbers of which LOW is below HIGH"
            )
    if axes is not None:
        axes = axes.upper()
        if set(axes) - set("NTHWC") or len(set(axes)) < len(axes) or not set("THW") <= set(axes):
            raise InputError(f"--axes {axes}: give {arrays.LETTERS}; T, H and W are needed")
    if stride < 1:
        raise InputError(f"--stride {stride}: give N, 1 or more, to keep every Nth frame")
    if fps is not None and not fps > 0:
        raise InputError(f"--fps {fps}: give frames a second, above 0")
    return Options(size, value_range, axes, stride, fps)


# Finding clips ----------------------------------------------------------------------------


def split_name(source):
    """ "rain.h5:name" -> the file's path, and the array's name or None."""
    endings = "|".join(ending[1:] for ending in (".npz", *arrays.HDF5))
    named = re.fullmatch(rf"(?s)(.+\.(?:{endings})):(.+)", source, re.IGNORECASE)
    return (Path(named[1]), named[2]) if named else (Path(source), None)


def find_files(path):
    """All files of clips at a path, in the order of their numbers ("clip-9" before "clip-10").

    What is hidden is left out. Links to folders are followed, and no folder is read twice, so
    that no clip is among those to train on and among those to validate on.
    """
    found, seen = [], set()
    if path.is_file():
        found.append(path)
    for folder, subfolders, names in os.walk(path, followlinks=True):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not hidden(name))
        found += [Path(folder, name) for name in names if not hidden(name)]
    endings = VIDEOS + PICTURES + ARRAYS
    found = [file for file in found if file.suffix.lower() in endings and file.is_file()]
    return sorted((file for file in found if file.name != CACHE), key=by_number)


def hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def by_number(file):
    return [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", str(file))]


@dataclasses.dataclass
class Found:
    """What there is to convert.

    Attributes:
        clips: dict: a clip's name -> a function that returns an iterator of its frames.
        colour: whether an array has three channels. (Pictures and videos nearly always have
            three, so that there the pixels decide.)
        axes: of all arrays the letters of their axes, as arrays.py has them, and the frames' size.
        notes: lines that the user should read.
    """

    clips: dict = dataclasses.field(default_factory=dict)
    colour: bool = False
    axes: set = dataclasses.field(default_factory=set)
    notes: list = dataclasses.field(default_factory=list)


def find_clips(files, root, array, options, unpacked):
    """Files -> `Found`.

    Args:
        files: as from `find_files`.
        root: the folder from which clips are named.
        array: the name of an array in the only file, or None.
        options: `Options`.
        unpacked: a folder for arrays that have to be unpacked.

    Raises:
        InputError: two files are the same frame, or an option does not fit.
    """
    found, frames = Found(), {}
    for file in files:
        name, ending = os.path.relpath(file, root), file.suffix.lower()
        if ending in ARRAYS:
            try:
                opened = arrays.open_videos(file, array, options.axes, unpacked)
            except InputError:
                raise
            except Exception as error:  # what a damaged file raises depends on the damage
                found.notes.append(f"{name} cannot be read: {error}")
                continue
            for videos in opened:
                add_videos(found, name, videos, options)
        elif ending in decode.ANIMATIONS and decode.is_animated(file):
            read = functools.partial(decode.read_animation, file, name, options, found.notes)
            found.clips[name] = read
        elif ending in VIDEOS:
            read = functools.partial(decode.read_video, file, name, options, found.notes)
            found.clips[name] = read
        else:
            before, number, after = re.fullmatch(r"(?s)(.*?)(\d*)(\D*)", file.stem).groups()
            if number == "":
                found.notes.append(f"{name} is left out: a frame needs a number in its name")
                continue
            numbered = frames.setdefault((file.parent, before, after), {})
            if (other := numbered.setdefault(frame_number(number), file)) != file:
                raise InputError(f"{other} and {file} are the same frame: keep one of them")
    folders = [folder for folder, *_ in frames]
    for (folder, *_), numbered in frames.items():
        parts = split_at_gaps(numbered)
        for part in parts:
            alone = len(parts) == 1 and folders.count(folder) == 1
            name = os.path.relpath(folder if alone else part[0], root)
            read = functools.partial(decode.read_pictures, part, name, options, found.notes)
            found.clips[name] = read
        if len(parts) > 1:
            found.notes.append(
                f"{os.path.relpath(folder, root)}: numbers are missing between "
                f"{parts[0][-1].name} and {parts[1][0].name}"
                + (f" and at {len(parts) - 2} other places" if len(parts) > 2 else "")
                + f": these are {len(parts)} clips"
            )
    any_arrays = any(file.suffix.lower() in ARRAYS for file in files)
    if options.fps and (frames or any_arrays):
        raise InputError("--fps is for videos, which know the times of their frames: use --stride")
    if options.axes and not any_arrays:
        raise InputError("--axes is for arrays, and there are none")
    return found


def add_videos(found, name, videos, options):
    """Add `arrays.Videos` of the file `name` to `Found`."""
    label = f"{name}:{videos.name}" if videos.name else name
    for n in range(len(videos)):
        clip = f"{label} [{n}]" if len(videos) > 1 else label
        found.clips[clip] = functools.partial(videos.frames, n, options.stride)
    lengths = dict(zip(videos.axes, videos.values.shape))
    found.colour |= lengths.get("C") == 3
    found.axes.add(f"{videos.axes} with frames of {lengths['H']} x {lengths['W']} pixels")
    if len(videos) == arrays.USUAL_FRAMES < lengths["T"]:
        found.notes.append(
            f"WARNING: {label} has {len(videos)} videos of {lengths['T']} frames: if these are "
            f"{lengths['T']} videos of {len(videos)} frames, give --axes "
            + videos.axes.translate(str.maketrans("NT", "TN"))
        )


def frame_number(digits):
    """A frame's number; of a date such as 202312312355 or 20231231235500 the seconds."""
    if len(digits) in (12, 14):
        with contextlib.suppress(ValueError):  # it is no date
            date = datetime.datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S")
            return int((date - datetime.datetime.min).total_seconds())
    return int(digits)


def split_at_gaps(numbered):
    """Dict: number -> file, to lists of files between which no number is missing.

    Numbers may have any usual step, such as 5 between 0, 5, 10.
    """
    numbers = sorted(numbered)
    steps = np.diff(numbers)
    ends = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else []
    bounds = [0, *ends, len(numbers)]
    return [[numbered[n] for n in numbers[first:end]] for first, end in itertools.pairwise(bounds)]


# The cache --------------------------------------------------------------------------------


def read_cache(folder, source, files, channels, options):
    """What `clips-cache.json` says, if the cache serves; else None.

    Args:
        folder, source, channels: as for `open_clips`, the source as an absolute path.
        files: as from `find_files`.
        options: `Options`.
    """
    try:
        known = json.loads((folder / DESCRIPTION).read_text())
        frames = np.load(folder / CACHE, mmap_mode="r")  # let go on return: it may be replaced
        serves = (
            known["options"] == as_json(options)
            and channels in (known["channels"], frames.shape[-1])
            and sum(known["clips"].values()) == len(frames)
        )
        if serves and not files and known["source"] == source:
            print(f"{source} is not there: its converted clips in {folder} serve")
            return known
        path, array = split_name(source)
        if not serves or split_name(known["source"])[1] != array:
            return None
        fingerprints = take_fingerprints(files, path, known["files"])
        if contents(fingerprints) != contents(known["files"]):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return None
    if fingerprints != known["files"]:  # touched; so that its content is not read again
        known["files"] = fingerprints
        write_description(folder, known)
    return known


def write_cache(folder, source, files, array, channels, options):
    """Convert clips to `clips-cache.npy`; the arguments are those of `read_cache`."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"clips are converted, once, to {folder / CACHE}")
    path, _ = split_name(source)
    with tempfile.TemporaryDirectory(
        dir=folder, prefix=UNFINISHED, ignore_cleanup_errors=True
    ) as unpacked:
        found = find_clips(files, path.parent, array, options, unpacked)
        with atomic_write(folder / CACHE) as temporary:
            lengths, lines = convert.convert(found, temporary, source, channels, options)
            (folder / DESCRIPTION).unlink(missing_ok=True)  # while there is one, it is true
        del found  # and the unpacked arrays, which Windows cannot delete while they are open
    known = {
        "source": source,
        "channels": channels,
        "options": as_json(options),
        "lines": lines,
        "clips": lengths,
        "files": take_fingerprints(files, path, {}),
    }
    write_description(folder, known)


def as_json(options):
    return json.loads(json.dumps(dataclasses.asdict(options)))


def write_description(folder, known):
    with atomic_write(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n")


def take_fingerprints(files, root, known):
    """Dict: a file's path within `root` -> [size, time of change, SHA-256 of the content].

    The content is read only where size or time are not those in `known`, such a dict.
    """
    fingerprints = {}
    for file in files:
        name, stat = os.path.relpath(file, root), file.stat()
        fingerprint = known.get(name, [])
        if fingerprint[:2] != [stat.st_size, stat.st_mtime_ns]:
            fingerprint = [stat.st_size, stat.st_mtime_ns, None]
            with contextlib.suppress(OSError), open(file, "rb") as content:
                fingerprint[2] = hashlib.file_digest(content, "sha256").hexdigest()
        fingerprints[name] = fingerprint
    return fingerprints


def contents(fingerprints):
    return {name: digest for name, (_, _, digest) in fingerprints.items()}


# Windows ----------------------------------------------------------------------------------


def long_enough(spans, frames, to_lower):
    """The clips that have at least so many frames, as spans (clips, 2); see `open_clips`.

    Args:
        to_lower: which options help where no clip is long enough, for the message.

    Raises:
        InputError: none has.
    """
    lengths = spans[:, 1] - spans[:, 0]
    if lengths.max() < frames:
        raise InputError(
            f"{frames} frames are needed, and the longest clip has {lengths.max()}: give longer "
            f"clips, or lower {to_lower}"
        )
    short = (lengths < frames).sum()
    if short:
        print(
            f"{'WARNING: ' if short > len(spans) / 2 else ''}clips with fewer than {frames} frames "
            f"are left out: {short} of {len(spans)}"
        )
    return spans[lengths >= frames]


def split_clips(spans, frames):
    """Divide clips into those to train on and those to validate on.

    Every tenth clip is for validation, counted backwards from the last one. A clip that is
    alone is cut in two: its last tenth, but no less than a window, is for validation.

    Args:
        spans: (clips, 2), as from `open_clips`.
        frames: frames of a training video; clips with less are left out.

    Returns:
        training, validation: spans too.

    Raises:
        InputError: there is not enough for both.
    """
    spans = long_enough(spans, frames, "--frames and --context")
    if len(spans) == 1:
        ((first, end),) = spans
        middle = end - max(frames, (end - first) // 10)
        if middle - first < frames:
            raise InputError(
                f"the only clip has {end - first} frames: to train and to validate on it, "
                f"{2 * frames} are needed; add clips, or lower --frames"
            )
        spans = np.array([[first, middle], [middle, end]])
    for_validation = np.arange(len(spans))[::-1] % 10 == 0
    return spans[~for_validation], spans[for_validation]


class Windows:
    """Videos that are stretches of clips, read as they are indexed: `windows[[3, 14]]`.

    Args:
        frames: (frames, height, width, channels), as from `open_clips`.
        spans: (clips, 2), the clips to use; one that is shorter than a window has none.
        length: frames of a window.
        step: frames from the start of a window to that of the next; 1: every window that
            there is; `length`: none shares a frame with another.
    """

    def __init__(self, frames, spans, length, step):
        self.frames = frames
        self.length = length
        self.starts = np.concatenate(
            [np.arange(first, end - length + 1, step) for first, end in spans]
        )

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, indices):
        """(len(indices), length, height, width, channels), in the dtype of the frames."""
        return self.frames[self.starts[indices][:, None] + np.arange(self.length)]


def height_and_width(size):
    """A size of one or two numbers -> a tuple (height, width); one number is a square."""
    size = tuple(int(pixels) for pixels in np.ravel(size))
    return 2 * size if len(size) == 1 else size


def endings(source):
    """The endings of a source's files, in lower case: {".npy"}."""
    path, _ = split_name(str(source))
    return {file.suffix.lower() for file in [*find_files(path), path]}
