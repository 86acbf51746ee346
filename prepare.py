"""Turn your own films, pictures and arrays into one prepared file, to train on and to predict.

    python prepare.py clips clips.prepared --size 64
    python train.py --data clips.prepared

A source is a film, a folder of numbered pictures, a file of arrays, or a folder of any of these.
Prints how each source was read, and draws some frames to OUT.png: look at it before you train.
"""

if __name__ == "__main__":
    from extras import start  # noqa: F401

import contextlib
import dataclasses
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import tyro
from PIL import PngImagePlugin

from extras import arrays, cli, films, finding, pictures
from extras.blocks import state
from extras.cli import InputError, atomic_write
from extras.clips import SMALLEST
from extras.names import LEFT_OUT
from extras.prepared import Prepared, Writer, is_prepared, is_range
from extras.values import Values, ask_for_range, covering, fit, is_coloured, to_grey

LARGEST = 2**13  # pixels of a frame's side
LARGE = 256  # pixels; larger frames take long to train on
MUCH_OF_A_FRAME = 0.9  # if --size keeps less, that is said
MANY_LINES = 12
SHEET_CLIPS, SHEET_PIXELS = 8, 128
SOFTWARE = "prepare.py"  # what a sheet says of itself, so that it may be replaced


@dataclasses.dataclass(frozen=True)
class Options:
    """How sources are read; None is as they are, or as --like says."""

    size: tuple[int, ...] | None = None
    """Height and width of frames in pixels, or one number for both. Frames are resized, and their
    middle is cropped."""
    stride: int | None = None
    """Keep every Nth frame."""
    fps: float | None = None
    """Frames a second to take from films and animations, by their times."""
    value_range: Annotated[tuple[float, float] | None, tyro.conf.arg(name="range")] = None
    """LOW becomes black and HIGH white. Other values count as the nearer of the two, and missing
    ones (NaN) as LOW."""
    unit: str | None = None
    """Unit of --range, such as dBZ."""
    axes: str | None = None
    """Axes of arrays: N videos, T frames, H height, W width, C channels, as in NTHW."""
    variable: str | None = None
    """Name of the array to read, where a file has several."""
    select: tuple[str, ...] | None = None
    """Members of further axes of arrays to read, as in level=500."""
    grey: bool = False
    """Make coloured frames grey. Frames without colours always become grey."""
    colour: bool = False
    """Give grey frames three channels."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    paths: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SOURCE [SOURCE ...] OUT")
    ]
    """What to read, and the prepared file to write."""
    reading: tyro.conf.OmitArgPrefixes[Options] = Options()
    like: Path | None = None
    """Another prepared file: use its options, its size and its channels, where none are given."""


def prepare(sources, out, options=Options(), like=None):
    """Read sources into a prepared file, print how, and draw a sheet of frames beside it.

    Args:
        sources: paths of files and folders.
        out: the path of the prepared file, which replaces an older one.
        options: `Options`.
        like: the path of a prepared file whose options hold where `options` has none; or None.

    Raises:
        InputError: the sources cannot be read, an option does not fit, or files would be lost.
        OSError: the disk is full.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    found = [(source, finding.find_files(source)) for source in sources]
    options = check_options(options, [file for _, files in found for file in files])
    check_out(out, found)
    cli.refuse_input(out, like)
    if like is not None:
        options = inherit(options, like)
        cli.say(f"options, with those of {like}: {as_typed(options)}")
    with Writer(out) as writer, cli.stop_politely() as is_pressed:
        all_values = [
            read_source(source, files, options, writer, is_pressed) for source, files in found
        ]
        ask_for_range(sources, all_values)
        if not writer.names:
            lines = [line for source in writer.sources for line in source["lines"]]
            reasons = [line.partition(LEFT_OUT)[2] for line in lines if line.startswith(LEFT_OUT)]
            raise InputError("; ".join(reasons[:3]) or "there are no frames")
        height, width, channels = writer.frames.shape[1:]
        writer.value_range = options.value_range or (0, 1)
        writer.unit = options.unit or ""
        writer.options = dataclasses.asdict(options) | {
            "size": (height, width),
            "grey": channels == 1,
            "colour": channels == 3,
        }
    prepared = Prepared(out)
    draw_sheet(prepared, sheet_of(out))
    cli.say(
        f"{out}: clips: {len(prepared.names)}; frames: {prepared.shape[0]}, of {height} x {width} "
        f"pixels, {'in colour' if channels == 3 else 'grey'}; some are drawn in {sheet_of(out)}"
    )
    if options.size is None and max(height, width) > LARGE:
        print("Frames of this size take long to train on: --size 64 makes smaller ones")


def check_options(options, files):
    """Check `Options` for sources that have these files.

    Returns:
        `Options` with two numbers in `size`, and `axes` in capital letters.

    Raises:
        InputError: an option makes no sense, or there is nothing that it is for.
    """
    size, axes = options.size, options.axes and options.axes.upper()
    endings = {file.suffix.lower() for file in files}
    if size is not None:
        size = tuple(size) * 2 if len(size) == 1 else tuple(size)
        if len(size) != 2 or min(size) < SMALLEST or max(size) > LARGEST:
            raise InputError(f"--size: give HEIGHT WIDTH, each from {SMALLEST} to {LARGEST}")
    if options.stride is not None and options.stride < 1:
        raise InputError(f"--stride {options.stride}: give N, 1 or more, to keep every Nth frame")
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise InputError(f"--fps {options.fps:g}: give frames a second, above 0 and up to 1000")
    if options.fps and not any(map(films.has_times, files)):
        raise InputError("--fps is for films and animations, which have times: use --stride")
    if options.value_range and not is_range(*options.value_range):
        given = " ".join(f"{value:g}" for value in options.value_range)
        raise InputError(f"--range {given}: give LOW and HIGH, LOW below HIGH, within 1e38")
    if axes and not ({*"HW"} <= {*axes} <= {*"NTHWC"} and len({*axes}) == len(axes)):
        raise InputError(f"--axes {axes}: give {arrays.LETTERS}; H and W are needed")
    for name in ("axes", "variable", "select"):
        if getattr(options, name) and endings.isdisjoint(arrays.ARRAYS):
            raise InputError(f"--{name} is for arrays, and there are none")
    if options.grey and options.colour:
        raise InputError("--grey and --colour: give one of the two")
    return dataclasses.replace(options, size=size, axes=axes)


def inherit(options, like):
    """`Options`, and where they say nothing those of a prepared file."""
    try:
        others = pydantic.TypeAdapter(Options).validate_python(Prepared(like).options)
    except pydantic.ValidationError:
        raise InputError(f"{like} has options that prepare.py does not know") from None
    for name, value in vars(others).items():
        colours = name in ("grey", "colour") and (options.grey or options.colour)
        if getattr(options, name) in (None, False) and not colours:
            options = dataclasses.replace(options, **{name: value})
    return options


def as_typed(options):
    """`Options` as a command line has them: "--size 64 64 --range 0.0 60.0 --grey"."""
    words = []
    for name, value in vars(options).items():
        if value not in (None, False):
            words.append("--range" if name == "value_range" else cli.option(name))
            if value is not True:
                words += map(str, value if isinstance(value, tuple) else [value])
    return shlex.join(words)


def sheet_of(out):
    return out.with_name(f"{out.name}.png")


def check_out(out, found):
    """Raise an InputError if writing `out` would cost a file, or make it a part of a source."""
    if out.is_dir() or out.exists() and not is_prepared(out):
        raise InputError(f"{out} is there, and is no prepared file: name another one to write")
    sheet, ours = sheet_of(out), f"Software\0{SOFTWARE}".encode()
    if sheet.exists() and not (sheet.is_file() and ours in sheet.read_bytes()):
        raise InputError(f"{sheet} is there, and would be replaced: name another OUT")
    above = [place for place in (out.resolve(), *out.resolve().parents) if place.exists()]
    for source, files in found:
        folders = set() if files == [source] else {file.parent for file in files}
        if any(place.samefile(other) for place in above for other in {source, *folders}):
            raise InputError(f"{out} would lie in the source {source}: name another place")


# Reading ----------------------------------------------------------------------------------


def read_source(source, files, options, writer, is_pressed):
    """Read a source into a `Writer`, and print how.

    Args:
        source, files, options: as for `prepare`.
        writer: `Writer`.
        is_pressed: tells whether Ctrl-C was pressed; some libraries lose it.

    Returns:
        `Values` of all its frames.
    """
    values, notes, first_clip = Values(), {}, len(writer.names)
    order, files_read = None, 0

    def note(line, name=None):
        notes.setdefault(line, dict.fromkeys([name]))[name] = None

    of_arrays = {"axes": options.axes, "variable": options.variable, "select": options.select or ()}
    found = finding.clips(files, source.parent, note, options.size, options.fps, **of_arrays)
    for name, paths, blocks in found:
        before = states(paths)
        if len(paths) > 1 and order is None:  # said of the first, not of hundreds
            order = f"in order from {paths[0].name} to {paths[-1].name}"
            note(order, name)
        keeps_colour = paths[0].suffix.lower() in arrays.NUMBERS
        stride = options.stride or 1
        part, parts, length = name, 1, 0
        for n, block in enumerate(blocks):
            if is_pressed():
                raise KeyboardInterrupt
            if block.new_clip and length:
                writer.end_clip(part)
                parts, length = parts + 1, 0
                part = f"{name} [{parts}]"
            frames = block.frames[-length % stride :: stride]
            length += len(block.frames)
            if options.size is not None:
                height, width = covering(*frames.shape[1:3], options.size)
                share = np.prod(options.size) / (height * width)
                if share < MUCH_OF_A_FRAME:
                    note(
                        f"the middle {share:.0%} of each frame is kept; all of it by --size "
                        f"{height} {width}",
                        name,
                    )
            if len(frames):
                write(frames, name, keeps_colour, options, values, writer)
            # A clip of several files has a block of each.
            show_progress((files_read + min(n, len(paths) - 1)) / len(files), writer)
        writer.end_clip(part)
        files_read += len(paths)
        if before != states(paths):
            raise InputError(f"{name} has changed while it was read: start again when it is whole")
    lines, lengths = [], np.diff(writer.ends)[first_clip:]
    if len(lengths):
        shortest, longest = min(lengths), max(lengths)
        length = f"{shortest} to {longest}" if shortest < longest else f"{shortest}"
        height, width = writer.frames.shape[1:3]
        count = f"{len(lengths)} clip{'s' * (len(lengths) > 1)}"
        lines.append(f"{count} of {length} frames, {height} x {width} pixels")
    lines += values.describe(options.value_range)
    in_order = sorted(notes.items(), key=lambda item: not item[0].startswith(LEFT_OUT))
    for line, (first, *others) in in_order:
        where = f"{first}{f' and {len(others)} more' * bool(others)}: "
        lines.append(where * (first is not None and len(files) > 1) + line)
    if len(lines) > MANY_LINES:
        lines[MANY_LINES:] = [f"and {len(lines) - MANY_LINES} more lines like these"]
    writer.sources.append({"path": str(source), "lines": lines})
    show_progress(1, writer)
    with contextlib.suppress(BrokenPipeError):  # `| head` loses no result
        cli.say(f"{source}:", *(f"  {line}" for line in lines))
    return values


def write(frames, name, keeps_colour, options, values, writer):
    """Write frames of a `Block` to a `Writer`, unless a --range is needed first."""
    frames = values.scale(frames, options.value_range)
    if values.need_range:
        return  # only the least and the greatest value are still wanted
    size = options.size or (writer.frames or frames).shape[1:3]
    if frames.shape[1:3] != size and options.size is None:
        raise InputError(
            f"{name} has frames of {frames.shape[1]} x {frames.shape[2]} pixels, others have "
            f"{size[0]} x {size[1]}: give the --size that all should have"
        )
    if min(size) < SMALLEST:
        raise InputError(f"{name}: frames need {SMALLEST} x {SMALLEST} pixels or more")
    frames = fit(frames, size)  # (n, *size, channels)
    in_colour = writer.frames is not None and writer.frames.shape[-1] == 3
    if options.grey or not (options.colour or in_colour or keeps_colour or is_coloured(frames)):
        frames = to_grey(frames)
    elif options.colour:
        frames = np.broadcast_to(frames, (*frames.shape[:3], 3))
    writer.append(frames)


def states(paths):
    """What tells that one of these, or a file in one that is a folder, has changed."""
    files = [file for path in paths for file in (path, *path.rglob("*"))]
    return [(state(file), file.stat().st_ctime_ns) for file in files]  # which nobody sets back


def show_progress(done, writer):
    """Draw a bar on a terminal; done = 1 wipes it away."""
    if sys.stdout.isatty():
        count = 0 if writer.frames is None else len(writer.frames)
        bar = f"[{'=' * round(30 * done):30}] {count:,} frames" if done < 1 else ""
        print(f"\r\x1b[K{bar}", end="", flush=True)


def draw_sheet(prepared, path):
    """Draw the first two frames, a middle one and the last of some clips of a `Prepared` file."""
    rows, labels = [], []
    smaller = -(-max(prepared.shape[1:3]) // SHEET_PIXELS)
    scale = max(1, SHEET_PIXELS // max(prepared.shape[1:3]))
    clips = np.linspace(0, len(prepared.names) - 1, SHEET_CLIPS).astype(int)
    for clip in sorted(set(clips)):
        first, end = prepared.spans[clip]
        shown = first, min(first + 1, end - 1), (first + end) // 2, end - 1
        frames = [prepared.read(n, n + 1)[0] for n in shown]
        rows.append([(frame[::smaller, ::smaller], pictures.REAL_COLOUR) for frame in frames])
        labels.append(textwrap.fill(cli.visible(prepared.names[clip])[-44:], 11))
    with atomic_write(path) as temporary:
        made_by = PngImagePlugin.PngInfo()
        made_by.add_text("Software", SOFTWARE)
        pictures.film_strip(rows, labels, scale).save(temporary, pnginfo=made_by)


def main():
    arguments = tyro.cli(Arguments, description=__doc__)
    if len(arguments.paths) < 2:
        raise InputError("give SOURCE and OUT: what to read, and the file to write")
    *sources, out = arguments.paths
    prepare(sources, out, arguments.reading, arguments.like)


if __name__ == "__main__":
    cli.run(main)
