"""Draw radar pictures to train on: made-up areas of rain that drift, grow and fade, in dBZ.

    python examples/make_radar.py radar.npy
    python prepare.py radar.npy radar.prepared --range 0 60 --unit dBZ
    python train.py --data radar.prepared --preset tiny --run runs/radar
    python animate.py runs/radar

The file is a float32 array (videos, frames, height, width) of reflectivity, as a weather radar
measures it: dry air is at -32 dBZ, light rain at 20, a thunderstorm at 50. The same seed draws
the same rain.
"""

import sys
from pathlib import Path

import numpy as np
import tyro

SIZE = 64  # pixels, height and width
DRY = -32.0  # dBZ


def draw_rain(rng, frames, cells=14):
    """One video: float32 array (frames, SIZE, SIZE), in dBZ."""
    y, x = np.mgrid[:SIZE, :SIZE]  # (SIZE, SIZE) each
    place = rng.uniform(0, 2 * SIZE, (cells, 2))  # x, y; half of each axis is in sight
    wind = rng.normal(0, 1.2, 2)  # pixels a frame; the same for all cells, or nearly so
    step = wind + rng.normal(0, 0.2, (cells, 2))
    radius = rng.uniform(3, 8, cells)  # pixels, to where the rain has a tenth of its strength
    growth = rng.uniform(0.99, 1.015, cells)  # of the radius, in a frame
    peak = rng.uniform(25, 55, cells)  # dBZ, when the cell is strongest
    strongest = rng.uniform(0, frames, cells)  # frame
    life = rng.uniform(10, 40, cells)  # frames from there until it has faded by 10 dBZ

    video = np.full((frames, SIZE, SIZE), DRY)
    for n in range(frames):
        for cell in range(cells):
            centre_x, centre_y = (place[cell] + n * step[cell]) % (2 * SIZE) - SIZE / 2
            distance = np.hypot(x - centre_x, y - centre_y) / (radius[cell] * growth[cell] ** n)
            # A bell curve of reflectivity is a parabola in decibels.
            fading = ((n - strongest[cell]) / life[cell]) ** 2
            video[n] = np.maximum(video[n], peak[cell] - 10 * fading - 10 * distance**2)
    return video.astype(np.float32)


def main(
    file: tyro.conf.Positional[Path], count: int = 60, frames: int = 60, seed: int = 0
) -> None:
    """Draw radar pictures of moving rain.

    Args:
        file: The .npy file to write.
        count: How many videos.
        frames: Frames of a video.
        seed: Other seeds, other rain.
    """
    if min(count, frames) < 1 or seed < 0 or file.suffix != ".npy":
        sys.exit("make_radar.py: give a .npy file, --count and --frames above 0, --seed not below")
    videos = [draw_rain(np.random.default_rng([seed, n]), frames) for n in range(count)]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.stack(videos))
    except OSError as error:
        sys.exit(f"make_radar.py: cannot write {file} ({error.strerror or error}): name another")
    print(f"{count} videos of {frames} frames, in dBZ: {file}")


if __name__ == "__main__":
    tyro.cli(main)
