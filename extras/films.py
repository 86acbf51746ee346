"""Films, animations and pictures -> frames, as a player or a browser shows them.

Frames are turned and mirrored as the file says, with square pixels, and transparent ones over
black. PyAV, which brings FFmpeg along, reads films (pip install av); Pillow reads the rest.

The frames of a film pass through five generators:

    decoded     what can be decoded, without what is damaged
    timed       how long each frame is shown, and where time jumps
    chosen      all of them, or `fps` a second
    shown       as arrays, scaled and upright
    in_blocks   up to 50 together
"""

import collections
import contextlib
import functools
import math
import os
import statistics
import warnings

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from extras.blocks import Block, refuse_text
from extras.cli import InputError

FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".vob", ".ts")
FILMS += (".m2ts", ".mts", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # as Pillow names them; JPEG includes MPO
# Without these limits a playlist that is named film.mp4 makes FFmpeg open other files.
SAFE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg",
}
UNSPECIFIED, BT709 = 2, 1  # `av.VideoFrame.colorspace`
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave alpha out
HDR = (16, 18)  # `av.VideoFrame.color_trc` of PQ and HLG

LARGEST = 2**25  # pixels of a frame, as in an 8K film
LONGEST = 10.0  # seconds between two frames of a clip
BLOCK_FRAMES, BLOCK_BYTES = 50, 2**26


# Films ------------------------------------------------------------------------------------


def read_film(path, note, size=None, fps=None):
    """Yield the frames of a film.

    Args:
        path: a file with one of the endings FILMS.
        note: is called with a sentence about how the film was read.
        size: (height, width): frames are scaled to the smallest size that covers it; None: their
            own size.
        fps: frames a second to sample, each the one that is shown at that time; None: all.

    Yields:
        `Block`s of (n, height, width, 3), uint8 RGB in 0..255. A grey film has one channel:
        uint8, or uint16 in the film's own numbers if they have more than 8 bits.

    Raises:
        InputError: no frame can be read, or PyAV is not installed.
    """
    with open_film(path) as (film, stream):
        frames = timed(decoded(film, stream, note), film, stream, note)
        pictures = shown(chosen(frames, fps, note), path, stream, size, note)
        yield from in_blocks(pictures, path)


@contextlib.contextmanager
def open_film(path):
    """Yield an opened film and its video stream. Raises InputError for what FFmpeg cannot do."""
    try:
        import av
    except ImportError:
        raise InputError(f"{path}: films need one more package: pip install av") from None
    refuse_text(path)
    try:
        name = f"file:{os.fspath(path)}"  # else a colon in the path ends a protocol's name
        # Names of songs, say, are in all sorts of encodings; PyAV 19 takes that for granted.
        lenient = {} if av.__version__ >= "19" else {"metadata_errors": "replace"}
        with av.open(name, options=SAFE, **lenient) as film:
            stream = film.streams.best("video")
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
                raise InputError(f"{path} holds no moving pictures")
            if stream.codec_context is None:
                raise InputError(f"{path} is encoded in a way that FFmpeg does not know")
            refuse_large(path, stream.width, stream.height)
            stream.thread_type = "AUTO"  # all cores
            yield film, stream
    except av.FFmpegError as error:
        raise InputError(f"{path} cannot be read as a film: {error.strerror}") from None


def decoded(film, stream, note):
    """Yield (frame, new_clip) for every frame that can be decoded.

    Damage ends a clip. It spreads to the frames that are predicted from a damaged one, so the
    next clip begins at the next key frame.
    """
    import av

    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ALPHA_DECODERS:
        decoder = av.CodecContext.create(ALPHA_DECODERS[decoder.name], "r")
    lost, damaged = 0, False
    with contextlib.suppress(av.FFmpegError):  # where demuxing fails the film is cut
        for packet in film.demux(stream):
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                frames, damaged, lost = [], True, lost + 1
            for frame in frames:
                new_clip = damaged and frame.key_frame and not frame.is_corrupt
                damaged = (damaged or frame.is_corrupt) and not new_clip
                if damaged:
                    lost += 1
                else:
                    yield frame, new_clip
    if lost:
        note(f"frames that are damaged, or predicted from damaged ones: {lost}; they end a clip")


def timed(frames, film, stream, note):
    """(frame, new_clip) -> (frame, seconds until the next frame, new_clip).

    A clip also ends where time goes back (joined files) or leaps (a recorder's pause). The last
    frame of a clip is shown for as long as the frames before it usually are.
    """
    rate = float(stream.average_rate or 0)
    usual = 1 / (rate if rate > 1 / LONGEST else 25)  # seconds
    distances = collections.deque(maxlen=99)  # seconds between the latest frames
    waiting, time, jumps = None, 0.0, 0
    for frame, new_clip in frames:
        time_before, time = time, time + usual if frame.time is None else frame.time
        if waiting:
            seconds = time - time_before
            if not new_clip and not 0 <= seconds <= min(max(10 * usual, 0.5), LONGEST):
                new_clip = True
                jumps += 1
            yield waiting[0], seconds if seconds and not new_clip else usual, waiting[1]
            if 0 < seconds <= LONGEST:
                distances.append(seconds)
                usual = statistics.median(distances)
        waiting = frame, new_clip
    if waiting:
        yield waiting[0], usual, waiting[1]
        note(f"about {1 / usual:.3g} frames a second in the file")
    if jumps:
        note(f"places where time jumps, and a new clip begins: {jumps}")
    read = time + usual - (film.start_time or 0) / 1e6
    length = (film.duration or 0) / 1e6
    if stream.duration:  # the sound may be longer
        length = float(stream.duration * stream.time_base)
    if read < 0.9 * length:
        note(f"{read:.3g} of {length:.3g} seconds can be decoded")


def shown(frames, path, stream, size, note):
    """(av.VideoFrame, new_clip) -> (array (height, width, 1 or 3), new_clip)."""
    graph_of = functools.lru_cache(maxsize=4)(connected)  # a film has few kinds of frames
    matrix, interlaced, hdr = None, False, False
    for frame, new_clip in frames:
        # Only once, for a frame that was asked for side data is freed late (a cycle in PyAV).
        a, b, c, d = matrix = matrix or display_matrix(frame)
        turned = abs(b) > abs(a)  # by a quarter
        height = frame.height
        width = max(round(frame.width * (stream.sample_aspect_ratio or 1)), 1)
        if size:
            height, width = covering(height, width, size[::-1] if turned else size)
        refuse_large(path, width, height)
        # Where a film does not say, players take the colours of a large one for BT.709.
        if frame.colorspace == UNSPECIFIED and frame.height > 576:
            frame.colorspace = BT709
        interlaced |= frame.interlaced_frame
        hdr |= frame.color_trc in HDR
        graph = graph_of(filters(frame, width, height))
        graph.push(frame)
        picture = graph.pull().to_ndarray().reshape(height, width, -1)
        if turned:
            picture, a, d = picture.swapaxes(0, 1), c, b
        yield picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1], new_clip
    if interlaced:
        note("it is interlaced: every second row of a frame is read")
    if hdr:
        note("it is in HDR: what has 203 nits or more is white")


def filters(frame, width, height):
    """The FFmpeg filters that show an `av.VideoFrame`, as a tuple of (name, arguments)."""
    pixels = frame.format.name
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={pixels}:time_base=1/1"
    scale = f"{width}:{height}:flags=area+full_chroma_int+accurate_rnd"
    if frame.color_trc in HDR:
        scale += ":out_transfer=bt709:out_primaries=bt709"
    alpha = any(component.is_alpha for component in frame.format.components)
    return (
        ("buffer", source),
        *[("field", "type=top")] * frame.interlaced_frame,
        *[("format", "gbrap"), ("premultiply", "inplace=1")] * alpha,
        ("scale", scale),
        ("format", pixels.replace("be", "le") if pixels.startswith("gray") else "rgb24"),
        ("buffersink", ""),
    )


def connected(filters):
    """Filters that follow each other -> `av.filter.Graph`."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1  # the decoder keeps all cores busy
    graph.link_nodes(*[graph.add(*name_and_arguments) for name_and_arguments in filters])
    graph.configure()
    return graph


def display_matrix(frame):
    """How an `av.VideoFrame` is turned and mirrored when it is shown.

    `av.VideoFrame.rotation` would not do, for it does not tell of mirroring.

    Returns:
        a, b, c, d: the pixel at column x and row y is shown at column a x + c y and row
        b x + d y, counted from wherever the picture then begins.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32).tolist()
    return a, b, c, d


# Animations and pictures ------------------------------------------------------------------


def has_times(path):
    """Whether a file's frames have times: it is a film, or an animation."""
    ending = path.suffix.lower()
    return ending in FILMS or (ending in PICTURES and is_animation(path))


def is_animation(path):
    """Whether a picture's file (PICTURES) holds several that are shown one after another."""
    try:
        with open_picture(path) as picture:
            several = getattr(picture, "is_animated", False)  # to count them would find all damage
            return several and picture.format in ("GIF", "PNG", "WEBP")
    except InputError:
        return False


def read_animation(path, note, fps=None):
    """Yield the frames of an animated GIF, WebP or PNG in RGB, a `Block` each; see `read_film`."""

    def timed():
        with open_picture(path) as picture:
            for frame in ImageSequence.Iterator(picture):
                # An animated PNG may begin with a picture for programs that show no others.
                if frame.tell() > 0 or "default_image" not in frame.info:
                    image = np.asarray(over_black(frame))  # first, for WebP tells times then
                    seconds = min(frame.info.get("duration", 0) / 1000, LONGEST)
                    # Browsers show 10 ms and less as 100 ms.
                    yield image, seconds if seconds > 0.01 else 0.1, False

    for frame, new_clip in chosen(timed(), fps, note):
        yield Block(frame[None], new_clip)


def read_picture(path, note):
    """Yield the `Block` of a still; of several pictures in its file the first is read.

    Frames (1, height, width, 1 or 3) are uint8 in 0..255; of a grey picture with more than 8 bits
    uint16, int32 or float32 in its own numbers. (Of such a coloured one Pillow reads 8.)

    Raises:
        InputError: it cannot be read.
    """
    with open_picture(path) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        if not picture.mode.startswith(("I", "F")):
            grey = picture.mode in ("1", "L") and not picture.has_transparency_data
            picture = picture.convert("L") if grey else over_black(picture)
        pixels = np.asarray(picture)
        yield Block(pixels.reshape(1, *pixels.shape[:2], -1))


@contextlib.contextmanager
def open_picture(path):
    """Yield an opened picture. Raises InputError for whatever goes wrong while it is read."""
    refuse_text(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of large ones, which are refused below
            picture = Image.open(path, formats=FORMATS)
        with picture:
            refuse_large(path, *picture.size)
            yield picture
    except InputError:
        raise
    except Exception as error:  # what a damaged file raises depends on the damage
        raise InputError(f"{path} cannot be read as a picture: {error}") from None


def over_black(picture):
    """PIL picture -> one in RGB; what is transparent is black."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return picture.convert("RGB")


# Both -------------------------------------------------------------------------------------


def chosen(frames, fps, note):
    """(frame, seconds until the next frame, new_clip) -> (frame, new_clip).

    With `fps`, of every 1 / fps seconds of a clip the frame that is shown in their middle, where
    the jitter of time stamps changes nothing; else every frame, and a note if they are uneven.
    """
    distances, seconds_before = collections.Counter(), None
    elapsed, taken, begins = 0.0, 0, False
    for frame, seconds, new_clip in frames:
        if new_clip:
            elapsed, taken, begins = 0.0, 0, True
        elif seconds_before and not fps:
            distances[max(round(seconds_before, 4), 1e-4)] += 1
        seconds_before, elapsed = seconds, elapsed + seconds
        until = math.ceil(elapsed * fps - 0.5) if fps else taken + 1
        for _ in range(taken, until):
            yield frame, begins
            begins = False
        taken = until
    # GIF has times in hundredths of a second, so frames of 1/30 second take 3, 3 and 4 of them.
    if distances and max(distances) - min(distances) > 0.1 * min(distances) + 0.011:
        ((usual, _),) = distances.most_common(1)
        note(
            f"its frames are {min(distances):.3g} to {max(distances):.3g} seconds apart: "
            f"--fps {1 / usual:.3g}, say, takes them in even steps"
        )


def covering(height, width, size):
    """The smallest height and width of the same aspect from which `size` can be cropped."""
    scale = max(size[0] / height, size[1] / width)
    return max(round(height * scale), size[0]), max(round(width * scale), size[1])


def refuse_large(path, width, height):
    if not 0 < width * height <= LARGEST:
        raise InputError(
            f"{path} has frames of {width} x {height} pixels: at most {LARGEST:,} pixels are read"
        )


def in_blocks(pictures, path):
    """(array (height, width, channels), new_clip) -> `Block`s. Another size begins a new clip."""
    waiting, begins = [], False
    for picture, new_clip in pictures:
        new_clip |= bool(waiting) and picture.shape != waiting[0].shape
        enough = min(BLOCK_FRAMES, max(BLOCK_BYTES // picture.nbytes, 1))
        if waiting and (new_clip or len(waiting) >= enough):
            yield Block(np.stack(waiting), begins)  # (n, height, width, channels)
            waiting, begins = [], new_clip
        waiting.append(picture)
    if not waiting:
        raise InputError(f"{path}: no frame of it can be read")
    yield Block(np.stack(waiting), begins)
