"""The record table: score models alike, and draw them beside each other.

    python benchmarks/records.py assets/forecaster.keras runs/tiny runs/keras-example

Every model is forecast on the first 1,000 test videos, ten frames in, ten out. So are the
forecasters once more with `--sprites 2`, and the last frame, copied. Of `keras-example` there is
one row more: what its teacher-forced pictures would score, each of which is made from the real
frames before it. Printed: a Markdown table. Written to `--out`:

    records.json            all scores of each predicted frame, and what each run was; those of
                            other models, if it is there already, are kept
    error-by-frame.png      squared error over the number of the predicted frame
    comparison.gif          the truth and each row side by side, for three videos

A few minutes for each model on two CPU cores.
"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extras import cli

import keras
import matplotlib.figure
import numpy as np
from PIL import Image, ImageDraw

import animate
import data
import model as models
import predict
from extras import pictures, runs, sprites

CONTEXT, HORIZON = 10, 10
SHOWN = 3  # videos in the animation
COPY = "copying the last frame"
YARDSTICKS = {  # squared error of frames 1 to 10 on the first 1,000 test videos
    "knowing the law of motion (tracks.py)": (
        5.6,
        7.6,
        8.8,
        10.2,
        11.1,
        12.0,
        13.2,
        14.6,
        15.7,
        16.5,
    ),
    "the least that is possible (floor.py)": (4.3, 5.8, 6.5, 7.6, 8.3, 9.1, 9.9, 10.9, 11.8, 12.4),
}


def copy_last(model, context, horizon):
    """The simplest forecast: the last frame of the context, again and again."""
    return np.repeat(context[:, -1:], horizon, axis=1)


def teacher_forced(model, videos, count):
    """No forecasts: each frame from the real frames before it, as the Keras site's pictures are."""
    for indices in np.array_split(np.arange(count), -(-count // 50)):
        batch = videos[indices]
        predictions = model(data.to_float(batch)[:, :-1])  # (batch, frames - 1, 64, 64, 1)
        yield batch, keras.ops.convert_to_numpy(predictions)[:, CONTEXT - 1 :]


def rows_of(path, videos, count):
    """Dict: the name of a row -> its (batch, predictions), as from `model.rollout_batches`."""

    def rolled_out(model, rollout):
        indices = np.arange(count)
        return models.rollout_batches(
            model, videos, indices, CONTEXT, HORIZON, verbose=1, rollout=rollout
        )

    if path == COPY:
        return {COPY: rolled_out(None, copy_last)}
    model, name = runs.load_model(path), path.stem
    rows = {name: rolled_out(model, models.rollout)}
    if isinstance(model, models.KerasExample):
        rows[f"{name}, teacher-forced: no forecasts"] = teacher_forced(model, videos, count)
    else:
        rollout = functools.partial(sprites.rollout, count=2)
        rows[f"{name} --sprites 2"] = rolled_out(model, rollout)
    return rows


def score(parts):
    """Score forecasts.

    Args:
        parts: (batch, predictions), again and again.

    Returns:
        scores: as from `predict.score`.
        shown: the first few forecasts, (SHOWN, frames, height, width, channels).
    """
    scores, shown = [], []
    for batch, predictions in parts:
        for video, prediction in zip(batch, predictions):
            scores.append(predict.score_video(video[CONTEXT:], prediction))
            if len(shown) < SHOWN:
                shown.append(pictures.to_uint8(prediction))
    return predict.summary(np.mean(scores, axis=0)), np.stack(shown)


def describe(path):
    """What a model is, and what its run was if it is a run's folder: a dict."""
    known = {} if path == COPY else {"parameters": runs.load_model(path).count_params()}
    if path != COPY and path.is_dir():
        starts = runs.read_json(path / "environment.json", list)
        rows = runs.read_log(path, runs.read_config(path)["epochs"])
        known |= {
            "command": starts[0]["command"],
            "commit": starts[0]["commit"],
            "backend": starts[-1]["backend"],
            "videos": int(rows[-1]["videos"]),
            "minutes": round(sum(float(row["seconds"]) for row in rows) / 60, 1),
        }
    return known


def draw_errors(records, path):
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    frames = np.arange(1, HORIZON + 1)
    for name, record in records.items():
        style = {"color": "grey", "linestyle": ":"} if name == COPY else {"marker": "."}
        axes.plot(frames, record["mse"], label=f"{name}: {record['mean']['mse']:.1f}", **style)
    for (name, errors), line in zip(YARDSTICKS.items(), ("--", "-")):
        label = f"{name}: {np.mean(errors):.1f}"
        axes.plot(frames, errors, color="black", linestyle=line, label=label)
    axes.set(xlabel="predicted frame", ylabel="squared error, summed over pixels", xticks=frames)
    axes.set(ylim=(0, None), title="Ten frames in, ten out: 1,000 test videos, and the mean")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)


def draw_comparison(videos, forecasts, path):
    """A GIF: a column for the truth and for each row, a row for each video."""
    truth = videos[np.arange(SHOWN)]  # (SHOWN, frames, 64, 64, 1)
    columns = {"real": truth}
    columns |= {n: np.concatenate([truth[:, :CONTEXT], f], axis=1) for n, f in forecasts.items()}
    side, header, font = 2 * 64 + 4, 22, pictures.font(10)
    frames = []
    for n in range(CONTEXT + HORIZON):
        image = Image.new("RGB", (len(columns) * (side + 4), header + SHOWN * (side + 4)), "white")
        draw = ImageDraw.Draw(image)
        for c, (name, column) in enumerate(columns.items()):
            is_forecast = name != "real" and n >= CONTEXT
            colour = pictures.PREDICTED_COLOUR if is_forecast else pictures.REAL_COLOUR
            place = c * (side + 4)
            draw.text((place + side / 2, header / 2), name.split(":")[0], colour, font, anchor="mm")
            for r, video in enumerate(column):
                tile = Image.fromarray(pictures.enlarge(video[n], 2, colour))
                image.paste(tile, (place, header + r * (side + 4)))
        frames.append(np.asarray(image))
    animate.write_gif(path, frames)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    arguments = parser.parse_args()
    cli.make_folder(arguments.out)
    videos = data.EvaluationVideos("test", frames=CONTEXT + HORIZON)
    path = arguments.out / "records.json"
    records, forecasts = runs.read_json(path, dict) if path.exists() else {}, {}
    records.pop(COPY, None)  # it comes last
    for model in [*arguments.models, COPY]:
        known = describe(model)
        for name, parts in rows_of(model, videos, arguments.count).items():
            print(name)
            scores, forecasts[name] = score(parts)
            records[name] = known | scores
            runs.write_json(path, records)
    with cli.atomic_write(arguments.out / "error-by-frame.png") as picture:
        draw_errors(records, picture)
    draw_comparison(videos, forecasts, arguments.out / "comparison.gif")

    print(
        "| Model | Parameters | Videos | Minutes | MSE | MAE | PSNR | SSIM | MSE of frames 1 to 10 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, record in records.items():
        mean = record["mean"]
        ssim = f"{mean['ssim']:.3f} ({mean['ssim_range2']:.3f})"
        known = [
            f"{record.get(k, ''):,}" if record.get(k) else "" for k in ("parameters", "videos")
        ]
        of_frames = " ".join(f"{error:.0f}" for error in record["mse"])
        print(f"| {name} | {' | '.join(known)} | {record.get('minutes', '')} | {mean['mse']:.1f} "
              f"| {mean['mae']:.1f} | {mean['psnr']:.2f} | {ssim} | {of_frames} |")  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
