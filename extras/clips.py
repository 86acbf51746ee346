"""Your own clips: video files and folders of frames -> videos, as data.py has them.

A clip is a video file (MP4, WebM, GIF and others), or a folder of numbered frames (PNG or
JPEG), or one video of a .npy or .npz file; grey or in colour, of any length and size. Clips
are converted once: every frame is shrunk or enlarged until it fills a square, and what juts
out at two sides is cut off evenly. The result is kept in two files:

    clips-cache.npy     uint8 (frames, size, size, channels): all clips one after another
    clips-cache.json    how many frames each clip has, and what the clips were made of: if
                        a file or the size has changed, they are converted again

Models read windows of these frames. No window crosses the end of a clip.
"""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from extras.cli import InputError, atomic_write

import keras
import numpy as np
from PIL import Image, ImageOps, ImageSequence

import data

ARRAYS = (".npy", ".npz")
VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".gif")
PICTURES = (".png", ".jpg", ".jpeg")

TINT = 8  # levels, of 255, by which compression may tint what is grey


def are_clips(source):
    """Whether a source of videos is a video file, or a folder, and no array."""
    return Path(source).is_dir() or Path(source).suffix.lower() in VIDEOS


def find_clips(path):
    """Find all clips at a path, in the order of their names ("clip-9" before "clip-10").

    Args:
        path: a video file; a folder with video files, with frames, or with folders of
            them; or a .npy or .npz file for `data.load_videos`.

    Returns:
        clips: a dict: name -> a video file, a list of frames' files, or an array (frames,
            height, width, channels).
        files: all files that they are made of.

    Raises:
        InputError: there are none.
    """
    if not path or not Path(path).exists():
        raise InputError(f"--data {path}: no such file or folder")
    path = Path(path)
    if path.suffix.lower() in ARRAYS:
        return {f"{path} [{n}]": video for n, video in enumerate(data.load_videos(path))}, [path]

    def by_number(file):
        return [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", str(file))]

    clips, files = {}, []
    for file in sorted(path.rglob("*") if path.is_dir() else [path], key=by_number):
        if file.name.startswith("."):
            continue
        if file.suffix.lower() in VIDEOS:
            clips[str(file)] = file
            files.append(file)
        elif file.suffix.lower() in PICTURES:
            clips.setdefault(str(file.parent), []).append(file)
            files.append(file)
    if not clips:
        raise InputError(
            f"--data {path}: found no clips there: expected "
            f"{' '.join(VIDEOS)}, or numbered frames ({' '.join(PICTURES)})"
        )
    return clips, files


def read_frames(name, clip, mode):
    """Yield a clip's frames, PIL images of mode "L" (grey) or "RGB".

    Args:
        name, clip: an item of what `find_clips` returns.

    Raises:
        InputError: a file is damaged, or a package is missing that reads it.
    """
    if isinstance(clip, np.ndarray):
        for frame in data.to_uint8(clip):
            yield Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert(mode)
        return
    pillow = isinstance(clip, list) or clip.suffix.lower() == ".gif"
    if not pillow and importlib.util.find_spec("av") is None:
        raise InputError(f"{name}: to read videos, one more package is needed: pip install av")
    try:
        if not pillow:
            import av

            with av.open(clip) as video:
                for frame in video.decode(video=0):
                    yield frame.to_image().convert(mode)
            return
        for file in clip if isinstance(clip, list) else [clip]:
            with Image.open(file) as picture:
                for frame in ImageSequence.Iterator(picture):
                    if frame.mode.startswith(("I", "F")):
                        raise ValueError(f"{file.name} has more than 8 bits: save it with 8")
                    yield frame.convert(mode)
    except Exception as error:  # what a damaged file raises depends on the damage
        raise InputError(f"{name} cannot be read as a clip: {error}") from None


def open_clips(path, folder, size, channels=None):
    """Open clips as one array of frames; convert them first, where that is not done yet.

    Args:
        path: as for `find_clips`.
        folder: where `clips-cache.npy` and `clips-cache.json` are, or will be.
        size: height and width of a converted frame in pixels.
        channels: 1 (grey) or 3 (RGB); None: 3 if anything is in colour, else 1.

    Returns:
        frames: uint8 array (frames, size, size, channels), which stays on disk until indexed.
        spans: integer array (clips, 2): a clip's first frame, and the one after its last.

    Raises:
        InputError: there are no clips, or one cannot be read.
    """
    clips, files = find_clips(path)
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    made_of = hashlib.sha256(json.dumps([size, stats]).encode()).hexdigest()
    cache, description = folder / "clips-cache.npy", folder / "clips-cache.json"
    try:
        known = json.loads(description.read_text())
        frames = np.load(cache, mmap_mode="r")
        usable = known["made_of"] == made_of and channels in (known["asked"], frames.shape[-1])
    except (OSError, ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        description.unlink(missing_ok=True)  # while there is one, it describes the cache
        with atomic_write(cache) as temporary:
            lengths, colour = convert(clips, temporary, size, channels)
        if channels is None and not colour:
            with atomic_write(cache) as temporary:
                keep_one_channel(cache, temporary)
        known = {"made_of": made_of, "asked": channels, "frames": lengths}
        with atomic_write(description) as temporary:
            temporary.write_text(json.dumps(known, indent=2) + "\n")
        frames = np.load(cache, mmap_mode="r")
    ends = np.cumsum(list(known["frames"].values()))
    return frames, np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)


def convert(clips, path, size, channels):
    """Write the frames of all clips to a .npy file, as `open_clips` describes them.

    Returns:
        lengths: a dict: name -> how many frames it has.
        colour: whether any pixel is coloured.
    """
    print(f"clips to convert, once, to {size} x {size} pixels: {len(clips)}")
    channels = channels or 3
    lengths, count, colour = {}, 0, False
    bar = keras.utils.Progbar(len(clips), unit_name="clip", stateful_metrics=["thousand frames"])

    def write_header():
        shape = (count, size, size, channels)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    with open(path, "wb") as file:
        write_header()  # leaves room for any count
        for done, (name, clip) in enumerate(clips.items()):
            before = count
            for picture in read_frames(name, clip, "L" if channels == 1 else "RGB"):
                frame = np.asarray(ImageOps.fit(picture, (size, size)))
                colour = colour or (channels == 3 and np.ptp(frame, axis=-1).max() > TINT)
                file.write(frame.tobytes())
                count += 1
                if count % 100 == 0:
                    bar.update(done, [("thousand frames", count / 1000)])
            lengths[name] = count - before
            bar.update(done + 1, [("thousand frames", count / 1000)])
        file.seek(0)
        write_header()
    return lengths, bool(colour)


def keep_one_channel(source, path):
    """Copy a .npy file of grey frames that was written as if they had colours."""
    frames = np.load(source, mmap_mode="r")
    grey = np.lib.format.open_memmap(path, "w+", np.uint8, (*frames.shape[:3], 1))
    for start in range(0, len(frames), 1000):
        grey[start : start + 1000] = frames[start : start + 1000, :, :, 1:2]
    grey.flush()


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


def height_and_width(size):
    """A size of one or two numbers -> (height, width); one number is a square."""
    return tuple(size) if len(size) == 2 else (size[0], size[0])


def is_array(source):
    return False
