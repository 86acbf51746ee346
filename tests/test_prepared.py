"""The prepared file: whole or not there, checked when it is read, and read from anywhere."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import prepare, refusal, store_elsewhere

from extras.cli import InputError
from extras.prepared import Prepared, Writer

ROOT = Path(__file__).resolve().parents[1]


def noise(frames=50, seed=0):
    """uint8 (frames, 32, 40, 1)."""
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 40, 1), np.uint8)


def test_what_is_written_is_read(tmp_path):
    known = {"value_range": (-32, 60), "unit": "dBZ", "options": {"stride": 2}, "sources": ["a"]}
    path = prepare(tmp_path / "any name", [noise(50), noise(20, seed=1)], **known)
    opened = Prepared(path)
    assert opened.shape == (70, 32, 40, 1) and opened.dtype == np.uint8
    np.testing.assert_array_equal(opened.spans, [[0, 50], [50, 70]])
    assert opened.names == ["clip 0", "clip 1"]
    assert {name: getattr(opened, name) for name in known} == known
    np.testing.assert_array_equal(opened.read(45, 55), np.r_[noise(50)[45:], noise(20, seed=1)[:5]])
    assert os.listdir(tmp_path) == ["any name"]


def test_the_digest_tells_frames_and_clips_apart_and_nothing_else(tmp_path):
    def digest(*clips, **known):
        return Prepared(prepare(tmp_path / "a", clips, **known)).digest

    assert digest(noise(50), unit="dBZ") == digest(noise(50))
    others = [[noise(50, seed=1)], [noise(50)[:20], noise(50)[20:]], [noise(49)]]
    for clips in (*others, [noise(50) / np.float32(255)]):
        assert digest(*clips) != digest(noise(50))


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = prepare(tmp_path / "a", [noise()])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), Writer(path) as writer:
        writer.append(noise(5))
        raise KeyboardInterrupt
    with pytest.raises(ValueError), Writer(path) as writer:
        writer.append(noise(5))  # and no end of a clip
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_ends_in_one_line_at_once_and_not_in_a_crash(tmp_path):
    np.save(tmp_path / "a.npy", noise(1000))
    line = f"ulimit -f 50; exec {sys.executable} prepare.py {tmp_path}/a.npy {tmp_path}/out"
    ended = subprocess.run(line, shell=True, check=False, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")  # nothing says that a source has been read
    assert "File too large" in ended.stderr and ended.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["a.npy"]


def test_any_flipped_byte_and_any_cut_is_noticed(tmp_path):
    path = prepare(tmp_path / "a", [noise(200)])
    content, whole = path.read_bytes(), Prepared(path)
    rng = np.random.default_rng(0)
    # All bytes of the frames, and the beginning and the end, where HDF5 keeps what it knows.
    places = [*rng.integers(0, len(content), 40), *rng.integers(512, 3000, 40)]
    for n, place in enumerate([*places, *(len(content) - rng.integers(1, 3000, 40))]):
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
    for length in (10, 600, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refusal(lambda: Prepared(path).read(0, 200))


def test_a_file_that_changes_while_it_is_open_is_noticed(tmp_path):
    path = prepare(tmp_path / "a", [noise(200)])
    opened, pickled = Prepared(path), pickle.dumps(Prepared(path))
    os.truncate(path, 100_000)  # HDF5 itself would read zeros
    assert "has changed" in refusal(opened.read, 150, 200)
    del opened
    prepare(path, [noise(seed=1)])
    assert "has changed" in refusal(pickle.loads(pickled).read, 0, 5)


def test_it_can_be_moved_pickled_and_read_in_other_processes(tmp_path):
    path = prepare(tmp_path / "a", [noise()]).rename(tmp_path / "b")
    opened = Prepared(path)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            parts = pool.starmap(opened.read, [(0, 20), (20, 50)])
        np.testing.assert_array_equal(np.concatenate(parts), noise())


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "packed", "5 axes"])
def test_frames_that_are_stored_otherwise_are_refused(tmp_path, kind):
    path = prepare(tmp_path / "a", [noise()])
    with h5py.File(path, "r+") as file:
        frames = file.pop("frames")[:]
        if kind == "packed":
            file.create_dataset("frames", data=frames, compression="gzip", fletcher32=True)
        elif kind == "5 axes":
            file.create_dataset("frames", data=frames[None], chunks=True, fletcher32=True)
        else:
            store_elsewhere(file, "frames", frames.shape, kind)
    assert "frames is not as prepare.py writes it" in refusal(Prepared, path)
