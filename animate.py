"""Watch forecasts: animations of the real video beside the predicted one, and a film strip.

    python animate.py                         four random validation videos, shipped weights
    python animate.py runs/cpu --seed 7       a run of yours, other videos
    python animate.py --data test --count 10 --format mp4
    python animate.py --page                  and a page with a frame slider: outputs/index.html

Both sides show the same context first, framed in grey: it is all that the model sees. From
then on the right side, framed in orange, is the model's own forecast.
"""

import base64
import importlib.util
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Literal

from extras import cli
from extras.cli import InputError, atomic_write

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

import data
from predict import SCORES, Request, forecast_request, score, score_video, summary

FRAMES_PER_SECOND = 5
REST = 1.2  # seconds for which an animation rests at its end
PICTURE = 256  # pixels; about the size to which a frame is enlarged
TOO_DARK_COLOUR = (0, 143, 255)  # blue, where a prediction is darker than the real frame


def side_by_side(context, truth, prediction):
    """One video's frames as pictures: the real video at the left, the predicted at the right.

    Args:
        context, truth, prediction: (frames, height, width, channels), uint8 or float in
            [0, 1]. Where the truth has ended, the left side is blank.

    Returns:
        uint8 array (context + predicted frames, picture height, picture width, 3).
    """
    context_frames, horizon = len(context), len(prediction)
    real = [*context, *truth] + [None] * (horizon - len(truth))
    shown = [*context, *prediction]
    scale = max(1, PICTURE // max(context.shape[1:3]))
    height, width = data.enlarge(context[0], scale, data.REAL_COLOUR).shape[:2]
    header, gap = 28, 8
    font = ImageFont.load_default(size=16)

    pictures = []
    for n in range(context_frames + horizon):
        predicted = n >= context_frames
        colour = data.PREDICTED_COLOUR if predicted else data.REAL_COLOUR
        number = f"{n - context_frames + 1}/{horizon}" if predicted else f"{n + 1}/{context_frames}"
        image = Image.new("RGB", (2 * width + gap, header + height), "white")
        draw = ImageDraw.Draw(image)
        draw.text((2, header / 2), "real", data.REAL_COLOUR, font, anchor="lm")
        label = f"{'predicted' if predicted else 'context'} {number}"
        draw.text((width + gap + 2, header / 2), label, colour, font, anchor="lm")
        if real[n] is not None:
            left = data.enlarge(real[n], scale, data.REAL_COLOUR)
            image.paste(Image.fromarray(left), (0, header))
        right = data.enlarge(shown[n], scale, colour)
        image.paste(Image.fromarray(right), (width + gap, header))
        pictures.append(np.asarray(image))
    return np.stack(pictures)


def error_map(truth, prediction):
    """Where predicted frames are wrong: orange if too bright, blue if too dark, else black.

    Args:
        truth, prediction: (frames, height, width, channels), uint8 or float in [0, 1].

    Returns:
        float64 array (frames, height, width, 3) in [0, 1]: RGB, as bright as the error is large.
    """
    error = data.to_float(prediction) - data.to_float(truth)
    error = error.mean(axis=-1, keepdims=True)  # (frames, height, width, 1)
    orange, blue = np.array([data.PREDICTED_COLOUR, TOO_DARK_COLOUR]) / 255
    return np.maximum(error, 0) * orange + np.maximum(-error, 0) * blue


def write_gif(path, pictures):
    """Write uint8 pictures (frames, height, width, 3) as a GIF that loops, and rests at its end."""
    images = [Image.fromarray(picture) for picture in pictures]
    durations = [1000 // FRAMES_PER_SECOND] * (len(images) - 1)  # milliseconds
    durations.append(int(1000 * REST))
    with atomic_write(path) as temporary:
        images[0].save(
            temporary, save_all=True, append_images=images[1:], duration=durations, loop=0
        )


def write_mp4(path, pictures):
    """Write uint8 pictures (frames, height, width, 3) as an H.264 video."""
    import imageio.v3 as imageio  # with its plugin av, an extra that most people do not need

    # Half of the players want even sizes: H.264 keeps colours at half the resolution.
    height, width = (side - side % 2 for side in pictures.shape[1:3])
    with atomic_write(path) as temporary:
        imageio.imwrite(
            temporary,
            pictures[:, :height, :width],
            plugin="pyav",
            codec="libx264",
            fps=FRAMES_PER_SECOND,
        )


# The page ---------------------------------------------------------------------------------


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
        context, truth, prediction: as for `side_by_side`.

    Returns:
        Three uint8 arrays (height + 4, frames * (width + 4), 3). Where the truth has ended,
        real frames and errors are black.
    """
    unknown = np.zeros((len(prediction) - len(truth), *context.shape[1:]))
    no_error = np.zeros_like(context)
    rows = [
        [*context, *truth, *unknown],
        [*context, *prediction],
        [*no_error, *error_map(truth, prediction[: len(truth)]), *unknown],
    ]
    pictures = []
    for row, colour in zip(rows, (data.REAL_COLOUR, data.PREDICTED_COLOUR, data.PREDICTED_COLOUR)):
        colours = [data.REAL_COLOUR] * len(context) + [colour] * len(prediction)
        tiles = [data.enlarge(frame, 1, colour) for frame, colour in zip(row, colours)]
        pictures.append(np.concatenate(tiles, axis=1))
    return pictures


def write_page(path, context, truth, prediction, gifs):
    """Write forecasts as one HTML file, `page.html` filled in; it needs no other file, nor network.

    Args:
        path: the file to write.
        context, truth, prediction: (videos, frames, height, width, channels), uint8 or float
            in [0, 1]; the truth may have fewer frames than the prediction.
        gifs: paths of the videos' animations.
    """
    scored, (height, width) = truth.shape[1], context.shape[2:4]
    clips, scores = [], []
    for video, gif in enumerate(gifs):
        shown = context[video], truth[video], prediction[video]
        scores.append(score_video(truth[video], prediction[video, :scored]))
        clips.append(
            {
                "name": gif.stem,
                "gif": data_url("gif", gif.read_bytes()),
                "still": png(side_by_side(*shown)[-1]),  # for who asked for less motion
                "strips": [png(strip) for strip in strips(*shown)],
                "mse": scores[-1][SCORES.index("mse")].tolist(),
            }
        )
    forecasts = {
        "context": context.shape[1],
        "horizon": prediction.shape[1],
        "shape": f"{width + 4} / {height + 4}",
        "clips": clips,
        "scores": None,
        "milliseconds": {"each": 1000 / FRAMES_PER_SECOND, "last": 1000 * REST},
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    if scored:
        copies = np.repeat(context[:, -1:], scored, axis=1)
        model = summary(np.mean(scores, axis=0))
        forecasts["scores"] = {"model": model, "copying": score(truth, copies)}
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = json.dumps(forecasts).replace("<", r"\u003c")  # a name must not end the script
    with atomic_write(path) as temporary:
        temporary.write_text(page.replace("FORECASTS", script), encoding="utf-8")


def main():
    def arguments(
        request: tyro.conf.OmitArgPrefixes[Request] = Request(data="validation", seed=0),
        format: Literal["gif", "mp4"] = "gif",
        page: bool = False,
    ):
        """Animate forecasts beside the real videos, and draw a film strip of them.

        Args:
            request: What to forecast.
            format: mp4 is smaller, and needs: pip install imageio av
            page: Write index.html as well: all of it on one page, frame by frame.
        """
        return request, format, page

    request, format, page = cli.parse(arguments)
    if format == "mp4" and not all(map(importlib.util.find_spec, ("imageio", "av"))):
        raise InputError("--format mp4 needs two more packages: pip install imageio av")
    if format == "mp4" and page:
        raise InputError("--page shows GIFs: leave --format mp4 out")
    context, truth, prediction, indices = forecast_request(request, usual_count=4)
    name = Path(request.data).stem
    write = {"gif": write_gif, "mp4": write_mp4}[format]
    animations = [request.out / f"{name}-{index:04d}.{format}" for index in indices]
    for video, path in enumerate(animations):
        write(path, side_by_side(context[video], truth[video], prediction[video]))
        print(path)
    path = request.out / f"{name}-film-strip.png"
    with atomic_write(path) as temporary:
        data.forecast_strip(context, truth, prediction).save(temporary)
    print(path)
    if page:
        path = request.out / "index.html"
        write_page(path, context, truth, prediction, animations)
        print(path)


if __name__ == "__main__":
    cli.run(main)
