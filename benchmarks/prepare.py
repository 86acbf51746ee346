"""How fast prepare.py reads, and how fast a prepared file is read.

    python benchmarks/prepare.py
    python benchmarks/prepare.py --gigabytes 10

Takes a minute, and needs 1 GB of disk (and --gigabytes) in the temporary folder. Prints:
    film: frames per CPU second of a 720p H.264 film that become 64x64;
    chunks: CPU seconds for 1,600 maps of 256x256 that are packed in chunks of 1,600 x 32 x 32, and
        for h5py that reads them at once;
    memory: the greatest memory of each of these two;
    windows: random windows of 20 frames of 64x64 in a second, and seconds to open the file.
"""

import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import av
import h5py
import numpy as np
import tyro

from extras.prepared import Prepared, Writer

FILM_FRAMES, WINDOW = 600, 20


@dataclasses.dataclass
class Arguments:
    """Measure how fast prepare.py reads, and how fast a prepared file is read."""

    gigabytes: float = 2
    """Size of the prepared file from which windows are read."""
    windows: int = 2000
    """How many windows."""


def write_film(path):
    """A 720p film of noise that moves, about as hard to decode as a camera's."""
    ground = np.random.default_rng(0).integers(0, 256, (90, 320), np.uint8)
    ground = np.kron(ground, np.ones((8, 8), np.uint8))  # (720, 2560)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for n in range(FILM_FRAMES):
            picture = np.ascontiguousarray(ground[:, 2 * n : 2 * n + 1280])
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def write_chunks(path):
    """1,600 maps, of which each chunk holds a small part of all."""
    shape, chunks = (1600, 256, 256), (1600, 32, 32)
    with h5py.File(path, "w") as file:
        rain = file.create_dataset("rain", shape, "f4", chunks=chunks, compression="gzip")
        for row in range(0, 256, 32):
            part = np.zeros((1600, 32, 256), np.float32)
            for n in range(1600):
                part[n, :, 2 * n % 216 : 2 * n % 216 + 40] = 0.8
            rain[:, row : row + 32] = part


def cpu_seconds_and_memory(*arguments):
    """Run a Python command: -> CPU seconds of it and its greatest memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(output.split()[-1]) / 1000


def main():
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder, script = Path(folder), ROOT / "prepare.py"
        write_film(folder / "film.mp4")
        write_chunks(folder / "maps.h5")
        np.save(folder / "small.npy", np.eye(64, dtype=np.uint8)[None] * 255)
        start, _ = cpu_seconds_and_memory(script, folder / "small.npy", folder / "small")
        seconds, memory = cpu_seconds_and_memory(
            script, folder / "film.mp4", folder / "film", "--size", "64"
        )
        rate = FILM_FRAMES / (seconds - start)
        print(f"film: {rate:.0f} frames per CPU second, {memory:.0f} MB")
        seconds, memory = cpu_seconds_and_memory(script, folder / "maps.h5", folder / "maps")
        at_once = time.process_time()
        h5py.File(folder / "maps.h5")["rain"][:]
        at_once = time.process_time() - at_once
        print(f"chunks: {seconds - start:.1f} s, h5py at once {at_once:.1f} s, {memory:.0f} MB")

        part = np.random.default_rng(0).integers(0, 256, (4096, 64, 64, 1), np.uint8)  # 17 MB
        with Writer(folder / "windows") as writer:
            for _ in range(int(arguments.gigabytes * 1e9 / part.nbytes)):
                writer.append(part)
                writer.end_clip("part")
        began = time.perf_counter()
        prepared = Prepared(folder / "windows")
        opening = time.perf_counter() - began
        starts = np.random.default_rng(0).integers(0, prepared.shape[0] - WINDOW, arguments.windows)
        began = time.perf_counter()
        for first in starts.tolist():
            prepared.read(first, first + WINDOW)
        rate = arguments.windows / (time.perf_counter() - began)
        frames = rate * WINDOW
        print(f"windows: {rate:.0f} a second ({frames:.0f} frames), opened in {opening:.3f} s")


if __name__ == "__main__":
    main()
