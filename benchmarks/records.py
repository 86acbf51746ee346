"""The record table: score models and yardsticks alike, and draw them beside each other.

    python benchmarks/records.py copying tracks floor forecaster=assets/forecaster.keras
    python benchmarks/records.py keras-example=runs/keras-example --out outputs

A row is NAME=PATH, a run folder or a .keras file, or a yardstick: `copying` the last frame,
`tracks` (tracks.py) or `floor` (floor.py). Each forecasts the first 1,000 test videos, ten frames
in, ten out. A forecaster gets a second row, with `--sprites 2`. So does a `keras-example`: what
its teacher-forced pictures would score, each made from the real frames before it. Models of any
precision are scored in float32.

Takes minutes for each row on two CPU cores. Prints a Markdown table of all rows in records.json,
with the standard error of the MSE over videos. Writes to the folder `--out`:

    records.json            all scores of each predicted frame, and what each run was; rows of
                            earlier calls are kept
    NAME.csv                the log of each run
    error-by-frame.png      squared error over the number of the predicted frame, of all rows
    comparison.gif          the truth and the rows of this call below each other, for six videos
"""

import dataclasses
import functools
import re
import shutil
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import floor
import matplotlib
import matplotlib.figure
import numpy as np
import tracks
import tyro

import animate
import data
import model as models
import predict
from extras import cli, pictures, runs
from extras.cli import InputError
from method import sprites

CONTEXT, HORIZON = floor.CONTEXT, floor.HORIZON
SHOWN = 6  # videos in the animation
YARDSTICKS = {  # how each is drawn
    "copying": {"color": "grey", "linestyle": ":"},
    "tracks": {"color": "black", "linestyle": "--"},
    "floor": {"color": "black", "linestyle": "-"},
}
COLUMNS = (
    "Model", "Parameters", "Training videos", "Minutes", "Processor", "MSE", "MAE", "PSNR", "SSIM",
    "SSIM (range 2)", "MSE of frames 1 to 10", "Commit", "Log",
)  # fmt: skip


@dataclasses.dataclass
class Arguments:
    """What to score."""

    rows: tyro.conf.Positional[tuple[str, ...]]
    """NAME=PATH, a run folder or a .keras file; or copying, tracks, floor."""
    count: int = 1000
    """Test videos."""
    out: Path = Path("outputs")
    """Folder to write to."""


# Forecasts --------------------------------------------------------------------------------------


def teacher_forced(model, frames, horizon):
    """No forecast: each frame from the real frames before it, as in the Keras site's pictures."""
    return model.predict_on_batch(frames)[:, -horizon:]


def in_float32(model):
    """A model with the same weights that computes in float32."""
    copy = type(model)(dataclasses.replace(model.architecture, precision="float32"))
    copy.build()
    copy.set_weights(model.get_weights())
    return copy


def forecasts(name, model, videos, indices):
    """What to score: a dict, name of a row -> (videos, predictions), a batch at a time.

    Args:
        name: a yardstick's, or the model's.
        model: None for a yardstick.
        videos: to be indexed by an array of numbers.
        indices: which of them.
    """

    def rollouts(forecast, context=CONTEXT):
        for batch in data.batches(videos, indices, HORIZON, verbose=1):
            yield batch, forecast(data.to_float(batch[:, :context]), HORIZON)

    if name == "copying":
        return {name: rollouts(data.copy_last)}
    if name == "tracks":
        return {name: rollouts(functools.partial(tracks.forecast, tracks.train_network()))}
    if name == "floor":
        means = zip(indices, floor.forecasts(videos, indices))
        return {name: ((videos[[index]], frames[None]) for index, (frames, _) in means)}
    model = in_float32(model)
    rollout = functools.partial(models.rollout, model)
    rows = {name: rollouts(rollout)}
    if isinstance(model, models.KerasExample):
        forced = functools.partial(teacher_forced, model)
        rows[f"{name}, teacher-forced"] = rollouts(forced, context=CONTEXT + HORIZON - 1)
    else:
        in_sprites = functools.partial(sprites.rollout, rollout, count=2)
        rows[f"{name}, 2 sprites"] = rollouts(in_sprites)
    return rows


def score(parts):
    """Score what `forecasts` returns for a row.

    Returns:
        scores: as from `predict.score`, and the standard error of the MSE over videos.
        shown: the first few predictions, uint8 (SHOWN, HORIZON, height, width, channels).
    """
    scores, shown = [], []
    for batch, predictions in parts:
        for video, prediction in zip(batch, predictions):
            scores.append(predict.score_video(video[CONTEXT:], prediction))
            if len(shown) < SHOWN:
                shown.append(pictures.to_uint8(prediction))
    scores = np.array(scores)  # (videos, names in SCORES, HORIZON)
    mse_error = floor.standard_error(scores[:, predict.SCORES.index("mse")])
    return predict.mean_over_videos(scores) | {"mse_standard_error": mse_error}, shown


def describe(name, path, model, out):
    """What a model is, and what its run was: a dict. Copies the run's log to the folder `out`."""
    known = {"parameters": model.count_params(), "precision": model.architecture.precision}
    folder = predict.run_of(path)
    if not (folder / "environment.json").exists():
        return known
    first, *_, last = 2 * runs.read_json(folder / "environment.json", list)
    log = runs.read_log(folder)
    shutil.copyfile(folder / "log.csv", out / f"{name}.csv")
    return known | {
        "command": re.sub(r" --run ('[^']*'|\S+)", "", first["command"]),
        "commit": first["commit"],
        "backend": last["backend"],
        "processor": f"{', '.join(last['devices'])} ({last['cpus']} CPUs)",
        "videos": int(log[-1]["videos"]),
        "minutes": round(sum(float(row["seconds"]) for row in log) / 60, 1),
        "log": f"{name}.csv",
    }


# What is written --------------------------------------------------------------------------------


def draw_errors(records, count, path):
    # The legend has two rows a line.
    figure = matplotlib.figure.Figure(figsize=(8, 4 + len(records) / 11), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
    frames = np.arange(1, HORIZON + 1)
    for name, record in records.items():
        label = f"{name}: {record['mean']['mse']:.1f}"
        axes.plot(frames, record["mse"], label=label, **YARDSTICKS.get(name, {"marker": "."}))
    axes.set(xlabel="predicted frame", ylabel="squared error of a frame", xticks=frames)
    axes.set(ylim=(0, None), title=f"Ten frames in, ten out: {count:,} test videos, and the mean")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    with cli.atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_comparison(truth, shown, path):
    """A GIF of the truth and of each row: uint8 (SHOWN, frames, height, width, channels) each."""
    pictures_of_frames = []
    for n in range(CONTEXT + HORIZON):
        rows = [[(video[n], pictures.REAL_COLOUR) for video in truth]]
        for predictions in shown.values():
            predicted = [(video[n - CONTEXT], pictures.PREDICTED_COLOUR) for video in predictions]
            rows.append(predicted if n >= CONTEXT else rows[0])
        labels = [textwrap.fill(name, 11) for name in ("real", *shown)]
        pictures_of_frames.append(np.asarray(pictures.film_strip(rows, labels)))
    animate.write_gif(path, np.stack(pictures_of_frames))


def print_table(records):
    """Print a Markdown table."""
    print(f"| {' | '.join(COLUMNS)} |\n{len(COLUMNS) * '|---'}|")
    for name, record in records.items():
        mean = record["mean"]
        cells = [
            name,
            *(f"{record[key]:,}" if key in record else "" for key in ("parameters", "videos")),
            *(str(record.get(key, "")) for key in ("minutes", "processor")),
            f"{mean['mse']:.1f} ± {record['mse_standard_error']:.1f}",
            *(f"{mean[key]:.{digits}f}" for key, digits in (("mae", 1), ("psnr", 2))),
            *(f"{mean[key]:.3f}" for key in ("ssim", "ssim_range2")),
            " ".join(f"{error:.0f}" for error in record["mse"]),
            re.sub(r"^(\w{7})\w*", r"`\1`", record.get("commit", "")),  # "-dirty" may follow
            f"[log]({record['log']})" if "log" in record else "",
        ]
        print(f"| {' | '.join(cells)} |")


def main():
    arguments = tyro.cli(Arguments, description=__doc__.split("\n\n")[0])
    rows = [row.partition("=") for row in arguments.rows]
    names = [name for name, *_ in rows]
    for name, _, path in rows:
        if bool(path) == (name in YARDSTICKS) or not re.fullmatch(r"[\w.-]+", name):
            raise InputError(
                f"{name}: must be NAME=PATH, the name without blanks, or one of "
                f"{', '.join(YARDSTICKS)}"
            )
        if names.count(name) > 1:
            raise InputError(f"{name}: name each row differently")
    cli.make_folder(arguments.out)
    videos = data.EvaluationVideos("test")
    indices = predict.choose_indices(len(videos), arguments.count)
    records_path = arguments.out / "records.json"
    records = runs.read_json(records_path, dict) if records_path.exists() else {}
    if any(record.get("count") != arguments.count for record in records.values()):
        raise InputError(
            f"{records_path} has rows of another --count: name another folder by --out"
        )

    here, shown = runs.environment(), {}
    loaded = {name: runs.load_model(path) if path else None for name, _, path in rows}
    for name, _, path in rows:
        model = loaded[name]
        known = describe(name, Path(path), model, arguments.out) if path else {}
        known |= {"count": arguments.count, "scored_by": here["commit"], "on": here["backend"]}
        for row, parts in forecasts(name, model, videos, indices).items():
            print(row)
            scores, shown[row] = score(parts)
            records[row] = known | scores
            runs.write_json(records_path, records)  # before anything else can go wrong
    draw_errors(records, arguments.count, arguments.out / "error-by-frame.png")
    draw_comparison(videos[indices[:SHOWN]], shown, arguments.out / "comparison.gif")
    print_table(records)
    print(f"written to {arguments.out}: records.json, error-by-frame.png, comparison.gif, the logs")


if __name__ == "__main__":
    cli.run(main)
