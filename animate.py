"""Watch forecasts: animations of the real video beside the predicted one, and a film strip.

    python animate.py                         four validation videos, shipped weights
    python animate.py --sprites 2             the same, each frame taken apart into two sprites
    python animate.py runs/cpu --seed 7       a run of yours, other videos
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
    format: Literal["gif", "mp4"] = "gif"
    """mp4 is smaller."""
    page: bool = False
    """Write index.html as well: all of it on one page, frame by frame."""


def side_by_side(context, truth, prediction, words=("real", "context", "predicted")):
    """One video's frames as pictures: the real video at the left, the predicted at the right.

    Args:
        context, truth, prediction: (frames, height, width, channels), uint8 or float in [0, 1].
            Where the truth has ended, the left side is blank.
        words: what stands above them; the Spanish notebook has others.

    Returns:
        uint8 array (context + predicted frames, picture height, picture width, 3).
    """
    context_frames, horizon = len(context), len(prediction)
    real = [*context, *truth] + [None] * (horizon - len(truth))
    shown = [*context, *prediction]
    scale = max(1, PICTURE // max(context.shape[1:3]))
    height, width = pictures.enlarge(context[0], scale, pictures.REAL_COLOUR).shape[:2]
    header, gap = 28, 8
    font = pictures.font(15)

    frames = []
    for n in range(context_frames + horizon):
        predicted = n >= context_frames
        colour = pictures.PREDICTED_COLOUR if predicted else pictures.REAL_COLOUR
        number = f"{n - context_frames + 1}/{horizon}" if predicted else f"{n + 1}/{context_frames}"
        image = Image.new("RGB", (2 * width + gap, header + height), "white")
        draw = ImageDraw.Draw(image)
        draw.text((2, header / 2), words[0], pictures.REAL_COLOUR, font, anchor="lm")
        label = f"{words[2] if predicted else words[1]} {number}"
        draw.text((width + gap + 2, header / 2), label, colour, font, anchor="lm")
        if real[n] is not None:
            left = pictures.enlarge(real[n], scale, pictures.REAL_COLOUR)
            image.paste(Image.fromarray(left), (0, header))
        right = pictures.enlarge(shown[n], scale, colour)
        image.paste(Image.fromarray(right), (width + gap, header))
        frames.append(np.asarray(image))
    return np.stack(frames)


def write_gif(path, frames):
    """Write uint8 pictures (frames, height, width, 3) as a GIF that loops, and rests at its end."""
    # One palette for all frames, and no dithering: what stands still must not flicker.
    tall = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    tall = tall.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    frames = np.asarray(tall.convert("RGB")).reshape(frames.shape)
    durations = [1000 // FRAMES_PER_SECOND] * (len(frames) - 1)  # milliseconds
    durations.append(int(1000 * REST))
    with atomic_write(path) as temporary:
        imageio.imwrite(temporary, frames, plugin="pillow", duration=durations, loop=0)


def write_mp4(path, frames):
    """Write uint8 pictures (frames, height, width, 3) as an H.264 video."""
    # H.264 keeps colours at half the resolution, so many players need even sizes.
    height, width = (side - side % 2 for side in frames.shape[1:3])
    with atomic_write(path) as temporary:
        imageio.imwrite(
            temporary,
            frames[:, :height, :width],
            plugin="pyav",
            codec="libx264",
            fps=FRAMES_PER_SECOND,
        )


def animate(request, model, config, format="gif", with_page=False):
    """Forecast what a `Request` names, and draw it.

    Args:
        request, model: a `predict.Request`, and its model.
        config: the `train.Config` of the model.
        format: "gif" or "mp4".
        with_page: write index.html, too, which shows GIFs.

    Returns:
        Paths of the animations.
    """
    request, videos, _, indices = predict.open_request(request, config, usual_count=4)
    parts = zip(*predict.forecast(model, videos, indices, request))
    context, truth, prediction = (np.concatenate(part) for part in parts)
    model_path = Path(request.model)
    if model_path.name in ("best.keras", "last.keras"):
        model_path = model_path.parent  # a run's weights go by the name of its folder
    sprites = f"-sprites-{request.sprites}" if request.sprites else ""
    name = f"{short_name(model_path)}{sprites}-{short_name(request.data)}"
    write = {"gif": write_gif, "mp4": write_mp4}[format]
    outputs = [request.out / f"{name}-{index:04d}.{format}" for index in indices]
    for path in outputs:
        cli.refuse_input(path, request.data, request.model)
    stills = []
    for path, *video in zip(outputs, context, truth, prediction):
        frames = side_by_side(*video)
        stills.append(frames[-1])
        write(path, frames)
        print(path)
    path = request.out / f"{name}-film-strip.png"
    with atomic_write(path) as temporary:
        pictures.forecast_strip(context, truth, prediction).save(temporary)
    print(path)
    if with_page:
        path = request.out / "index.html"
        milliseconds = {"each": 1000 / FRAMES_PER_SECOND, "last": 1000 * REST}
        page.write_page(
            path, context, truth, prediction, outputs, stills, predict.score, milliseconds
        )
        print(path)
    return outputs


def short_name(path):
    """The last part of a path, without our own endings, cut to what fits into a file's name."""
    name = Path(path).name.removesuffix(".keras").removesuffix(".npy")
    return name.encode()[:60].decode(errors="ignore")


def main():
    arguments = tyro.cli(
        Arguments, description=__doc__.split("\n\n")[0], config=(tyro.conf.OmitArgPrefixes,)
    )
    request = arguments.request
    if arguments.format == "mp4" and arguments.page:
        raise InputError("--page shows GIFs: leave --format mp4 out")
    cli.make_folder(request.out)
    model, config = runs.load_model(request.model), predict.config_of(request.model)
    animate(request, model, config, arguments.format, arguments.page)


if __name__ == "__main__":
    cli.run(main)
