"""predictions.npz, written part by part. Open it to change what `predict.py` keeps.

The arrays in it, of which the first three are (videos, frames, height, width, channels):

    context, truth    real frames, as the data has them
    prediction        float32
    range             which values are black and white in it: [0, 1], or those of `--range`
    indices           which videos of the data they are
"""

import contextlib
import zipfile

from extras.cli import atomic_write  # comes before Keras

import numpy as np

import data


@contextlib.contextmanager
def write_predictions(path, videos, indices, context, horizon, value_range):
    """Write the file, from a first batch of predictions to a last one, and then all the rest.

    Args:
        path: the file.
        videos: to be indexed by an array of numbers, context and truth: (videos, frames, height,
            width, channels).
        indices: which of them are forecast.
        context, horizon: frames of a context, and predicted ones.
        value_range: (low, high), what black and white are in the data's units.

    Yields:
        write(predictions): to be called with those of the next videos, (batch, horizon, height,
            width, channels) in [0, 1].
    """
    first = videos[indices[:1]]
    _, frames, *frame_shape = first.shape
    low, high = value_range
    has_units = value_range != (0, 1)

    def in_units(part):
        """Values in [0, 1] -> the data's units; uint8 is left as it is."""
        return low + (high - low) * data.to_float(part) if has_units else part

    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        shape = (len(indices), horizon, *frame_shape)
        with npz_array(archive, "prediction", shape, np.float32) as write:
            yield lambda predictions: write(in_units(predictions))
        dtype = np.float32 if has_units else first.dtype
        for name, part in (("context", slice(context)), ("truth", slice(context, frames))):
            shape = (len(indices), len(range(frames)[part]), *frame_shape)
            with npz_array(archive, name, shape, dtype) as write:
                for index in indices:
                    write(in_units(videos[[index]][:, part]))
        for name, values in (("indices", indices), ("range", np.array(value_range, np.float64))):
            with npz_array(archive, name, values.shape, values.dtype) as write:
                write(values)


@contextlib.contextmanager
def npz_array(archive, name, shape, dtype):
    """Within, write an array to a .npz archive part by part: yields write(part)."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda part: file.write(np.asarray(part, dtype).tobytes())
