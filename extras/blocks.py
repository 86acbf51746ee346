"""What every reader of files yields, what none of them reads, and how a change is noticed."""

import os
import re
from typing import NamedTuple

import numpy as np

from extras.cli import InputError


class Block(NamedTuple):
    """Frames that follow each other, in the data's own numbers.

    Attributes:
        frames: (n, height, width, channels) with 1 or 3 channels: uint8, bool, another integer
            dtype, float32 or float64. Missing data is NaN in floats.
        new_clip: the first of these frames does not follow the last block's last frame. The first
            block of a file needs none.
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
    if not re.search(rb"[\0-\x08\x0e-\x1f]", start):  # which text has not, whatever its encoding
        page = re.match(rb"\W*(!doctype )?html", start, re.IGNORECASE)
        what = "a web page: download the file itself" if page else "text, whatever its name says"
        raise InputError(f"{path} is {what}")


def state(file):
    """What tells that a file, a path or a descriptor, is another one or has been written to."""
    status = os.stat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns
