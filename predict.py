"""Forecast the next ten frames of videos from their first ten, and score the forecasts.

    python predict.py                              the shipped weights on 100 test videos
    python predict.py --sprites 2                  the same, each frame taken apart into two sprites
    python predict.py runs/cpu --count 1000        a run of yours
    python predict.py --data validation --horizon 20
    python predict.py --data official              all of the official test file, as papers do
    python predict.py runs/clips --data film       your own clips, from prepare.py
    python predict.py runs/clips --data film --from-end     what comes after each of them

After the context the model sees nothing but its own predictions; the real frames are used for
scores alone. Written to the output folder:

    predictions.npz   context, truth: as the data has them, uint8 in 0..255 or floats; prediction:
                      float32 in [0, 1]; all three (videos, frames, height, width, channels). Of
                      data that was prepared with --range all are in its unit, and range says what
                      black and white are there. indices: which videos they are.
    scores.json       a list that each call that scores adds an entry to, the newest last: what was
                      forecast, when and by which command, each score for each predicted frame,
                      and the means; the same for copying the last frame of the context

Scores, per predicted frame and averaged over videos, of frames in [0, 1]:

    mse, mae          squared and absolute error, summed over the pixels of a frame (in colour over
                      the channels, too), though called a mean, as in papers
    psnr              the squared error in dB: more is better, 100 is perfect
    ssim              similarity of structure: 1 is perfect; scikit-image's 7x7 window, data_range=1
    ssim_range2       the same with data_range=2: what papers on Moving MNIST report, since
                      scikit-image assumed that range for floats
"""

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import tyro
from skimage.metrics import structural_similarity

import data
import model as models
import train
from extras import cli, clips, runs
from extras.cli import InputError
from method import sprites

SCORES = ("mse", "mae", "psnr", "ssim", "ssim_range2")

Frames = Annotated[int, pydantic.Field(ge=1, le=1000)]


@pydantic.dataclasses.dataclass(frozen=True)
class Request:
    """What to forecast."""

    model: tyro.conf.Positional[Path] = runs.SHIPPED
    """A run folder or a .keras file; left out: the shipped weights."""
    data: str | None = None
    """test, validation (of a run on own clips: theirs), official (downloads 781 MiB, once), or your
    own: a file that prepare.py has written, or a .npy of videos. None: test; of a run on own clips
    validation."""
    count: pydantic.PositiveInt | None = None
    """How many videos. None: 100 to score, or all of the official test file; 4 to animate."""
    seed: pydantic.NonNegativeInt | None = None
    """Pick the videos at random by this seed. None: the first ones."""
    context: Frames | None = None
    """Real frames to start from. None: 10, for a run on own clips as in its training."""
    horizon: Frames | None = None
    """Frames to predict. None: 10, for a run on own clips as in its training."""
    from_end: bool = False
    """Start from the last frames of each of your own clips, and predict what comes after it."""
    sprites: Annotated[int, pydantic.Field(ge=0, le=100)] = 0
    """Split the context into N videos of one moving thing each, forecast each, and take the
    brightest pixels; for bright things on black that keep their shape. 0: off."""
    out: Path = Path("outputs")
    """Folder to write to."""


# Scores -----------------------------------------------------------------------------------------


def score(truth, prediction):
    """Compare predicted frames with the real ones.

    Args:
        truth, prediction: (videos, frames, height, width, channels), uint8 in 0..255 or float in
            [0, 1].

    Returns:
        A dict: for each name in SCORES a list over frames of the mean over videos, and "mean", a
        dict of the means over frames. See the top of this file for definitions.
    """
    return mean_over_videos([score_video(*videos) for videos in zip(truth, prediction)])


def score_video(real, predicted):
    """Scores of one video's predicted frames: (names in SCORES, frames)."""
    real, predicted = data.to_float(real), data.to_float(predicted)
    difference = predicted.astype(np.float64) - real  # (frames, height, width, channels)
    mse = np.square(difference).sum(axis=(1, 2, 3))
    mae = np.abs(difference).sum(axis=(1, 2, 3))
    per_pixel = mse / math.prod(real.shape[1:])
    psnr = -10 * np.log10(np.maximum(per_pixel, 1e-10))
    ssim, ssim_range2 = (
        [
            structural_similarity(*frames, data_range=data_range, channel_axis=-1)
            for frames in zip(real, predicted)
        ]
        for data_range in (1, 2)
    )
    return np.array([mse, mae, psnr, ssim, ssim_range2])


def mean_over_videos(scores):
    """What `score` returns, from a list of what `score_video` returns."""
    means = np.mean(scores, axis=0)  # (names in SCORES, frames)
    scores = dict(zip(SCORES, means.tolist()))
    scores["mean"] = dict(zip(SCORES, means.mean(axis=1).tolist()))
    return scores


# Forecasts ------------------------------------------------------------------------------------


def complete(request, config):
    """A request -> the same, with all that it leaves open as `config`, its model's, has it."""
    own_clips = config.data != data.MOVING_MNIST and request.data != "official"
    # Moving MNIST is scored with 10 + 10 frames, however a model was trained.
    context = config.context if own_clips else data.CONTEXT
    horizon = config.frames - config.context if own_clips else data.FRAMES - data.CONTEXT
    return dataclasses.replace(
        request,
        data=request.data or ("validation" if own_clips else "test"),
        context=request.context or context,
        horizon=request.horizon or horizon,
    )


def open_videos(request, config):
    """Open the videos that a request names.

    Args:
        request: a `Request`, complete.
        config: the `train.Config` of its model.

    Returns:
        videos: to be indexed by an array of numbers. Own clips are cut into windows of context +
            horizon frames that do not overlap. If no clip has as many, a window has as many frames
            as the longest clip. With `from_end` they are the last context frames of each clip.
        value_range: (low, high), what black and white are in the data's unit.

    Raises:
        InputError: the data cannot be used.
    """
    frames = request.context + request.horizon
    is_drawn = request.data in data.EVALUATION_STREAMS and config.data == data.MOVING_MNIST
    if request.from_end and (is_drawn or request.data == "official"):
        raise InputError("--from-end is for your own clips: give them by --data")
    if is_drawn:
        options = config.digits_per_video, frames, config.size  # as in training
        return data.EvaluationVideos(request.data, *options), (0, 1)
    if request.data == "test":
        raise InputError(
            f"{request.model} was trained on {config.data}, which has no test set: "
            "try --data validation, or other clips"
        )
    if request.data == "official":
        opened = clips.ArrayFile(data.download_official(), frames_first=True)
    else:
        opened = clips.open_clips(config.data if request.data == "validation" else request.data)
    spans = opened.spans
    if request.data == "validation":
        # Of other clips, those that were trained on might be scored.
        all_clips = f"forecast all of its clips: --data {runs.quote(config.data)}"
        runs.check_clips(run_of(request.model), config, opened.digest, all_clips)
        _, spans = clips.split_clips(spans, config.frames)
    if min(opened.shape[1:3]) < clips.SMALLEST:
        raise InputError(
            f"{opened.path} has frames of less than {clips.SMALLEST} x {clips.SMALLEST} pixels"
        )
    lengths = spans[:, 1] - spans[:, 0]
    if max(lengths) < request.context:
        raise InputError(
            f"{request.data}: clips of {max(lengths)} frames are shorter than --context "
            f"{request.context}"
        )
    frames = min(frames, max(lengths))
    if request.from_end:
        frames = request.context
        ends = spans[lengths >= frames, 1]
        spans = np.stack([ends - frames, ends], axis=1)  # (clips, 2)
    step = data.FRAMES if request.data == "official" else frames  # one window of each video
    return clips.Windows(opened, spans, frames, step), opened.value_range


def choose_indices(available, count=None, seed=None, usual_count=100):
    """Numbers of the videos to forecast.

    Args:
        available: how many there are to choose from.
        count: how many; None takes `usual_count`, or all if they are fewer.
        seed: None takes the first ones; an integer picks at random, by this seed, and a smaller
            count takes the first of a larger one.

    Returns:
        Integer array (count,), values in 0..available - 1.

    Raises:
        InputError: count is not in range.
    """
    count = min(usual_count, available) if count is None else count
    if not 1 <= count <= available:
        raise InputError(f"--count {count}: give 1 to {available:,} videos")
    if seed is None:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(available)[:count]


def open_request(request, config, usual_count):
    """Find out what a request asks for.

    Args:
        request: a `Request`.
        config: the `train.Config` of its model.
        usual_count: how many videos to take if the request does not say.

    Returns:
        request: complete.
        videos, value_range: as from `open_videos`.
        indices: which videos to forecast, integers (count,).
    """
    asked, request = request, complete(request, config)
    trained = config.context, config.frames - config.context
    shown = request.context, request.horizon
    if asked.context is asked.horizon is None and trained != shown:
        cli.say(
            f"{request.model} was trained on {trained[0]} + {trained[1]} frames; here it forecasts "
            f"{shown[0]} + {shown[1]}; as in training: --context {trained[0]} "
            f"--horizon {trained[1]}"
        )
    videos, value_range = open_videos(request, config)
    indices = choose_indices(len(videos), request.count, request.seed, usual_count)
    return request, videos, value_range, indices


def forecast(model, videos, indices, request):
    """Forecast videos, as many at a time as memory takes.

    Args:
        model: a next-frame model.
        videos: to be indexed by an array of numbers.
        indices: which of them.
        request: a `Request`, complete.

    Yields:
        context, truth: (videos, frames, height, width, channels), uint8 in 0..255 or float in
            [0, 1]. The truth has as many frames as the data has after the context, at most the
            horizon.
        prediction: (videos, horizon, height, width, channels), float32 in [0, 1].

    Raises:
        InputError: the videos do not fit the model.
        Failure: a prediction is no number.
    """
    rollout = functools.partial(models.rollout, model)
    if request.sprites:
        radius = model.architecture.motion_radius or sprites.RADIUS
        rollout = functools.partial(sprites.rollout, rollout, count=request.sprites, radius=radius)
    for batch in data.batches(videos, indices, request.horizon, verbose=sys.stdout.isatty()):
        context, truth = np.split(batch, [request.context], axis=1)
        prediction = rollout(data.to_float(context), request.horizon)
        if not np.isfinite(prediction).all():
            raise cli.Failure(f"{request.model} predicts values that are no numbers")
        yield context, truth, prediction


# The command line -------------------------------------------------------------------------------


def print_scores(scores, copying):
    """Print a row for each predicted frame, and the means."""

    def row(values):
        mse, mae, psnr, ssim, ssim_range2 = values
        return f"{mse:8.2f}{mae:8.2f}{psnr:8.2f}{ssim:8.3f}{ssim_range2:8.3f}"

    print(f"{'':5}{'this model':^42}{'copying the last frame':^44}")
    heads = "".join(f"{head:>8}" for head in ("MSE", "MAE", "PSNR", "SSIM", "SSIM(2)"))
    print(f"frame{heads}    {heads}")
    for n in range(len(scores["mse"])):
        ours, theirs = (row(part[name][n] for name in SCORES) for part in (scores, copying))
        print(f"{n + 1:>5}{ours}    {theirs}")
    ours, theirs = (row(part["mean"].values()) for part in (scores, copying))
    print(f" mean{ours}    {theirs}")


def forecast_and_score(request, model, config):
    """Do what a `Request` says, with its model, of which `config` is the `train.Config`."""
    environment = runs.environment()
    scores_path = request.out / "scores.json"

    def earlier_entries():
        return runs.read_json(scores_path, list) if scores_path.exists() else []

    earlier_entries()  # what cannot be read is refused before hours of work
    usual_count = data.EVALUATION_VIDEOS if request.data == "official" else 100
    request, videos, (low, high), indices = open_request(request, config, usual_count)
    first = videos[indices[:1]]
    scored = first.shape[1] - request.context

    def in_units(frames):
        """Values in [0, 1] -> the data's unit; those of plain pixels are left as they are."""
        return frames if (low, high) == (0, 1) else low + (high - low) * data.to_float(frames)

    scores, copying = [], []

    def predictions():
        for context, truth, prediction in forecast(model, videos, indices, request):
            copies = data.copy_last(context, scored)
            scores.extend(map(score_video, truth, prediction[:, :scored]))
            copying.extend(map(score_video, truth, copies))
            yield in_units(prediction)

    def real(part):
        return (in_units(batch[:, part]) for batch in data.batches(videos, indices))

    dtype, size = in_units(first).dtype, first.shape[2:]
    count, context, horizon = len(indices), request.context, request.horizon
    path = request.out / "predictions.npz"
    cli.refuse_input(path, request.data, config.data, request.model)
    model.check_channels(size[-1])
    cli.make_folder(request.out)  # last, so that what is refused leaves none
    cli.write_npz(
        path,
        {
            "prediction": ((count, horizon, *size), np.float32, predictions()),
            "context": ((count, context, *size), dtype, real(slice(context))),
            "truth": ((count, scored, *size), dtype, real(slice(context, None))),
            "range": ((2,), float, [[low, high]]),
            "indices": ((count,), int, [indices]),
        },
    )
    if scored == 0:
        cli.say(
            f"predictions: {path}",
            f"{request.data} ends with the context: there is nothing to score",
        )
        return
    scores, copying = mean_over_videos(scores), mean_over_videos(copying)
    names = ("data", "seed", "context", "horizon", "sprites")
    entry = {
        **{name: getattr(request, name) for name in names},
        "model": str(request.model),
        "count": count,
        "range": [low, high],
        **{key: environment[key] for key in ("started", "command", "commit", "backend", "keras")},
        **scores,
        "copy_last": copying,
    }
    # Before a print, which fails if its reader has gone. Another call may have added its entry.
    runs.write_json(scores_path, [*earlier_entries(), entry])
    cli.say(f"predictions: {path}")
    if scored < horizon:
        cli.say(f"frames after the context in {request.data}: {scored}; only these are scored")
    cli.say(f"scores: {scores_path}")
    print_scores(scores, copying)
    if scores["mean"]["mse"] > copying["mean"]["mse"]:
        print(
            "These forecasts are worse than copying the last frame: train the model longer, or on "
            "such videos (python train.py --data PATH)"
        )


def run_of(path):
    """The folder of a model that is named by it, or by a file in it."""
    return path if path.is_dir() else path.parent


def config_of(path):
    """The `train.Config` of a model, from its run's folder; of a file elsewhere the default one."""
    in_run = (run_of(path) / "environment.json").exists()
    return train.read_config(run_of(path)) if in_run else train.Config()


def main():
    request = tyro.cli(Request, description=__doc__.split("\n\n")[0])
    forecast_and_score(request, runs.load_model(request.model), config_of(request.model))


if __name__ == "__main__":
    cli.run(main)
