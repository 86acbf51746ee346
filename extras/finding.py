"""Files and folders -> clips, each with the reader that its files need."""

import collections
import functools
import itertools
import os

from extras import arrays, films
from extras.cli import InputError
from extras.names import LEFT_OUT, natural, order_frames
from extras.prepared import is_prepared

ENDINGS = (*films.FILMS, *films.PICTURES, *arrays.ARRAYS)


def find_files(source):
    """All files of a source that may be read, "clip-9" before "clip-10".

    What is hidden is left out, and so is the sheet of a prepared file. Links to folders are
    followed, and no folder is read twice. A folder of Zarr counts as a file.

    Raises:
        InputError: there are none.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if is_prepared(source):
        raise InputError(f"{source} is a prepared file already")
    try:
        found = list(_walk(source, set()))
    except RecursionError:
        raise InputError(f"{source} has folders too deep within each other") from None
    if not found:
        raise InputError(f"{source} has no files that end in {' '.join(ENDINGS)}")
    return sorted(found, key=lambda file: (natural(file.parent), natural(file.name)))


def _walk(path, seen):
    is_zarr = path.suffix.lower() == ".zarr"
    is_sheet = path.suffix == ".png" and is_prepared(path.with_suffix(""))
    if path.is_dir() and not is_zarr:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            for inner in sorted(path.iterdir()):
                if not inner.name.startswith(".") and inner.name != "__MACOSX":
                    yield from _walk(inner, seen)
    elif path.suffix.lower() in ENDINGS and (path.is_file() or is_zarr) and not is_sheet:
        yield path


def clips(files, root, note, size=None, fps=None, **of_arrays):
    """Yield (name, its files, an iterator of their `Block`s) of all that is a clip, or holds some.

    Args:
        files: as from `find_files`.
        root: the folder from which clips are named.
        note: called with each line that the user should read, and the name that it is about.
        size, fps: as for `films.read_film`.
        of_arrays: the options of `arrays.read_arrays`.

    Raises:
        InputError: two files are the same frame.
    """
    read_film = functools.partial(films.read_film, size=size, fps=fps)
    read_animation = functools.partial(films.read_animation, fps=fps)
    read_arrays = functools.partial(arrays.read_arrays, **of_arrays)
    for folder, in_folder in itertools.groupby(files, lambda file: file.parent):
        frames = {films.read_picture: [], read_arrays: []}  # reader -> files of one frame each
        clips = []  # (files that follow each other, their reader)
        for file in in_folder:
            ending = file.suffix.lower()
            if films.has_times(file):
                clips.append(([file], read_film if ending in films.FILMS else read_animation))
            elif ending in films.PICTURES:
                frames[films.read_picture].append(file)
            elif arrays.holds_one_frame(file, **of_arrays):
                frames[read_arrays].append(file)
            else:
                clips.append(([file], read_arrays))
        for reader, of_frames in frames.items():
            clips += [(clip, reader) for clip in order_frames(of_frames, note)]
        count = collections.Counter(reader for _, reader in clips)
        for clip, reader in clips:
            is_folder = count[reader] == 1 < len(clip)
            name = os.path.relpath(folder if is_folder else clip[0], root)
            about = functools.partial(note, name=name) if len(clip) == 1 else note
            read = functools.partial(reader, note=about)
            yield name, clip, _one_after_another(clip, read, note)


def _one_after_another(clip, read, note):
    """The `Block`s of files that follow each other; one that cannot be read ends a clip."""
    new_clip = False
    for file in clip:
        try:
            for n, block in enumerate(read(file)):
                yield block if n else block._replace(new_clip=new_clip)
                new_clip = False
        except InputError as error:
            note(f"{LEFT_OUT}{error}")
            new_clip = True
