"""Own clips: every kind of file is read as its owner sees it, once, and said how."""

import itertools
import os
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extras import clips
from extras.cli import InputError
from helpers import files_in

av = pytest.importorskip("av")
h5py = pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import make_clips
import make_radar


def movie(frames=6, height=32, width=48, step=3):
    """uint8 (frames, height, width): a bright square moves right over a shaded ground."""
    video = np.zeros((frames, height, width), np.uint8)
    video[:] = np.linspace(0, 80, width).astype(np.uint8)
    for n in range(frames):
        video[n, 4:14, n * step : n * step + 10] = 255
    return video


def colour_movie(frames=6):
    """uint8 (frames, 32, 48, 3): the same, in colour."""
    return np.stack([movie(frames), movie(frames) // 2, 255 - movie(frames)], axis=-1)


def write_frames(folder, video, name="{:03d}.png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(video):
        Image.fromarray(frame).save(folder / name.format(n), **options)


def write_video(path, video, codec="libx264", matrix=None, pixel_aspect=None, times=None):
    """Write a video of frames (height, width) or (height, width, 3 or 4), 20 a second.

    `times` are milliseconds, one for each frame.
    """
    lossless = {"libx264": {"qp": "4"}, "libvpx": {"crf": "4", "b": "9M"}, "mpeg4": {"qscale": "1"}}
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=20, options=lossless.get(codec, {}))
        stream.pix_fmt = "yuv420p" if codec in lossless else "rgba"
        stream.height, stream.width = video.shape[1:3]
        if matrix:
            stream.set_display_matrix([*(65536 * n for n in matrix), 0, 0, 1 << 30])
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for n, frame in enumerate(video):
            if frame.ndim == 2:
                frame = np.repeat(frame[..., None], 3, axis=-1)
            form = "rgba" if frame.shape[-1] == 4 else "rgb24"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=form)
            if times is not None:
                picture.pts, picture.time_base = int(times[n]), Fraction(1, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


def write_animation(path, video, milliseconds=50, **options):
    first, *others = (Image.fromarray(frame) for frame in video)
    first.save(path, save_all=True, append_images=others, duration=milliseconds, **options)


@pytest.fixture
def opened(tmp_path_factory):
    """Call as opened(source, ...): -> `Clips`, converted to a folder of their own each time."""
    caches = tmp_path_factory.mktemp("caches")
    folders = (caches / f"cache-{n}" for n in itertools.count())
    return lambda source, **options: clips.open_clips(source, next(folders), **options)


def lengths(opened_clips):
    return np.diff(opened_clips.spans)[:, 0].tolist()


def assert_close(frames, video, error=2):
    """Assert that compressed frames are those of a video, all but for `error` levels."""
    frames, video = np.squeeze(frames), np.squeeze(video)
    assert frames.shape == video.shape
    assert np.abs(frames.astype(float) - video).mean() < error


# What a viewer sees


@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.MKV", "libx264"), ("a.avi", "mpeg4"),
        ("a.webm", "libvpx"),
    ],
)  # fmt: skip
def test_videos_of_every_kind_in_grey_and_in_colour(opened, tmp_path, name, codec):
    write_video(tmp_path / name, movie(), codec)
    assert_close(opened(tmp_path / name).frames, movie())
    smooth = make_clips.draw_clip(np.random.default_rng(0), 4)
    write_video(tmp_path / name, smooth, codec)
    assert_close(opened(tmp_path / name).frames, smooth, error=4)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
@pytest.mark.parametrize("video", [movie(), colour_movie()])
def test_animations_are_clips(opened, tmp_path, name, video):
    write_animation(tmp_path / name, video, lossless=True)
    found = opened(tmp_path)
    assert found.names == [f"{tmp_path.name}/{name}"]
    assert found.frames.shape[-1] == (3 if video.ndim == 4 else 1)
    assert_close(found.frames, video, error=4 if name == "a.gif" else 1e-9)


@pytest.mark.parametrize("video", [movie(), colour_movie()])
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "bmp", "jpg"])
def test_frames_of_every_kind(opened, tmp_path, ending, video):
    write_frames(tmp_path / "in", video, "a{:d}." + ending, lossless=True, quality=95)
    found = opened(tmp_path / "in")
    assert found.frames.shape[-1] == (3 if video.ndim == 4 else 1)
    assert_close(found.frames, video, error=6 if ending == "jpg" else 1e-9)


# A pixel at column x and row y is shown at column a x + c y, row b x + d y: (a, b, 0, c, d, 0).
@pytest.mark.parametrize(
    "matrix, shown",
    [
        ((1, 0, 0, 0, 1, 0), lambda v: v),
        ((0, 1, 0, -1, 0, 0), lambda v: np.rot90(v, -1, (1, 2))),  # a phone that is held upright
        ((-1, 0, 0, 0, -1, 0), lambda v: np.rot90(v, 2, (1, 2))),
        ((0, -1, 0, 1, 0, 0), lambda v: np.rot90(v, 1, (1, 2))),
        ((-1, 0, 0, 0, 1, 0), lambda v: v[:, :, ::-1]),  # a phone's camera at the front
        ((1, 0, 0, 0, -1, 0), lambda v: v[:, ::-1]),
        ((0, 1, 0, 1, 0, 0), lambda v: v.swapaxes(1, 2)),
        ((0, -1, 0, -1, 0, 0), lambda v: v[:, ::-1, ::-1].swapaxes(1, 2)),
    ],
)
def test_videos_are_turned_and_mirrored_as_they_say(opened, tmp_path, matrix, shown):
    write_video(tmp_path / "a.mp4", movie(), matrix=matrix)
    assert_close(opened(tmp_path / "a.mp4").frames, shown(movie()))
    resized = opened(tmp_path / "a.mp4", size=(16, 20)).frames
    write_video(tmp_path / "b.mp4", shown(movie()))
    assert_close(resized, opened(tmp_path / "b.mp4", size=(16, 20)).frames)


@pytest.mark.parametrize(
    "orientation, store",
    [
        (1, lambda f: f), (2, lambda f: f[:, ::-1]), (3, lambda f: f[::-1, ::-1]),
        (4, lambda f: f[::-1]), (5, lambda f: f.T), (6, lambda f: np.rot90(f, 1)),
        (7, lambda f: f[::-1, ::-1].T), (8, lambda f: np.rot90(f, -1)),
    ],
)  # fmt: skip
def test_pictures_are_turned_and_mirrored_as_they_say(opened, tmp_path, orientation, store):
    exif = Image.Exif()
    exif[0x112] = orientation
    write_frames(tmp_path / "in", [store(f) for f in movie()], "{}.jpg", exif=exif, quality=95)
    assert_close(opened(tmp_path / "in").frames, movie())


def test_a_round_thing_is_round_where_pixels_are_not_square(opened, tmp_path):
    y, x = np.mgrid[:64, :64]
    circle = np.where((x - 32) ** 2 + (y - 32) ** 2 < 400, 255, 0).astype(np.uint8)
    write_video(tmp_path / "a.mp4", np.stack([circle[:, ::2]] * 3), pixel_aspect=Fraction(2, 1))
    assert_close(opened(tmp_path / "a.mp4").frames, np.stack([circle] * 3), error=4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_black_whatever_is_hidden_there(opened, tmp_path, mode):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., :3] = 255
    pixels[8:16, 8:16] = (200, 60, 30, 255)
    picture = Image.fromarray(pixels)
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "1.png")
    (frame,) = opened(tmp_path / "1.png").frames
    assert frame[0].max() == 0 and frame[8:16, 8:16].min() > 20
    if mode == "RGBA":
        np.testing.assert_array_equal(frame[8, 8], (200, 60, 30))
        write_video(tmp_path / "a.mov", pixels[None].repeat(3, axis=0), codec="png")
        np.testing.assert_array_equal(opened(tmp_path / "a.mov").frames, [frame] * 3)


def test_of_several_pictures_in_a_still_the_first_is_taken(opened, tmp_path, capsys):
    for name, form in (("phone.jpg", "MPO"), ("stack.tif", "TIFF")):
        (tmp_path / Path(name).stem).mkdir()
        for n, frame in enumerate(movie()):
            small = Image.fromarray(255 - frame[::4, ::4]).convert("RGB")
            Image.fromarray(frame).convert("RGB").save(
                tmp_path / Path(name).stem / f"{n}{Path(name).suffix}",
                form, save_all=True, append_images=[small],
            )  # fmt: skip
    for name in ("phone", "stack"):
        assert_close(opened(tmp_path / name).frames, movie())
    assert "stack: of 2 pictures in a file one is read" in capsys.readouterr().out


def test_pictures_with_more_than_8_bits_need_a_range(opened, tmp_path):
    deep = movie().astype(np.uint16) * 100
    write_frames(tmp_path / "deep", deep)
    write_frames(tmp_path / "float", deep.astype(np.float32), "{}.tif")
    for name in ("deep", "float"):
        with pytest.raises(InputError, match="from 0 to 25500.* --range 0 25500"):
            opened(tmp_path / name)
        frames = opened(tmp_path / name, value_range=(0, 25500)).frames
        np.testing.assert_allclose(frames[..., 0], movie() / 255, atol=1e-6)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_range_for_some_of_the_files_is_not_asked_of_all(opened, tmp_path, names):
    write_frames(tmp_path / "in" / names[0], movie().astype(np.uint16) * 100)
    write_frames(tmp_path / "in" / names[1], movie())
    with pytest.raises(InputError, match="give each kind a folder of its own"):
        opened(tmp_path / "in")


def test_the_channels_follow_the_clips_unless_they_are_given(opened, tmp_path):
    coloured = np.repeat(movie()[..., None], 3, axis=-1)
    coloured[4, 5, 6] = (255, 0, 0)  # a single pixel, long after the first frame
    write_frames(tmp_path / "coloured", coloured)
    write_frames(tmp_path / "grey", movie())
    np.testing.assert_array_equal(opened(tmp_path / "coloured").frames, coloured)
    assert opened(tmp_path / "coloured", channels=1).frames.shape[-1] == 1
    np.testing.assert_array_equal(
        opened(tmp_path / "grey", channels=3).frames, np.repeat(movie()[..., None], 3, axis=-1)
    )
    assert opened(tmp_path, channels=None).frames.shape == (12, 32, 48, 3)


# Finding clips


def test_what_is_hidden_is_no_clip_and_links_are_followed_once(opened, tmp_path):
    source = tmp_path / "in"
    for folder in ("a", "a/.ipynb_checkpoints", "__MACOSX", ".thumbnails"):
        write_frames(source / folder, movie())
    write_frames(source / "a", movie(), "._{}.png")
    write_frames(tmp_path / "elsewhere", movie(4))
    (source / "b").symlink_to(tmp_path / "elsewhere")
    (source / "c").symlink_to(tmp_path / "elsewhere")
    (source / "a" / "loop").symlink_to(source)
    found = opened(source)
    assert found.names == ["in/a", "in/b"] and lengths(found) == [6, 4]


def test_clips_are_in_the_order_of_their_numbers(opened, tmp_path):
    for n in (1, 2, 10):
        write_frames(tmp_path / "in" / f"clip-{n}", movie(n), "{}.png")
    assert lengths(opened(tmp_path / "in")) == [1, 2, 10]
    write_frames(tmp_path / "many", movie(12), "{}.png")  # 10.png comes after 9.png
    np.testing.assert_array_equal(opened(tmp_path / "many").frames[..., 0], movie(12))


def test_frames_of_two_names_in_a_folder_are_two_clips(opened, tmp_path):
    write_frames(tmp_path / "in", movie(), "camA_{:03d}.png")
    write_frames(tmp_path / "in", 255 - movie(), "camB_{:03d}.png")
    found = opened(tmp_path / "in")
    assert found.names == ["in/camA_000.png", "in/camB_000.png"] and lengths(found) == [6, 6]
    np.testing.assert_array_equal(found.frames[6:, :, :, 0], 255 - movie())


def test_two_files_of_one_frame_are_an_error(opened, tmp_path):
    write_frames(tmp_path / "in", movie())
    write_frames(tmp_path / "in", movie(), "{:03d}.jpg")
    with pytest.raises(InputError, match=r"000\.jpg and .*000\.png"):
        opened(tmp_path / "in")


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ((0, 1, 2, 10, 11), [3, 2]), ((0, 5, 10, 15), [4]), ((1, 2, 4, 5), [2, 2]),
        ((202312312350, 202312312355, 202401010000, 202401010100, 202401010105), [3, 2]),
    ],
)  # fmt: skip
def test_a_gap_in_the_numbers_ends_a_clip(opened, tmp_path, capsys, numbers, expected):
    (tmp_path / "in").mkdir()
    for number in numbers:
        Image.fromarray(movie()[0]).save(tmp_path / "in" / f"{number}.png")
    assert lengths(opened(tmp_path / "in")) == expected
    assert ("numbers are missing" in capsys.readouterr().out) == (len(expected) > 1)


def test_a_bad_file_among_good_ones_is_named_and_left_out(opened, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    for n in range(2):
        write_video(source / f"good-{n}.mp4", movie())
    content = (source / "good-0.mp4").read_bytes()
    bad = {"cut.mp4": content[: len(content) // 2], "empty.mp4": b"", "page.webm": b"<html>404"}
    bad |= {"text.gif": b"no", "cut.npy": b"\x93NUMPY", "page.h5": b"<html>", "cut.npz": b"PK"}
    for name, content in bad.items():
        (source / name).write_bytes(content)
    np.save(source / "table.npy", np.zeros((2, 2)))
    with av.open(source / "sound.mp4", "w") as file:
        stream = file.add_stream("aac", rate=16000)
        sound = np.zeros((1, 16000), np.float32)
        sound = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        sound.sample_rate = 16000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    assert lengths(opened(source)) == [6, 6]
    output = capsys.readouterr().out
    for name in (*bad, "table.npy", "sound.mp4"):
        assert f"{name} cannot be read" in output
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            opened(source / name)


def test_the_rest_of_a_damaged_clip_is_no_part_of_another(opened, tmp_path):
    for name in ("a", "a (2)"):
        write_frames(tmp_path / "in" / name, movie())
    (tmp_path / "in" / "a" / "002.png").write_bytes(b"damaged")
    assert sorted(lengths(opened(tmp_path / "in"))) == [2, 3, 6]


@pytest.mark.parametrize(
    "source, folder",
    [("in", "in"), ("in", "in/out"), ("in/walk.gif", "in"), ("in/predictions.npz", "in")],
)
def test_nothing_is_written_among_the_clips(tmp_path, source, folder):
    """Animations would count as clips, or take the place of one."""
    write_frames(tmp_path / "in", movie())
    (tmp_path / source).parent.mkdir(exist_ok=True)
    with pytest.raises(InputError, match="name another folder"):
        clips.open_clips(tmp_path / source, tmp_path / folder)


def test_a_newline_in_a_name_is_no_trouble(opened, tmp_path):
    write_frames(tmp_path / "in", movie(), "a\n{:03d}.png")
    assert lengths(opened(tmp_path / "in")) == [6]


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_what_shows_nothing_is_not_told_a_range(opened, tmp_path, value):
    np.save(tmp_path / "a.npy", np.full((6, 9, 9), value, np.float32))
    with pytest.raises(InputError, match="no two different numbers"):
        opened(tmp_path / "a.npy")


def test_a_damaged_frame_ends_a_clip(opened, tmp_path, capsys):
    write_frames(tmp_path / "in", movie())
    (tmp_path / "in" / "002.png").write_bytes((tmp_path / "in" / "002.png").read_bytes()[:50])
    found = opened(tmp_path / "in")
    np.testing.assert_array_equal(found.frames[..., 0], movie()[[0, 1, 3, 4, 5]])
    assert lengths(found) == [2, 3] and "002.png cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_tail_that_cannot_be_decoded_is_said(opened, tmp_path, capsys, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 48), dtype=np.uint8)
    write_video(path, noise)
    assert lengths(opened(path)) == [40]
    assert "cannot be decoded" not in capsys.readouterr().out
    content = bytearray(path.read_bytes())
    if name == "a.mp4":  # its index is at the end: only pictures are damaged
        content[len(content) // 2 : -4000] = bytes(len(content[len(content) // 2 : -4000]))
    else:
        del content[len(content) * 2 // 3 :]
    path.write_bytes(content)
    assert 10 < lengths(opened(path))[0] < 35
    assert f"{name} cannot be decoded to its end" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["", "missing", "empty", "notes.txt", "unnumbered"])
def test_where_there_are_no_clips_a_line_says_so(opened, tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no clip")
    write_frames(tmp_path / "unnumbered", movie(1), "a.png")
    message = "no such file|found no clips|is empty|needs a number"
    with pytest.raises(InputError, match=message):
        opened(tmp_path / source if source else "")


@pytest.mark.parametrize("package, name", [("av", "a.mp4"), ("h5py", "a.h5")])
def test_a_missing_package_is_named(opened, tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes(b"")
    write_frames(tmp_path / "frames", movie())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        opened(tmp_path)
    assert len(opened(tmp_path / "frames").frames) == 6


# Time


def test_stride_keeps_every_nth_frame(opened, tmp_path):
    write_frames(tmp_path / "frames", movie())
    write_video(tmp_path / "a.mp4", movie())
    write_animation(tmp_path / "a.gif", movie())
    np.save(tmp_path / "a.npy", movie())
    for name in ("frames", "a.mp4", "a.gif", "a.npy"):
        assert_close(opened(tmp_path / name, stride=2).frames, movie()[::2])


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_fps_takes_the_frame_that_is_shown_at_each_time(opened, tmp_path, capsys, name):
    video = movie()  # shown at 0, 40, 80, 200, 320 and 440 ms
    times = np.array([0, 40, 80, 200, 320, 440])
    if name == "a.gif":
        write_animation(tmp_path / name, video, [*np.diff(times).tolist(), 40])
    else:
        write_video(tmp_path / name, video, times=times)
    assert lengths(opened(tmp_path / name)) == [6]
    assert f"{name}: its frames are 0.04 to 0.12 seconds apart" in capsys.readouterr().out
    shown = [0, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5]
    assert_close(opened(tmp_path / name, fps=25).frames, video[shown])
    assert_close(opened(tmp_path / name, fps=12.5).frames, video[shown[::2]])
    assert "apart" not in capsys.readouterr().out


def test_even_videos_are_not_called_uneven(opened, tmp_path, capsys):
    write_animation(tmp_path / "a.gif", movie(), [30, 30, 40, 30, 30, 40])  # 30 frames a second
    write_video(tmp_path / "a.mp4", movie(), times=[0, 33, 67, 100, 133, 167])
    assert lengths(opened(tmp_path)) == [6, 6]
    assert "apart" not in capsys.readouterr().out


# Arrays

VIDEOS = np.stack([movie(step=step) for step in (1, 2, 3, 4)])  # (4, 6, 32, 48)
COLOUR = np.stack([colour_movie(), colour_movie()[::-1]])  # (2, 6, 32, 48, 3)


@pytest.mark.parametrize(
    "array, axes, expected",
    [
        (VIDEOS[0], None, VIDEOS[:1]),
        (COLOUR[0], None, COLOUR[:1]),
        (VIDEOS, None, VIDEOS),
        (VIDEOS[..., None], None, VIDEOS),
        (COLOUR, None, COLOUR),
        (VIDEOS[:, :, None], None, VIDEOS),
        (VIDEOS[0][:, None], None, VIDEOS[:1]),
        (np.moveaxis(COLOUR, -1, 2), None, COLOUR),
        (np.moveaxis(COLOUR, -1, 1), None, COLOUR),
        (np.moveaxis(COLOUR[0], -1, 1), None, COLOUR[:1]),
        (np.moveaxis(VIDEOS, 1, 0), "TNHW", VIDEOS),
        (np.moveaxis(VIDEOS[0], 0, -1), "hwt", VIDEOS[:1]),
        (np.moveaxis(COLOUR[0], -1, 0), "CTHW", COLOUR[:1]),
        (np.asfortranarray(VIDEOS), None, VIDEOS),
    ],
)
def test_the_axes_of_arrays(opened, tmp_path, capsys, array, axes, expected):
    np.save(tmp_path / "a.npy", array)
    found = opened(tmp_path / "a.npy", axes=axes)
    assert lengths(found) == [expected.shape[1]] * len(expected)
    np.testing.assert_array_equal(np.squeeze(found.frames), np.concatenate(expected))
    assert f"{len(expected)} video" in capsys.readouterr().out


@pytest.mark.parametrize("axes", ["TNH", "TNHX", "TTHW", "NTHWC", "THWC"])
def test_axes_that_do_not_fit_are_refused(opened, tmp_path, axes):
    np.save(tmp_path / "a.npy", VIDEOS)
    with pytest.raises(InputError, match=f"--axes {axes}"):
        opened(tmp_path / "a.npy", axes=axes)


@pytest.mark.parametrize("shape", [(2, 3, 1, 9, 9), (2, 6, 9, 9, 2), (5, 5), (0, 9, 9)])
def test_arrays_of_unknown_axes_are_refused(opened, tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="--axes"):
        opened(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(6, 9, 9, 4), (2, 6, 9, 9, 4)])
def test_arrays_with_transparency_are_refused(opened, tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"alpha out, as in array\[\.\.\., :3\]"):
        opened(tmp_path / "a.npy")


def test_the_official_file_is_known_by_its_name(opened, tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", np.moveaxis(VIDEOS, 1, 0))
    np.testing.assert_array_equal(
        opened(tmp_path / "mnist_test_seq.npy").frames[..., 0], np.concatenate(VIDEOS)
    )


def test_videos_of_any_length_in_an_npz_file_and_in_a_folder(opened, tmp_path):
    parts = [VIDEOS[n, : n + 3] for n in range(4)]
    np.savez_compressed(tmp_path / "a.npz", *parts, labels=np.arange(4))
    (tmp_path / "in").mkdir()
    for n, part in enumerate(parts):
        np.save(tmp_path / "in" / f"{n}.npy", part)
    for name in ("a.npz", "in"):
        found = opened(tmp_path / name)
        assert lengths(found) == [3, 4, 5, 6]
        np.testing.assert_array_equal(found.frames[..., 0], np.concatenate(parts))
    found = clips.open_clips(f"{tmp_path}/a.npz:arr_1", tmp_path / "cache")
    np.testing.assert_array_equal(found.frames[..., 0], parts[1])
    assert files_in(tmp_path / "cache") == {"clips-cache.npy", "clips-cache.json"}


@pytest.mark.parametrize("name", ["a.h5", "a.nc", "a.hdf5"])
def test_hdf5_and_netcdf(opened, tmp_path, name):
    with h5py.File(tmp_path / name, "w") as file:
        file.create_dataset("group/rain", data=VIDEOS, compression="gzip")
        file["latitude"] = np.zeros((9, 9))
    assert lengths(opened(tmp_path / name)) == [6] * 4
    with h5py.File(tmp_path / name, "a") as file:
        file["other"] = VIDEOS[0]
    with pytest.raises(InputError, match=f"{name}:group/rain"):
        opened(tmp_path / name)
    with pytest.raises(InputError, match="no array snow; there are group/rain, other"):
        opened(f"{tmp_path / name}:snow")
    found = opened(f"{tmp_path / name}:group/rain")
    np.testing.assert_array_equal(found.frames[..., 0], np.concatenate(VIDEOS))


def test_packed_numbers_of_netcdf_are_unpacked(opened, tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["dbz"] = np.where(VIDEOS == 255, 9999, VIDEOS.astype(np.int16))
        file["dbz"].attrs.update(scale_factor=0.5, add_offset=-32.0, _FillValue=np.int16(9999))
    frames = opened(tmp_path / "a.nc", value_range=(-32, 8)).frames[..., 0]
    expected = np.where(np.concatenate(VIDEOS) == 255, 0, np.concatenate(VIDEOS) / 80)
    np.testing.assert_allclose(frames, expected, atol=1e-6)


# Values

UNIT = VIDEOS / 255


@pytest.mark.parametrize(
    "array, expected",
    [
        (VIDEOS, VIDEOS),
        (VIDEOS > 128, (VIDEOS > 128) * 255),
        (UNIT, UNIT),
        (UNIT.astype(np.float16), UNIT),
        (UNIT.astype(">f4"), UNIT),
        ((UNIT * 1.0000001 + 2e-7).astype(np.float32), UNIT),
    ],
)
def test_values_whose_meaning_is_known(opened, tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    frames = opened(tmp_path / "a.npy").frames
    assert frames.dtype == (np.float32 if array.dtype.kind == "f" else np.uint8)
    assert 0 <= frames.min() and frames.max() <= (1 if array.dtype.kind == "f" else 255)
    np.testing.assert_allclose(frames[..., 0], np.concatenate(expected), atol=3e-4)


@pytest.mark.parametrize(
    "array, value_range, message, expected",
    [
        (VIDEOS.astype(np.uint16) * 257, (0, 65535), "from 0 to 65535.* --range 0 65535", UNIT),
        (VIDEOS.astype(np.int16), (0, 255), "from 0 to 255.* --range 0 255", UNIT),
        ((VIDEOS > 128).astype(np.int64), (0, 1), "--range 0 1", VIDEOS > 128),
        (UNIT * 77 - 32, (-32, 45), "from -32 to 45.* --range -32 45", UNIT),
        (np.where(VIDEOS < 9, np.nan, UNIT), (0, 1), r"NaN.* --range", UNIT * (VIDEOS >= 9)),
        (np.where(VIDEOS < 9, -9999, UNIT), (0, 1), "from -9999 to 1", UNIT * (VIDEOS >= 9)),
        (np.where(VIDEOS > 128, np.inf, UNIT), (0, 1), "--range", np.where(VIDEOS > 128, 1, UNIT)),
        (UNIT.astype(np.float32) * 0.003, (0, 0.003), None, UNIT),
        ((VIDEOS > 128).astype(np.uint8), (0, 1), None, VIDEOS > 128),
    ],
)
def test_a_range_maps_the_units_of_the_data(
    opened, tmp_path, array, value_range, message, expected
):
    np.save(tmp_path / "a.npy", array)
    if message:
        with pytest.raises(InputError, match=message):
            opened(tmp_path / "a.npy")
    frames = opened(tmp_path / "a.npy", value_range=value_range).frames
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames[..., 0], np.concatenate(expected), atol=1e-6)


def test_nan_is_counted(opened, tmp_path):
    array = UNIT.copy()
    array[1, 2, :3] = np.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=f"{3 * 48} that are no number"):
        opened(tmp_path / "a.npy")


def test_a_folder_of_bytes_and_floats_has_both(opened, tmp_path):
    np.save(tmp_path / "1.npy", VIDEOS[0])
    np.save(tmp_path / "2.npy", UNIT[1])
    frames = opened(tmp_path).frames
    np.testing.assert_allclose(frames[..., 0], np.concatenate(UNIT[:2]), atol=1e-6)


# Sizes


def test_frames_keep_their_size_if_all_have_the_same(opened, tmp_path):
    write_frames(tmp_path / "a", movie())
    assert opened(tmp_path).frames.shape == (6, 32, 48, 1)
    write_frames(tmp_path / "b", movie(height=40))
    with pytest.raises(InputError, match="40 x 48 pixels, others have 32 x 48: give the --size"):
        opened(tmp_path)
    assert opened(tmp_path, size=32).frames.shape == (12, 32, 32, 1)
    np.save(tmp_path / "b" / "small.npy", np.zeros((3, 6, 9), np.uint8))
    with pytest.raises(InputError, match="7 x 7"):
        opened(tmp_path / "b" / "small.npy")


@pytest.mark.parametrize("kind", ["frames", "video", "array"])
def test_frames_are_resized_and_their_middle_is_kept(opened, tmp_path, capsys, kind):
    wide = np.zeros((2, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = (255, 0, 0)  # the middle square is red
    for video in (wide, wide.swapaxes(1, 2)):
        source = tmp_path / {"frames": "in", "video": "a.mp4", "array": "a.npy"}[kind]
        if kind == "frames":
            write_frames(source, video)
        elif kind == "video":
            write_video(source, video)
        else:
            np.save(source, video / 255)
        frames = opened(source, size=40).frames
        assert frames.shape == (2, 40, 40, 3)
        assert frames.dtype == np.uint8 or 0 <= frames.min() <= frames.max() <= 1
        assert_close(frames[:, 4:-4, 4:-4] * (1 if frames.dtype == np.uint8 else 255.0),
                     np.broadcast_to((255, 0, 0), (2, 32, 32, 3)), error=3)  # fmt: skip
        assert "up to 67% of a frame is cut off" in capsys.readouterr().out
    assert opened(source, size=(60, 20)).frames.shape == (2, 60, 20, 3)
    assert "cut off" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 3}, "--size 3 3"), ({"size": (9, 9, 9)}, "--size 9 9 9"),
        ({"value_range": (1, 1)}, "--range 1 1"), ({"value_range": (0, np.nan)}, "--range 0 nan"),
        ({"stride": 0}, "--stride 0"), ({"fps": 0}, "--fps 0"), ({"fps": 5}, "--fps is for videos"),
        ({"axes": "THW"}, "--axes is for arrays"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(opened, tmp_path, options, message):
    write_frames(tmp_path / "in", movie())
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "in", **options)


# How it was understood


def test_a_line_says_how_it_was_understood(opened, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.where(VIDEOS > 128, 45.0, -32.0))
    opened(tmp_path / "a.npy", size=16, value_range=(-40, 60))
    line = capsys.readouterr().out.splitlines()[-1]
    for part in (
        "4 videos of 6 frames", "16 x 16 pixels", "grey", "values -32 to 45",
        "only the levels -32 45", "-40 is black and 60 white", "NTHW with frames of 32 x 48",
    ):  # fmt: skip
        assert part in line


@pytest.mark.parametrize(
    "array, warning",
    [
        ((VIDEOS > 128).astype(np.uint8), "--range 0 1"),
        (UNIT * 0.003, "--range 0 0.003"),
        (np.zeros((20, 30, 8, 8), np.uint8) + movie(1, 8, 8), "give --axes TNHW"),
        (VIDEOS, None),
    ],
)
def test_what_can_hardly_be_meant_is_warned_of(opened, tmp_path, capsys, array, warning):
    np.save(tmp_path / "a.npy", array)
    opened(tmp_path / "a.npy")
    warnings = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_many_lines_are_cut_short(opened, tmp_path, capsys):
    write_frames(tmp_path, movie())
    for n in range(40):
        (tmp_path / f"{n}.mp4").write_bytes(b"")
    opened(tmp_path)
    output = capsys.readouterr().out
    assert output.count("cannot be read") < 15 and "29 more lines" in output


# The cache


@pytest.fixture
def conversions(monkeypatch):
    """A list that grows whenever clips are converted."""
    calls, convert = [], clips.convert.convert
    monkeypatch.setattr(
        clips.convert, "convert", lambda *arguments: calls.append(1) or convert(*arguments)
    )
    return calls


def test_clips_are_converted_again_only_if_their_content_differs(tmp_path, conversions):
    folder, cache = tmp_path / "in", tmp_path / "cache"
    write_frames(folder, movie())
    clips.open_clips(str(folder), str(cache))
    again = clips.open_clips(folder, cache)
    assert len(conversions) == 1 and isinstance(again.frames, np.memmap)
    assert clips.open_clips(folder, cache, channels=1).names == ["in"] and len(conversions) == 1
    os.utime(folder / "001.png", (1, 1))  # touched
    clips.open_clips(folder, cache)
    assert len(conversions) == 1
    Image.fromarray(255 - movie()[1]).save(folder / "001.png")
    frames = clips.open_clips(folder, cache).frames
    assert len(conversions) == 2 and (frames[1, ..., 0] == 255 - movie()[1]).all()
    (folder / "005.png").unlink()
    assert len(clips.open_clips(folder, cache).frames) == 5 and len(conversions) == 3
    for n, options in enumerate(
        [{"size": 16}, {"stride": 2}, {"channels": 3}, {"value_range": (0, 200)}]
    ):
        clips.open_clips(folder, cache, **options)
        assert len(conversions) == 4 + n


def test_a_damaged_cache_is_made_again(tmp_path, conversions):
    folder, cache = tmp_path / "in", tmp_path / "clips-cache.npy"
    write_frames(folder, movie())
    clips.open_clips(folder, tmp_path)
    description = tmp_path / "clips-cache.json"
    for damage in (
        cache.unlink,
        lambda: cache.write_bytes(cache.read_bytes()[:300]),
        description.unlink,
        lambda: description.write_text("[]"),
        lambda: description.write_text("{"),
    ):
        damage()
        conversions.clear()
        assert len(clips.open_clips(folder, tmp_path).frames) == 6 and len(conversions) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_serves_when_its_clips_have_moved_or_gone(tmp_path, conversions, capsys):
    folder, cache = tmp_path / "in", tmp_path / "cache"
    write_frames(folder / "a", movie())
    clips.open_clips(folder, cache)
    line = capsys.readouterr().out.splitlines()[-1]
    shutil.move(folder, tmp_path / "moved")
    clips.open_clips(tmp_path / "moved", cache)
    shutil.rmtree(tmp_path / "moved")
    shutil.move(cache, tmp_path / "elsewhere")
    np.testing.assert_array_equal(
        clips.open_clips(folder, tmp_path / "elsewhere").frames[..., 0], movie()
    )
    assert len(conversions) == 1
    assert capsys.readouterr().out.splitlines()[-1] == line  # how it was understood
    with pytest.raises(InputError, match="no such file"):
        clips.open_clips(tmp_path / "other", tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no such file"):
        clips.open_clips(folder, tmp_path / "elsewhere", size=16)


def test_a_relative_source_is_known_by_where_it_was(tmp_path, conversions, monkeypatch):
    write_frames(tmp_path / "in", movie())
    monkeypatch.chdir(tmp_path)
    clips.open_clips("in", "cache")
    monkeypatch.chdir("/")
    clips.open_clips(tmp_path / "in", tmp_path / "cache")
    assert len(conversions) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system lists no maps")
def test_no_cache_is_mapped_when_it_is_replaced(tmp_path, monkeypatch):
    """Windows refuses to replace a file that is mapped."""
    replace = os.replace

    def refuse_mapped(source, target):
        assert str(target) not in Path("/proc/self/maps").read_text()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_mapped)
    write_frames(tmp_path / "in", movie())
    clips.open_clips(tmp_path / "in", tmp_path)
    write_frames(tmp_path / "in" / "b", colour_movie())
    assert len(clips.open_clips(tmp_path / "in", tmp_path).frames) == 12


def test_a_full_disk_leaves_the_cache_that_there_was(tmp_path, monkeypatch, conversions):
    write_frames(tmp_path / "in", movie())
    clips.open_clips(tmp_path / "in", tmp_path)
    before = (tmp_path / "clips-cache.npy").read_bytes()

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(clips.convert, "write_frames", full)
        with pytest.raises(OSError, match="No space left"):
            clips.open_clips(tmp_path / "in", tmp_path, size=16)
    assert (tmp_path / "clips-cache.npy").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3
    conversions.clear()
    clips.open_clips(tmp_path / "in", tmp_path)
    assert not conversions


# Windows


def test_clips_are_divided_and_no_frame_is_in_both_parts():
    lengths = np.array([30] * 25 + [4])  # the last one is too short
    ends = np.cumsum(lengths)
    training, validation = clips.split_clips(np.stack([ends - lengths, ends], axis=1), 20)
    assert (len(training), len(validation)) == (22, 3)
    assert not set(map(tuple, training)) & set(map(tuple, validation))
    assert validation[-1].tolist() == [24 * 30, 25 * 30]
    training, validation = clips.split_clips(np.array([[0, 30], [30, 60]]), 20)
    assert training.tolist() == [[0, 30]] and validation.tolist() == [[30, 60]]


def test_a_clip_that_is_alone_is_divided_in_time():
    training, validation = clips.split_clips(np.array([[0, 1000]]), 20)
    assert training.tolist() == [[0, 900]] and validation.tolist() == [[900, 1000]]
    training, validation = clips.split_clips(np.array([[0, 4], [4, 54]]), 20)
    assert training.tolist() == [[4, 34]] and validation.tolist() == [[34, 54]]
    with pytest.raises(InputError, match="40 are needed"):
        clips.split_clips(np.array([[0, 39]]), 20)
    with pytest.raises(InputError, match="longest clip has 19.*--frames and --context$"):
        clips.split_clips(np.array([[0, 19], [19, 30]]), 20)


def test_windows_are_all_that_there_are_and_none_crosses_the_end_of_a_clip():
    frames = np.arange(20).reshape(20, 1, 1, 1)
    spans = np.array([[0, 7], [7, 10], [10, 20]])
    every = clips.Windows(frames, spans, length=3, step=1)
    starts = [*range(5), 7, *range(10, 18)]
    np.testing.assert_array_equal(
        every[np.arange(len(every))][..., 0, 0, 0], [[n, n + 1, n + 2] for n in starts]
    )
    apart = clips.Windows(frames, spans, length=3, step=3)
    assert apart[[0, 1, 2, 3]][:, 0].ravel().tolist() == [0, 3, 7, 10] and len(apart) == 6


def test_clips_that_are_too_short_have_no_window(capsys):
    spans = np.array([[0, 7], [7, 10], [10, 14]])
    windows = clips.Windows(np.arange(14).reshape(14, 1, 1, 1), spans, length=5, step=5)
    assert windows[[0]][0].ravel().tolist() == [0, 1, 2, 3, 4] and len(windows) == 1
    assert clips.long_enough(spans, 4, "--context").tolist() == [[0, 7], [10, 14]]
    assert "WARNING" not in capsys.readouterr().out
    clips.long_enough(spans, 5, "--context")
    assert "WARNING: clips with fewer than 5 frames are left out: 2 of 3" in capsys.readouterr().out


# The examples


def test_the_examples_draw_the_same_from_the_same_seed(opened, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_clips.main(tmp_path / name, count=2, frames=4, seed=seed)
        make_radar.main(tmp_path / f"{name}.npy", count=2, frames=4, seed=seed)
    a, b, c = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"
    )
    assert a == b and a[0] != a[1] and a != c
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert (a == b).all() and (a[0] != a[1]).any() and (a != c).any()
    assert a.shape == (2, 4, 64, 64) and a.min() == -32 and 20 < a.max() <= 55
    assert opened(tmp_path / "a").frames.shape == (8, 96, 96, 3)
    assert opened(tmp_path / "a.npy", value_range=(0, 60)).frames.shape == (8, 64, 64, 1)
