"""Watch forecasts: animations of the real video beside the predicted one, and a film strip.

    python animate.py                         four random validation videos, shipped weights
    python animate.py runs/cpu --seed 7       a run of yours, other videos
    python animate.py --data test --count 10 --format mp4

Both sides show the same context first, framed in grey: it is all that the model sees. From
then on the right side, framed in orange, is the model's own forecast.
"""

import importlib.util
from pathlib import Path
from typing import Literal

import command_line
from command_line import InputError, written_whole

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

import data
from predict import Request, forecast_request

FRAMES_PER_SECOND = 5
PICTURE = 256  # pixels; about the size to which a frame is enlarged


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


def write_gif(path, pictures):
    """Write uint8 pictures (frames, height, width, 3) as a GIF that loops, and rests at its end."""
    images = [Image.fromarray(picture) for picture in pictures]
    durations = [1000 // FRAMES_PER_SECOND] * (len(images) - 1) + [1200]  # milliseconds
    with written_whole(path) as temporary:
        images[0].save(
            temporary, save_all=True, append_images=images[1:], duration=durations, loop=0
        )


def write_mp4(path, pictures):
    """Write uint8 pictures (frames, height, width, 3) as an H.264 video."""
    import imageio.v3 as imageio  # with its plugin av, an extra that most people do not need

    # Half of the players want even sizes: H.264 keeps colours at half the resolution.
    height, width = (side - side % 2 for side in pictures.shape[1:3])
    with written_whole(path) as temporary:
        imageio.imwrite(
            temporary,
            pictures[:, :height, :width],
            plugin="pyav",
            codec="libx264",
            fps=FRAMES_PER_SECOND,
        )


def main():
    def arguments(
        request: tyro.conf.OmitArgPrefixes[Request] = Request(data="validation", seed=0),
        format: Literal["gif", "mp4"] = "gif",
    ):
        """Animate forecasts beside the real videos, and draw a film strip of them.

        Args:
            request: What to forecast.
            format: mp4 is smaller, and needs: pip install imageio av
        """
        return request, format

    request, format = command_line.parse(arguments)
    if format == "mp4" and not all(map(importlib.util.find_spec, ("imageio", "av"))):
        raise InputError("--format mp4 needs two more packages: pip install imageio av")
    context, truth, prediction, indices = forecast_request(request, usual_count=4)
    name = Path(request.data).stem
    write = {"gif": write_gif, "mp4": write_mp4}[format]
    for video, index in enumerate(indices):
        path = request.out / f"{name}-{index:04d}.{format}"
        write(path, side_by_side(context[video], truth[video], prediction[video]))
        print(path)
    path = request.out / f"{name}-film-strip.png"
    with written_whole(path) as temporary:
        data.forecast_strip(context, truth, prediction).save(temporary)
    print(path)


if __name__ == "__main__":
    command_line.run(main)
