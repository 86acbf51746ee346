"""The record table: score runs in the same way, and draw them beside each other.

    python benchmarks/records.py runs/cpu runs/tiny-0 runs/tiny-1

Every run is forecast on the first 1,000 test videos, ten frames in, ten out; so is copying
the last frame. Printed: a Markdown table. Written to `--out`:

    records.json            all scores of each predicted frame, and what each run was; those of
                            other runs, if it is there already, are kept
    error-by-frame.png      squared error over the number of the predicted frame
    comparison.gif          the truth, each run and the copy side by side, for three videos

Half an hour for four runs on two CPU cores.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extras import cli

import matplotlib.figure
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import animate
import data
import predict
import train

CONTEXT, HORIZON = 10, 10
SHOWN = 3  # videos in the animation
COPY = "copying the last frame"
# Somebody who knows the digits and all nine displacements; printed by known_motion.py.
FLOOR = (6.8, 8.7, 10.8, 11.9, 13.1, 14.4, 15.5, 16.0, 17.0, 17.6)


def forecast(run, videos, count):
    """Score a run's forecasts, or the copy's.

    Returns:
        scores: (names in predict.SCORES, frames), means over videos.
        shown: the first few forecasts, (SHOWN, frames, height, width, channels).
    """
    if run == COPY:
        parts = ((v, np.repeat(v[:, CONTEXT - 1 : CONTEXT], HORIZON, axis=1))
                 for v in (videos[[n]] for n in range(count)))  # fmt: skip
    else:
        model = train.load_model(run)
        parts = train.forecasts(model, videos, np.arange(count), CONTEXT, HORIZON, verbose=1)
    scores, shown = [], []
    for some, predictions in parts:
        for video, prediction in zip(some, predictions):
            scores.append(predict.score_video(video[CONTEXT:], prediction))
            if len(shown) < SHOWN:
                shown.append(pictures.to_uint8(prediction))
    return np.mean(scores, axis=0), np.stack(shown)


def describe(run):
    """What a run was: a dict of its size, training and machine."""
    config = train.read_config(run)
    starts = train.read_json(run / "environment.json", list)
    rows = train.read_log(run, config.epochs)
    return {
        "command": starts[0]["command"],
        "commit": starts[0]["commit"],
        "backend": starts[-1]["backend"],
        "parameters": train.build_model(config).count_params(),
        "videos": int(rows[-1]["videos"]),
        "minutes": round(sum(float(row["seconds"]) for row in rows) / 60, 1),
        "validation_mse": float(min(rows, key=lambda row: float(row["val_mse"]))["val_mse"]),
    }


def draw_errors(records, path):
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    frames = np.arange(1, HORIZON + 1)
    for name, record in records.items():
        style = {"color": "grey", "linestyle": ":"} if name == COPY else {"marker": "."}
        axes.plot(frames, record["mse"], label=f"{name}: {record['mean']['mse']:.1f}", **style)
    label = f"knowing the digits and their motion: {np.mean(FLOOR):.1f}"
    axes.plot(frames, FLOOR, color="black", linestyle="--", label=label)
    axes.set(xlabel="predicted frame", ylabel="squared error, summed over pixels", xticks=frames)
    axes.set(ylim=(0, None), title="Ten frames in, ten out: 1,000 test videos, and the mean")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)


def draw_comparison(videos, forecasts, path):
    """A GIF: a column for the truth and for each forecast, a row for each video."""
    truth = videos[np.arange(SHOWN)]  # (SHOWN, frames, 64, 64, 1)
    context = truth[:, :CONTEXT]
    columns = {"real": truth}
    columns |= {name: np.concatenate([context, f], axis=1) for name, f in forecasts.items()}
    font = ImageFont.load_default(size=12)
    side, header = 2 * 64 + 4, 22
    pictures = []
    for n in range(CONTEXT + HORIZON):
        image = Image.new("RGB", (len(columns) * (side + 4), header + SHOWN * (side + 4)), "white")
        draw = ImageDraw.Draw(image)
        for c, (name, column) in enumerate(columns.items()):
            is_forecast = name != "real" and n >= CONTEXT
            colour = data.PREDICTED_COLOUR if is_forecast else data.REAL_COLOUR
            place = c * (side + 4)
            draw.text((place + side / 2, header / 2), name, colour, font, anchor="mm")
            for r, video in enumerate(column):
                tile = Image.fromarray(data.enlarge(video[n], 2, colour))
                image.paste(tile, (place, header + r * (side + 4)))
        pictures.append(np.asarray(image))
    animate.write_gif(path, pictures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    arguments = parser.parse_args()
    cli.make_folder(arguments.out)
    videos = data.open_videos("test", CONTEXT + HORIZON)
    path = arguments.out / "records.json"
    records, forecasts = train.read_json(path, dict) if path.exists() else {}, {}
    records.pop(COPY, None)  # it comes last
    for run in [*arguments.runs, COPY]:
        name = run if run == COPY else run.name
        print(name)
        scores, forecasts[name] = forecast(run, videos, arguments.count)
        records[name] = {**({} if run == COPY else describe(run)), **predict.summary(scores)}
    train.write_json(path, records)
    with cli.atomic_write(arguments.out / "error-by-frame.png") as picture:
        draw_errors(records, picture)
    draw_comparison(videos, forecasts, arguments.out / "comparison.gif")

    print(
        "| Run | Parameters | Videos | Minutes | MSE | MAE | PSNR | SSIM | MSE of frames 1 to 10 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, record in records.items():
        mean = record["mean"]
        ssim = f"{mean['ssim']:.3f} ({mean['ssim_range2']:.3f})"
        known = [
            f"{record[k]:,}" if k in record else "" for k in ("parameters", "videos", "minutes")
        ]
        of_frames = " ".join(f"{error:.0f}" for error in record["mse"])
        print(f"| {name} | {' | '.join(known)} | {mean['mse']:.1f} | {mean['mae']:.1f} "
              f"| {mean['psnr']:.2f} | {ssim} | {of_frames} |")  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
