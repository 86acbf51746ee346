"""Clips of any kind -> the frames of one .npy file; open it for values, sizes and colours.

Frames arrive as decode.py and arrays.py read them. They leave with one size, one number of
channels and one dtype: uint8 in 0..255, or float32 in [0, 1].
"""

import dataclasses

from extras.cli import InputError

import keras
import numpy as np
from PIL import Image

from extras import decode

SMALLEST = 7  # pixels; SSIM's window
TINT = 8 / 255  # by how much compression may tint what is grey
LUMA = np.float32([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as in Pillow
ROUNDING = 1e-4  # by how much floats may leave [0, 1]
FEW_LEVELS = 8
MANY_LINES = 12


class Wider(Exception):
    """A frame has colours, or more than 8 bits, and the file that is being written has not."""


def convert(found, path, source, channels, options):
    """Write the frames of all clips to a .npy file, and tell how they were understood.

    The file begins with grey frames of 8 bits, and again from the start when colours are met,
    or more than 8 bits: in most sources that is the first frame.

    Args:
        found, options: `clips.Found` and `clips.Options`.
        path: the .npy file.
        source, channels: as for `clips.open_clips`.

    Returns:
        lengths: dict: a clip's name -> how many frames it has.
        lines: what the user should read.

    Raises:
        InputError: no clip can be read, or the options do not fit.
    """
    dtype = np.uint8 if options.value_range is None else np.float32
    layout = channels or (3 if found.colour else 1), dtype
    notes_so_far = len(found.notes)
    while True:
        try:
            lengths, shape, values, cut = write_frames(path, found, *layout, channels, options)
            break
        except Wider as wider:
            layout = wider.args
            del found.notes[notes_so_far:]
    if values.need_range:
        if values.eight_bits:
            raise InputError(
                f"{source} has files of 8 bits, and others that need a --range: give each kind a "
                "folder of its own, or a --range that holds for all"
            )
        if not values.least < values.greatest:
            raise InputError(f"{source} has no two different numbers: there is nothing to see")
        least_greatest = f"{values.least:.6g} {values.greatest:.6g}"
        raise InputError(
            f"{source} has values from {least_greatest.replace(' ', ' to ')}"
            + (f" and {values.missing} that are no number (NaN)" if values.missing else "")
            + f": say which are black and white by --range LOW HIGH, as in --range {least_greatest}"
            " (values outside count as the nearer of the two, NaN as black)"
        )
    if not lengths:
        raise InputError(f"--data {source}: no clip can be read: {'; '.join(found.notes[:3])}")
    lines = describe(source, lengths, shape, values, cut, found, options)
    if len(lines) > MANY_LINES:
        lines[MANY_LINES:] = [f"and {len(lines) - MANY_LINES} more lines like these"]
    return lengths, lines


def write_frames(path, found, channels, dtype, asked, options):
    """Write all frames with as many channels and of the dtype.

    Args:
        asked: the channels that the user asked for, or None.

    Returns:
        lengths: as from `convert`.
        shape: height, width and channels of a frame.
        values: `Values` of all frames.
        cut: the largest share of a frame that was cropped away.

    Raises:
        Wider: with the channels and the dtype that are needed.
        InputError: as `convert`.
    """
    lengths, count, size, values, cut = {}, 0, options.size, Values(), 0
    frames_done = "thousand frames"
    bar = keras.utils.Progbar(
        len(found.clips), unit_name="clip", interval=1, stateful_metrics=[frames_done]
    )

    def write_header():
        header = {"descr": np.dtype(dtype).str, "fortran_order": False}
        header["shape"] = (count, *size, channels)
        np.lib.format.write_array_header_1_0(file, header)

    with open(path, "wb") as file:
        for done, (name, read) in enumerate(found.clips.items()):
            part, parts = name, 1
            for frame in readable(read, name, found.notes):
                if frame is None:  # a damaged frame, which ends a clip
                    while part in lengths or part in found.clips:
                        parts += 1
                        part = f"{name} ({parts})"
                    continue
                low, high = values.add(frame, options.value_range)
                if values.need_range:  # only the least and the greatest value are still wanted
                    continue
                frame = scale(frame, low, high, channels, dtype)
                if size is None:
                    size = frame.shape[:2]
                if options.size is None and frame.shape[:2] != size:
                    raise InputError(
                        f"{name} has frames of {frame.shape[0]} x {frame.shape[1]} pixels, others "
                        f"have {size[0]} x {size[1]}: give the --size that all should have"
                    )
                if min(size) < SMALLEST:
                    raise InputError(f"{name}: frames need {SMALLEST} x {SMALLEST} pixels or more")
                frame, cut_here = fit(frame, size)
                if channels == 1 and asked is None and is_coloured(frame):
                    raise Wider(3, dtype)
                if count == 0:
                    write_header()  # leaves room for any count
                file.write(np.ascontiguousarray(with_channels(frame, channels)))
                cut = max(cut, cut_here)
                count += 1
                lengths[part] = lengths.get(part, 0) + 1
                if count % 100 == 0:
                    bar.update(done, [(frames_done, count / 1000)])
            bar.update(done + 1, [(frames_done, count / 1000)])
        if count:
            file.seek(0)
            write_header()
    return lengths, (*(size or ()), channels), values, cut


def readable(read, name, notes):
    """Yield a clip's frames for as long as they can be read."""
    try:
        yield from read()
    except InputError:
        raise
    except Exception as error:  # what a damaged file raises depends on the damage
        notes.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


@dataclasses.dataclass
class Values:
    """What is known of the values of all frames, in the data's units."""

    least: float = np.inf
    greatest: float = -np.inf
    missing: int = 0  # NaN
    levels: set = dataclasses.field(default_factory=set)  # all, if not more than FEW_LEVELS
    darkest: float = np.inf  # the least, where black is 0 and white is 1
    brightest: float = -np.inf
    need_range: bool = False
    eight_bits: bool = False  # any frame has 8 bits

    def add(self, frame, value_range):
        """Add the values of another frame.

        Returns:
            low, high: what is black and what is white in it.
        """
        self.eight_bits |= frame.dtype == np.uint8
        low, high = value_range or ((0, 255) if frame.dtype == np.uint8 else (0, 1))
        finite = frame
        if frame.dtype.kind == "f" and not np.isfinite(frame).all():
            finite = frame[np.isfinite(frame)]
            self.missing += int(np.isnan(frame).sum())
        if finite.size:
            least, greatest = float(finite.min()), float(finite.max())
            self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
            self.darkest = min(self.darkest, (least - low) / (high - low))
            self.brightest = max(self.brightest, (greatest - low) / (high - low))
            if len(self.levels) <= FEW_LEVELS:
                self.levels.update(np.unique(finite)[: FEW_LEVELS + 1].tolist())
        if value_range is None:
            known_range = frame.dtype in (np.uint8, bool) or frame.dtype.kind == "f"
            within = self.darkest >= -ROUNDING and self.brightest <= 1 + ROUNDING
            self.need_range |= not (known_range and within and finite.size == frame.size)
        return low, high


def scale(frame, low, high, channels, dtype):
    """Frame in the data's units -> uint8 in 0..255, or float32 in [0, 1].

    Raises:
        Wider: dtype is uint8, and the frame has more than 8 bits.
    """
    if dtype == np.uint8:
        if frame.dtype not in (np.uint8, bool):
            raise Wider(channels, np.float32)
        return frame if frame.dtype == np.uint8 else 255 * frame.astype(np.uint8)
    scaled = (frame.astype(np.float64) - low) / (high - low)
    return np.clip(np.nan_to_num(scaled, nan=0), 0, 1).astype(np.float32)


def fit(frame, size):
    """Resize a frame, uint8 or float32, and crop its middle.

    Returns:
        frame: (*size, channels).
        cut: which share of it was cropped away.
    """
    height, width = decode.covering(*frame.shape[:2], size)
    if (height, width) != frame.shape[:2]:
        bands = [
            Image.fromarray(band).resize((width, height), Image.Resampling.BICUBIC)
            for band in np.ascontiguousarray(np.moveaxis(frame, -1, 0))
        ]
        frame = np.stack(bands, axis=-1)
        if frame.dtype != np.uint8:
            frame = np.clip(frame, 0, 1)  # bicubic interpolation overshoots
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    cut = 1 - size[0] * size[1] / (height * width)
    return frame[top : top + size[0], left : left + size[1]], cut


def is_coloured(frame):
    """Whether any pixel is more than tinted."""
    if frame.shape[-1] == 1:
        return False
    red, green, blue = np.moveaxis(frame, -1, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return spread.max() > TINT * (255 if frame.dtype == np.uint8 else 1)


def with_channels(frame, channels):
    """A frame with 1 or 3 channels -> the same frame with `channels`."""
    if frame.shape[-1] == channels:
        return frame
    if channels == 3:
        return np.repeat(frame, 3, axis=-1)
    if frame.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert("L"))[..., None]
    return frame @ LUMA[:, None]


def describe(source, lengths, shape, values, cut, found, options):
    """How clips were understood: a line, and others for what can hardly be meant."""
    height, width, channels = shape
    shortest, longest = min(lengths.values()), max(lengths.values())
    frames = f"{shortest} to {longest}" if shortest < longest else f"{shortest}"
    line = f"{source}: {len(lengths)} video{'s' * (len(lengths) > 1)} of {frames} frames, "
    line += f"{height} x {width} pixels, {'in colour' if channels == 3 else 'grey'}, "
    line += f"values {values.least:.6g} to {values.greatest:.6g}"
    if len(values.levels) <= FEW_LEVELS:
        line += f" (only the levels {' '.join(f'{level:.6g}' for level in sorted(values.levels))})"
    if options.value_range:
        line += ", {:.6g} is black and {:.6g} white".format(*options.value_range)
    if found.axes:
        line += f"; arrays are read as {' and '.join(sorted(found.axes))} (if not, say by --axes)"
    if cut >= 0.005:
        line += f"; up to {cut:.0%} of a frame is cut off"
    lines = [line, *found.notes]
    if values.brightest - values.darkest < 0.01 and values.least < values.greatest:
        lines.insert(
            1,
            "WARNING: these values span less than a hundredth of the range from black to white; if the "
            "least should be black and the greatest white, give "
            f"--range {values.least:.6g} {values.greatest:.6g}",
        )
    return lines
