"""Films, animations and pictures: frames as a player shows them, and one line where it cannot."""

import functools
import os
import warnings
from fractions import Fraction

import numpy as np
import pytest
from helpers import movie, read_clips, refusal
from PIL import Image

from extras import films

av = pytest.importorskip("av")

VIDEO = movie(24, 64, 96, step=7)
read = functools.partial(read_clips, films.read_film)


def write_film(
    path, video, codec="libx264", form="yuv420p", times=None, matrix=None, options=(), **context
):
    """Write uint8 or uint16 (n, h, w), uint8 (n, h, w, 4) or a list of `av.VideoFrame`.

    `times` are in milliseconds, and `matrix` is as `films.display_matrix` returns it.
    """
    if isinstance(video, np.ndarray):
        known = "gray16le" if video.dtype == np.uint16 else "gray" if video.ndim == 3 else "rgba"
        video = [av.VideoFrame.from_ndarray(frame, known).reformat(format=form) for frame in video]
    with av.open(path, "w") as film:
        quality = {"qp": "4"} if codec == "libx264" else {}
        stream = film.add_stream(codec, rate=25, options=quality | dict(options))
        stream.height, stream.width, stream.pix_fmt = video[0].height, video[0].width, form
        if matrix:
            a, b, c, d = (n << 16 for n in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for n, frame in enumerate(video):
            if times:
                frame.pts, frame.time_base = times[n], Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


def still(path):
    """-> the one frame of a still."""
    ((frame,),), _ = read_clips(films.read_picture, path)
    return frame


def lengths(path, reader=films.read_film, **options):
    return [len(clip) for clip in read_clips(reader, path, **options)[0]]


def assert_alike(clips, truth):
    (frames,) = clips
    assert frames.shape[:3] == truth.shape
    assert (np.abs(frames.mean(-1) - truth).mean((1, 2)) < 3).all()  # of each frame


@pytest.mark.parametrize(
    "form, stored, seen",
    [
        ({"matrix": (0, 1, -1, 0)}, VIDEO, np.rot90(VIDEO, -1, (1, 2))),
        ({"matrix": (0, -1, 1, 0)}, VIDEO, np.rot90(VIDEO, 1, (1, 2))),
        ({"matrix": (-1, 0, 0, 1)}, VIDEO, VIDEO[:, :, ::-1]),
        ({"sample_aspect_ratio": Fraction(2, 1)}, VIDEO[:, :, ::2], VIDEO),
    ],
    ids=["turned right", "turned left", "mirrored", "wide pixels"],
)
def test_a_film_is_shown_as_its_file_says(tmp_path, form, stored, seen):
    path = write_film(tmp_path / "phone.mov", stored, **form)
    assert_alike(read(path)[0], seen)
    (smaller,), _ = read(path, size=(32, 32))
    assert smaller.shape[1:] == ((48, 32, 3) if seen.shape[1] > seen.shape[2] else (32, 48, 3))


BT601, BT709 = 5, 1  # as FFmpeg numbers them


@pytest.mark.parametrize(
    "matrix, full_range, height, is_told",
    [
        (BT601, False, 64, False), (BT709, True, 64, True),
        (BT601, True, 720, True), (BT709, False, 720, False),
    ],
)  # fmt: skip
def test_colours_are_those_that_were_filmed(tmp_path, matrix, full_range, height, is_told):
    picture = av.VideoFrame.from_ndarray(np.full((height, 64, 3), (200, 60, 30), np.uint8))
    picture = picture.reformat(
        format="yuv444p", dst_colorspace=matrix, src_color_range=2, dst_color_range=1 + full_range
    )
    told = {"colorspace": matrix, "color_range": 1 + full_range} if is_told else {}
    path = write_film(tmp_path / "red.mp4", [picture] * 2, form="yuv444p", **told)
    (frames,), _ = read(path)
    np.testing.assert_allclose(frames[0, 9, 9], (200, 60, 30), atol=3)


def test_an_interlaced_film_has_no_comb(tmp_path):
    video = movie(24, 96, 96, step=2)
    video[:-1, 1::2] = video[1:, 1::2]  # odd rows are half a frame later
    interlaced = {"flags": "+ildct+ilme", "top": "1", "b": "4M"}
    path = write_film(tmp_path / "camcorder.mpg", video, "mpeg2video", options=interlaced)
    (frames,), notes = read(path)
    square = frames[10, 14:34, :, 0] > 160
    assert (square == square[0]).all() and "interlaced" in notes


def test_paper_white_of_an_hdr_film_is_white_and_black_is_black(tmp_path):
    pixels = np.full((96, 64), 512, np.uint16)  # below 64 rows of luma stand both chroma planes
    pixels[:64] = 64
    pixels[16:48] = 64 + 508  # 203 nits in PQ
    frame = av.VideoFrame.from_ndarray(pixels, "yuv420p10le")
    pq = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    path = write_film(tmp_path / "phone.mkv", [frame] * 3, "ffv1", "yuv420p10le", **pq)
    (frames,), notes = read(path)
    assert frames[0, 32].min() > 240 and frames[0, 5].max() < 10 and "HDR" in notes


@pytest.mark.parametrize(
    "name, codec, form", [("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p")]
)
def test_what_is_transparent_in_a_film_is_black(tmp_path, name, codec, form):
    video = np.full((4, 64, 64, 4), 255, np.uint8)
    video[:, 32:, :, 3] = 0
    (frames,), _ = read(write_film(tmp_path / name, video, codec, form))
    assert frames[:, :28].min() > 245 and frames[:, 36:].max() < 10


@pytest.mark.parametrize("size", [None, (32, 32)])
def test_a_deep_grey_film_keeps_its_own_numbers(tmp_path, size):
    video = np.full((4, 64, 64), 1000, np.uint16)
    video[:, 16:48] = 1400
    path = write_film(tmp_path / "thermal.mkv", video, "ffv1", "gray16le")
    (frames,), _ = read(path, size=size)
    assert frames.dtype == np.uint16 and frames.shape[3] == 1
    assert np.unique(frames).tolist() == [1000, 1400]


@pytest.mark.parametrize(
    "times, clips, at_25_fps, told",
    [
        ([*range(0, 400, 40), *range(400, 2000, 200)], [18], [46], "--fps 25"),
        ([40 * n + 5_000 * (n >= 10) for n in range(24)], [10, 14], [10, 14], "time jumps"),
        ([31_536_000_000 * n for n in range(6)], [1] * 6, [1] * 6, "time jumps"),
    ],
    ids=["uneven", "pause", "years"],
)
def test_uneven_time_is_sampled_and_no_jump_is_filled(tmp_path, times, clips, at_25_fps, told):
    path = write_film(tmp_path / "a.mkv", movie(len(times)), times=times, options={"bf": "0"})
    assert lengths(path) == clips and lengths(path, fps=25) == at_25_fps
    assert told in read(path)[1]


def test_jitter_of_time_stamps_loses_and_repeats_no_frame(tmp_path):
    times = [40 * n + (0, 15, -15)[n % 3] for n in range(24)]
    path = write_film(tmp_path / "webcam.mkv", VIDEO, times=times)
    assert_alike(read(path, fps=25)[0], VIDEO)


def test_joined_files_are_clips_and_lose_no_frame(tmp_path):
    part = write_film(tmp_path / "part.ts", VIDEO, options={"bf": "0"})
    (tmp_path / "joined.ts").write_bytes(2 * part.read_bytes())
    assert lengths(tmp_path / "joined.ts", fps=25) == [24, 24]
    part = write_film(tmp_path / "part.avi", VIDEO, "mjpeg", "yuvj420p")
    other = write_film(tmp_path / "other.avi", VIDEO[:, :32], "mjpeg", "yuvj420p")
    (tmp_path / "joined.avi").write_bytes(part.read_bytes() + other.read_bytes())
    clips, notes = read(tmp_path / "joined.avi")
    assert [clip.shape[:2] for clip in clips] == [(24, 64), (24, 32)]
    assert notes == "about 25 frames a second in the file"


def test_damage_ends_a_clip_until_the_next_key_frame(tmp_path):
    video = movie(60, 64, 96)
    path = write_film(tmp_path / "film.mp4", video, options={"g": "10", "bf": "0"})
    assert [len(block.frames) for block in films.read_film(path, print)] == [50, 10]
    with av.open(path) as film:
        packets = [packet for packet in film.demux(video=0) if packet.size]
        middle = packets[15].pos + packets[15].size // 2
    content = bytearray(path.read_bytes())
    content[packets[15].pos : middle] = bytes(middle - packets[15].pos)
    path.write_bytes(content)
    clips, notes = read(path)
    assert [len(clip) for clip in clips] == [15, 40] and "damaged" in notes
    assert_alike(clips[1:], video[20:])


def test_a_cut_film_is_read_as_far_as_it_goes(tmp_path):
    path = write_film(tmp_path / "film.mkv", VIDEO, options={"g": "4", "bf": "0"})
    os.truncate(path, path.stat().st_size // 2)
    (frames,), notes = read(path)
    assert_alike([frames], VIDEO[: len(frames)])
    assert 3 < len(frames) < 24 and "of 0.96 seconds" in notes


def test_what_holds_no_film_is_refused_in_one_line(tmp_path):
    film = write_film(tmp_path / "whole.mp4", VIDEO).read_bytes()
    matroska = write_film(tmp_path / "whole.mkv", VIDEO).read_bytes()
    for name, content in {
        "unknown.mkv": matroska.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XXX"),
        "sound.mp4": film.replace(b"vide", b"soun"),
        "cut.mp4": film[:-200],
        "playlist.mp4": b"ffconcat version 1.0\n# \1\nfile whole.mp4\n",  # opens no other file
    }.items():
        (tmp_path / name).write_bytes(content)
        assert name in refusal(read, tmp_path / name)


def save_animation(path, video, duration=100, **options):
    first, *others = map(Image.fromarray, video)
    first.save(path, save_all=True, append_images=others, duration=duration, **options)
    return path


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp"])
def test_an_animation_is_shown_as_a_browser_does(tmp_path, ending):
    lossless = {"lossless": True} if ending == ".webp" else {}
    path = save_animation(tmp_path / f"fast{ending}", VIDEO, duration=10, **lossless)
    assert films.is_animation(path)
    assert_alike(read_clips(films.read_animation, path, fps=10)[0], VIDEO)
    path = save_animation(tmp_path / f"slow{ending}", movie(4), [100, 100, 300, 100], **lossless)
    assert lengths(path, films.read_animation, fps=10) == [6]
    assert "--fps 10" in read_clips(films.read_animation, path)[1]
    if ending == ".png":  # its cover is no frame
        path = save_animation(path, VIDEO, default_image=True)
        assert_alike(read_clips(films.read_animation, path)[0], VIDEO[1:])


@pytest.mark.parametrize("orientation, back", [*enumerate([0, 3, 1, 5, 2, 6, 4], 2)])
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation, back):
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = Image.fromarray(VIDEO[0]).transpose(back)  # an Image.Transpose
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert_alike([still(tmp_path / "photo.jpg")[None]], VIDEO[:1])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_picture_is_black(tmp_path, mode):
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[32:, :, 3] = 0
    picture = Image.fromarray(pixels)
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "icon.png")
    frame = still(tmp_path / "icon.png")
    assert frame[:32].min() == 255 and frame[32:].max() == 0


def test_pictures_keep_their_channels_and_their_depth(tmp_path):
    grey = VIDEO[0]
    for name, pixels, expected in [
        ("grey.png", grey, grey),
        ("bits.png", grey > 128, (grey > 128) * np.uint8(255)),
        ("deep.png", np.uint16(grey) * 256, np.uint16(grey) * 256),
        ("colour.bmp", VIDEO[:3].transpose(1, 2, 0), VIDEO[:3].transpose(1, 2, 0)),
    ]:
        Image.fromarray(pixels).save(tmp_path / name)
        np.testing.assert_array_equal(still(tmp_path / name).squeeze(), expected)
        assert still(tmp_path / name).dtype == expected.dtype
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert (still(tmp_path / "print.jpg")[5, 5] > (200, -1, -1)).all()


def test_a_gif_of_one_picture_and_a_phones_two_are_stills(tmp_path):
    frame, preview = Image.fromarray(VIDEO[0]), Image.new("RGB", (24, 16))
    frame.save(tmp_path / "still.gif")
    photo = {"format": "MPO", "save_all": True, "append_images": [preview], "quality": 95}
    frame.convert("RGB").save(tmp_path / "photo.jpg", **photo)
    for name in ("still.gif", "photo.jpg"):
        assert not films.is_animation(tmp_path / name)
        assert_alike([still(tmp_path / name)[None]], VIDEO[:1])


def test_bad_pictures_are_refused_in_one_line(tmp_path):
    for megapixels in (90, 196):  # Pillow warns of the one, and refuses the other
        picture = Image.new("1", (megapixels * 1000, 1000))
        picture.save(tmp_path / f"{megapixels}-megapixels.png", compress_level=1)
    Image.fromarray(VIDEO[0]).save(tmp_path / "cut.png")
    os.truncate(tmp_path / "cut.png", 80)
    Image.new("L", (64, 64)).save(tmp_path / "not-promised.png", format="TIFF")
    with warnings.catch_warnings(record=True, action="always") as said:
        for path in tmp_path.iterdir():
            assert path.name in refusal(still, path)
    assert not said
