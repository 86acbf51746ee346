"""Your own clips, once they are prepared: what to train and to validate on, cut into videos."""

import hashlib
import shlex
from pathlib import Path

import numpy as np

from extras import cli, prepared
from extras.blocks import state
from extras.cli import InputError

SMALLEST = 7  # pixels of a frame's side; SSIM's window has 7


class ArrayFile:
    """Videos of a `.npy` file, to be read as a `prepared.Prepared` file is.

    Args:
        path: a file of (videos, frames, height, width[, channels]), uint8 or floats in [0, 1].
        frames_first: its first two axes are the other way round, as in the official file.

    Raises:
        InputError: it is no such file, or damaged.
    """

    value_range, unit = (0.0, 1.0), ""

    def __init__(self, path, frames_first=False):
        self.path = path
        remedy = how_to_prepare(path)
        try:
            videos = np.lib.format.open_memmap(path, mode="r")  # runs no code that a file holds
        except Exception:  # what a damaged file raises depends on the damage
            raise InputError(f"{path} is no array, or is damaged; {remedy}") from None
        self.state = state(path)
        usual = videos.ndim == 4 or (videos.ndim == 5 and videos.shape[4] in (1, 3))
        if not usual or 0 in videos.shape or videos.dtype.str[1:] not in ("u1", "f2", "f4", "f8"):
            raise InputError(
                f"{path} holds {videos.dtype} of shape {videos.shape}, and not (videos, frames, "
                f"height, width[, channels]) of uint8 or floats; {remedy}"
            )
        videos = videos if videos.ndim == 5 else videos[..., None]
        self.videos = videos.swapaxes(0, 1) if frames_first else videos
        count, frames = self.videos.shape[:2]
        self.shape, self.dtype = (count * frames, *self.videos.shape[2:]), videos.dtype
        starts = frames * np.arange(count)
        self.spans = np.stack([starts, starts + frames], axis=1)  # (videos, 2)
        self.names = [f"video {n}" for n in range(count)]

    @property
    def digest(self):
        """Hexadecimal SHA-256 of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, start, stop):
        """Frames of one video, counted through all: (stop - start, height, width, channels)."""
        if state(self.path) != self.state:  # to read a map that is shorter kills the process
            raise InputError(f"{self.path} has changed since it was opened: start again")
        video, frame = divmod(start, self.videos.shape[1])
        return np.array(self.videos[video, frame : frame + stop - start])


def open_clips(path):
    """Open a file of videos.

    Args:
        path: a prepared file, or a `.npy` file of videos.

    Returns:
        A `prepared.Prepared` or an `ArrayFile`: both have `shape` (frames, height, width,
        channels), `dtype`, `spans` (clips, 2), `names`, `value_range`, `unit`, `digest`, and
        `read(start, stop)`.

    Raises:
        InputError: it is something else, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; if it has moved, name its new place by --data")
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no file; {how_to_prepare(path)}")
    if prepared.is_prepared(path):
        return prepared.Prepared(path)
    if path.suffix.lower() == ".npy":
        return ArrayFile(path)
    raise InputError(f"{path} is no prepared file; {how_to_prepare(path)}")


def how_to_prepare(path):
    """The line to type for a file that is not prepared yet."""
    return (
        f"prepare it first: {shlex.join(['python', 'prepare.py', str(path), f'{path}.prepared'])}"
    )


def split_clips(spans, frames):
    """Divide clips into those to train on and those to validate on.

    Every tenth clip is for validation, counted backwards from the last one. A clip that is
    alone is cut in two: its last tenth, but no less than a window, is for validation.

    Args:
        spans: (clips, 2), the first frame of each and the one after its last.
        frames: frames of a training video; clips with fewer are left out.

    Returns:
        training, validation: spans too.

    Raises:
        InputError: there is not enough for both.
    """
    lengths = spans[:, 1] - spans[:, 0]
    long_enough = spans[lengths >= frames]
    if len(long_enough) < len(spans):
        cli.say(f"clips of fewer than {frames} frames are left out: {(lengths < frames).sum()}")
    spans = long_enough
    if len(spans) == 0 or (len(spans) == 1 and spans[0, 1] - spans[0, 0] < 2 * frames):
        raise InputError(
            f"the longest clip has {lengths.max()} frames: training needs two clips of {frames}, "
            f"or one of {2 * frames}; give longer clips, or lower --frames and --context"
        )
    if len(spans) == 1:
        ((first, end),) = spans
        middle = end - max(frames, (end - first) // 10)
        spans = np.array([[first, middle], [middle, end]])
    for_validation = np.arange(len(spans))[::-1] % 10 == 0
    return spans[~for_validation], spans[for_validation]


class Windows:
    """Videos that are stretches of clips, read when they are indexed: `windows[[3, 14]]`.

    Args:
        clips: what `open_clips` returns.
        spans: (clips, 2), those to use; one that is shorter than a window has none.
        length: frames of a window.
        step: frames from the start of a window to that of the next; 1: every window that
            there is; `length`: none shares a frame with another.
    """

    def __init__(self, clips, spans, length, step):
        self.clips = clips
        self.length = length
        self.starts = np.concatenate(
            [np.arange(first, end - length + 1, step) for first, end in spans]
        )

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, indices):
        """(len(indices), length, height, width, channels), in the dtype of the frames."""
        starts = self.starts[np.asarray(indices)]
        return np.stack([self.clips.read(start, start + self.length) for start in starts])

    def draw(self, count, seed):
        """Random windows, (count, length, height, width, channels); seed: a list of integers."""
        return self[np.random.default_rng(seed).integers(len(self), size=count)]


def training_sets(opened, frames):
    """What to train and to validate on, of a file that `open_clips` has opened: two `Windows`.

    Raises:
        InputError: there is not enough for both.
    """
    spans, validation_spans = split_clips(opened.spans, frames)
    training = Windows(opened, spans, frames, step=1)
    validation = Windows(opened, validation_spans, frames, step=frames)
    names = [opened.names[np.searchsorted(opened.spans[:, 1], end)] for _, end in validation_spans]
    cli.say(
        f"training clips: {len(spans)}; videos for validation: {len(validation)}, of {frames} "
        f"frames, of {', '.join(names[:3])}{' and others' * (len(names) > 3)}"
    )
    return training, validation
