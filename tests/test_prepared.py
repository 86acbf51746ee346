"""The prepared file: whole or not there, checked when it is read, and read from anywhere."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from extras.cli import InputError
from extras.prepared import Prepared, Writer, is_prepared

ROOT = Path(__file__).resolve().parents[1]


def noise(frames=50, channels=1, seed=0):
    """uint8 (frames, 32, 40, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 40, channels), np.uint8)


def write(path, *clips, **attributes):
    with Writer(path) as writer:
        for n, clip in enumerate(clips):
            writer.append(clip)
            writer.end_clip(f"clip {n}")
        for name, value in attributes.items():
            setattr(writer, name, value)
    return path


def test_what_is_written_is_read(tmp_path):
    known = {"value_range": (-32, 60), "unit": "dBZ", "options": {"stride": 2}, "sources": ["a"]}
    path = write(tmp_path / "any name", noise(50), noise(20, seed=1), **known)
    opened = Prepared(path)
    assert opened.shape == (70, 32, 40, 1) and opened.dtype == np.uint8
    np.testing.assert_array_equal(opened.spans, [[0, 50], [50, 70]])
    assert opened.names == ["clip 0", "clip 1"]
    assert {name: getattr(opened, name) for name in known} == known
    np.testing.assert_array_equal(opened.read(45, 55), np.r_[noise(50)[45:], noise(20, seed=1)[:5]])
    assert is_prepared(path) and sorted(os.listdir(tmp_path)) == ["any name"]


def test_the_digest_tells_frames_and_clips_apart_and_nothing_else(tmp_path):
    digest = Prepared(write(tmp_path / "a", noise(50), unit="dBZ")).digest
    assert Prepared(write(tmp_path / "b", noise(50))).digest == digest
    others = [(noise(50, seed=1),), (noise(50)[:20], noise(50)[20:]), (noise(49),)]
    for clips in (*others, (noise(50) / np.float32(255),)):
        assert Prepared(write(tmp_path / "b", *clips)).digest != digest


def test_a_file_becomes_coloured_and_float_with_the_first_such_frames(tmp_path):
    path = write(tmp_path / "a", noise(50), noise(3, 3, seed=1), np.float32(noise(1) > 99))
    opened = Prepared(path)
    assert opened.shape == (54, 32, 40, 3) and opened.dtype == np.float32
    grey = np.repeat(noise(50), 3, axis=-1) / np.float32(255)
    np.testing.assert_array_equal(opened.read(0, 50), grey)
    np.testing.assert_array_equal(opened.read(50, 53), noise(3, 3, seed=1) / np.float32(255))
    straight = write(tmp_path / "b", grey, opened.read(50, 53), opened.read(53, 54))
    assert Prepared(straight).digest == opened.digest


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = write(tmp_path / "a", noise())
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), Writer(path) as writer:
        writer.append(noise(5))
        raise KeyboardInterrupt
    with pytest.raises(ValueError), Writer(path) as writer:
        writer.append(noise(5))  # and no end of a clip
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_ends_in_an_error_and_not_in_a_crash(tmp_path):
    code = (
        "import resource, numpy as np; from extras.prepared import Writer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        f"    with Writer({str(tmp_path / 'a')!r}) as writer:\n"
        "        for n in range(1000):\n"
        "            writer.append(np.ones((100, 32, 40, 1), np.uint8)); writer.end_clip('a')\n"
        "except OSError as error: print(error.strerror, n < 10)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0 and ended.stdout == "File too large True\n", ended.stderr
    assert os.listdir(tmp_path) == []


def test_any_flipped_byte_and_any_cut_is_noticed(tmp_path):
    path = write(tmp_path / "whole", noise(200))
    content, whole = path.read_bytes(), Prepared(path)
    rng = np.random.default_rng(0)
    # All bytes of the frames, and the beginning and the end, where HDF5 keeps what it knows.
    places = [*rng.integers(0, len(content), 40), *rng.integers(512, 3000, 40)]
    places += (len(content) - rng.integers(1, 3000, 40)).tolist()
    for n, place in enumerate(places):
        damaged = bytearray(content)
        damaged[place] ^= 1 + n % 255
        path = tmp_path / f"{n}"
        path.write_bytes(damaged)
        try:
            opened = Prepared(path)
            frames = opened.read(0, 200)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:  # a byte that HDF5 leaves free
            np.testing.assert_array_equal(frames, noise(200))
            assert (opened.names, opened.digest) == (whole.names, whole.digest)
        path.unlink()
    for length in (10, 600, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(InputError):
            Prepared(tmp_path / "cut").read(0, 200)


def test_a_file_that_changes_while_it_is_open_is_noticed(tmp_path):
    path = write(tmp_path / "a", noise(200))
    opened, pickled = Prepared(path), pickle.dumps(Prepared(path))
    os.truncate(path, 100_000)  # HDF5 itself would read zeros
    with pytest.raises(InputError, match="has changed"):
        opened.read(150, 200)
    del opened
    write(path, noise(seed=1))
    with pytest.raises(InputError, match="has changed"):
        pickle.loads(pickled).read(0, 5)


def test_it_can_be_moved_pickled_and_read_in_other_processes(tmp_path):
    path = shutil.move(write(tmp_path / "a", noise()), tmp_path / "b")
    opened = Prepared(path)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            parts = pool.starmap(opened.read, [(0, 20), (20, 50)])
        np.testing.assert_array_equal(np.concatenate(parts), noise())


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "packed", "5 axes"])
def test_frames_that_are_stored_otherwise_are_refused(tmp_path, kind):
    path = write(tmp_path / "a", noise())
    (tmp_path / "secret").write_bytes(bytes(50 * 32 * 40))
    with h5py.File(path, "r+") as file:
        del file["frames"]
        shape, layout = (50, 32, 40, 1), h5py.VirtualLayout((50, 32, 40, 1), np.uint8)
        if kind == "external":
            secret = [(str(tmp_path / "secret"), 0, 50 * 32 * 40)]
            file.create_dataset("frames", shape, np.uint8, external=secret)
        elif kind == "virtual":
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "frames", shape)
            file.create_virtual_dataset("frames", layout)
        elif kind == "link":
            file["frames"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "frames")
        elif kind == "packed":
            file.create_dataset("frames", shape, np.uint8, compression="gzip", fletcher32=True)
        else:
            file.create_dataset("frames", (1, *shape), np.uint8, chunks=True, fletcher32=True)
    with pytest.raises(InputError, match="frames is not as prepare.py writes it"):
        Prepared(path)


def test_what_is_no_prepared_file_is_told_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Prepared(tmp_path / "none")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = noise()
    with pytest.raises(InputError, match="python prepare.py"):
        Prepared(tmp_path / "other.h5")
    assert not is_prepared(tmp_path / "other.h5") and not is_prepared(tmp_path)


def test_an_index_out_of_range_is_an_error_and_no_short_array(tmp_path):
    with pytest.raises(IndexError):
        Prepared(write(tmp_path / "a", noise())).read(40, 51)
