"""The least squared error that any forecast of Moving MNIST can have.

    python benchmarks/floor.py

The forecast is told both digits' shapes, their ten context places, exactly, and how Moving MNIST
moves. One thing stays unknown: places are rounded down to whole pixels, so many angles and starts
of a digit fit its ten places, and lead to different places later. The forecast with the least
expected squared error is the mean of all frames that may come. No model that sees only the pixels
can do better in the long run, as it knows less.

The two axes of a digit share its angle, cos^2 + sin^2 = 1, and given the angle they are
independent. So the places along one axis are listed once, for many angles and starts (both are
uniform). For a digit and each of its axes, the lists that begin with its ten places are picked, and
those of the same angle are combined:

    p(y, x in frame n | ten places) ~ sum over angles of
        (lists of y with this angle that go on to y) * (lists of x with this angle that go on to x)

Takes ten minutes of one CPU core for 1,000 test videos, and 1.2 GB of memory. Prints the squared
error of the mean frames, summed over pixels: the mean over videos and frames with its standard
error over videos, and that of each frame. The second line is the error that the forecast expects,
the variance of the frames that may come. The two agree if the forecast is right. The third line is
the error if each axis has an angle of its own, as if nothing were known of cos^2 + sin^2 = 1.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import numpy as np
import tyro

import data
import predict
from extras import cli

CONTEXT, HORIZON, SIZE = 10, 10, 64
PLACES = SIZE - data.DIGIT_SIZE + 1  # 37 along an axis
# Angles within half a turn, and starts along the axis. A digit's ten places leave 0.02 radians
# open (the median; 0.002 for one digit in 100): 150 of these angles. ANGLES must be even.
ANGLES, STARTS = 24_000, 600


def digit_places(numbers):
    """Where digits are, as `data.move_digits` places them.

    Args:
        numbers: uniform in [0, 1), (..., 4): which digit, its start x, its start y, its direction.

    Returns:
        int8 array (..., 2, CONTEXT + HORIZON) in 0..36: vertical and horizontal.
    """
    angle = 2 * np.pi * numbers[..., 3]
    velocity = data.STEP * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    positions = data.bounce(numbers[..., [2, 1]], velocity, CONTEXT + HORIZON)
    return ((PLACES - 1) * positions).astype(np.int8)  # rounded down


def list_places():
    """List the places along an axis for each angle and start.

    Returns:
        int8 array (CONTEXT + HORIZON, ANGLES * STARTS), of a digit whose velocity is STEP *
        cos(angle). Half a turn is enough, since cos(-angle) = cos(angle).
    """
    rng = np.random.default_rng(0)
    places = np.empty((CONTEXT + HORIZON, ANGLES, STARTS), np.int8)
    angles = np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
    for chunk in np.array_split(np.arange(ANGLES), 100):
        # Equally spaced but for a jitter, which differs between angles.
        starts = (np.arange(STARTS) + rng.random((len(chunk), STARTS))) / STARTS
        velocities = np.broadcast_to(data.STEP * np.cos(angles[chunk, None]), starts.shape)
        positions = data.bounce(starts, velocities, CONTEXT + HORIZON)  # (angles, starts, frames)
        places[:, chunk] = np.moveaxis((PLACES - 1) * positions, -1, 0)  # rounded down
    return places.reshape(CONTEXT + HORIZON, -1)


def posterior(lists, seen, share_angle):
    """Where a digit may be in each of the next frames.

    Args:
        lists: from `list_places`.
        seen: the digit's places in the context, integers (2, CONTEXT), vertical and horizontal.
        share_angle: whether both axes have the same angle, as they do.

    Returns:
        (HORIZON, PLACES, PLACES): probabilities over vertical and horizontal places.
    """
    numbers, angles = [], []
    for axis in (0, 1):
        agreeing = np.flatnonzero(lists[0] == seen[axis, 0])
        for n in range(1, CONTEXT):
            agreeing = agreeing[lists[n, agreeing] == seen[axis, n]]
        angle = np.concatenate([agreeing // STARTS, -1 - agreeing // STARTS])  # in pi / ANGLES
        # The vertical velocity is sin(angle) = cos(angle - a quarter turn).
        angles.append((angle + (ANGLES // 2 if axis == 0 else 0)) % (2 * ANGLES))
        numbers.append(np.tile(agreeing, 2))
    if not share_angle:
        angles = [np.zeros_like(angle) for angle in angles]
    shared = np.intersect1d(*angles)
    assert len(shared), "too few ANGLES and STARTS: none agrees with the places of a digit"
    counts = np.zeros((2, len(shared), HORIZON, PLACES))  # of lists, by angle and by next place
    for axis in (0, 1):
        kept = np.isin(angles[axis], shared)
        groups = np.searchsorted(shared, angles[axis][kept])  # (lists,)
        next_places = lists[CONTEXT:, numbers[axis][kept]]  # (HORIZON, lists)
        np.add.at(counts[axis], (groups, np.arange(HORIZON)[:, None], next_places), 1)
    joint = np.einsum("any,anx->nyx", *counts)
    return joint / joint.sum(axis=(1, 2), keepdims=True)


def brighter(ranks, places, levels):
    """How likely each pixel is brighter than each grey level.

    Args:
        ranks: a digit, integers (28, 28) in 0..levels - 1.
        places: probabilities (PLACES, PLACES).
        levels: how many grey levels there are; the lowest is black.

    Returns:
        (SIZE * SIZE, levels - 1): probabilities of being above each level but the highest.
    """
    y, x = np.nonzero(places)
    rows, columns = np.divmod(np.arange(ranks.size), data.DIGIT_SIZE)
    pixels = (y[:, None] + rows) * SIZE + x[:, None] + columns  # (places, 28 * 28)
    chances = np.bincount(
        (levels * pixels + ranks.ravel()).ravel(),
        np.repeat(places[y, x], ranks.size),
        minlength=levels * SIZE**2,
    )
    return chances.reshape(-1, levels)[:, :0:-1].cumsum(axis=1)[:, ::-1]


def forecast(lists, digits, places, share_angle):
    """The mean of all frames that may come.

    Args:
        lists: from `list_places`.
        digits: those of a video, uint8 (2, 28, 28).
        places: theirs in the context, integers (2, 2, CONTEXT).
        share_angle: as for `posterior`.

    Returns:
        frames: (HORIZON, SIZE, SIZE, 1) in [0, 1].
        variances: (HORIZON,), summed over pixels: the squared errors to be expected.
    """
    levels, ranks = np.unique(data.to_float(digits), return_inverse=True)
    frames, variances = [], []
    for both in zip(*(posterior(lists, seen, share_angle) for seen in places)):
        first, second = (brighter(*digit, len(levels)) for digit in zip(ranks, both))
        # The maximum of both is brighter than a level if either is.
        either = first + second - first * second  # (SIZE * SIZE, levels - 1)
        mean, mean_square = either @ np.diff(levels), either @ np.diff(levels**2)
        frames.append(mean.reshape(SIZE, SIZE, 1))
        variances.append(np.sum(mean_square - mean**2))
    return np.stack(frames), np.array(variances)


def forecasts(videos, indices, share_angle=True):
    """Forecast videos of a `data.EvaluationVideos`: yields what `forecast` returns, for each."""
    lists = list_places()
    for numbers in videos.numbers[indices]:  # (2 digits, 4)
        digits = videos.digits[(numbers[:, 0] * len(videos.digits)).astype(int)]
        yield forecast(lists, digits, digit_places(numbers)[..., :CONTEXT], share_angle)


def standard_error(errors):
    """That of the mean of errors (videos, HORIZON), over videos: the frames of one are alike."""
    return errors.mean(axis=1).std() / np.sqrt(len(errors))


def show_errors(name, errors):
    """Print squared errors (videos, HORIZON), summed over pixels: mean, standard error, frames."""
    frames = " ".join(f"{error:.1f}" for error in errors.mean(axis=0))
    print(
        f"{name}: {errors.mean():.2f} +- {standard_error(errors):.2f}; "
        f"frames 1 to {HORIZON}: {frames}"
    )


def main(count: int = 1000):
    """The least squared error that any forecast of Moving MNIST can have.

    Args:
        count: how many test videos.
    """
    videos = data.EvaluationVideos("test")
    indices = predict.choose_indices(len(videos), count)
    truth = data.to_float(videos[indices])[:, CONTEXT:]

    def errors_and_variances(share_angle):
        results = np.empty((2, count, HORIZON))
        for n, (frames, results[1, n]) in enumerate(forecasts(videos, indices, share_angle)):
            results[0, n] = np.square(frames - truth[n]).sum(axis=(1, 2, 3))
        return results

    errors, variances = errors_and_variances(share_angle=True)
    show_errors(f"the floor, {count} test videos", errors)
    show_errors("as it expects", variances)
    show_errors("treating the axes apart", errors_and_variances(share_angle=False)[0])


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main))
