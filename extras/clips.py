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

from extras.cli import InputError, atomic_write

import keras
import numpy as np
from PIL import Image

from extras import arrays, decode
from extras.decode import PICTURES, VIDEOS

ARRAYS = arrays.NUMPY + arrays.HDF5
CACHE, DESCRIPTION = "clips-cache.npy", "clips-cache.json"

TINT = 8 / 255  # by how much compression may tint what is grey
SMALLEST = 7  # pixels; SSIM's window
LUMA = np.float32([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as in Pillow
FEW_LEVELS = 8
MANY_LINES = 12


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
        InputError: there are no clips, none can be read, or an option does not fit them.
    """
    options = check_options(size, value_range, axes, stride, fps)
    folder, source = Path(folder), os.path.abspath(source)
    path, array = split_name(source)
    files = find_files(path)
    known = read_cache(folder, source, files, channels, options)
    if known is None:
        if not files:
            raise InputError(
                f"--data {path}: found no clips there: expected videos ({' '.join(VIDEOS)}), "
                f"numbered frames ({' '.join(PICTURES)}) or arrays ({' '.join(ARRAYS)})"
                if path.exists()
                else f"--data {path}: no such file or folder"
            )
        known = write_cache(folder, source, files, array, channels, options)
    for line in known["lines"]:
        print(line)
    frames = np.load(folder / CACHE, mmap_mode="r")
    ends = np.cumsum(list(known["clips"].values()))
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return Clips(frames, spans, list(known["clips"]))


def check_options(size, value_range, axes, stride, fps):
    """The arguments of `open_clips` as `Options`. Raises InputError for what makes no sense."""
    if size is not None:
        size = (int(size),) * 2 if np.ndim(size) == 0 else tuple(int(pixels) for pixels in size)
        if len(size) != 2 or min(size) < SMALLEST:
            raise InputError(
                f"--size {' '.join(map(str, size))}: give height and width, or one number for "
                f"both, of at least {SMALLEST} pixels"
            )
    if value_range is not None:
        value_range = tuple(float(value) for value in value_range)
        if not (
            len(value_range) == 2 and np.isfinite(value_range).all() and np.diff(value_range) > 0
        ):
            raise InputError(f"--range {value_range}: give LOW and HIGH, and LOW below HIGH")
    if axes is not None:
        axes = axes.upper()
        if set(axes) - set("NTHWC") or len(set(axes)) < len(axes) or not set("THW") <= set(axes):
            raise InputError(f"--axes {axes}: give {arrays.LETTERS}; T, H and W are needed")
    if stride < 1:
        raise InputError(f"--stride {stride}: every how many frames one is kept, 1 or more")
    if fps is not None and not fps > 0:
        raise InputError(f"--fps {fps}: frames a second, above 0")
    return Options(size, value_range, axes, stride, fps)


# Finding clips ----------------------------------------------------------------------------


def split_name(source):
    """ "rain.h5:name" -> the file's path, and the array's name or None."""
    endings = "|".join(ending[1:] for ending in (".npz", *arrays.HDF5))
    named = re.fullmatch(rf"(.+\.(?:{endings})):(.+)", source, re.IGNORECASE)
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
    return sorted(found, key=by_number)


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
        notes: lines that the user should read.
    """

    clips: dict = dataclasses.field(default_factory=dict)
    colour: bool = False
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
            before, number, after = re.fullmatch(r"(.*?)(\d*)(\D*)", file.stem).groups()
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
    if options.fps and (frames or any(file.suffix.lower() in ARRAYS for file in files)):
        raise InputError("--fps is for videos, which know the times of their frames: use --stride")
    if options.axes and not any(file.suffix.lower() in ARRAYS for file in files):
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
    if len(videos) == arrays.USUAL_FRAMES < lengths["T"]:
        found.notes.append(
            f"WARNING: {label} has {len(videos)} videos of {lengths['T']} frames: if these are "
            f"{lengths['T']} videos of {len(videos)} frames, give --axes "
            + videos.axes.translate(str.maketrans("NT", "TN"))
        )


def frame_number(digits):
    """A frame's number; if that is a date, such as 202312312355, its seconds."""
    if len(digits) in (12, 14):
        try:
            return int(
                datetime.datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S").timestamp()
            )
        except ValueError:
            pass
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
        known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
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
        if [(name, *f[2:]) for name, f in fingerprints.items()] != [
            (name, *f[2:]) for name, f in known["files"].items()
        ]:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return None
    if fingerprints != known["files"]:  # touched; so that its content is not read again
        known["files"] = fingerprints
        write_description(folder, known)
    return known


def write_cache(folder, source, files, array, channels, options):
    """Convert clips to `clips-cache.npy`; the arguments are those of `read_cache`.

    Returns:
        What is written to `clips-cache.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print(f"clips are converted, once, to {folder / CACHE}")
    path, _ = split_name(source)
    with tempfile.TemporaryDirectory(
        dir=folder, prefix="clips-unpacked-", ignore_cleanup_errors=True
    ) as unpacked:
        found = find_clips(files, path.parent, array, options, unpacked)
        with atomic_write(folder / CACHE) as temporary:
            lengths, lines = convert(found, temporary, source, channels, options)
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
    return known


def as_json(options):
    return json.loads(json.dumps(dataclasses.asdict(options)))


def write_description(folder, known):
    with atomic_write(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(known, indent=1, ensure_ascii=False), encoding="utf-8")


def take_fingerprints(files, root, known):
    """Dict: a file's path within `root` -> [size, time of change, SHA-256 of the content].

    The content is read only where size or time are not those in `known`, such a dict.
    """
    fingerprints = {}
    for file in files:
        name, stat = os.path.relpath(file, root), file.stat()
        size_and_time = [stat.st_size, stat.st_mtime_ns]
        if known.get(name, [])[:2] == size_and_time:
            fingerprints[name] = known[name]
        else:
            with open(file, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            fingerprints[name] = [*size_and_time, digest]
    return fingerprints


# Converting -------------------------------------------------------------------------------


class Wider(Exception):
    """A frame has colours, or more than 8 bits, and the cache that is being written has not."""


def convert(found, path, source, channels, options):
    """Write the frames of all clips to a .npy file.

    It begins with grey frames of 8 bits, and again from the start when colours are met, or
    values of more than 8 bits: in most sources that is the first frame.

    Args:
        found: `Found`.
        path: the .npy file.
        source, channels: as for `open_clips`.
        options: `Options`.

    Returns:
        lengths: dict: a clip's name -> how many frames it has.
        lines: how the clips were understood.

    Raises:
        InputError: no clip can be read, or the options do not fit.
    """
    layout = channels or (3 if found.colour else 1), np.float32 if options.value_range else np.uint8
    notes_so_far = len(found.notes)
    while True:
        try:
            with open(path, "wb") as file:
                lengths, shape, values, cut = write_frames(file, found, *layout, channels, options)
            break
        except Wider as wider:
            layout = wider.args
            del found.notes[notes_so_far:]
    if values.need_range:
        raise InputError(
            f"{source} has values from {values.least:.6g} to {values.greatest:.6g}"
            + (f" and {values.missing} that are no number (NaN)" if values.missing else "")
            + ": say which values are black and white, as in "
            f"--range {values.least:.6g} {values.greatest:.6g} (what lies outside counts as "
            "the nearer one, NaN as black)"
        )
    if not lengths:
        raise InputError(f"--data {source}: no clip can be read: {'; '.join(found.notes[:3])}")
    lines = [describe(source, lengths, shape, values, cut, options), *found.notes]
    if len(lines) > MANY_LINES:
        lines[MANY_LINES:] = [f"and {len(lines) - MANY_LINES} more lines like these"]
    return lengths, lines


def write_frames(file, found, channels, dtype, asked, options):
    """Write the frames of all clips as `convert` describes them.

    Returns:
        lengths: as from `convert`.
        shape: height, width and channels of a frame.
        values: `Values` of all frames.
        cut: the largest share of a frame that was cropped away.

    Raises:
        Wider: with the channels and the dtype that are needed.
    """
    clips = found.clips
    lengths, size, values, cut = {}, options.size, Values(), 0
    bar = keras.utils.Progbar(
        len(clips), unit_name="clip", interval=1, stateful_metrics=["thousand frames"]
    )

    def write_header():
        shape = (sum(lengths.values()), *size, channels)
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    for done, (name, read) in enumerate(clips.items()):
        part = name
        for frame in readable(read, name, found.notes):
            if frame is None:  # a damaged frame ends a clip
                part = f"{name} ({len([other for other in lengths if other.startswith(name)]) + 1})"
                continue
            low, high = values.add(frame, options.value_range)
            if values.need_range:  # all that is left to do is to find the least and the greatest
                continue
            if dtype == np.uint8:
                if frame.dtype not in (np.uint8, bool):
                    raise Wider(channels, np.float32)
                frame = frame if frame.dtype == np.uint8 else 255 * frame.astype(np.uint8)
            else:
                scaled = (frame.astype(np.float64) - low) / (high - low)
                frame = np.clip(np.nan_to_num(scaled, nan=0), 0, 1).astype(np.float32)
            size = size or frame.shape[:2]
            if options.size is None and frame.shape[:2] != size:
                raise InputError(
                    f"{name} has frames of {frame.shape[0]} x {frame.shape[1]} pixels, and "
                    f"{next(iter(lengths))} of {size[0]} x {size[1]}: say by --size which to make"
                )
            if min(size) < SMALLEST:
                raise InputError(f"{name}: frames must be at least {SMALLEST} x {SMALLEST} pixels")
            frame, cut_here = fit(frame, size)
            cut = max(cut, cut_here)
            if channels == 1 and asked is None and is_coloured(frame):
                raise Wider(3, dtype)
            if not lengths:
                write_header()  # leaves room for any count
            file.write(np.ascontiguousarray(with_channels(frame, channels)).data)
            lengths[part] = lengths.get(part, 0) + 1
            if lengths[part] % 100 == 0:
                bar.update(done, [("thousand frames", sum(lengths.values()) / 1000)])
        bar.update(done + 1, [("thousand frames", sum(lengths.values()) / 1000)])
    if lengths:
        file.seek(0)
        write_header()
    return lengths, (*(size or ()), channels), values, cut


def readable(read, name, notes):
    """Yield a clip's frames for as long as they can be read."""
    try:
        yield from read()
    except InputError:
        raise
    except Exception as error:  # what a damaged file raises depends on the damage
        notes.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


@dataclasses.dataclass
class Values:
    """What is known of the values of all frames, in the data's units."""

    least: float = np.inf
    greatest: float = -np.inf
    missing: int = 0  # NaN
    levels: set = dataclasses.field(default_factory=set)  # up to some more than FEW_LEVELS
    darkest: float = np.inf  # where black is 0 and white is 1
    brightest: float = -np.inf
    need_range: bool = False

    def add(self, frame, value_range):
        """Add those of another frame.

        Returns:
            low, high: what is black and what is white in it.
        """
        numbers = frame
        if frame.dtype.kind == "f" and not np.isfinite(frame).all():
            numbers = frame[np.isfinite(frame)]
            self.missing += int(np.isnan(frame).sum())
        low, high = value_range or ((0, 255) if frame.dtype == np.uint8 else (0, 1))
        if numbers.size:
            least, greatest = float(numbers.min()), float(numbers.max())
            self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
            self.darkest = min(self.darkest, (least - low) / (high - low))
            self.brightest = max(self.brightest, (greatest - low) / (high - low))
            if len(self.levels) <= FEW_LEVELS:
                self.levels |= set(np.unique(numbers).tolist()[: FEW_LEVELS + 1])
        if value_range is None:
            rounding = 1e-4
            self.need_range |= frame.dtype.kind in "iu" and frame.dtype != np.uint8
            self.need_range |= numbers.size < frame.size
            self.need_range |= self.darkest < -rounding or self.brightest > 1 + rounding
        return low, high


def fit(frame, size):
    """Resize a frame, uint8 or float32, and crop its middle.

    Returns:
        frame: (*size, channels).
        cut: which share of it was cropped away.
    """
    height, width = decode.covering(*frame.shape[:2], size)
    if (height, width) != frame.shape[:2]:
        bands = [
            np.asarray(Image.fromarray(band).resize((width, height), Image.Resampling.BICUBIC))
            for band in np.ascontiguousarray(np.moveaxis(frame, -1, 0))
        ]
        frame = np.stack(bands, axis=-1)
        if frame.dtype != np.uint8:
            frame = np.clip(frame, 0, 1)  # bicubic interpolation overshoots
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    cut = 1 - size[0] * size[1] / (height * width)
    return frame[top : top + size[0], left : left + size[1]], cut


def is_coloured(frame):
    """Whether any pixel is more than tinted."""
    if frame.shape[-1] == 1:
        return False
    red, green, blue = np.moveaxis(frame, -1, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return spread.max() > TINT * (255 if frame.dtype == np.uint8 else 1)


def with_channels(frame, channels):
    """Frame (height, width, 1 or 3), to the same with 1 or 3 channels."""
    if frame.shape[-1] == channels:
        return frame
    if channels == 3:
        return np.repeat(frame, 3, axis=-1)
    if frame.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert("L"))[..., None]
    return frame @ LUMA[:, None]


def describe(source, lengths, shape, values, cut, options):
    """One line: how clips were understood, and what can hardly be meant."""
    height, width, channels = shape
    shortest, longest = min(lengths.values()), max(lengths.values())
    line = f"{source}: {len(lengths)} video{'s' * (len(lengths) > 1)} of " + (
        f"{shortest} frames" if shortest == longest else f"{shortest} to {longest} frames"
    )
    line += f", {height} x {width} pixels, {'in colour' if channels == 3 else 'grey'}"
    line += f", values {values.least:.6g} to {values.greatest:.6g}"
    if len(values.levels) <= FEW_LEVELS:
        line += f" (only the levels {' '.join(f'{level:.6g}' for level in sorted(values.levels))})"
    if options.value_range:
        line += f", black at {options.value_range[0]:.6g} and white at {options.value_range[1]:.6g}"
    if cut >= 0.005:
        line += f"; up to {cut:.0%} of a frame is cut off to fit {height} x {width}"
    if values.brightest - values.darkest < 0.01:
        line += (
            f"; WARNING: all values lie within {values.brightest - values.darkest:.2g} of the way "
            f"from black to white: is --range {values.least:.6g} {values.greatest:.6g} meant?"
        )
    return line


# Windows ----------------------------------------------------------------------------------


def long_enough(spans, frames):
    """Those of the clips that have as many frames, as spans (clips, 2); see `open_clips`.

    Raises:
        InputError: none has.
    """
    lengths = spans[:, 1] - spans[:, 0]
    if lengths.max() < frames:
        raise InputError(
            f"the longest clip has {lengths.max()} frames, and {frames} are needed: give longer "
            "clips, or lower --frames (train.py), --context or --horizon"
        )
    if lengths.min() < frames:
        print(f"left out: {(lengths < frames).sum()} clips with less than {frames} frames")
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
    spans = long_enough(spans, frames)
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
        spans: (clips, 2), the clips to use, as long as a window at least.
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
        """uint8 array (len(indices), length, height, width, channels)."""
        return self.frames[self.starts[indices][:, None] + np.arange(self.length)]
