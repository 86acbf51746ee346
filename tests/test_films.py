"""Films, animations and pictures: frames as a player shows them, and one line where it cannot."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from extras import films
from extras.cli import InputError

av = pytest.importorskip("av")


def movie(frames=24, height=64, width=96):
    """uint8 (frames, height, width): a bright square moves right over a shaded ground."""
    video = np.zeros((frames, height, width), np.uint8)
    video[:] = np.linspace(0, 80, width).astype(np.uint8)
    for n in range(frames):
        video[n, 10:26, n * 2 % 70 : n * 2 % 70 + 16] = 240
    return video


def write_film(path, video, codec="libx264", form="yuv420p", times=None, prepare=None, **options):
    """Write (n, h, w), (n, h, w, 3 or 4) or a list of `av.VideoFrame`; `times` in milliseconds."""
    known = {1: "gray", 3: "rgb24", 4: "rgba"}
    if isinstance(video, np.ndarray):
        video = video if video.ndim == 4 else video[..., None]
        video = [av.VideoFrame.from_ndarray(f.squeeze(), known[f.shape[-1]]) for f in video]
        video = [frame.reformat(format=form) for frame in video]
    options = {"qp": "4", **options} if codec == "libx264" else options
    with av.open(path, "w") as film:
        stream = film.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = video[0].height, video[0].width, form
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare:
            prepare(stream)
        for n, frame in enumerate(video):
            if times is not None:
                frame.pts, frame.time_base = int(times[n]), Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


def read(path, reader=films.read_film, **options):
    """-> a list of clips (n, height, width, channels), and the notes in one string."""
    clips, notes = [], []
    for block in reader(path, notes.append, **options):
        if block.new_clip or not clips:
            clips.append([])
        clips[-1].append(block.frames)
    return [np.concatenate(blocks) for blocks in clips], "; ".join(notes)


def still(path):
    """-> the one frame of a still."""
    ((frame,),), _ = read(path, films.read_picture)
    return frame


def lengths(path, reader=films.read_film, **options):
    return [len(clip) for clip in read(path, reader, **options)[0]]


def assert_alike(clips, truth):
    (frames,) = clips
    assert frames.shape[:3] == truth.shape[:3]
    assert np.abs(frames.mean(-1) - truth).mean() < 3


def turn(*matrix):
    a, b, c, d = (65536 * n for n in matrix)
    return lambda stream: stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])


def widen(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(2, 1)


@pytest.mark.parametrize(
    ("prepare", "stored", "seen"),
    [
        (turn(0, 1, -1, 0), movie(), np.rot90(movie(), -1, (1, 2))),
        (turn(0, -1, 1, 0), movie(), np.rot90(movie(), 1, (1, 2))),
        (turn(-1, 0, 0, 1), movie(), movie()[:, :, ::-1]),
        (widen, movie()[:, :, ::2], movie()),
    ],
)
def test_a_film_is_shown_as_its_file_says(tmp_path, prepare, stored, seen):
    """Turned, mirrored, and with pixels that are wider than high made squares."""
    path = write_film(tmp_path / "phone.mov", stored, prepare=prepare)
    assert_alike(read(path)[0], seen)
    (smaller,), _ = read(path, size=(32, 32))
    assert smaller.shape[1:] == ((48, 32, 3) if seen.shape[1] > seen.shape[2] else (32, 48, 3))


@pytest.mark.parametrize(
    ("matrix", "full_range", "height"),
    [("ITU601", False, 64), ("ITU709", True, 64), ("ITU601", True, 720), ("ITU709", False, 720)],
)
def test_colours_are_those_that_were_filmed(tmp_path, matrix, full_range, height):
    picture = av.VideoFrame.from_ndarray(np.full((height, 64, 3), (200, 60, 30), np.uint8))
    picture = picture.reformat(
        format="yuv444p", dst_colorspace=matrix, src_color_range=2, dst_color_range=1 + full_range
    )
    says_nothing = matrix == ("ITU709" if height > 576 else "ITU601") and not full_range

    def prepare(stream):
        if not says_nothing:
            stream.codec_context.colorspace = 1 if matrix == "ITU709" else 5
            stream.codec_context.color_range = 1 + full_range

    path = write_film(tmp_path / "red.mp4", [picture] * 2, form="yuv444p", prepare=prepare)
    (frames,), _ = read(path)
    np.testing.assert_allclose(frames[0, 9, 9], (200, 60, 30), atol=3)


def test_an_interlaced_film_has_no_comb(tmp_path):
    video = movie(height=96)
    video[:-1, 1::2] = video[1:, 1::2]  # odd rows are half a frame later
    path = write_film(
        tmp_path / "camcorder.mpg", video, "mpeg2video", flags="+ildct+ilme", top="1", b="4M"
    )
    (frames,), notes = read(path)
    square = frames[10, 12:24, :, 0] > 160
    assert (square == square[0]).all() and "interlaced" in notes


def test_paper_white_of_an_hdr_film_is_white_and_black_is_black(tmp_path):
    luma = np.full((64, 64), 64, np.uint16)
    luma[16:48] = 64 + 508  # 203 nits in PQ
    frame = av.VideoFrame.from_ndarray(
        np.concatenate([luma.ravel(), np.full(2048, 512, np.uint16)]).reshape(96, 64), "yuv420p10le"
    )

    def prepare(stream):
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = 16, 9, 9
        context.color_range = 1

    path = write_film(tmp_path / "phone.mkv", [frame] * 3, "ffv1", "yuv420p10le", prepare=prepare)
    (frames,), notes = read(path)
    assert frames[0, 32].min() > 240 and frames[0, 5].max() < 10 and "HDR" in notes


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p")],
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
    frames = [av.VideoFrame.from_ndarray(frame, "gray16le") for frame in video]
    path = write_film(tmp_path / "thermal.mkv", frames, "ffv1", "gray16le")
    (frames,), _ = read(path, size=size)
    assert frames.dtype == np.uint16 and frames.shape[3] == 1
    assert np.unique(frames).tolist() == [1000, 1400]


@pytest.mark.parametrize(
    ("times", "clips", "at_25_fps", "told"),
    [
        ([*range(0, 400, 40), *range(400, 2000, 200)], [18], [46], "--fps 25"),
        ([40 * n + 5_000 * (n >= 10) for n in range(24)], [10, 14], [10, 14], "time jumps"),
        ([40 * n + 86_400_000 * (n >= 10) for n in range(24)], [10, 14], [10, 14], "time jumps"),
        ([31_536_000_000 * n for n in range(6)], [1] * 6, [1] * 6, "time jumps"),
    ],
    ids=["uneven", "pause", "a day's pause", "years"],
)
def test_uneven_time_is_sampled_and_no_jump_is_filled(tmp_path, times, clips, at_25_fps, told):
    path = write_film(tmp_path / "recorder.mkv", movie(len(times)), times=times, bf="0")
    assert lengths(path) == clips and lengths(path, fps=25) == at_25_fps
    assert told in read(path)[1]


def test_jitter_of_time_stamps_loses_and_repeats_no_frame(tmp_path):
    times = [40 * n + (0, 15, -15)[n % 3] for n in range(24)]
    path = write_film(tmp_path / "webcam.mkv", movie(), times=times)
    assert_alike(read(path, fps=25)[0], movie())


def test_joined_files_are_clips_and_lose_no_frame(tmp_path):
    part = write_film(tmp_path / "part.ts", movie(), bf="0")
    (tmp_path / "joined.ts").write_bytes(2 * part.read_bytes())
    assert lengths(tmp_path / "joined.ts", fps=25) == [24, 24]
    part = write_film(tmp_path / "part.avi", movie(), "mjpeg", "yuvj420p")
    other = write_film(tmp_path / "other.avi", movie(height=32), "mjpeg", "yuvj420p")
    (tmp_path / "joined.avi").write_bytes(part.read_bytes() + other.read_bytes())
    clips, notes = read(tmp_path / "joined.avi")
    assert [clip.shape[:2] for clip in clips] == [(24, 64), (24, 32)]
    assert notes == "about 25 frames a second in the file"


def test_a_film_is_read_in_blocks(tmp_path):
    path = write_film(tmp_path / "long.mp4", movie(60))
    assert [len(block.frames) for block in films.read_film(path, print)] == [50, 10]


def test_damage_ends_a_clip_until_the_next_key_frame(tmp_path):
    path = write_film(tmp_path / "film.mp4", movie(40), g="10", bf="0")
    with av.open(str(path)) as film:
        packets = [packet for packet in film.demux(video=0) if packet.size]
        middle = packets[15].pos + packets[15].size // 2
    content = bytearray(path.read_bytes())
    content[packets[15].pos : middle] = bytes(middle - packets[15].pos)
    path.write_bytes(content)
    clips, notes = read(path)
    assert [len(clip) for clip in clips] == [15, 20] and "damaged" in notes
    assert_alike(clips[1:], movie(40)[20:])


def test_a_cut_film_is_read_as_far_as_it_goes(tmp_path):
    path = write_film(tmp_path / "film.mkv", movie(), bf="0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (frames,), notes = read(path)
    assert_alike([frames], movie()[: len(frames)])
    assert 3 < len(frames) < 24 and "of 0.96 seconds" in notes


def test_what_holds_no_film_is_refused_in_one_line(tmp_path):
    unknown = write_film(tmp_path / "unknown.mkv", movie())
    unknown.write_bytes(unknown.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XXX"))
    cut = write_film(tmp_path / "cut.mp4", movie())
    playlist = b"ffconcat version 1.0\n# \xff\xfe\nfile private.mp4\n"  # opens no other file
    (tmp_path / "playlist.mp4").write_bytes(playlist)
    cut.rename(tmp_path / "private.mp4")
    cut.write_bytes((tmp_path / "private.mp4").read_bytes()[:-200])
    with av.open(tmp_path / "sound.mp4", "w") as film:
        stream = film.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        film.mux(stream.encode(sound))
    for name in ("unknown.mkv", "cut.mp4", "sound.mp4", "playlist.mp4"):
        with pytest.raises(InputError, match=name) as refusal:
            read(tmp_path / name)
        assert "\n" not in str(refusal.value)


def save_animation(path, video, duration=100, **options):
    first, *others = map(Image.fromarray, video)
    first.save(path, save_all=True, append_images=others, duration=duration, **options)
    return path


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp"])
def test_an_animation_is_shown_as_a_browser_does(tmp_path, ending):
    lossless = {"lossless": True} if ending == ".webp" else {}
    path = save_animation(tmp_path / f"fast{ending}", movie(), duration=10, **lossless)
    assert films.is_animation(path)
    assert_alike(read(path, films.read_animation, fps=10)[0], movie())
    path = save_animation(tmp_path / f"slow{ending}", movie(4), [100, 100, 300, 100], **lossless)
    assert lengths(path, films.read_animation, fps=10) == [6]
    assert "--fps 10" in read(path, films.read_animation)[1]


def test_the_cover_of_an_animated_png_is_no_frame(tmp_path):
    video = np.concatenate([np.full((1, 64, 96), 255, np.uint8), movie()])
    path = save_animation(tmp_path / "cover.png", video, default_image=True)
    assert_alike(read(path, films.read_animation)[0], movie())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation):
    upright = Image.fromarray(movie(1)[0])
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> Image.Transpose
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert_alike([still(tmp_path / "photo.jpg")[None]], movie(1))


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
    grey = movie(1)[0]
    for name, pixels in {
        "grey.png": grey[..., None],
        "bits.png": grey[..., None] > 128,
        "deep.png": grey[..., None].astype(np.uint16) * 256,
        "colour.bmp": np.stack([grey, grey // 2, 255 - grey], -1),
    }.items():
        Image.fromarray(np.squeeze(pixels)).save(tmp_path / name)
        expected = pixels * np.uint8(255) if pixels.dtype == bool else pixels
        np.testing.assert_array_equal(still(tmp_path / name), expected)
        assert still(tmp_path / name).dtype == expected.dtype
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert (still(tmp_path / "print.jpg")[5, 5] > (200, -1, -1)).all()


def test_a_gif_of_one_picture_and_a_phones_two_are_stills(tmp_path):
    frame, preview = Image.fromarray(movie(1)[0]), Image.new("RGB", (24, 16))
    frame.save(tmp_path / "still.gif")
    photo = {"format": "MPO", "save_all": True, "append_images": [preview], "quality": 95}
    frame.convert("RGB").save(tmp_path / "photo.jpg", **photo)
    for name in ("still.gif", "photo.jpg"):
        assert not films.is_animation(tmp_path / name)
        assert_alike([still(tmp_path / name)[None]], movie(1))


def test_bad_pictures_are_refused_in_one_line(tmp_path):
    Image.new("1", (9500, 9500)).save(tmp_path / "90-megapixels.png", compress_level=1)
    Image.new("1", (14000, 14000)).save(tmp_path / "196-megapixels.png", compress_level=1)
    Image.fromarray(movie(1)[0]).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-80])
    Image.new("L", (64, 64)).save(tmp_path / "not-promised.png", format="TIFF")
    with warnings.catch_warnings(record=True, action="always") as said:
        for path in tmp_path.iterdir():
            with pytest.raises(InputError, match=path.name):
                still(path)
    assert not said
