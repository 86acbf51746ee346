"""Arrays of every kind of file become the frames that their owner means."""

import functools
import os

import h5py
import numpy as np
import pytest
from helpers import movie, read_clips, store_elsewhere
from helpers import refusal as refusal_of

from extras import arrays

pytest.importorskip("netCDF4")
xarray = pytest.importorskip("xarray")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

FILM = np.float32(0.8) * (movie(6, 16, 24, step=1) > 128)  # a square in the upper half
read = functools.partial(read_clips, arrays.read_arrays)


def refusal(path, **options):
    reason = refusal_of(read, path, **options)
    assert str(path) in reason
    return reason


def assert_clips(found, *expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.squeeze(one, -1) if other.ndim == 3 else one, other)


# NumPy


@pytest.mark.parametrize(
    "axes, shape",
    [
        ("THW", (6, 16, 24)), ("NTHW", (2, 6, 16, 24)), ("THWC", (6, 16, 24, 3)),
        ("TCHW", (6, 1, 16, 24)), ("NTHWC", (2, 6, 16, 24, 1)), ("NTCHW", (2, 6, 3, 16, 24)),
        ("NCTHW", (2, 3, 6, 16, 24)), ("HW", (16, 24)), ("HWC", (16, 24, 3)),
    ],
)  # fmt: skip
def test_axes_are_told_by_the_shape_and_said(tmp_path, axes, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    clips, notes = read(tmp_path / "a.npy")
    videos, frames, channels = (dict(zip(axes, shape)).get(letter, 1) for letter in "NTC")
    assert [clip.shape for clip in clips] == videos * [(frames, 16, 24, channels)]
    everything = np.moveaxis(array, axes.index("C"), -1) if "C" in axes else array
    np.testing.assert_array_equal(np.ravel(clips), everything.ravel())
    assert " ".join(f"{x}={n}" for x, n in zip(axes, shape)) in notes and "--axes" in notes
    assert_clips(read(tmp_path / "a.npy", axes=axes)[0], *clips)


def test_other_orders_of_axes_are_given_by_letters(tmp_path):
    videos = np.random.default_rng(0).random((20, 30, 16, 24), np.float32)  # 30 videos of 20 frames
    np.save(tmp_path / "a.npy", videos)
    np.save(tmp_path / "mnist_test_seq.npy", videos)  # the official file, which has this order
    for path, options in (("a.npy", {"axes": "TNHW"}), ("mnist_test_seq.npy", {})):
        assert_clips(read(tmp_path / path, **options)[0], *videos.swapaxes(0, 1))
    assert "--axes TNHW" in read(tmp_path / "a.npy")[1]
    np.save(tmp_path / "a.npy", np.asfortranarray(np.moveaxis(FILM, 0, -1)))
    assert_clips(read(tmp_path / "a.npy", axes="HWT")[0], FILM)
    assert "--axes THW does not fit" in refusal(tmp_path / "mnist_test_seq.npy", axes="THW")


def test_npz_files_hold_a_video_each_or_all_in_videos(tmp_path):
    np.savez(tmp_path / "a.npz", FILM, FILM[:4])
    assert_clips(read(tmp_path / "a.npz")[0], FILM, FILM[:4])
    assert_clips(read(tmp_path / "a.npz", variable="arr_1")[0], FILM[:4])
    np.savez_compressed(tmp_path / "b.npz", about={}, other=FILM, videos=FILM[None, :5])
    assert_clips(read(tmp_path / "b.npz")[0], FILM[:5])


@pytest.mark.parametrize(
    "content, told",
    [
        ("", "is empty"), ("version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("<!DOCTYPE html><html>Quota exceeded", "a web page"), ("größe;1,5\n", "is text"),
        ("\0\1\2", "cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif", "a.nc", "a.h5"])
def test_what_is_no_array_is_called_by_its_name(tmp_path, name, content, told):
    (tmp_path / name).write_text(content, encoding="latin-1")
    assert told in refusal(tmp_path / name)


def test_what_cannot_become_frames_is_told_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    np.save(path, np.empty(2, object), allow_pickle=True)
    assert "np.savez(path, *clips)" in refusal(path) and "pickle" not in refusal(path)
    np.save(path, np.zeros(100))
    assert "no array of frames: there is (100,)" in refusal(path)
    np.save(path, np.zeros((4, 16, 24), complex))
    assert "complex128" in refusal(path)
    np.save(path, FILM)
    os.truncate(path, 1000)
    assert "cannot be read" in refusal(path)
    np.save(path, FILM)
    monkeypatch.setattr(arrays, "READ_BYTES", 100)
    assert "16 x 24 pixels are too large" in refusal(path)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((100, 16, 24)))
    monkeypatch.setattr(arrays, "UNPACKED_BYTES", 100_000)
    assert "python -m zipfile -e a.npz" in refusal(tmp_path / "a.npz")


# TIFF


def test_tiff_stacks_are_films(tmp_path):
    path, levels = tmp_path / "a.tif", (FILM * 255).astype(np.uint8)
    colour = np.stack([levels, levels // 2, 255 - levels], -1)
    alpha = np.where(levels > 0, 255, 0).astype(np.uint8)[..., None]
    over_black = np.where(alpha > 0, colour, 0)
    for stored, expected, form in [
        (levels, levels, {"photometric": "minisblack"}),
        (255 - levels, levels, {"photometric": "miniswhite", "compression": "zlib"}),
        (np.uint16(levels), levels, {"imagej": True, "metadata": {"axes": "TYX"}}),
        (colour, colour, {"photometric": "rgb"}),
        (np.append(colour, alpha, -1), over_black, {"photometric": "rgb", "extrasamples": [2]}),
        (
            np.append(over_black, alpha // 2, -1),
            over_black,
            {"photometric": "rgb", "extrasamples": [1]},
        ),
        (np.append(colour, alpha // 2, -1), colour, {"photometric": "rgb", "extrasamples": [0]}),
    ]:
        tifffile.imwrite(path, stored, **form)
        clips, _ = read(path)
        assert_clips(clips, expected)
        assert clips[0].dtype == stored.dtype
    channels = np.stack([levels, levels // 2], 1).astype(np.uint16)
    tifffile.imwrite(path, channels, imagej=True, metadata={"axes": "TCYX"})
    assert_clips(read(path, select=["channel=1"])[0], levels // 2)
    assert "2 channels" in refusal(path)


# NetCDF, HDF5, Zarr


def write(path, array, axes="time lat lon", attributes=None, form=None, **coordinates):
    dataset = xarray.Dataset({"v": (axes.split(), array, attributes)}, coordinates)
    if path.suffix == ".zarr":
        dataset.to_zarr(path, zarr_format=form, consolidated=False)
    else:
        dataset.to_netcdf(path, format=form, engine="netcdf4")
    return path


def test_netcdf_names_its_axes(tmp_path):
    path = tmp_path / "a.nc"
    write(path, np.moveaxis(FILM[:, ::-1], 0, 2), "lat longitude time", lat=np.arange(16))
    clips, notes = read(path)
    assert_clips(clips, FILM)
    assert "north is up" in notes
    write(path, np.stack([FILM, FILM[::-1]], 1), "time level lat lon", level=[500, 850])
    assert "--select level=500" in refusal(path)
    assert_clips(read(path, select=["level=850"])[0], FILM[::-1])
    final, early = FILM.copy(), FILM.copy()
    final[4:], early[:4] = np.nan, np.nan
    write(path, np.stack([final, early], 1), "time expver lat lon")
    assert_clips(read(path)[0], FILM)


def test_times_order_frames_and_a_jump_ends_a_clip(tmp_path):
    path = write(tmp_path / "a.nc", FILM, time=[0, 1, 2, 50, 51, 52])
    clips, notes = read(path)
    assert_clips(clips, FILM[:3], FILM[3:])
    assert "jump after frame 3" in notes
    order = [3, 0, 5, 1, 4, 2]
    write(path, FILM[order], time=order)
    assert_clips(read(path)[0], FILM)


@pytest.mark.parametrize("name, form", [("a.nc", "NETCDF4"), ("a.zarr", 2), ("a.zarr", 3)])
def test_packed_numbers_stand_for_what_the_file_says_and_missing_ones_are_nan(tmp_path, name, form):
    stored = np.round(FILM * 10).astype(np.int16)
    stored[:, 10:] = -1
    packing = {"scale_factor": 0.1, "add_offset": 3.0, "_FillValue": -1}
    clips, notes = read(write(tmp_path / name, stored, attributes=packing, form=form))
    expected = np.where(stored == -1, np.nan, stored * 0.1 + 3)
    np.testing.assert_allclose(np.squeeze(clips), expected, atol=1e-6)
    assert notes == "v axes T=6 H=16 W=24"


def test_hdf5_without_names_is_read_as_its_shape_and_asks_which_array(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["in/rain"], file["mask"] = FILM, FILM > 0
        file["mask"].attrs["of"] = file["in/rain"].ref  # what NetCDF does not know is passed over
        file["table"] = np.zeros(3, [("a", "f4")])
    assert "choose one, as by --variable mask" in refusal(tmp_path / "a.h5")
    assert_clips(read(tmp_path / "a.h5", variable="rain")[0], FILM)
    assert read(tmp_path / "a.h5", variable="mask")[0][0].dtype == bool


def test_radar_files_say_gain_offset_and_missing(tmp_path):
    odim = {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 1.0}
    knmi = {"calibration_formulas": b"GEO=0.5*PV+-32.0", "calibration_missing_data": 255}
    for array, group, attributes, one in [
        ("dataset1/data1/data", "dataset1/data1/what", odim, -32),  # as little as there can be
        ("image1/image_data", "image1/calibration", knmi, -31.5),
    ]:
        with h5py.File(tmp_path / "radar.h5", "w") as file:
            file[array] = np.uint8([[0, 1, 255]] * 2)
            file.create_group(group).attrs.update(attributes)
        ((clip,), _) = read(tmp_path / "radar.h5")
        np.testing.assert_array_equal(clip[0, 0, :, 0], [-32, one, np.nan])


@pytest.mark.parametrize("kind", ["external", "virtual", "link"])
def test_hdf5_reads_nothing_of_other_files(tmp_path, kind):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        store_elsewhere(file, "v", FILM.shape, kind)
    assert ("another file" if kind == "link" else "in other files") in refusal(tmp_path / "a.h5")


def test_zarr_may_leave_axes_without_a_name(tmp_path):
    for names in (["time", None, None], [None, None, None]):
        options = {"chunks": FILM.shape, "dimension_names": names, "overwrite": True}
        zarr.create_array(tmp_path / "a.zarr", data=FILM, **options)
        assert_clips(read(tmp_path / "a.zarr")[0], FILM)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_zarr_reads_nothing_but_plain_files_of_its_own(tmp_path, kind):
    zarr.create_array(tmp_path / "a.zarr", data=FILM, chunks=FILM.shape)
    assert_clips(read(tmp_path / "a.zarr")[0], FILM)
    chunk = tmp_path / "a.zarr/c/0/0/0"
    moved = chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(moved) if kind == "link" else os.mkfifo(chunk)
    assert "only plain files" in refusal(tmp_path / "a.zarr")


def test_what_a_header_promises_has_bounds(tmp_path):
    """Else damage would have a reader begin to read forever."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (2 * 10**9, 5, 8, 8), "u1", chunks=(1, 5, 8, 8))
    assert "10,000,000,000 frames" in refusal(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["/".join("g" * 150)] = FILM
    assert "deep" in refusal(tmp_path / "b.h5")


@pytest.mark.parametrize("place, value", [(12, 127), (13, 255), (64, 127)])
def test_a_damaged_header_of_netcdf_is_refused(tmp_path, place, value):
    """NetCDF's own library would kill the process, or never come to an end."""
    path = write(tmp_path / "a.nc", FILM, "t y x", form="NETCDF3_CLASSIC")
    assert_clips(read(path)[0], FILM)
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    refusal(path)
