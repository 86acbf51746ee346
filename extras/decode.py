"""Pictures, animations and videos -> frames, as a viewer shows them.

Frames are turned and mirrored as the file says, with square pixels, and transparent ones over
black. They are uint8 in 0..255, or numbers in the data's units where a grey picture has more than
8 bits; (height, width, 1 or 3). Of coloured or transparent ones with 16 bits Pillow reads 8.

Pillow reads pictures and GIF, animated WebP and PNG; PyAV, which brings FFmpeg along, reads
everything else (pip install av).
"""

from extras.cli import InputError

import numpy as np
from PIL import Image, ImageOps, ImageSequence

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".3gp", ".mts")
VIDEOS += (".m2ts", ".wmv", ".flv", ".ogv", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
ANIMATIONS = (".gif", ".png", ".webp")  # which Pillow reads
SCALING = 0x20 | 0x2000  # FFmpeg's SWS_AREA, with colours in full width (SWS_FULL_CHR_H_INT)


def is_animated(file):
    try:
        with Image.open(file) as picture:
            return getattr(picture, "is_animated", False) or file.suffix.lower() == ".gif"
    except Exception:  # what a damaged file raises depends on the damage; reading says it
        return False


def covering(height, width, size):
    """Height and width to which a frame is resized, so that `size` can be cropped from it."""
    scale = max(size[0] / height, size[1] / width)
    return max(round(height * scale), size[0]), max(round(width * scale), size[1])


def read_pictures(files, name, options, notes):
    """Yield numbered frames; None where one is damaged, which ends a clip."""
    for file in files[:: options.stride]:
        try:
            with Image.open(file) as picture:  # of several images inside, the first
                frame = pixels(ImageOps.exif_transpose(picture))
                if file == files[0] and picture.format == "TIFF" and picture.n_frames > 1:
                    notes.append(f"{name}: of {picture.n_frames} pictures in a file one is read")
        except Exception as error:  # what a damaged file raises depends on the damage
            notes.append(f"{name}: the frame {file.name} cannot be read: {error}")
            frame = None
        yield frame


def read_animation(file, name, options, notes):
    """Yield the frames of an animated GIF, WebP or PNG."""

    def timed():
        seconds = 0
        with Image.open(file) as picture:
            for frame in ImageSequence.Iterator(picture):
                yield seconds, pixels(frame)
                seconds += (frame.info.get("duration") or 100) / 1000  # browsers show 0 as 100 ms

    yield from choose_frames(timed(), name, options, notes)


def pixels(picture):
    """PIL image -> its numbers if they have more than 8 bits, else uint8, over black."""
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)[..., None]
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    frame = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    return frame.reshape(*frame.shape[:2], -1)


def read_video(file, name, options, notes):
    """Yield the frames of a video, in `options.size` if there is one, but not cropped yet."""
    try:
        import av
        from av.video.reformatter import VideoReformatter
    except ImportError:
        raise InputError(
            f"{file}: to read videos, one more package is needed: pip install av"
        ) from None

    def timed():
        """Yield seconds and frame for as long as frames can be decoded."""
        seconds, step, problem = None, 0, None
        try:
            for n, frame in enumerate(video.decode(stream)):
                before = seconds
                seconds = n / float(stream.average_rate or 25) if frame.time is None else frame.time
                step = seconds - before if n else 0
                yield seconds, frame
        except av.FFmpegError as error:
            if seconds is None:
                raise
            problem = error.strerror
        if seconds is None:
            raise ValueError("no frame can be decoded")
        decoded = seconds + step - (video.start_time or 0) / av.time_base
        length = (video.duration or 0) / av.time_base  # as the file says
        if stream.duration:  # sound may be longer
            length = float(stream.duration * stream.time_base)
        if problem or decoded < 0.9 * length:
            notes.append(
                f"{name} cannot be decoded to its end: {decoded:.3g} of {length:.3g} seconds"
                + (f" ({problem})" if problem else "")
            )

    with av.open(file) as video:
        stream = video.streams.best("video")
        if stream is None:
            raise ValueError("it holds no pictures")
        stream.thread_type = "AUTO"  # all cores
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        matrix, reformatter = None, VideoReformatter()
        for frame in choose_frames(timed(), name, options, notes):
            # Only once, for a frame that was asked for side data is freed late (a cycle in PyAV).
            if matrix is None:
                matrix = display_matrix(frame)
            yield upright(frame, matrix, pixel_aspect, options.size, reformatter)


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


def upright(frame, matrix, pixel_aspect, size, reformatter):
    """`av.VideoFrame` -> uint8 RGB, turned, mirrored and stretched as the file says.

    FFmpeg scales while it converts to RGB, several times faster than Pillow after that.
    """
    height, width = frame.height, round(frame.width * pixel_aspect)
    a, b, c, d = matrix
    turned = abs(b) > abs(a)  # by a quarter
    if size:
        height, width = covering(height, width, size[::-1] if turned else size)
    alpha = any(component.is_alpha for component in frame.format.components)
    colours = "rgba" if alpha else "rgb24"
    frame = reformatter.reformat(frame, width, height, colours, interpolation=SCALING)
    frame = frame.to_ndarray()
    if alpha:
        frame = pixels(Image.fromarray(frame))
    if turned:
        frame, a, d = frame.swapaxes(0, 1), c, b
    return frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def choose_frames(timed, name, options, notes):
    """Yield every stride-th frame; with `fps`, of those that are shown at every 1 / fps seconds.

    Args:
        timed: an iterator of (seconds, frame).
    """
    times = []
    for n, (seconds, frame) in enumerate(even_steps(timed, options.fps) if options.fps else timed):
        times.append(seconds)
        if n % options.stride == 0:
            yield frame
    steps = np.diff(times)
    # GIF has times in hundredths of a second, so frames of 1/30 second take 3, 3 and 4 of them.
    if len(steps) and np.ptp(steps) > 0.1 * np.median(steps) + 0.011:
        notes.append(
            f"{name}: its frames are {steps.min():.3g} to {steps.max():.3g} seconds apart; "
            f"--fps {1 / np.median(steps):.3g}, say, takes them in even steps"
        )


def even_steps(timed, fps):
    """Yield (seconds, frame) in steps of 1 / fps: each time the frame that is then shown."""
    shown = None
    for seconds, frame in timed:
        if shown is None:
            start, n = seconds, 0
        while start + n / fps < seconds - 1e-6:
            yield start + n / fps, shown
            n += 1
        shown = frame
    if shown is not None and start + n / fps < seconds + 1e-6:
        yield start + n / fps, shown
