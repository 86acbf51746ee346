"""How well frames are taken apart into sheets, by measuring alone: `separate` in model.py.

    python benchmarks/taking_apart.py

Moving MNIST videos are made digit by digit, so what each sheet should hold is known. Printed
for each frame: the squared error of the sheets, summed over pixels and sheets (which sheet
holds which digit is left open), and the share of videos in which it is below 1. Two minutes.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extras import cli  # noqa: F401

import numpy as np

import data
import model as models

COUNT, FRAMES = 1000, 10


def main():
    for sheets in (2, 3):
        numbers = np.random.default_rng(0).random((COUNT, sheets, 4))
        alone = np.stack(  # (sheets, videos, frames, 64, 64, 1)
            [
                data.to_float(data.move_digits(data.load_digits("test"), numbers[:, [n]], FRAMES))
                for n in range(sheets)
            ]
        )
        print(f"{sheets} digits\nframe    mean  median   below 1")
        found = np.zeros((COUNT, sheets, 64, 64, 1), "float32")
        for n in range(FRAMES):
            found = np.asarray(models.separate(alone.max(axis=0)[:, n], found, 4)[0])
            # errors[i, j]: of sheet i against digit j, for each video
            errors = np.square(found.swapaxes(0, 1)[:, None] - alone[None, :, :, n])
            errors = errors.sum(axis=(3, 4, 5))  # (sheets, sheets, videos)
            orders = itertools.permutations(range(sheets))
            best = np.min([sum(errors[k, order[k]] for k in range(sheets)) for order in orders], 0)
            share = f"{100 * (best < 1).mean():.1f}%"
            print(f"{n + 1:>5}{best.mean():8.1f}{np.median(best):8.1f}{share:>10}", flush=True)


if __name__ == "__main__":
    main()
