"""Draw clips to train on: coloured shapes that move, turn and bounce, each clip an MP4 file.

    python examples/make_clips.py clips
    python prepare.py clips clips.prepared --size 64
    python train.py --data clips.prepared --preset tiny --run runs/clips
    python animate.py runs/clips

The same seed draws the same clips.
"""

import sys
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

try:
    import av
except ImportError:
    sys.exit("make_clips.py needs one more package: pip install av")

SIZE = 96  # pixels, height and width
COLOURS = ("#ff7000", "#00b3a4", "#e83f6f", "#ffd23f", "#4d9de0", "#9b5de5")


def draw_clip(rng, frames, shapes=2):
    """One clip: uint8 array (frames, SIZE, SIZE, 3), RGB."""
    colours = rng.choice(COLOURS, shapes, replace=False)
    corners = rng.integers(3, 7, shapes).tolist()  # from triangles to hexagons
    radius = rng.uniform(12, 20, shapes)  # pixels
    low, high = radius[:, None], SIZE - radius[:, None]  # (shapes, 1)
    place = rng.uniform(low, high, (shapes, 2))  # x, y
    direction = rng.uniform(0, 2 * np.pi, shapes)
    step = 5 * np.stack([np.cos(direction), np.sin(direction)], axis=1)  # pixels a frame
    angle, turn = rng.uniform(0, 360, shapes), rng.uniform(-12, 12, shapes)  # degrees

    clip = []
    for _ in range(frames):
        image = Image.new("RGB", (SIZE, SIZE), "#101820")
        for n in range(shapes):
            circle = (*place[n], radius[n])
            ImageDraw.Draw(image).regular_polygon(circle, corners[n], angle[n], colours[n])
        clip.append(np.asarray(image))
        step[(place + step < low) | (place + step > high)] *= -1
        place, angle = place + step, angle + turn
    return np.stack(clip)


def write_mp4(path, clip):
    """Write uint8 frames (frames, SIZE, SIZE, 3) as an H.264 video."""
    # With x264's usual choices (crf, several threads) the same clip can come out differently.
    options = {"qp": "18", "threads": "1"}
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=15, pix_fmt="yuv420p", options=options)
        stream.width = stream.height = SIZE
        for frame in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())  # what is still on its way


def main(
    folder: tyro.conf.Positional[Path], count: int = 60, frames: int = 60, seed: int = 0
) -> None:
    """Draw clips of moving coloured shapes.

    Args:
        folder: Where to write clip-001.mp4 and so on.
        count: How many clips.
        frames: Frames of a clip.
        seed: Other seeds, other clips.
    """
    if min(count, frames) < 1 or seed < 0:
        sys.exit("make_clips.py: --count and --frames must be above 0, and --seed not below")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(1, count + 1):
            clip = draw_clip(np.random.default_rng([seed, n]), frames)
            write_mp4(folder / f"clip-{n:03d}.mp4", clip)
    except OSError as error:
        sys.exit(f"make_clips.py: cannot write to {folder} ({error.strerror}): name another folder")
    print(f"{count} clips of {frames} frames: {folder}")


if __name__ == "__main__":
    tyro.cli(main)
