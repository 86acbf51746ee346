"""prepare.py: names order frames, values become levels, and nothing that was there is lost."""

import datetime
import itertools
import os
import re
import sys
import unittest.mock
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from helpers import movie, refusal
from helpers import prepare as write_prepared
from PIL import Image

import prepare
from extras import names
from extras.prepared import Prepared


def write_frames(folder, video, name="{:03d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(video):
        Image.fromarray(frame).save(folder / name.format(n))
    return folder


def prepared(tmp_path, *sources, like=None, **options):
    prepare.prepare(sources, tmp_path / "out", prepare.Options(**options), like)
    return Prepared(tmp_path / "out")


def lengths(opened):
    return np.diff(opened.spans).ravel().tolist()


def assert_frames(opened, video):
    np.testing.assert_array_equal(np.squeeze(opened.read(0, opened.shape[0])), np.squeeze(video))


# Names


def times(pattern, step, count=40, start=datetime.datetime(2019, 12, 31, 22)):
    return [(start + n * step).strftime(pattern) for n in range(count)]


SECOND, MINUTE = datetime.timedelta(seconds=1), datetime.timedelta(minutes=1)
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
ONE_CLIP = {
    "number": [f"frame-{n}" for n in range(40)],
    "number not last": [f"person01_boxing_image-{n:03d}_64x64" for n in range(40)],
    "steps of five": [f"f{n}_v2" for n in range(0, 200, 5)],
    "decimals": [f"t{n / 4:.2f}" for n in range(40)],
    "iso": times("%Y-%m-%dT%H:%M:%S", 15 * MINUTE),
    "separated": times("webcam_%Y-%m-%d_%H-%M-%S", 5 * SECOND),
    "half days": times("Screenshot %Y-%m-%d at %-I.%M.%S %p", 30 * MINUTE),
    "compact minutes": times("radar_%Y%m%dT%H%MZ", 5 * MINUTE),
    "compact seconds": times("MRMS_%Y%m%d-%H%M%S", 2 * MINUTE),
    "over minutes": times("%Y%m%d%H%M%S", SECOND, 130, datetime.datetime(2023, 10, 12, 0, 32, 20)),
    "milliseconds": [name[:-3] for name in times("%Y%m%d%H%M%S%f", SECOND / 2)],
    "hours": times("era5_%Y%m%d%H", HOUR),
    "days": times("ice_%Y%m%d_f17", DAY),
    "days first": times("%d-%m-%Y", DAY),
    "days of the year": times("NDVI_%Y%j", DAY),
    "date and time apart": times("%Y%m%d_rain_%H%M", HOUR),
    "months": [f"sst_{2000 + n // 12}{n % 12 + 1:02d}" for n in range(40)],
    "first days of months": [f"sst_{2000 + n // 12}-{n % 12 + 1:02d}-01" for n in range(40)],
    "seconds since 1970": [f"{1305031102.175304 + n / 30:.6f}" for n in range(40)],
    "number and time": [f"{n:04d}_{1305031102 + n}" for n in range(40)],
    "start and end": times("s%Y%j%H%M_e%Y%j%H5900", HOUR),
}


@pytest.mark.parametrize("kind", ONE_CLIP)
def test_whatever_varies_in_names_orders_frames_and_a_gap_ends_a_clip(kind):
    notes = []
    files = [Path(f"{name}.png") for name in ONE_CLIP[kind]]
    assert names.order_frames(sorted(files, key=lambda f: f.name[::-1]), notes.append) == [files]
    assert notes == []
    clips = sorted([files[:20], files[30:]])
    assert sorted(names.order_frames(clips[0] + clips[1], notes.append)) == clips
    assert len(notes) == 1 and files[19].name in notes[0] and files[30].name in notes[0]


@pytest.mark.parametrize(
    "pattern, count",
    [
        ("cam{}_{:03d}", 30), ("{1:03d}_cam{0}", 2), ("2019013{}_{:04d}", 2),
        ("seq{}_20190131{:02d}0000", 2),
    ],
)  # fmt: skip
def test_other_parts_that_vary_name_clips(pattern, count):
    clips = [[Path(pattern.format(c, n) + ".png") for n in range(20)] for c in range(count)]
    found = names.order_frames([file for clip in clips[::-1] for file in clip], print)
    assert sorted(found) == sorted(clips)


def test_two_files_of_one_frame_are_an_error_that_names_both(tmp_path):
    for name in ("{:03d}.png", "{:03d}.jpg"):
        write_frames(tmp_path / "in", movie(), name)
    reason = refusal(prepared, tmp_path, tmp_path / "in")
    assert all(words in reason for words in ("000.png", "000.jpg", "are the same frame"))


# Sources


def test_folders_in_folders_are_clips_and_what_is_hidden_is_none(tmp_path):
    write_frames(tmp_path / "in/seq10", movie(5))
    write_frames(tmp_path / "in/seq9/deeper", movie(6))
    write_frames(tmp_path / "in/seq9/.ipynb_checkpoints", movie(7))
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere/a.npy", movie(8))
    (tmp_path / "in/seq9/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/seq9/loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in/pipe.png")
    opened = prepared(tmp_path, tmp_path / "in")
    assert opened.names == ["in/seq9/deeper", "in/seq9/link/a.npy", "in/seq10"]
    assert lengths(opened) == [6, 8, 5]


def test_arrays_of_one_frame_each_are_the_frames_of_a_clip_and_others_are_clips(tmp_path):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(movie(12)):
        np.save(tmp_path / f"in/rain_{n}.npy", frame)
    (tmp_path / "in/bad.npy").write_bytes(b"no array")
    assert_frames(prepared(tmp_path, tmp_path / "in"), movie(12))
    for name in ("test", "train"):
        np.save(tmp_path / f"in/{name}.npy", movie(5))
    (tmp_path / "in/rain_3.npy").unlink()
    assert lengths(prepared(tmp_path, tmp_path / "in")) == [5, 5, 3, 8]


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path, capsys):
    write_frames(tmp_path / "in", movie(20))
    (tmp_path / "in/009.png").write_text("<html>404</html>")
    (tmp_path / "in/cut.npy").write_bytes(b"\x93NUMPY")
    opened = prepared(tmp_path, tmp_path / "in")
    assert lengths(opened) == [9, 10]
    lines = capsys.readouterr().out
    assert "009.png is a web page" in lines and "cut.npy" in lines
    assert "cut.npy" in refusal(prepared, tmp_path, tmp_path / "in/cut.npy")
    write_frames(tmp_path / "words", movie(1), "first.png")
    write_frames(tmp_path / "words", movie(1), "second.png")
    assert "second.png: a frame needs a number" in refusal(prepared, tmp_path, tmp_path / "words")
    prepared(tmp_path, tmp_path / "in/008.png", tmp_path / "in/cut.npy")
    assert "cut.npy:" in capsys.readouterr().out


def test_an_animation_that_is_cut_is_read_as_far_as_it_goes(tmp_path, capsys):
    first, *others = map(Image.fromarray, movie(20))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    os.truncate(tmp_path / "a.gif", (tmp_path / "a.gif").stat().st_size // 2)
    opened = prepared(tmp_path, tmp_path / "a.gif")
    assert 5 < opened.shape[0] < 15 and "a.gif cannot be read" in capsys.readouterr().out


def test_every_nth_frame_of_each_clip(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([movie(7), movie(7, step=1)]))
    write_frames(tmp_path / "in", movie(7))
    every_third = [movie(7)[::3], movie(7, step=1)[::3], movie(7)[::3]]
    opened = prepared(tmp_path, tmp_path / "a.npy", tmp_path / "in", stride=3)
    assert_frames(opened, np.concatenate(every_third))


def test_options_reach_the_readers_that_they_are_for(tmp_path):
    frames = np.repeat(movie(12)[..., None], 3, -1)
    for name, form in (
        ("a.gif", {"plugin": "pillow", "duration": 200}),  # milliseconds
        ("a.mp4", {"plugin": "pyav", "codec": "libx264", "fps": 5}),
    ):
        imageio.imwrite(tmp_path / name, frames, **form)
        assert lengths(prepared(tmp_path, tmp_path / name, fps=3)) == [7]  # of 2.4 seconds
    np.savez(tmp_path / "a.npz", videos=movie(5), rain=np.moveaxis(movie(7), 0, -1))
    opened = prepared(tmp_path, tmp_path / "a.npz", variable="rain", axes="HWT")
    assert_frames(opened, movie(7))
    levels = np.stack([movie(), movie() // 2], axis=1)
    tifffile.imwrite(tmp_path / "a.tif", levels, imagej=True, metadata={"axes": "TCYX"})
    assert_frames(prepared(tmp_path, tmp_path / "a.tif", select=("channel=1",)), movie() // 2)


def test_frames_are_resized_and_their_middle_is_cropped(tmp_path):
    np.save(tmp_path / "a.npy", movie())
    np.save(tmp_path / "b.npy", movie(height=64, width=96))
    assert_frames(prepared(tmp_path, tmp_path / "a.npy", size=(32,)), movie()[:, :, 8:40])
    smaller = prepared(tmp_path, tmp_path / "a.npy", size=(16, 24)).read(0, 6)[..., 0]
    assert np.abs(smaller - movie()[:, ::2, ::2].astype(float)).mean() < 12
    assert "--size" in refusal(prepared, tmp_path, tmp_path / "a.npy", tmp_path / "b.npy")
    assert prepared(tmp_path, tmp_path / "a.npy", tmp_path / "b.npy", size=(32, 48)).shape[0] == 12


def test_files_are_coloured_or_float_if_a_source_is(tmp_path):
    in_three_channels = np.repeat(movie()[..., None], 3, -1)
    coloured = np.stack([movie(), movie() // 2, 255 - movie()], -1)
    floats = movie() / np.float32(255)
    grey = write_frames(tmp_path / "grey", in_three_channels)
    colour = write_frames(tmp_path / "colour", coloured)
    np.save(tmp_path / "a.npy", floats)
    assert_frames(prepared(tmp_path, grey), movie())
    assert_frames(prepared(tmp_path, grey, colour), np.concatenate([in_three_channels, coloured]))
    assert_frames(prepared(tmp_path, grey, tmp_path / "a.npy"), np.concatenate([floats, floats]))
    assert prepared(tmp_path, colour, grey=True).shape[-1] == 1
    assert prepared(tmp_path, grey, colour=True).shape[-1] == 3


# Values


@pytest.mark.parametrize(
    "array, told",
    [
        (movie().astype(np.uint16) * 257, "--range 0 65535"),
        (np.float32(movie() / 255 * 77 - 32), "--range -32 45"),
        (np.where(movie() < 9, np.nan, movie() / 255), "missing"),
        (np.full((6, 32, 48), 7.0), "no two different numbers"),
    ],
)
def test_what_is_black_and_white_is_asked_for_with_a_line_that_can_be_typed(tmp_path, array, told):
    np.save(tmp_path / "a.npy", array)
    reason = refusal(prepared, tmp_path, tmp_path / "a.npy")
    assert told in reason and os.listdir(tmp_path) == ["a.npy"]
    if "--range" in told:
        low, high = map(float, re.search(r"as in --range (\S+) (\S+)", reason).groups())
        opened = prepared(tmp_path, tmp_path / "a.npy", value_range=(low, high))
        assert opened.value_range == (low, high) and opened.dtype == np.float32
        scaled = (array.astype(float) - low) / (high - low)
        np.testing.assert_allclose(opened.read(0, 6)[..., 0], scaled, atol=1e-6)


def test_values_outside_and_missing_ones_are_counted(tmp_path, capsys):
    array = movie() / 255
    array[0, 0, :4], array[0, 1, :3], array[0, 2, :2] = np.nan, 9, -np.inf
    np.save(tmp_path / "a.npy", array)
    assert "as in --range 0 9 (" in refusal(prepared, tmp_path, tmp_path / "a.npy")
    frames = prepared(tmp_path, tmp_path / "a.npy", value_range=(0, 1)).read(0, 1)
    assert (frames[0, 0, :4] == 0).all() and (frames[0, 1, :3] == 1).all()
    assert (frames[0, 2, :2] == 0).all()
    lines = capsys.readouterr().out
    assert "4 values are missing" in lines and "5 values are outside" in lines


def test_eight_bits_stay_eight_bits_and_weak_ones_are_warned_of(tmp_path, capsys):
    masks = (movie() > 128).astype(np.uint8)
    np.save(tmp_path / "a.npy", masks)
    assert_frames(prepared(tmp_path, tmp_path / "a.npy"), masks)
    lines = capsys.readouterr().out
    assert "WARNING" in lines and "--range 0 1" in lines
    opened = prepared(tmp_path, tmp_path / "a.npy", value_range=(0, 1))
    assert opened.dtype == np.uint8
    assert_frames(opened, 255 * masks)
    np.save(tmp_path / "a.npy", masks.astype(bool))
    assert_frames(prepared(tmp_path, tmp_path / "a.npy"), 255 * masks)


def test_like_reads_other_files_in_the_same_way(tmp_path, capsys):
    np.save(tmp_path / "a.npy", movie().astype(np.uint16))
    opened = prepared(tmp_path, tmp_path / "a.npy", size=(16,), value_range=(0, 255), unit="dBZ")
    os.rename(tmp_path / "out", tmp_path / "first")  # its sheet stays, and is replaced
    write_frames(tmp_path / "in", np.stack([movie(), movie() // 2, movie() // 3], -1))
    other = prepared(tmp_path, tmp_path / "in", like=tmp_path / "first")
    typed = "--size 16 16 --range 0.0 255.0 --unit dBZ --grey"
    assert f"with those of {tmp_path / 'first'}: {typed}\n" in capsys.readouterr().out
    assert other.shape[1:] == opened.shape[1:] == (16, 16, 1)
    assert (other.value_range, other.unit) == ((0, 255), "dBZ")
    assert prepared(tmp_path, tmp_path / "in", like=tmp_path / "first", size=(20,)).shape[1] == 20


def test_the_sheet_of_a_prepared_file_is_no_source(tmp_path):
    folder = write_frames(tmp_path / "in", movie())
    prepare.prepare([folder / "000.png"], tmp_path / "007")
    for name in ("007", "007.png"):
        os.rename(tmp_path / name, folder / name)
    assert lengths(prepared(tmp_path, folder)) == [6]


# What is written


def test_no_file_is_lost_and_none_is_written_among_sources(tmp_path):
    write_frames(tmp_path / "in", movie())
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "a.png").write_text("mine")
    write_prepared(tmp_path / "like", [movie()[..., None]])
    (tmp_path / "same").symlink_to(tmp_path / "like")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    outs = ["notes", "a", "in", "in/out", "link/out", "in/../in/new/out", "in/000.png"]
    for source, out in itertools.product(["in", "link"], outs):
        refusal(prepare.prepare, [tmp_path / source], tmp_path / out)
    like = {"out": tmp_path / "same", "like": tmp_path / "like"}
    assert "is an input" in refusal(prepare.prepare, [tmp_path / "in"], **like)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_a_source_that_changes_while_it_is_read_ends_in_one_line(tmp_path, monkeypatch, name):
    """Also if its size and its time are in the end what they were; of Zarr's folder any chunk."""
    source = tmp_path / name
    pytest.importorskip("zarr").save(source, movie()) if ".z" in name else np.save(source, movie())
    file = source / "c/0/0/0" if ".z" in name else source

    def write_when_touched(*arguments):
        before = file.stat()
        file.write_bytes(file.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        write(*arguments)

    write = prepare.write
    monkeypatch.setattr(prepare, "write", write_when_touched)
    assert "has changed" in refusal(prepared, tmp_path, source)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_how_sources_are_read_and_draws_a_sheet(tmp_path, script):
    """Also if their names are no UTF-8, as on an old disk, or would steer a terminal."""
    folder = tmp_path / os.fsdecode(b"Espa\xf1a \x1b[2J")
    write_frames(folder, movie(30))
    (folder / "\u202e.mp4").touch()
    np.save(tmp_path / "a.npy", movie(2))
    out = tmp_path / "out"
    status, output, _ = script(prepare, tmp_path / "a.npy", folder, out, "--range", 0, 255)
    assert status == 0 and output.replace("\n", "").isprintable()
    assert "1 clip of 30 frames, 32 x 48 pixels" in output and "axes T=2 H=32 W=48" in output
    assert r"a \x1b[2J/\u202e.mp4 is empty" in output
    width, height = Image.open(tmp_path / "out.png").size
    assert width > 4 * 2 * 48 and height > 2 * 2 * 32  # four frames of each clip, twice as large
    assert lengths(Prepared(out)) == [2, 30]
    assert Prepared(out).options.keys() == vars(prepare.Options()).keys()


def test_who_reads_no_further_loses_no_result(tmp_path, monkeypatch):
    """As after `| head -1`, where Python writes at once."""
    write_frames(tmp_path / "in", movie())
    closed = unittest.mock.Mock(**{"write.side_effect": BrokenPipeError, "isatty": bool})
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(BrokenPipeError):  # in the last line
        prepare.prepare([tmp_path / "in"], tmp_path / "out")
    assert Prepared(tmp_path / "out").shape[0] and (tmp_path / "out.png").exists()
