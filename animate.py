"""Watch forecasts: animations of the real video beside the predicted one, and a film strip.

    python animate.py                         four validation videos, shipped weights
    python animate.py --sprites 2             the same, each frame taken apart into two sprites
    python animate.py runs/cpu --seed 7       a run of yours, other videos
    python animate.py runs/cpu --beside runs/tiny       two models beside each other
    python animate.py --data test --count 10 --format mp4
    python animate.py --page                  and a page with a frame slider: outputs/index.html

Both sides show the same context first, framed in grey: it is all that the model sees. From then on
the right side, framed in orange, is the model's own forecast.
"""

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import dataclasses
from pathlib import Path
from typing import Literal

import imageio.v3 as imageio
import numpy as np
import tyro
from PIL import Image, ImageDraw

import predict
from extras import cli, page, pictures, runs
from extras.cli import InputError, atomic_write

FRAMES_PER_SECOND = 5
REST = 1.2  # seconds for which an animation rests at its end
PICTURE = 256  # pixels; about the size to which a frame is enlarged


@dataclasses.dataclass
class Arguments:
    request: predict.Request = dataclasses.field(
        default_factory=lambda: predict.Request(data="validation", seed=0)
    )
    """What to forecast."""
    beside: tuple[Path, ...] = ()
    """Other models, whose forecasts of the same videos stand at the right."""
    format: Literal["gif", "mp4"] = "gif"
    """mp4 is smaller."""
    page: bool = False
    """Write index.html as well: all of it on one page, frame by frame."""


def side_by_side(context, truth, predictions, words=("real", "context")):
    """One video's frames as pictures: the real video at the left, forecasts at its right.

    Args:
        context, truth: (frames, height, width, channels), uint8 or float in [0, 1]. Where the truth
            has ended, the left side is blank.
        predictions: one or more, by the name that stands above each; shaped as the truth.
        words: what stands above the real frames and the context; the Spanish notebook has others.

    Returns:
        uint8 array (context + predicted frames, picture height, picture width, 3).
    """
    context_frames, horizon = len(context), len(next(iter(predictions.values())))
    real = [*context, *truth] + [None] * (horizon - len(truth))
    scale = max(1, PICTURE // max(context.shape[1:3]))
    height, width = pictures.enlarge(context[0], scale, pictures.REAL_COLOUR).shape[:2]
    header, gap = 28, 8
    font = pictures.font(15)

    frames = []
    for n in range(context_frames + horizon):
        step = n - context_frames  # of the forecast, from 0
        columns = [(words[0], real[n], pictures.REAL_COLOUR)]  # a label, a frame, its colour
        for name, prediction in predictions.items():
            if step < 0:
                label = f"{words[1]} {n + 1}/{context_frames}"
                columns.append((label, context[n], pictures.REAL_COLOUR))
            else:
                label = f"{name[:24]} {step + 1}/{horizon}"
                columns.append((label, prediction[step], pictures.PREDICTED_COLOUR))
        image = Image.new("RGB", (len(columns) * (width + gap) - gap, header + height), "white")
        draw = ImageDraw.Draw(image)
        for column, (label, frame, colour) in enumerate(columns):
            left = column * (width + gap)
            draw.text((left + 2, header / 2), label, colour, font, anchor="lm")
            if frame is not None:
                picture = pictures.enlarge(frame, scale, colour)
                image.paste(Image.fromarray(picture), (left, header))
        frames.append(np.asarray(image))
    return np.stack(frames)


def write_gif(path, frames):
    """Write uint8 pictures (frames, height, width, 3) as a GIF that loops, and rests at its end."""
    # One palette for all frames, made without dithering: what stands still must not flicker.
    tall = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    tall = tall.quantize(256, Image.Quantize.MEDIANCUT)
    frames = np.asarray(tall.convert("RGB")).reshape(frames.shape)
    durations = [1000 // FRAMES_PER_SECOND] * (len(frames) - 1)  # milliseconds
    durations.append(int(1000 * REST))
    write_bytes(path, frames, plugin="pillow", duration=durations, loop=0)


def write_mp4(path, frames):
    """Write uint8 pictures (frames, height, width, 3) as an H.264 video."""
    # H.264 keeps colours at half the resolution, so many players need even sizes.
    height, width = (side - side % 2 for side in frames.shape[1:3])
    frames = frames[:, :height, :width]
    write_bytes(path, frames, plugin="pyav", codec="libx264", fps=FRAMES_PER_SECOND)


def write_bytes(path, frames, **options):
    """Write what imageio makes of frames; in memory first, for a full disk ends libraries badly."""
    content = imageio.imwrite("<bytes>", frames, extension=path.suffix, **options)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def animate(request, models, config, format="gif", with_page=False):
    """Forecast what a `Request` names, and draw it.

    Args:
        request: a `predict.Request`.
        models: its model, and others to stand beside it: path -> model.
        config: the `train.Config` of its model.
        format: "gif" or "mp4".
        with_page: write index.html, too, which shows the GIFs of a single model.

    Returns:
        Paths of the animations.
    """
    request, videos, _, indices = predict.open_request(request, config, usual_count=4)
    sprites = f"-sprites-{request.sprites}" if request.sprites else ""
    place = "-from-end" if request.from_end else ""
    names = "-and-".join(map(model_name, models))
    name = f"{names}{sprites}-{short_name(request.data)}{place}"
    write = {"gif": write_gif, "mp4": write_mp4}[format]
    outputs = [request.out / f"{name}-{index:04d}.{format}" for index in indices]
    strip, html = request.out / f"{name}-film-strip.png", request.out / "index.html"
    for path in (*outputs, strip, *[html] * with_page):
        cli.refuse_input(path, request.data, config.data, *models)
    context, truth = np.split(videos[indices], [request.context], axis=1)
    for model in models.values():
        model.check_channels(context.shape[-1])
    cli.make_folder(request.out)  # last, so that what is refused leaves none
    predictions = {}  # name -> (videos, horizon, height, width, channels)
    for path, model in models.items():
        of_model = dataclasses.replace(request, model=path)
        parts = predict.forecast(model, videos, indices, of_model)
        label = model_name(path) if len(models) > 1 else "predicted"
        predictions[label] = np.concatenate([prediction for *_, prediction in parts])
    stills = []
    for n, path in enumerate(outputs):
        of_video = {label: prediction[n] for label, prediction in predictions.items()}
        frames = side_by_side(context[n], truth[n], of_video)
        stills.append(frames[-1])
        write(path, frames)
    with atomic_write(strip) as temporary:
        pictures.forecast_strip(context, truth, predictions).save(temporary)
    if with_page:
        milliseconds = {"each": 1000 / FRAMES_PER_SECOND, "last": 1000 * REST}
        (prediction,) = predictions.values()
        page.write_page(
            html, context, truth, prediction, outputs, stills, predict.score, milliseconds
        )
    # Once all is written: a print fails if its reader has gone.
    cli.say(*outputs, strip, *[html] * with_page)
    return outputs


def model_name(path):
    """What a model is called: a run's weights go by the name of its folder."""
    return short_name(path.parent if path.name in ("best.keras", "last.keras") else path)


def short_name(path):
    """The last part of a path, without our own endings, as text that fits into a file's name."""
    name = cli.visible(Path(path).absolute().name)  # "." has no name
    for ending in (".keras", ".npy", ".prepared"):
        name = name.removesuffix(ending)
    return name.encode()[:60].decode(errors="ignore")


def main():
    arguments = tyro.cli(
        Arguments, description=__doc__.split("\n\n")[0], config=(tyro.conf.OmitArgPrefixes,)
    )
    request = arguments.request
    paths = [request.model, *arguments.beside]
    if arguments.page and (arguments.format == "mp4" or arguments.beside):
        raise InputError("--page shows GIFs of one model: leave --format mp4 and --beside out")
    if len(set(map(model_name, paths))) < len(paths):
        raise InputError("--beside: name other models, in folders of other names")
    models = {path: runs.load_model(path) for path in paths}
    config = predict.config_of(request.model)
    animate(request, models, config, arguments.format, arguments.page)


if __name__ == "__main__":
    cli.run(main)
