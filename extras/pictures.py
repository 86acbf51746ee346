"""Frames as pictures: coloured borders, film strips, error maps. Open it to draw them otherwise."""

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

REAL_COLOUR = (96, 125, 139)  # grey blue, around frames that were given
PREDICTED_COLOUR = (255, 112, 0)  # orange, around frames that a model made, or should make
TOO_DARK_COLOUR = (0, 143, 255)  # blue, where a prediction is darker than the real frame


def font(size):
    """A font with all accented letters; Pillow's own has none."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def to_uint8(frames):
    """Floats in [0, 1], or uint8 -> uint8 in 0..255, rounded."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    return np.round(255 * np.clip(frames, 0, 1)).astype(np.uint8)


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
    """Rows of frames below each other, each row's label at its left.

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
    for r, row in enumerate(tiles):
        top = gap + r * (height + gap)
        draw.text((margin - 6, top + height / 2), labels[r], "black", font(13), anchor="rm")
        for c, tile in enumerate(row):
            if tile is not None:
                image.paste(Image.fromarray(tile), (margin + c * (width + gap), top))
    return image


def forecast_strip(context, truth, predictions):
    """A film strip of forecasts: real frames, and the predicted ones below those they predict.

    Args:
        context, truth: (videos, frames, height, width, channels), uint8 or float in [0, 1]; the
            truth may have fewer frames than the predictions.
        predictions: one or more, by the name of their rows; shaped as the truth.

    Returns:
        A PIL image.
    """
    rows = []
    for n, (given, later) in enumerate(zip(context, truth)):
        real_frames = [(frame, REAL_COLOUR) for frame in (*given, *later)]
        rows.append(real_frames)
        for prediction in predictions.values():
            gap = [None] * len(given)
            rows.append(gap + [(frame, PREDICTED_COLOUR) for frame in prediction[n]])
        real_frames += [None] * (len(rows[-1]) - len(real_frames))
    return film_strip(rows, len(context) * ["real", *predictions])


def error_map(truth, prediction):
    """Where predicted frames are wrong: orange if too bright, blue if too dark, else black.

    Args:
        truth, prediction: (frames, height, width, channels), uint8 or float in [0, 1].

    Returns:
        float64 array (frames, height, width, 3) in [0, 1]: RGB, as bright as the error is large.
    """
    error = (to_uint8(prediction).astype(float) - to_uint8(truth)) / 255
    error = error.mean(axis=-1, keepdims=True)  # (frames, height, width, 1)
    orange, blue = np.array([PREDICTED_COLOUR, TOO_DARK_COLOUR]) / 255
    return np.maximum(error, 0) * orange + np.maximum(-error, 0) * blue
