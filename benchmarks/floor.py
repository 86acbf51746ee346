"""The least squared error that any forecast of Moving MNIST can have, and what it consists of.

    python benchmarks/floor.py --count 1000

Somebody knows the shapes of both digits and their places in the ten context frames, exactly,
and how Moving MNIST moves. What remains unknown: places are rounded down to whole pixels, so
many angles and starts of a digit fit its ten places, and lead to different places later. The
forecast with the least expected squared error is the mean of all frames that may come, and
this computes it, for videos of the test set. No model that sees only the pixels can do
better in the long run, as it knows less.

How: the two axes of a digit share its angle, cos^2 + sin^2 = 1, and given the angle they are
independent. So, for each of many angles and starts along one axis (the prior is uniform over
both), the places of a digit are listed once. For a digit, its lists that agree with its ten
places are picked, for each axis, and those of the same angle are combined:

    p(y, x at frame n | ten places) ~ sum over angles of
        (lists of y with this angle that go on to y) * (lists of x with this angle that go on to x)

Printed: the squared error of that mean frame, summed over pixels, with its standard error
over videos; what it expects its own error to be, which must agree; and the error of somebody
who treats the axes apart, as if they did not share an angle. Five minutes of one CPU core
for 1,000 videos, 1.2 GB of memory.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extras import cli
from extras.cli import InputError

import numpy as np

import data

CONTEXT, HORIZON, SIZE = 10, 10, 64
PLACES = SIZE - data.DIGIT_SIZE + 1  # 37 along an axis
# Within half a turn, and along the axis. A digit's ten places leave 0.02 radians open (the
# median; 0.002 in one of 100 digits): 150 of these angles.
ANGLES, STARTS = 24_000, 600  # ANGLES must be even


def list_places():
    """List the places along an axis for each angle and start.

    Returns:
        uint8 array (frames, ANGLES * STARTS), of a digit whose velocity is STEP * cos(angle).
        The angles are those of half a turn, since cos(-angle) = cos(angle).
    """
    rng = np.random.default_rng(0)
    places = np.empty((CONTEXT + HORIZON, ANGLES, STARTS), np.uint8)
    angles = np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
    for chunk in np.array_split(np.arange(ANGLES), 100):
        # Equally spaced but for a jitter, which is another one for each angle.
        starts = (np.arange(STARTS) + rng.random((len(chunk), STARTS))) / STARTS
        velocities = np.broadcast_to(data.STEP * np.cos(angles[chunk, None]), starts.shape)
        positions = data.bounce(starts, velocities, CONTEXT + HORIZON)  # (angles, starts, frames)
        places[:, chunk] = np.moveaxis((PLACES - 1) * positions, -1, 0)  # rounded down
    return places.reshape(CONTEXT + HORIZON, -1)


def agreeing(lists, seen):
    """The numbers of the lists that begin with the places seen, (CONTEXT,)."""
    numbers = np.flatnonzero(lists[0] == seen[0])
    for n in range(1, CONTEXT):
        numbers = numbers[lists[n, numbers] == seen[n]]
    return numbers


def count_places(lists, numbers, groups, group_count):
    """Count lists by their group and by their places: (group_count, HORIZON, PLACES)."""
    counts = np.zeros((group_count, HORIZON, PLACES))
    for n in range(HORIZON):
        np.add.at(counts, (groups, n, lists[CONTEXT + n, numbers]), 1)
    return counts


def posterior(lists, seen):
    """Where a digit may be in each of the next frames.

    Args:
        lists: from `list_places`.
        seen: its places in the context, (2, CONTEXT) integers, vertical and horizontal.

    Returns:
        together, apart: (HORIZON, PLACES, PLACES) each, probabilities over vertical and
            horizontal places; `apart` lets each axis have an angle of its own.
    """
    numbers, angles = [], []
    for axis in (0, 1):
        agree = agreeing(lists, seen[axis])
        half_turn = agree // STARTS
        angle = np.concatenate([half_turn, -1 - half_turn])  # in steps of pi / ANGLES
        # The vertical velocity is sin(angle) = cos(angle - a quarter turn).
        angles.append((angle + (ANGLES // 2 if axis == 0 else 0)) % (2 * ANGLES))
        numbers.append(np.tile(agree, 2))
    shared = np.intersect1d(*angles)
    assert len(shared), "too few ANGLES and STARTS: none agrees with the places of a digit"
    together, apart = [], []
    for axis in (0, 1):
        kept = np.isin(angles[axis], shared)
        groups = np.searchsorted(shared, angles[axis][kept])
        together.append(count_places(lists, numbers[axis][kept], groups, len(shared)))
        apart.append(count_places(lists, numbers[axis], 0, 1))
    return [
        joint / joint.sum(axis=(1, 2), keepdims=True)
        for joint in (np.einsum("any,anx->nyx", *counts) for counts in (together, apart))
    ]


def brighter(ranks, places, levels):
    """How likely each pixel is brighter than each grey level.

    Args:
        ranks: a digit, (28, 28), integers in 0..levels-1.
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


def expected_frame(digits, places):
    """The mean frame, and the sum over pixels of the variances: the expected squared error.

    Args:
        digits: two digits, uint8 (2, 28, 28).
        places: where they may be, probabilities (2, PLACES, PLACES).
    """
    levels, ranks = np.unique(data.to_float(digits), return_inverse=True)
    first, second = (brighter(*digit, len(levels)) for digit in zip(ranks, places))
    # The maximum of both is brighter than a level if either is.
    either = first + second - first * second  # (SIZE * SIZE, levels - 1)
    mean, mean_square = either @ np.diff(levels), either @ np.diff(levels**2)
    return mean.reshape(SIZE, SIZE), np.sum(mean_square - mean**2)


def test_digits(count):
    """Digits of the first test videos and their places.

    Returns:
        digits: uint8 (count, 2, 28, 28).
        places: integers (count, 2, 2, frames): of each digit, vertical and horizontal.
    """
    digits = data.load_digits("test")[1::2]  # drawn as in data.evaluation_videos
    numbers = np.random.default_rng([data.TEST]).random((data.EVALUATION_VIDEOS, 2, 4))[:count]
    angles = 2 * np.pi * numbers[..., 3]
    velocities = data.STEP * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    positions = data.bounce(numbers[..., [2, 1]], velocities, CONTEXT + HORIZON)
    return digits[(numbers[..., 0] * len(digits)).astype(int)], (36 * positions).astype(int)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="test videos (default: 1000)")
    count = parser.parse_args().count
    if not 1 <= count <= data.EVALUATION_VIDEOS:
        raise InputError(f"--count must be in 1..{data.EVALUATION_VIDEOS}")

    lists = list_places()
    digits, places = test_digits(count)
    errors = np.empty((3, count, HORIZON))
    for n in range(count):
        video = data.to_float(data.EvaluationVideos("test")[[n]])[0, ..., 0]  # (20, 64, 64)
        known = [posterior(lists, seen) for seen in places[n, :, :, :CONTEXT]]
        for kind in (0, 1):  # together, apart
            for frame in range(HORIZON):
                chances = [digit[kind][frame] for digit in known]
                mean, variance = expected_frame(digits[n], chances)
                errors[2 * kind, n, frame] = np.sum((video[CONTEXT + frame] - mean) ** 2)
                errors[1, n, frame] = variance if kind == 0 else errors[1, n, frame]

    print(f"{count} test videos         mean          frame 1 to {HORIZON}")
    for name, error in zip(("the floor", "expected by itself", "axes apart"), errors):
        spread = error.mean(axis=1).std() / np.sqrt(count)
        frames = "".join(f"{e:6.1f}" for e in error.mean(axis=0))
        print(f"{name:<20}{error.mean():6.2f} +- {spread:.2f}  {frames}")


if __name__ == "__main__":
    cli.run(main)
