"""Frames in the data's own numbers -> uint8 in 0..255 or float32 in [0, 1], of one size."""

import dataclasses

import numpy as np
from PIL import Image

from extras.cli import InputError
from extras.films import covering
from method.errors import ROUNDING

TINT = 8 / 255  # by how much compression may tint what is grey
LUMA = np.float32([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as in Pillow
FAINT = 0.04  # what spans less of the range from black to white is warned of


@dataclasses.dataclass
class Values:
    """What is known of the numbers of a source's frames.

    Attributes:
        least, greatest: numpy scalars, in the data's own numbers; of those that are finite.
        missing: how many are NaN.
        outside: how many are outside `value_range`.
        need_range: whether they do not tell by themselves what is black and what is white.
        eight_bits: whether any frames have 8 bits.
    """

    least: object = np.inf
    greatest: object = -np.inf
    missing: int = 0
    outside: int = 0
    need_range: bool = False
    eight_bits: bool = False

    def scale(self, frames, value_range):
        """Count a block's numbers, and scale them.

        Args:
            frames: an array of any shape.
            value_range: (low, high), what becomes black and white; None: as the dtype has it.

        Returns:
            An array of that shape, uint8 in 0..255 if they have 8 bits or are bool, else float32
            in [0, 1].
        """
        finite = frames
        if frames.dtype.kind == "f" and not np.isfinite(frames).all():
            finite = frames[np.isfinite(frames)]
            self.missing += np.count_nonzero(np.isnan(frames))
        self.eight_bits |= frames.dtype == np.uint8
        low, high = value_range or ((0, 255) if frames.dtype == np.uint8 else (0, 1))
        if finite.size:
            least, greatest = finite.min(), finite.max()
            self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
        if value_range:
            self.outside += np.count_nonzero((frames < low) | (frames > high))  # and no NaN
        if frames.dtype == np.uint8 and (low, high) == (0, 255):
            return frames
        if frames.dtype in (np.uint8, bool):
            levels = (np.arange(256) - low) / (high - low)
            return np.round(255 * np.clip(levels, 0, 1)).astype(np.uint8)[frames.view(np.uint8)]
        if not value_range:
            within = finite.size == 0 or (least >= -ROUNDING and greatest <= 1 + ROUNDING)
            tells = frames.dtype.kind == "f" and within and finite.size == frames.size
            self.need_range |= not tells
        scaled = frames.astype(np.float64)
        scaled -= low
        scaled /= high - low
        scaled[np.isnan(scaled)] = 0
        return np.clip(scaled, 0, 1, out=scaled).astype(np.float32)

    def describe(self, value_range):
        """Yield lines about these numbers, for the user."""
        if self.least > self.greatest:
            return  # there are none
        least, greatest = text(self.least), text(self.greatest)
        ends = ", {:.6g} is black and {:.6g} white".format(*value_range) if value_range else ""
        yield f"values {least} to {greatest}{ends}"
        if self.outside:
            yield f"{self.outside} values are outside: they count as the nearer of the two"
        if self.missing:
            yield f"{self.missing} values are missing (NaN): they are black"
        low, high = value_range or ((0, 255) if self.eight_bits else (0, 1))
        if 0 < float(self.greatest) - float(self.least) < FAINT * (high - low):
            yield (
                "WARNING: these values span little of the range from black to white; if the least "
                f"should be black and the greatest white, give --range {least} {greatest}"
            )


def ask_for_range(sources, all_values):
    """Raise an InputError if the `Values` of a source do not tell what is black and white."""
    in_need = [source for source, values in zip(sources, all_values) if values.need_range]
    if not in_need:
        return
    if any(values.eight_bits for values in all_values):
        raise InputError(
            f"{in_need[0]} needs --range LOW HIGH, and there are files of 8 bits: prepare each "
            "kind for itself, or give a --range that holds for all"
        )
    least = min((values.least for values in all_values), key=float)
    greatest = max((values.greatest for values in all_values), key=float)
    if not least < greatest:
        raise InputError(f"{in_need[0]} has no two different numbers: there is nothing to see")
    least, greatest = text(least), text(greatest)
    missing = sum(values.missing for values in all_values)
    raise InputError(
        f"{in_need[0]} has values from {least} to {greatest}"
        + (f", and {missing} are missing (NaN)" if missing else "")
        + ": say which are black and white by --range LOW HIGH, as in "
        f"--range {least} {greatest} (others count as the nearer of the two, NaN as LOW)"
    )


def text(number):
    """The shortest text that gives a number of its dtype back."""
    return str(int(number) if isinstance(number, np.bool) else number).removesuffix(".0")


def is_coloured(frames):
    """Whether any pixel of (..., channels) is more than tinted."""
    if frames.shape[-1] == 1:
        return False
    red, green, blue = np.moveaxis(frames, -1, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return spread.max() > TINT * (255 if frames.dtype == np.uint8 else 1)


def to_grey(frames):
    """(..., 3) -> (..., 1), in the same dtype."""
    if frames.shape[-1] == 1:
        return frames
    grey = frames @ LUMA[:, None]
    return np.round(grey).astype(np.uint8) if frames.dtype == np.uint8 else grey


def fit(frames, size):
    """Resize frames, and crop their middle.

    Args:
        frames: (n, height, width, channels), uint8 or float32 in [0, 1].
        size: (height, width).

    Returns:
        (n, *size, channels), in the same dtype.
    """
    height, width = covering(*frames.shape[1:3], size)
    if (height, width) != frames.shape[1:3]:
        bands = np.moveaxis(frames, -1, 1)  # (n, channels, height, width)
        resized = [
            Image.fromarray(band).resize((width, height), Image.Resampling.BICUBIC)
            for band in np.ascontiguousarray(bands).reshape(-1, *frames.shape[1:3])
        ]
        frames = np.stack(resized).reshape(*bands.shape[:2], height, width)
        frames = np.moveaxis(frames, 1, -1)  # (n, height, width, channels)
        if frames.dtype != np.uint8:
            frames = np.clip(frames, 0, 1)  # bicubic interpolation overshoots
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return frames[:, top : top + size[0], left : left + size[1]]
