"""Files and folders -> clips, each with the reader that its files need."""

import contextlib
import itertools
import os

from extras import arrays, films
from extras.blocks import Block
from extras.cli import InputError
from extras.names import natural, order_frames
from extras.prepared import is_prepared

ENDINGS = (*films.FILMS, *films.PICTURES, *arrays.ARRAYS)


def find_files(source):
    """All files of a source that may be read, "clip-9" before "clip-10".

    What is hidden is left out. Links to folders are followed, and no folder is read twice. A folder
    of Zarr counts as a file.

    Raises:
        InputError: there are none.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if is_prepared(source):
        raise InputError(f"{source} is a prepared file already")
    found = list(_walk(source, set()))
    if not found:
        raise InputError(f"{source} has no files that end in {' '.join(ENDINGS)}")
    return sorted(found, key=lambda file: (natural(file.parent), natural(file.name)))


def _walk(path, seen):
    is_zarr = path.suffix.lower() == ".zarr"
    if path.is_dir() and not is_zarr:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            for inner in sorted(path.iterdir()):
                if not inner.name.startswith(".") and inner.name != "__MACOSX":
                    yield from _walk(inner, seen)
    elif path.suffix.lower() in ENDINGS and (path.is_file() or is_zarr):
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

    def relative(path):
        return os.path.relpath(path, root)

    def about(name):
        return lambda line: note(line, name)

    for folder, in_folder in itertools.groupby(files, lambda file: file.parent):
        stills, fields = [], []
        for file in in_folder:
            name, ending = relative(file), file.suffix.lower()
            if ending in films.FILMS:
                yield name, [file], films.read_film(file, about(name), size, fps)
            elif ending in arrays.ARRAYS:
                fields.append(file)
            elif films.is_animation(file):
                yield name, [file], films.read_animation(file, about(name), size, fps)
            else:
                stills.append(file)
        if not _are_frames(fields, of_arrays):
            for file in fields:
                name = relative(file)
                yield name, [file], arrays.read_arrays(file, about(name), **of_arrays)
            fields = []
        for frames, read in ((stills, _still), (fields, arrays.read_arrays)):
            options = of_arrays if read == arrays.read_arrays else {}
            in_order = order_frames(frames, note)
            for clip in in_order:
                name = relative(folder if len(in_order) == 1 < len(clip) else clip[0])
                yield name, clip, _one_after_another(clip, note, read, options)


def _are_frames(files, of_arrays):
    """Whether the first of these files that can be read holds one frame."""
    for file in files:
        blocks = arrays.read_arrays(file, lambda line: None, **of_arrays)
        with contextlib.suppress(InputError):
            return [len(block.frames) for block in itertools.islice(blocks, 2)] == [1]
    return False


def _still(file, note):
    yield Block(films.read_picture(file)[None])


def _one_after_another(clip, note, read, options):
    """The `Block`s of files of one frame each; a file that cannot be read ends a clip."""
    new_clip = True
    for file in clip:
        try:
            for block in read(file, note, **options):
                yield Block(block.frames, new_clip)
                new_clip = False
        except InputError as error:
            note(f"left out: {error}")
            new_clip = True
