"""Moving MNIST: handwritten digits -> videos of moving digits -> input frames and their targets.

The target of a frame is the next frame: y_n = x_(n+1).

    python data.py               print what the pairs are, and draw some of them
    python data.py --download    fetch the official test file (781 MiB), which papers score on

Two 28x28 digits move over 64x64 black pixels for 20 frames and bounce off the walls, as in
Srivastava, Mansimov and Salakhutdinov 2015, "Unsupervised Learning of Video
Representations using LSTMs", section 4. Training videos are made of MNIST's training
digits while training asks for them, and never repeat; validation and test videos are made
of MNIST's test digits from fixed seeds. The official file was made in the same way.

Every array of videos has the shape (videos, frames, height, width, channels). Videos are
uint8 in 0..255 for as long as possible and float32 in [0, 1] once a model sees them.
"""

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import dataclasses
import functools
import hashlib
from pathlib import Path

import keras
import numpy as np
import tyro

from extras import cli, pictures
from extras.cli import Failure, InputError, atomic_write
from method.loop import check_frames

ASSETS = Path(__file__).resolve().parent / "assets"

# Moving MNIST as everybody makes it (Srivastava et al. 2015)
SIZE = 64  # height and width of a frame in pixels
FRAMES = 20  # of a video
CONTEXT = 10  # of them are given, and the others predicted
DIGITS_PER_VIDEO = 2
DIGIT_SIZE = 28  # pixels; MNIST
STEP = 0.1  # distance in a frame, as a share of the free space: 0.1 x (64 - 28) = 3.6 pixels

MOVING_MNIST = "moving-mnist"  # what `--data` calls it

# md5 of the pixels as MNIST's own idx files hold them, the 16 bytes of header included.
DIGITS_MD5 = {
    "train": "6bbc9ace898e44ae57da46a324031adb",
    "test": "2646ac647ad5339dbf082846283269ea",
}

# The first number of each seed, so that no two sets draw the same random numbers.
TRAINING, VALIDATION, TEST, SAMPLING = 0, 1, 2, 3  # SAMPLING: see train.py
EVALUATION_STREAMS = {"validation": VALIDATION, "test": TEST}
EVALUATION_VIDEOS = 10_000  # in the validation set and in the test set; as in the official file

# Videos that are forecast together have at most this many pixels in a frame, all of them
# together, and this many predicted values: that bounds the memory.
BATCH_PIXELS = 50 * SIZE * SIZE
BATCH_VALUES = 2**25

OFFICIAL_URL = "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
OFFICIAL_BYTES = 819_200_096
OFFICIAL_SHA256 = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"
OFFICIAL_PATH = Path("downloads/mnist_test_seq.npy")


# Digits and videos ------------------------------------------------------------------------


@functools.cache
def load_digits(split):
    """Load MNIST's handwritten digits from `assets/mnist.npz` and check them.

    Args:
        split: "train" (60,000 digits) or "test" (10,000 digits).

    Returns:
        uint8 array (digits, 28, 28), 0 is black; read-only, and the same one every time.

    Raises:
        InputError: unknown split, or the file is missing, broken or not the known digits.
    """
    if split not in DIGITS_MD5:
        raise InputError(f"no MNIST split {split!r}: choose one of {', '.join(DIGITS_MD5)}")
    path = ASSETS / "mnist.npz"
    restore = "restore it with: git checkout -- assets/mnist.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            digits = arrays[f"x_{split}"]
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {restore}") from None
    except Exception:  # what a damaged file raises depends on the damage
        raise InputError(f"{path} is not a readable .npz file of MNIST; {restore}") from None
    header = np.array([2051, *digits.shape], ">i4")  # idx: magic number, count, rows, columns
    if hashlib.md5(header.tobytes() + digits.tobytes()).hexdigest() != DIGITS_MD5[split]:
        raise InputError(f"the {split} digits in {path} differ from MNIST's checksum; {restore}")
    digits.flags.writeable = False
    return digits


def bounce(start, velocity, frames):
    """Positions on the line [0, 1] of something that moves, stops at a wall and turns back.

    In every frame it moves by `velocity`; if that took it to a wall or past it, it is put on the
    wall and its velocity is reversed.

    Args:
        start, velocity: float64 arrays of one shape; start in [0, 1], |velocity| <= 1.
        frames: how many positions to compute; the first is that after one move.

    Returns:
        float64 array of that shape and one more axis, (..., frames).
    """
    position, positions = start, []
    for _ in range(frames):
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = np.clip(position, 0, 1)
        positions.append(position)
    return np.stack(positions, axis=-1)


def move_digits(digits, numbers, frames=FRAMES, size=SIZE):
    """Draw one video for each row of random numbers.

    Args:
        digits: uint8 array (digits, 28, 28) to choose from.
        numbers: float64 array (videos, digits in a video, 4), uniform in [0, 1): they
            choose the digit, its start x, its start y and its direction.
        frames: frames of a video.
        size: height and width of a frame in pixels.

    Returns:
        uint8 array (videos, frames, size, size, 1). Overlapping digits take the maximum.
    """
    room = size - DIGIT_SIZE  # pixels in which a digit can move
    which = (numbers[..., 0] * len(digits)).astype(int)  # (videos, digits in a video)
    direction = 2 * np.pi * numbers[..., 3]
    x = bounce(numbers[..., 1], STEP * np.cos(direction), frames)  # (videos, digits, frames)
    y = bounce(numbers[..., 2], STEP * np.sin(direction), frames)
    left, top = (room * x).astype(int), (room * y).astype(int)  # rounded down

    videos = np.zeros((len(numbers), frames, size, size), np.uint8)
    for v, n, t in np.ndindex(left.shape):  # videos, digits, frames
        part = videos[v, t, top[v, n, t] :, left[v, n, t] :][:DIGIT_SIZE, :DIGIT_SIZE]
        np.maximum(part, digits[which[v, n]], out=part)
    return videos[..., None]


def make_videos(digits, count, seed, digits_per_video=DIGITS_PER_VIDEO, frames=FRAMES, size=SIZE):
    """Make Moving MNIST videos; the same seed gives the same videos on every machine.

    A larger count begins with the same videos.

    Args:
        digits: uint8 array (digits, 28, 28), from `load_digits`.
        count: how many videos.
        seed: an integer, or a list of integers.
        digits_per_video, frames: at least 1.
        size: height and width of a frame in pixels, at least 28.

    Returns:
        uint8 array (count, frames, size, size, 1).

    Raises:
        InputError: a number out of its range.
    """
    if min(count, digits_per_video, frames) < 1:
        raise InputError("count, digits_per_video and frames must be at least 1")
    if size < DIGIT_SIZE:
        raise InputError(f"size is {size}: a frame must hold a digit of {DIGIT_SIZE} pixels")
    numbers = np.random.default_rng(seed).random((count, digits_per_video, 4))
    return move_digits(digits, numbers, frames, size)


@dataclasses.dataclass(frozen=True)
class TrainingVideos:
    """Moving MNIST's training set: new videos from the training digits whenever some are drawn.

    Args:
        digits_per_video, frames, size: as for `make_videos`.
        single_digit_share: share of the videos that have one digit alone, in [0, 1].
    """

    digits_per_video: int = DIGITS_PER_VIDEO
    frames: int = FRAMES
    size: int = SIZE
    single_digit_share: float = 0.0

    def draw(self, count, seed):
        """uint8 array (count, frames, size, size, 1); seed: a list of integers."""
        digits, seed = load_digits("train"), [TRAINING, *seed]
        videos = make_videos(digits, count, seed, self.digits_per_video, self.frames, self.size)
        singles = round(self.single_digit_share * count)
        if singles:
            videos[:singles] = make_videos(digits, singles, seed, 1, self.frames, self.size)
        return videos


@dataclasses.dataclass(frozen=True)
class EvaluationVideos:
    """The fixed validation or test set. Videos are made when they are indexed: `videos[[3, 14]]`.

    The two sets share no digit: of MNIST's 10,000 test digits validation takes every second one,
    and test takes the others. (Halves would differ: the first 5,000 are cleaner than the last.)

    Args:
        split: "validation" or "test".
        digits_per_video, frames, size: as for `make_videos`.
    """

    split: str
    digits_per_video: int = DIGITS_PER_VIDEO
    frames: int = FRAMES
    size: int = SIZE

    @property
    def digits(self):
        """The digits of this set, uint8 array (5000, 28, 28)."""
        first = {"validation": 0, "test": 1}[self.split]
        return load_digits("test")[first::2]

    @property
    def numbers(self):
        """What `move_digits` makes the videos from: (10000, digits_per_video, 4)."""
        rng = np.random.default_rng([EVALUATION_STREAMS[self.split]])
        return rng.random((EVALUATION_VIDEOS, self.digits_per_video, 4))

    def __len__(self):
        return EVALUATION_VIDEOS

    def __getitem__(self, indices):
        """uint8 array (len(indices), frames, size, size, 1), for integers in 0..9999."""
        return move_digits(self.digits, self.numbers[indices], self.frames, self.size)


def shift_frames(videos):
    """Videos -> what a model reads, and what it should predict at each of these frames.

    Args:
        videos: (videos, frames, height, width, channels), uint8 in 0..255 or float in [0, 1].

    Returns:
        x, y: float32 in [0, 1], (videos, frames - 1, height, width, channels) each;
        y[:, n] is the frame after x[:, n], so y[:, n] == x[:, n + 1].
    """
    videos = to_float(videos)
    return videos[:, :-1], videos[:, 1:]


def to_float(videos):
    """uint8 in 0..255, or floats in [0, 1] -> float32 in [0, 1].

    Raises:
        InputError: videos are of another kind, or have values outside [0, 1].
    """
    videos = np.asarray(videos)
    if videos.dtype == np.uint8:
        return videos.astype(np.float32) / 255
    check_frames(videos)
    return videos.astype(np.float32, copy=False)


def copy_last(context, horizon):
    """The simplest forecast: the last frame of each context, again and again.

    Args:
        context: (videos, frames, height, width, channels).
        horizon: how many frames to predict.

    Returns:
        (videos, horizon, height, width, channels), in the dtype of the context.
    """
    return np.repeat(context[:, -1:], horizon, axis=1)


def batches(videos, indices, horizon=FRAMES, verbose=0):
    """Some of the videos, as many at a time as can be forecast together.

    Args:
        videos: to be indexed by an array of numbers: (videos, frames, height, width, channels).
        indices: which of them.
        horizon: how many frames of each will be predicted.
        verbose: 1 shows a progress bar.

    Yields:
        The next videos, as they are.
    """
    height, width, channels = videos[indices[:1]].shape[2:]
    pixels = height * width
    batch_size = min(BATCH_PIXELS // pixels, BATCH_VALUES // (pixels * channels * horizon))
    batch_size = max(1, batch_size)
    bar = keras.utils.Progbar(len(indices), verbose=verbose, unit_name="video")
    for start in range(0, len(indices), batch_size):
        yield videos[indices[start : start + batch_size]]
        bar.update(min(start + batch_size, len(indices)))


# The official test file -------------------------------------------------------------------


def download_official():
    """Download the official test file, unless it is there, and check it; keep no other file.

    Returns:
        Its path.

    Raises:
        InputError: the file that is there is another one.
        Failure: no connection, it broke, or the bytes are wrong.
    """
    if OFFICIAL_PATH.exists():
        with open(OFFICIAL_PATH, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == OFFICIAL_SHA256:
                return OFFICIAL_PATH
        raise InputError(f"{OFFICIAL_PATH} is not the official file, or is damaged: delete it")
    print(f"downloading {OFFICIAL_URL} ({OFFICIAL_BYTES / 2**20:.0f} MiB), once", flush=True)
    with atomic_write(OFFICIAL_PATH) as temporary:
        try:
            keras.utils.get_file(
                temporary.name,
                OFFICIAL_URL,
                file_hash=OFFICIAL_SHA256,
                cache_dir=temporary.absolute().parent,
                cache_subdir="",
            )
        except ValueError:  # by the hash
            raise Failure(f"{OFFICIAL_URL} sent another file; nothing was kept") from None
        except Exception as error:  # whatever the connection raises
            raise Failure(
                f"cannot download {OFFICIAL_URL} ({error}): check the connection and try again"
            ) from None
    return OFFICIAL_PATH


# The command line -------------------------------------------------------------------------


@dataclasses.dataclass
class Arguments:
    """Show what Moving MNIST is, and what a model is trained on."""

    seed: int = 0
    """Seed of the random videos, 0 or above."""
    out: Path = Path("outputs")
    """Folder for the picture."""
    download: bool = False
    """Download the official test file (781 MiB), which only --data official needs, and check it."""


def main():
    arguments = tyro.cli(Arguments)
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: a seed is 0 or above")
    if arguments.download:
        print(f"the official test file: {download_official()}")
        return
    cli.make_folder(arguments.out)

    digits = load_digits("train")
    videos = TrainingVideos().draw(3, [arguments.seed])
    x, y = shift_frames(videos)
    rows, labels = [], []
    for video_x, video_y in zip(x, y):
        rows.append([(frame, pictures.REAL_COLOUR) for frame in video_x[:8]])
        rows.append([(frame, pictures.PREDICTED_COLOUR) for frame in video_y[:8]])
        labels += ["input x", "target y"]
    path = arguments.out / "pairs.png"
    with atomic_write(path) as temporary:
        pictures.film_strip(rows, labels, scale=2).save(temporary)

    for name, array, meaning in [
        ("digits", digits, "MNIST's training digits"),
        ("videos", videos, "(videos, frames, height, width, channels)"),
        ("x", x, "what a model reads: all frames but the last"),
        ("y", y, "what it should predict: all frames but the first"),
    ]:
        print(
            f"{name:7}{array.shape!s:22}{array.dtype!s:8} "
            f"{array.min():g}..{array.max():<4g} {meaning}"
        )
    print("the target of a frame is the next frame: y[:, n] == x[:, n + 1] is", end=" ")
    print(np.array_equal(y[:, :-1], x[:, 1:]))
    cli.say(f"inputs above, their targets below: {path}")


if __name__ == "__main__":
    cli.run(main)
