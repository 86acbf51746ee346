"""What every reader of files yields, and what none of them reads."""

import codecs
import dataclasses

import numpy as np

from extras.cli import InputError


@dataclasses.dataclass(frozen=True)
class Block:
    """Frames that follow each other, in the data's own numbers.

    Attributes:
        frames: (n, height, width, channels) with 1 or 3 channels: uint8, bool, another integer
            dtype, float32 or float64. Missing data is NaN in floats.
        new_clip: the first of these frames does not follow the last block's last frame. The first
            block of a source needs none.
    """

    frames: np.ndarray
    new_clip: bool = False


def refuse_text(path):
    """Raise an InputError if a file is empty or text, which no film, picture or array is."""
    with open(path, "rb") as file:
        start = file.read(2048)
    if not start:
        raise InputError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise InputError(
            f"{path} is a Git LFS pointer and not the file itself: fetch it by git lfs pull"
        )
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start).lstrip("\ufeff")
    except UnicodeDecodeError:
        return
    if all(letter.isprintable() or letter.isspace() for letter in text):
        page = text.lstrip().lower().startswith(("<!doctype html", "<html"))
        what = "a web page: download the file itself" if page else "text, whatever its name says"
        raise InputError(f"{path} is {what}")
