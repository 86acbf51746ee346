"""The official Moving MNIST test file, which papers score on. Open it to compare with them.

python -m extras.official          download it (781 MiB; nothing here needs it)
python predict.py --data official  score on it
"""

from pathlib import Path

from extras.cli import Failure, InputError, atomic_write  # comes before Keras
from extras import cli

import keras
import numpy as np
import tyro

URL = "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
SHA256 = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"
PATH = Path("downloads/mnist_test_seq.npy")


def download(path=PATH, url=URL, sha256=SHA256):
    """Download the file, and check it; keep nothing if it is wrong.

    Args:
        path: where to put the file.
        url, sha256: where it is, and its hash as hexadecimal digits.

    Raises:
        Failure: no connection, it broke, or the bytes are wrong.
    """
    if Path(path).exists():
        print(f"{path} is already there")
        return
    with atomic_write(path) as temporary:
        try:
            keras.utils.get_file(
                temporary.name,
                url,
                file_hash=sha256,
                cache_dir=temporary.absolute().parent,
                cache_subdir="",
            )
        except ValueError:  # by the hash
            raise Failure(
                f"{url} sent another file than the official one; nothing was kept"
            ) from None
        except Exception as error:  # whatever the connection raises
            raise Failure(
                f"cannot download {url} ({error}): check the connection and try again"
            ) from None
    print(f"{path}: {Path(path).stat().st_size:,} bytes, checked")


def load(path=PATH):
    """The videos: uint8 array (10000, 20, 64, 64, 1) that stays on disk until indexed.

    Raises:
        InputError: the file is not there, or damaged.
    """
    if not Path(path).exists():
        raise InputError(f"{path} is not there: get it by python -m extras.official")
    try:
        frames = np.load(path, mmap_mode="r")  # (20, 10000, 64, 64)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and get it again") from None
    return frames.swapaxes(0, 1)[..., None]


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(download))
