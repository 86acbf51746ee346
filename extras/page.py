"""All forecasts on one HTML page with a frame slider; page.html is its template."""

import base64
import io
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import data
from extras import pictures
from extras.cli import atomic_write


def data_url(kind, content):
    """Bytes of an image of some kind, "gif" or "png", as the URL that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(pixels):
    """uint8 pixels (height, width, 3) -> a PNG, as a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return data_url("png", file.getvalue())


def strips(context, truth, prediction):
    """One video's real frames, predicted frames and errors, each a row of frames in one picture.

    Args:
        context, truth, prediction: (frames, height, width, channels), uint8 or float in [0, 1].

    Returns:
        Three uint8 arrays (height + 4, frames * (width + 4), 3). Where the truth has ended, real
        frames and errors are black.
    """
    unknown = np.zeros((len(prediction) - len(truth), *context.shape[1:]))
    no_error = np.zeros_like(context)
    rows = [
        [*context, *truth, *unknown],
        [*context, *prediction],
        [*no_error, *pictures.error_map(truth, prediction[: len(truth)]), *unknown],
    ]
    real, predicted = pictures.REAL_COLOUR, pictures.PREDICTED_COLOUR
    results = []
    for row, colour in zip(rows, (real, predicted, predicted)):
        colours = [real] * len(context) + [colour] * len(prediction)
        tiles = [pictures.enlarge(frame, 1, colour) for frame, colour in zip(row, colours)]
        results.append(np.concatenate(tiles, axis=1))
    return results


def write_page(path, context, truth, prediction, gifs, stills, score, milliseconds):
    """Write forecasts as one HTML file, `page.html` filled in; it needs no other file, nor network.

    Args:
        path: the file to write.
        context, truth, prediction: (videos, frames, height, width, channels), uint8 or float in
            [0, 1]; the truth may have fewer frames than the prediction.
        gifs: paths of the videos' animations.
        stills: for each video a picture for those who asked for less motion, uint8 RGB.
        score: a function that scores predictions, as `predict.score` does.
        milliseconds: {"each": ..., "last": ...}, for how long a frame and the last one are shown.
    """
    height, width = context.shape[2:4]
    scored = truth.shape[1]
    errors, scores = [[]] * len(gifs), None
    if scored:
        predicted = prediction[:, :scored]
        errors = [score(t[None], p[None])["mse"] for t, p in zip(truth, predicted)]
        copying = score(truth, data.copy_last(context, scored))
        scores = {"model": score(truth, predicted), "copying": copying}
    clips = [
        {
            "name": gif.stem,
            "gif": data_url("gif", gif.read_bytes()),
            "still": png(still),
            "strips": [png(strip) for strip in strips(*video)],
            "mse": error,
        }
        for gif, still, error, *video in zip(gifs, stills, errors, context, truth, prediction)
    ]
    forecasts = {
        "context": context.shape[1],
        "horizon": prediction.shape[1],
        "shape": f"{width + 4} / {height + 4}",
        "clips": clips,
        "scores": scores,
        "milliseconds": milliseconds,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    script = json.dumps(forecasts).replace("<", r"\u003c")  # a name must not end the script
    with atomic_write(path) as temporary:
        temporary.write_text(page.replace("FORECASTS", script), encoding="utf-8")
