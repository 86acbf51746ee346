"""Arrays of every kind of file become the frames that their owner means."""

import json
import os

import numpy as np
import pytest

from extras import arrays
from extras.cli import InputError

h5py = pytest.importorskip("h5py")
netCDF4 = pytest.importorskip("netCDF4")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


def film(frames=6):
    """float32 (frames, 16, 24): a bar in the upper half moves right."""
    video = np.zeros((frames, 16, 24), np.float32)
    for n in range(frames):
        video[n, 2:6, n : n + 8] = 0.8
    return video


def read(path, **options):
    """-> the clips, a list of arrays (n, height, width, channels), and the notes."""
    notes, clips = [], []
    for block in arrays.read_arrays(path, notes.append, **options):
        if block.new_clip:
            clips.append([])
        clips[-1].append(block.frames)
    return [np.concatenate(blocks) for blocks in clips], notes


def refusal(path, **options):
    with pytest.raises(InputError) as refused:
        read(path, **options)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    return str(refused.value)


def assert_clips(found, *expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(np.squeeze(one, -1) if other.ndim == 3 else one, other)


# NumPy


@pytest.mark.parametrize(
    "axes, shape, understood",
    [
        ("THW", (6, 16, 24), (1, 6, 1)), ("NTHW", (2, 6, 16, 24), (2, 6, 1)),
        ("THWC", (6, 16, 24, 3), (1, 6, 3)), ("TCHW", (6, 1, 16, 24), (1, 6, 1)),
        ("NTHWC", (2, 6, 16, 24, 1), (2, 6, 1)), ("NTCHW", (2, 6, 3, 16, 24), (2, 6, 3)),
        ("NCTHW", (2, 3, 6, 16, 24), (2, 6, 3)), ("HW", (16, 24), (1, 1, 1)),
        ("HWC", (16, 24, 3), (1, 1, 3)),
    ],
)  # fmt: skip
def test_axes_are_told_by_the_shape_and_said(tmp_path, axes, shape, understood):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    clips, notes = read(tmp_path / "a.npy")
    videos, frames, channels = understood
    assert [clip.shape for clip in clips] == videos * [(frames, 16, 24, channels)]
    assert " ".join(f"{x}={n}" for x, n in zip(axes, shape)) in notes[0] and "--axes" in notes[0]
    given, _ = read(tmp_path / "a.npy", axes=axes)
    assert_clips(given, *clips)
    everything = np.moveaxis(array, axes.index("C"), -1) if "C" in axes else array[..., None]
    np.testing.assert_array_equal(np.concatenate(clips).ravel(), everything.ravel())


def test_other_orders_of_axes_are_given_by_letters(tmp_path):
    videos = np.random.default_rng(0).random((20, 30, 16, 24), np.float32)  # 30 videos of 20 frames
    np.save(tmp_path / "a.npy", videos)
    np.save(tmp_path / "mnist_test_seq.npy", videos)  # the official file, which has this order
    for path, options in (("a.npy", {"axes": "TNHW"}), ("mnist_test_seq.npy", {})):
        assert_clips(read(tmp_path / path, **options)[0], *videos.swapaxes(0, 1))
    assert any("--axes TNHW" in note for note in read(tmp_path / "a.npy")[1])
    np.save(tmp_path / "a.npy", np.asfortranarray(np.moveaxis(film(), 0, -1)))
    assert_clips(read(tmp_path / "a.npy", axes="HWT")[0], film())
    assert "--axes THW does not fit" in refusal(tmp_path / "mnist_test_seq.npy", axes="THW")


def test_npz_files_hold_a_video_each_or_all_in_videos(tmp_path):
    np.savez(tmp_path / "a.npz", film(6), film(4))
    assert_clips(read(tmp_path / "a.npz")[0], film(6), film(4))
    assert_clips(read(tmp_path / "a.npz", variable="arr_1")[0], film(4))
    np.savez_compressed(tmp_path / "b.npz", other=film(), videos=film()[None, :5])
    assert_clips(read(tmp_path / "b.npz")[0], film(5))


@pytest.mark.parametrize(
    "content, told",
    [
        ("", "is empty"), ("version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("<!DOCTYPE html><html>Quota exceeded", "a web page"), ("größe;1,5\n", "is text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif", "a.nc", "a.h5"])
def test_what_is_no_array_is_called_by_its_name(tmp_path, name, content, told):
    (tmp_path / name).write_text(content, encoding="latin-1")
    assert told in refusal(tmp_path / name)


def test_damaged_and_hostile_files_end_in_one_line_at_once(tmp_path, monkeypatch):
    header = np.lib.format.header_data_from_array_1_0(film().astype(np.uint8))
    for shape in ((1, 60000, 60000), (6, 16, 24), (-6, 16, 24), (10**30, 16, 24)):
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        refusal(tmp_path / "a.npy")
    clips = np.empty(2, object)
    np.save(tmp_path / "a.npy", clips, allow_pickle=True)
    advice = refusal(tmp_path / "a.npy")
    assert "np.savez(path, *clips)" in advice and "pickle" not in advice
    (tmp_path / "a.npy").write_bytes(b"\0\1\2")
    assert "cannot be read" in refusal(tmp_path / "a.npy")
    np.savez_compressed(tmp_path / "a.npz", np.zeros((100, 16, 24)))
    monkeypatch.setattr(arrays, "UNPACKED_BYTES", 100_000)
    assert "python -m zipfile -e a.npz" in refusal(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros((4, 16, 24), complex))
    assert "complex128" in refusal(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", film())
    monkeypatch.setattr(arrays, "READ_BYTES", 100)
    assert "16 x 24 pixels are too large" in refusal(tmp_path / "a.npy")


# TIFF


def test_tiff_stacks_are_films(tmp_path):
    levels = (film() * 255).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, levels, photometric="minisblack")
    assert_clips(read(path)[0], levels)
    tifffile.imwrite(path, 255 - levels, photometric="miniswhite", compression="zlib")
    assert_clips(read(path)[0], levels)
    tifffile.imwrite(path, levels.astype(np.uint16), imagej=True, metadata={"axes": "TYX"})
    assert read(path)[0][0].dtype == np.uint16
    channels = np.stack([levels, levels // 2], 1).astype(np.uint16)
    tifffile.imwrite(path, channels, imagej=True, metadata={"axes": "TCYX"})
    assert_clips(read(path, select=["channel=1"])[0], levels // 2)
    assert "2 channels" in refusal(path)
    colour = np.stack([levels, levels // 2, 255 - levels], -1)
    tifffile.imwrite(path, colour, photometric="rgb")
    assert_clips(read(path)[0], colour)
    alpha = np.where(levels > 0, 255, 0).astype(np.uint8)[..., None]
    tifffile.imwrite(path, np.concatenate([colour, alpha], -1), photometric="rgb", extrasamples=[2])
    assert_clips(read(path)[0], np.where(alpha > 0, colour, 0))


# NetCDF, HDF5, Zarr


def write_netcdf(path, array, axes="time lat lon", attributes=None, **coordinates):
    with netCDF4.Dataset(path, "w") as file:
        file.set_auto_maskandscale(False)
        for axis, length in zip(axes.split(), array.shape):
            file.createDimension(axis, length)
            if axis in coordinates:
                file.createVariable(axis, "f8", (axis,))[:] = coordinates[axis]
        fill = (attributes or {}).pop("_FillValue", None)
        variable = file.createVariable("v", array.dtype, axes.split(), fill_value=fill)
        variable.set_auto_maskandscale(False)
        variable.setncatts(attributes or {})
        variable[:] = array


def test_netcdf_names_its_axes(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(path, np.moveaxis(film(), 0, 2), "latitude longitude time")
    assert_clips(read(path)[0], film())
    write_netcdf(path, film()[:, ::-1], lat=np.arange(16))
    clips, notes = read(path)
    assert_clips(clips, film())
    assert any("north is up" in note for note in notes)
    levels = np.stack([film(), film()[::-1]], 1)
    write_netcdf(path, levels, "time level lat lon", level=[500, 850])
    assert "--select level=500" in refusal(path)
    assert_clips(read(path, select=["level=850"])[0], film()[::-1])
    final, early = film(), film()
    final[4:], early[:4] = np.nan, np.nan
    write_netcdf(path, np.stack([final, early], 1), "time expver lat lon")
    assert_clips(read(path)[0], film())


def test_times_order_frames_and_a_jump_ends_a_clip(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(path, film(), time=[0, 1, 2, 50, 51, 52])
    clips, notes = read(path)
    assert_clips(clips, film()[:3], film()[3:])
    assert any("jump after frame 3" in note for note in notes)
    order = [3, 0, 5, 1, 4, 2]
    write_netcdf(path, film()[order], time=order)
    assert_clips(read(path)[0], film())


@pytest.mark.parametrize(
    "dtype, attributes",
    [
        ("i2", {"scale_factor": 0.1, "add_offset": 3.0, "_FillValue": -1}),
        ("i2", {"scale_factor": 0.1, "missing_value": np.int16([-1, -1])}),
        ("i2", {"scale_factor": 0.1, "valid_range": np.int16([0, 9])}),
        ("i1", {"_Unsigned": "true", "scale_factor": 0.1, "_FillValue": -1}),
        ("f4", {"valid_max": np.float32(9)}),
    ],
)
def test_packed_numbers_stand_for_what_the_file_says_and_missing_ones_are_nan(
    tmp_path, dtype, attributes
):
    stored = np.round(film() * 10).astype(dtype)  # 0 and 8
    stored[:, 10:] = 1000 if dtype == "f4" else -1
    scale, offset = attributes.get("scale_factor", 1), attributes.get("add_offset", 0)
    write_netcdf(tmp_path / "a.nc", stored, "time lat lon", attributes)
    ((clip,), _) = read(tmp_path / "a.nc")
    assert np.isnan(clip[:, 10:]).all()
    expected = np.round(film() * 10)[:, :10] * scale + offset
    np.testing.assert_allclose(clip[:, :10, :, 0], expected, atol=1e-6)


def test_hdf5_without_names_is_read_as_its_shape_and_asks_which_array(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["in/rain"], file["mask"] = film(), film() > 0
        file["mask"].attrs["of"] = file["in/rain"].ref  # what NetCDF does not know is passed over
        file["table"] = np.zeros(3, [("a", "f4")])
    assert "choose one, as by --variable mask" in refusal(tmp_path / "a.h5")
    assert_clips(read(tmp_path / "a.h5", variable="rain")[0], film())
    assert read(tmp_path / "a.h5", variable="mask")[0][0].dtype == bool


def test_radar_files_say_gain_offset_and_missing(tmp_path):
    counts = np.uint8([[0, 1, 255]] * 2)
    with h5py.File(tmp_path / "odim.h5", "w") as file:
        file["dataset1/data1/data"] = counts
        what = {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0}
        file.create_group("dataset1/data1/what").attrs.update(what)
    with h5py.File(tmp_path / "knmi.h5", "w") as file:
        file["image1/image_data"] = counts
        calibration = {"calibration_formulas": b"GEO=0.5*PV+-32.0", "calibration_missing_data": 255}
        file.create_group("image1/calibration").attrs.update(calibration)
    for name in ("odim.h5", "knmi.h5"):
        ((clip,), _) = read(tmp_path / name)
        np.testing.assert_array_equal(clip[0, 0, :, 0], [-32, -31.5, np.nan])


def test_hdf5_reads_nothing_of_other_files(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(6 * 16 * 24))
    for kind in ("external", "virtual", "link"):
        with h5py.File(tmp_path / f"{kind}.h5", "w") as file:
            layout = h5py.VirtualLayout((6, 16, 24), "u1")
            layout[:] = h5py.VirtualSource("other.h5", "v", (6, 16, 24))
            if kind == "external":
                storage = [(str(tmp_path / "secret"), 0, 6 * 16 * 24)]
                file.create_dataset("v", (6, 16, 24), "u1", external=storage)
            elif kind == "virtual":
                file.create_virtual_dataset("v", layout)
            else:
                file["v"] = h5py.ExternalLink("other.h5", "v")
        assert "file" in refusal(tmp_path / f"{kind}.h5")


def test_zarr_reads_nothing_but_plain_files_of_its_own(tmp_path):
    for kind in ("link", "pipe"):
        zarr.create_array(tmp_path / f"{kind}.zarr", data=film(), chunks=(6, 16, 24))
        chunk = tmp_path / f"{kind}.zarr/c/0/0/0"
        chunk.rename(tmp_path / "elsewhere")
        chunk.symlink_to(tmp_path / "elsewhere") if kind == "link" else os.mkfifo(chunk)
        assert "only plain files" in refusal(tmp_path / f"{kind}.zarr")


def test_what_a_header_promises_has_bounds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (2 * 10**9, 5, 8, 8), "u1", chunks=(1, 5, 8, 8))
    assert "10,000,000,000 frames" in refusal(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["/".join("g" * 150)] = film()
    assert "deep" in refusal(tmp_path / "b.h5")


def test_zarr_in_both_versions(tmp_path):
    for version in (2, 3):
        root = zarr.open_group(tmp_path / f"{version}.zarr", mode="w", zarr_format=version)
        root.create_array("v", data=film(), chunks=(2, 16, 24))
        assert_clips(read(tmp_path / f"{version}.zarr")[0], film())
    packed = np.round(film() * 10).astype(np.int16)
    packed[:, 10:] = -1
    root = zarr.open_group(tmp_path / "packed.zarr", mode="w", zarr_format=2)
    array = root.create_array("v", data=packed, fill_value=-1)
    array.attrs.update(scale_factor=0.1, _ARRAY_DIMENSIONS=["time", "y", "x"])  # as xarray has it
    ((clip,), _) = read(tmp_path / "packed.zarr")
    np.testing.assert_allclose(clip[:, :10, :, 0], film()[:, :10], atol=1e-6)
    assert np.isnan(clip[:, 10:]).all()
    metadata = json.loads((tmp_path / "2.zarr/v/.zarray").read_text())
    metadata["compressor"] = {"id": "pickle"}  # it would run what is in the file
    (tmp_path / "2.zarr/v/.zarray").write_text(json.dumps(metadata))
    (tmp_path / "2.zarr/.zmetadata").unlink(missing_ok=True)
    refusal(tmp_path / "2.zarr")


def test_frames_of_one_chunk_are_read_together(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 2 * 4 * 16 * 24)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=film(60), chunks=(60, 4, 4), compression="gzip")
    blocks = list(arrays.read_arrays(tmp_path / "a.h5", print))
    assert len(blocks) == 30 and len({id(block.frames.base) for block in blocks}) == 1


@pytest.mark.parametrize("place, value", [(12, 127), (13, 255), (64, 127)])
def test_a_damaged_header_of_netcdf_is_refused(tmp_path, place, value):
    """NetCDF's own library would kill the process, or never come to an end."""
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        for name, length in zip("tyx", (6, 16, 24)):
            file.createDimension(name, length)
        file.createVariable("v", "f4", tuple("tyx"))[:] = film()
    np.testing.assert_array_equal(read(path)[0][0][..., 0], film())
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    refusal(path)
