"""Moving MNIST: handwritten digits -> videos of moving digits -> pairs of (x_n, y_(n+1)).

    python data.py               print what the pairs are, and draw some of them
    python data.py --official    download the official test file (781 MiB; never needed)

Two 28x28 digits move over 64x64 black pixels for 20 frames and bounce off the walls, as in
Srivastava, Mansimov and Salakhutdinov 2015, "Unsupervised Learning of Video
Representations using LSTMs", section 4. Training videos are made of MNIST's training
digits while training asks for them, and never repeat; validation and test videos are made
of MNIST's test digits from fixed seeds.

Every array of videos has the shape (videos, frames, height, width, channels). Videos are
uint8 in 0..255 for as long as possible and float32 in [0, 1] once a model sees them.
"""

import dataclasses
import functools
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from extras import cli
from extras.cli import Failure, InputError, atomic_write

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ASSETS = Path(__file__).resolve().parent / "assets"

DIGIT_SIZE = 28  # pixels; MNIST
STEP = 0.1  # how far a digit moves in a frame, as a share of its range (Srivastava et al. 2015)

# md5 of the pixels as MNIST's own idx files hold them, the 16 bytes of header included.
DIGITS_MD5 = {
    "train": "6bbc9ace898e44ae57da46a324031adb",
    "test": "2646ac647ad5339dbf082846283269ea",
}

# One stream of random numbers for each set, so that no two sets can share a video.
TRAINING, VALIDATION, TEST, SAMPLING = 0, 1, 2, 3  # SAMPLING: see train.py
EVALUATION_VIDEOS = 10_000  # in the validation set and in the test set; as in the official file

OFFICIAL_URL = "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
OFFICIAL_NAME = "mnist_test_seq.npy"
OFFICIAL_BYTES = 819_200_096
OFFICIAL_SHA256 = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"
OFFICIAL_PATH = Path("downloads") / OFFICIAL_NAME


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

    In every frame it moves by `velocity`; if that took it to a wall or past it, it is put
    on the wall and its velocity is reversed. This is that loop in closed form.

    Args:
        start, velocity: float64 arrays of one shape; start in [0, 1], |velocity| <= 1.
        frames: how many positions to compute; the first is that after one move.

    Returns:
        float64 array of that shape and one more axis, (..., frames).
    """
    speed = np.maximum(np.abs(velocity), 1e-12)[..., None]  # (..., 1); 1e-12 is at rest
    forward = velocity[..., None] > 0
    start = start[..., None]
    frame = np.arange(1, frames + 1)  # (frames,)
    # How many moves it takes to meet the first wall, and then from wall to wall.
    to_first_wall = np.maximum(1, np.ceil(np.where(forward, 1 - start, start) / speed))
    wall_to_wall = np.maximum(1, np.ceil(1 / speed))
    crossings, moves = np.divmod(frame - to_first_wall, wall_to_wall)  # (..., frames) each
    from_one = forward == (crossings % 2 == 0)  # which wall was met last: 1, else 0
    bounced = np.where(from_one, 1 - moves * speed, moves * speed)
    straight = np.where(forward, start + frame * speed, start - frame * speed)
    return np.where(frame < to_first_wall, straight, bounced)


def move_digits(digits, numbers, frames=20, size=64):
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
    room = size - DIGIT_SIZE
    which = (numbers[..., 0] * len(digits)).astype(int)  # (videos, digits in a video)
    direction = 2 * np.pi * numbers[..., 3]
    x = bounce(numbers[..., 1], STEP * np.cos(direction), frames)  # (videos, digits, frames)
    y = bounce(numbers[..., 2], STEP * np.sin(direction), frames)
    left, top = (room * x).astype(int), (room * y).astype(int)  # rounded down

    videos = np.zeros((len(numbers), frames, size, size), np.uint8)
    # Every 28x28 window of every frame, without a copy:
    # (videos, frames, room + 1, room + 1, 28, 28)
    windows = np.lib.stride_tricks.sliding_window_view(
        videos, (DIGIT_SIZE, DIGIT_SIZE), axis=(2, 3), writeable=True
    )
    video, frame = np.ogrid[: len(numbers), :frames]  # (videos, 1) and (1, frames)
    for n in range(numbers.shape[1]):  # the digits of a video
        place = (video, frame, top[:, n], left[:, n])  # (videos, frames)
        drawn = digits[which[:, n], None]  # (videos, 1, 28, 28)
        windows[place] = np.maximum(windows[place], drawn)
    return videos[..., None]


def make_videos(digits, count, seed, digits_per_video=2, frames=20, size=64, rows=slice(None)):
    """Make Moving MNIST videos; the same seed gives the same videos on every machine.

    The first videos of a longer call are those of a shorter one.

    Args:
        digits: uint8 array (digits, 28, 28), from `load_digits`.
        count: how many videos.
        seed: an integer, or a list of integers.
        digits_per_video, frames: at least 1.
        size: height and width of a frame in pixels, at least 28.
        rows: which of them to make, a slice; the others cost nothing.

    Returns:
        uint8 array (count, frames, size, size, 1), or fewer by `rows`.

    Raises:
        InputError: a number out of its range.
    """
    if min(count, digits_per_video, frames) < 1:
        raise InputError("count, digits_per_video and frames must be at least 1")
    if size < DIGIT_SIZE:
        raise InputError(f"size is {size}: a frame must hold a digit of {DIGIT_SIZE} pixels")
    numbers = np.random.default_rng(seed).random((count, digits_per_video, 4))
    return move_digits(digits, numbers[rows], frames, size)


def evaluation_videos(split, indices, digits_per_video=2, frames=20, size=64):
    """Videos of the fixed validation or test set, by their numbers.

    The two sets share no digit: validation takes every other one of MNIST's 10,000 test
    digits, and test takes the rest. (Every other one, since the first 5,000 are cleaner
    than the last.)

    Args:
        split: "validation" or "test".
        indices: integers in 0..9999.
        digits_per_video, frames, size: as for `make_videos`.

    Returns:
        uint8 array (len(indices), frames, size, size, 1).
    """
    stream = {"validation": VALIDATION, "test": TEST}[split]
    digits = load_digits("test")[stream - VALIDATION :: 2]  # (5000, 28, 28)
    numbers = np.random.default_rng([stream]).random((EVALUATION_VIDEOS, digits_per_video, 4))
    return move_digits(digits, numbers[indices], frames, size)


@dataclasses.dataclass(frozen=True)
class EvaluationVideos:
    """The fixed validation or test set, made as it is indexed: `videos[[3, 14]]`.

    The fields are the arguments of `evaluation_videos`.
    """

    split: str
    digits_per_video: int = 2
    frames: int = 20
    size: int = 64

    def __len__(self):
        return EVALUATION_VIDEOS

    def __getitem__(self, indices):
        return evaluation_videos(self.split, indices, self.digits_per_video, self.frames, self.size)


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
    """uint8 in 0..255, or floats in [0, 1] -> float32 in [0, 1]."""
    videos = np.asarray(videos)
    return videos.astype(np.float32) / (255 if videos.dtype == np.uint8 else 1)


def to_uint8(frames):
    """Floats in [0, 1], or uint8 -> uint8 in 0..255, rounded."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    return np.round(255 * np.clip(frames, 0, 1)).astype(np.uint8)


class MovingMNIST(keras.utils.PyDataset):
    """Batches of new (x, y) pairs from the training digits, made when they are asked for.

    A batch depends on (seed, epoch, batch index) alone: not on the workers, nor on the
    batches before it. Every epoch has videos of its own; give `fit` a `SetEpoch` callback,
    and they are those of its epoch's number, in a run that was interrupted too.

    Args:
        seed: integer; other seeds, other videos.
        batch_size: videos in a batch.
        batches: batches in an epoch.
        epoch: the epoch to start at.
        digits_per_video, frames, size: as for `make_videos`.
        workers, use_multiprocessing, max_queue_size: as for `keras.utils.PyDataset`.
    """

    def __init__(
        self, seed, batch_size, batches, epoch=0, digits_per_video=2, frames=20, size=64, **kwargs
    ):
        super().__init__(**kwargs)
        self.digits = load_digits("train")
        self.seed = seed
        self.batch_size = batch_size
        self.batches = batches
        self.epoch = epoch
        self.shape = {"digits_per_video": digits_per_video, "frames": frames, "size": size}

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        """x, y: float32 in [0, 1], (batch_size, frames - 1, size, size, 1) each."""
        return shift_frames(self.draw([TRAINING, self.seed, self.epoch, index]))

    def draw(self, seed, rows=slice(None)):
        """Videos of a batch, uint8 (batch_size, frames, size, size, 1), by their seed."""
        return make_videos(self.digits, self.batch_size, seed, **self.shape, rows=rows)

    def on_epoch_end(self):
        self.epoch += 1


class SetEpoch(keras.callbacks.Callback):
    """Set the epoch of a `MovingMNIST` when an epoch begins.

    Keras does not: it calls `on_epoch_end` once more than there are epochs when `fit` had
    to build something from the first batch, and otherwise it does not.
    """

    def __init__(self, videos):
        super().__init__()
        self.videos = videos

    def on_epoch_begin(self, epoch, logs=None):
        self.videos.epoch = epoch


# Files ------------------------------------------------------------------------------------


def load_videos(path):
    """Open videos from a file, without reading more of it than needed.

    Args:
        path: a .npy file, or a .npz file with one array (or one named "videos"), of shape
            (videos, frames, height, width[, channels]), height and width at least 7: uint8,
            or floats in [0, 1]. The
            official `mnist_test_seq.npy` is known by its name: its frames come first.

    Returns:
        Array (videos, frames, height, width, channels), in the file's own dtype; a .npy
        file stays on disk until it is indexed.

    Raises:
        InputError: the file is missing or broken, or holds something else.
    """
    path = Path(path)
    try:
        videos = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(videos, np.lib.npyio.NpzFile):
            with videos as arrays:
                names = arrays.files
                if "videos" not in names and len(names) != 1:
                    raise InputError(
                        f"{path} holds {len(names)} arrays ({', '.join(names)}): "
                        "keep one, or name one of them 'videos'"
                    )
                videos = arrays["videos" if "videos" in names else names[0]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # what a damaged file raises depends on the damage
        raise InputError(
            f"{path} cannot be read as a .npy or .npz file of numbers; it may be cut off ({error})"
        ) from None
    if not isinstance(videos, np.ndarray):
        raise InputError(f"{path} holds no array")

    if path.name == OFFICIAL_NAME and videos.ndim == 4:
        videos = np.swapaxes(videos, 0, 1)  # (frames, videos, ...) -> (videos, frames, ...)
    if videos.ndim == 4:
        videos = videos[..., None]
    if videos.ndim != 5 or 0 in videos.shape or videos.shape[-1] not in (1, 3):
        raise InputError(
            f"{path} has the shape {videos.shape}: expected "
            "(videos, frames, height, width) or (videos, frames, height, width, 1 or 3)"
        )
    if min(videos.shape[2:4]) < 7:
        raise InputError(f"{path}: frames must be at least 7 x 7 pixels, as SSIM's window is")
    if videos.dtype != np.uint8:
        if not np.issubdtype(videos.dtype, np.floating):
            raise InputError(
                f"{path} holds {videos.dtype}: convert it to uint8, or floats in [0, 1]"
            )
        for video in videos:  # one at a time, since the file may be larger than memory
            if not (video.min() >= 0 and video.max() <= 1):  # NaN fails both
                raise InputError(f"{path} has values outside [0, 1]: divide by their maximum")
    return videos


def open_videos(source, frames=20):
    """Open a fixed set or a file of videos; they are made or read as they are indexed.

    Args:
        source: "test", "validation", "official", or the path of a file for `load_videos`.
        frames: how many frames of each to return, if it has as many.

    Returns:
        Something with a length, to be indexed by an array of numbers: `videos[indices]` is an
        array (numbers, at most `frames`, height, width, channels), uint8 or float.

    Raises:
        InputError: `load_videos` cannot use the file.
    """
    if source in ("test", "validation"):
        return EvaluationVideos(source, frames=frames)
    if source == "official" and not OFFICIAL_PATH.exists():
        raise InputError(f"{OFFICIAL_PATH} is not there: get it by python data.py --official")
    return load_videos(OFFICIAL_PATH if source == "official" else source)[:, :frames]


def choose_videos(available, count=None, seed=None, usual_count=100):
    """Numbers of the videos to forecast.

    Args:
        available: how many there are to choose from.
        count: how many; None takes `usual_count`, or all if they are fewer.
        seed: None takes the first ones; an integer picks at random, by this seed.

    Returns:
        Integer array (count,), values in 0..available - 1.

    Raises:
        InputError: count or seed is not in range.
    """
    if count is None:
        count = min(usual_count, available)
    if not 1 <= count <= available:
        raise InputError(f"--count {count}: there are {available:,} videos to choose from")
    if seed is None:
        return np.arange(count)
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or above")
    return np.random.default_rng(seed).choice(available, count, replace=False)


def download_official(
    path=OFFICIAL_PATH, url=OFFICIAL_URL, size=OFFICIAL_BYTES, sha256=OFFICIAL_SHA256
):
    """Download the official Moving MNIST test file, or the rest of it, and check it.

    What has arrived is kept in `path` + ".part"; the next call goes on from there. `path`
    itself appears only once its size and its hash are right.

    Args:
        path: where to put the file.
        url, size, sha256: where it is, and what it must be (bytes, hexadecimal digest).

    Raises:
        Failure: no connection, it broke, or the bytes are wrong.
    """
    path = Path(path)
    if path.exists() and path.stat().st_size == size and file_sha256(path) == sha256:
        print(f"{path} is already there, and right")
        return
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = part.stat().st_size if part.exists() else 0
    if done < size:
        fetch_rest(part, url, done, size)
    if part.stat().st_size != size or file_sha256(part) != sha256:
        part.unlink()
        raise Failure(f"{url} sent something else than the official file; nothing was kept")
    part.rename(path)
    print(f"{path}: {size:,} bytes, checked")


def fetch_rest(part, url, done, size):
    """Append to `part` what `url` has after the first `done` bytes of `size`."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            resumed = response.status == 206  # else the server starts from the beginning
            done = done if resumed else 0
            if int(response.headers.get("Content-Length", size - done)) != size - done:
                raise Failure(f"{url} is not the official file: it has another size")
            bar = keras.utils.Progbar(size, unit_name="byte")
            with open(part, "ab" if resumed else "wb") as file:
                while done <= size and (block := response.read(2**20)):
                    if done == 0 and not block.startswith(np.lib.format.MAGIC_PREFIX):
                        raise Failure(f"{url} sent something else than a .npy file: try later")
                    file.write(block)
                    done += len(block)
                    bar.update(min(done, size))
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise Failure(
            f"cannot download {url} ({error}): check the connection and try again"
        ) from None
    if done < size:
        raise Failure(
            f"the connection ended after {done:,} of {size:,} bytes: run this again to go on"
        )


def file_sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Pictures ---------------------------------------------------------------------------------

REAL_COLOUR = (96, 125, 139)  # grey blue, around frames that were given
PREDICTED_COLOUR = (255, 112, 0)  # orange, around frames that a model made, or should make


def enlarge(frame, scale, colour):
    """One frame -> uint8 RGB, each pixel a block of scale x scale, in a coloured border.

    Args:
        frame: (height, width, 1 or 3), uint8 or float in [0, 1].
        scale: integer factor.
        colour: RGB of the border, which is 2 pixels wide.

    Returns:
        uint8 array (height * scale + 4, width * scale + 4, 3).
    """
    pixels = np.repeat(np.repeat(to_uint8(frame), scale, axis=0), scale, axis=1)
    picture = np.empty((pixels.shape[0] + 4, pixels.shape[1] + 4, 3), np.uint8)
    picture[:] = colour
    picture[2:-2, 2:-2] = pixels  # one channel is copied to all three
    return picture


def film_strip(rows, labels, scale=1):
    """Rows of frames below each other, the first column's label at their left.

    Args:
        rows: lists of one length of (frame, colour) as for `enlarge`, or of None for a gap.
        labels: a word for each row.
        scale: integer factor of enlargement.

    Returns:
        A PIL image.
    """
    tiles = [[tile and enlarge(tile[0], scale, tile[1]) for tile in row] for row in rows]
    height, width = next(tile.shape[:2] for row in tiles for tile in row if tile is not None)
    gap, margin = 2, 80
    image = Image.new(
        "RGB",
        (margin + len(rows[0]) * (width + gap), len(rows) * (height + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    for r, row in enumerate(tiles):
        top = gap + r * (height + gap)
        draw.text((margin - 6, top + height / 2), labels[r], "black", font, anchor="rm")
        for c, tile in enumerate(row):
            if tile is not None:
                image.paste(Image.fromarray(tile), (margin + c * (width + gap), top))
    return image


def forecast_strip(context, truth, prediction):
    """A film strip of forecasts: real frames, and the predicted ones below those they predict.

    Args:
        context, truth, prediction: (videos, frames, height, width, channels), uint8 or
            float in [0, 1]; the truth may have fewer frames than the prediction.

    Returns:
        A PIL image.
    """
    rows, labels = [], []
    for given, real, predicted in zip(context, truth, prediction):
        rows.append([(frame, REAL_COLOUR) for frame in (*given, *real)])
        rows[-1] += [None] * (len(predicted) - len(real))
        rows.append([None] * len(given) + [(frame, PREDICTED_COLOUR) for frame in predicted])
        labels += ["real", "predicted"]
    return film_strip(rows, labels)


def main():
    def arguments(official: bool = False, seed: int = 0, out: Path = Path("outputs")):
        """Show what Moving MNIST is, and what a model is trained on.

        Args:
            official: Download the official test file instead (781 MiB; never needed).
            seed: Seed of the random videos.
            out: Folder for the picture.
        """
        return official, seed, out

    official, seed, out = cli.parse(arguments)
    if official:
        return download_official()
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or above")
    cli.make_folder(out)

    digits = load_digits("train")
    videos = make_videos(digits, 3, seed)
    x, y = shift_frames(videos)
    for name, array, meaning in [
        ("digits", digits, "MNIST's training digits"),
        ("videos", videos, "(videos, frames, height, width, channels)"),
        ("x", x, "what a model reads: frames 1 to 19"),
        ("y", y, "what it should predict: frames 2 to 20"),
    ]:
        print(
            f"{name:7}{array.shape!s:22}{array.dtype!s:8} "
            f"{array.min():g}..{array.max():<4g} {meaning}"
        )
    print("the target of a frame is the next frame: y[:, n] == x[:, n + 1] is", end=" ")
    print(np.array_equal(y[:, :-1], x[:, 1:]))

    rows, labels = [], []
    for video_x, video_y in zip(x, y):
        rows.append([(frame, REAL_COLOUR) for frame in video_x[:8]])
        rows.append([(frame, PREDICTED_COLOUR) for frame in video_y[:8]])
        labels += ["input x", "target y"]
    path = out / "pairs.png"
    with atomic_write(path) as temporary:
        film_strip(rows, labels, scale=2).save(temporary)
    print(f"inputs above, their targets below: {path}")


if __name__ == "__main__":
    cli.run(main)
