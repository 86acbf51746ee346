"""The least squared error for somebody who remembers only the last few displacements.

    python benchmarks/known_motion.py

Positions are rounded to whole pixels, so that the speed of a digit shows only over many
frames. This computes the expected error of the best forecast (the mean of all that may
come) by somebody who knows the digits' shapes and the last K displacements, and nothing
else, for two digits that never overlap. Two minutes, 4 GB of memory.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import data

CONTEXT, HORIZON = 10, 10
PLACES = 37  # int(36 * x) for x in 0..1
PATHS = 3_000_000


def paths(rng):
    """Places of a digit along one axis: (PATHS, CONTEXT + HORIZON) integers in 0..36."""
    x = rng.random(PATHS)
    step = 0.1 * np.cos(2 * np.pi * rng.random(PATHS))
    places = np.empty((PATHS, CONTEXT + HORIZON), np.int64)
    for frame in places.T:
        x += step
        step[(x < 0) | (x > 1)] *= -1
        x.clip(0, 1, out=x)
        frame[:] = 36 * x
    return places


def overlap(digits):
    """Mean over digits of the sum over pixels of a digit times itself moved by (dy, dx).

    Returns (2 * PLACES, 2 * PLACES); an index counts from 0, or from the end if negative.
    """
    padded = np.pad(digits / 255, [(0, 0), *[(0, 2 * PLACES - data.DIGIT_SIZE)] * 2])
    return np.fft.ifft2(np.square(np.abs(np.fft.fft2(padded)))).real.mean(axis=0)


def main():
    rng = np.random.default_rng(0)
    places = paths(rng)
    overlaps = overlap(data.load_digits("test")[:2000])
    print(f"{'known':>5}{'mean':>7}" + "".join(f"{n:>7}" for n in range(1, HORIZON + 1)))
    for known in (1, 2, 3, 4, 5, 7, 9):
        # All paths that look alike, as far as is remembered, are a group.
        seen = places[:, CONTEXT - known - 1 : CONTEXT].astype(np.uint64)
        key = np.zeros(PATHS, np.uint64)
        for place in seen.T:
            key = key * np.uint64(1_000_003) ^ place
        _, group, size = np.unique(key, return_inverse=True, return_counts=True)
        some = group[rng.choice(PATHS, 4000)]
        errors = []
        for n in range(HORIZON):
            counts = np.bincount(
                group * PLACES + places[:, CONTEXT + n], minlength=len(size) * PLACES
            )
            probability = (counts.reshape(-1, PLACES) / size[:, None])[some]
            # How far two draws lie apart; a digit's other axis is another path's.
            apart = np.fft.ifft(np.square(np.abs(np.fft.fft(probability, 2 * PLACES)))).real
            kept = np.einsum("ny,yx,nx->n", apart, overlaps, np.roll(apart, 1, axis=0)).mean()
            errors.append(2 * (overlaps[0, 0] - kept))
        print(
            f"{known:>5}{np.mean(errors):7.1f}" + "".join(f"{e:7.1f}" for e in errors), flush=True
        )


if __name__ == "__main__":
    main()
