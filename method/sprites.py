"""Frames taken apart into sprites that move as wholes; open it to see what `--sprites` does.

Digits that cross are hard to predict, and most of the difficulty is to tell them apart. This
takes the known frames apart into videos of one sprite each, lets the next-frame model, as it
is, forecast each of these videos, and lays the forecasts on top of each other. Nothing is
trained, and the model never knows.

It assumes bright things on black ground that keep their shapes, that move by whole pixels, and
of which the brightest pixel is in sight where they overlap: the definition of Moving MNIST.

Wang and Adelson 1994, "Representing moving images with layers"; Jojic and Frey 2001, "Learning
flexible sprites in video layers". There, layers hide each other; here, the maximum is seen.
"""

import functools
import math
import sys

import numpy as np

from method.loop import check_frames

RADIUS = 4  # pixels; Moving MNIST's digits move up to 3.6 pixels in a frame
# What the frame shows and no sprite does counts this much more than what a sprite has too
# much: a sprite may still hold another one's pixels, but together they must show the frame.
UNEXPLAINED_WEIGHT = 20
CHUNK_PIXELS = 2**15  # of sprites at once: a few MB, which a processor's cache holds
DARK = 0.1  # a ground below this brightness passes for black


def decompose(context, count, radius=RADIUS):
    """Take videos apart into sprites, each of which moves as a whole.

    In the beginning every sprite is the whole frame. From frame to frame, each is shifted to
    where it fits best, and loses what is brighter there than the frame: so, as soon as two
    things move differently, each sprite loses what does not move along. The frames are
    passed three times, forward, back, and forward again, since things that part late should
    be apart in the first frame, too. In 99.5% of 1,000 test videos of Moving MNIST all
    displacements of both digits are then right; after one pass, in 94%.

    Args:
        context: (batch, frames, height, width, channels), float in [0, 1].
        count: sprites in a video, at least 1.
        radius: the farthest displacement between two frames along each axis, in pixels.

    Returns:
        sprites: (batch, count, frames, height, width, channels), float32. Their maximum over
            `count` is the context, exactly. In which order the sprites come is arbitrary.
        displacements: (batch, count, frames - 1, 2), integers: how many pixels down and to
            the right each sprite moved between two frames. An empty sprite rests.

    Raises:
        InputError: the frames are no floats in [0, 1].
    """
    check_frames(context)
    context = np.asarray(context, np.float32)
    warn_without_black_ground(context)
    batch, frames, height, width, _ = context.shape
    sprites = np.empty((batch, count, *context.shape[1:]), np.float32)
    displacements = np.zeros((batch, count, frames - 1, 2), int)
    size = max(1, CHUNK_PIXELS // (count * height * width))
    for chunk in (slice(start, start + size) for start in range(0, batch, size)):
        videos = context[chunk]
        # (size, count, height, width, channels)
        current = np.repeat(videos[:, None, 0], count, axis=1)
        for n in [*range(1, frames), *range(frames - 2, -1, -1)]:  # forward and back
            current, _ = separate(videos[:, n], current, radius)
        sprites[chunk, :, 0] = current
        for n in range(1, frames):  # forward again
            current, moved = separate(videos[:, n], current, radius)
            sprites[chunk, :, n], displacements[chunk, :, n - 1] = current, moved
    return sprites, displacements


def separate(frame, sprites, radius):
    """Find where the last frame's sprites are in this frame, and what of them is seen there.

    If a thing moves as a whole, nothing of it is brighter than what is seen at its place. So
    each sprite is shifted to where it exceeds the frame least, and where the sprites together
    explain most of the frame. What no sprite explains is new, and is given to all of them.

    Args:
        frame: (batch, height, width, channels).
        sprites: those of the last frame, (batch, count, height, width, channels).
        radius: the farthest displacement along each axis, in pixels.

    Returns:
        sprites: those of this frame. Their maximum is the frame.
        displacements: (batch, count, 2), integers, pixels down and to the right.
    """
    batch, count, height, width, _ = sprites.shape
    span = range(-radius, radius + 1)
    # All displacements, (81, 2), the shortest first: `argmin` takes the first of equals.
    shifts = np.array(sorted(((y, x) for y in span for x in span), key=lambda yx: math.hypot(*yx)))
    padded = np.pad(sprites, [(0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0)])
    window = functools.partial(
        np.lib.stride_tricks.sliding_window_view, window_shape=(height, width), axis=(2, 3)
    )

    # To find the displacements, every second pixel of the mean over channels is enough.
    target = frame.mean(axis=-1)[:, ::2, ::2]  # (batch, height / 2, width / 2)
    shifted = window(padded.mean(axis=-1))[..., ::2, ::2]  # (batch, count, 9, 9, height / 2, ...)
    difference = shifted[:, :, radius - shifts[:, 0], radius - shifts[:, 1]]
    difference = difference - target[:, None, None]
    difference = difference.reshape(batch, count, len(shifts), -1)  # (batch, count, 81, pixels)
    excess = np.maximum(difference, 0)
    excess = np.einsum("bksp,bksp->bks", excess, excess)  # (batch, count, 81)
    missing = np.maximum(-difference, 0)  # (batch, count, 81, pixels)
    best = np.zeros((batch, count), int)
    # What each sprite leaves unexplained of the frame, (batch, count, pixels).
    unexplained = np.repeat(target.reshape(batch, 1, -1), count, axis=1)
    videos = np.arange(batch)
    for k in 2 * list(range(count)):  # in the second round knowing what the others explain
        by_others = np.delete(unexplained, k, axis=1).min(axis=1, initial=np.inf)
        left = np.minimum(missing[:, k], by_others[:, None])  # (batch, 81, pixels)
        left = np.einsum("bsp,bsp->bs", left, left)
        best[:, k] = np.argmin(excess[:, k] + UNEXPLAINED_WEIGHT * left, axis=1)
        unexplained[:, k] = missing[videos, k, best[:, k]]

    displacements = shifts[best]  # (batch, count, 2)
    y, x = np.moveaxis(radius - displacements, -1, 0)
    moved = window(padded)[videos[:, None], np.arange(count), y, x]
    moved = np.moveaxis(moved, 2, -1)  # (batch, count, height, width, channels)
    frame = frame[:, None]
    seen = np.minimum(moved, frame)
    brightest = seen.max(axis=1, keepdims=True)
    new = np.minimum(seen + (frame - brightest), frame)
    # Rounding may leave the sum a little below the frame: the brightest one is the frame.
    return np.where(seen == brightest, frame, new), displacements


def rollout(forecast, context, horizon, count, radius=RADIUS):
    """Forecast each sprite as a video of its own, and take the brightest pixels.

    Args:
        forecast: a function of a context and a horizon, as `model.rollout` is of a model.
        context: (batch, frames, height, width, channels), float32 in [0, 1].
        horizon: how many frames to predict.
        count: sprites in a video, at least 1.
        radius: the farthest displacement between two frames along each axis, in pixels.

    Returns:
        float32 array (batch, horizon, height, width, channels) in [0, 1].
    """
    sprites, _ = decompose(context, count, radius)
    # One sprite of all videos after the other, so that memory does not grow with their count.
    forecasts = [forecast(sprites[:, k], horizon) for k in range(count)]
    return np.max(forecasts, axis=0)


def warn_without_black_ground(context):
    """Print a line if half of the pixels are not dark, in any of the videos."""
    bright = np.median(context.reshape(len(context), -1), axis=1) > DARK
    if bright.any():
        print_once(
            "sprites need bright things on black ground, and in some of these videos more than "
            "half of the pixels are not dark: better go without --sprites"
        )


@functools.cache  # one line, however many batches
def print_once(line):
    print(line, file=sys.stderr)
