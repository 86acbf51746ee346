"""Forecast the next ten frames of videos from their first ten, and score the forecasts.

    python predict.py                              the shipped weights on 100 test videos
    python predict.py --sprites 2                  the same, each frame taken apart into two sprites
    python predict.py runs/cpu --count 1000        a run of yours
    python predict.py --data validation --horizon 20
    python predict.py --data official              all of the official test file, as papers do
    python predict.py runs/clips --data film.mp4   your own: videos, frames, arrays

After the context the model sees nothing but its own predictions; the real frames are used for
scores alone. Written to the output folder:

    predictions.npz   context, truth and prediction; see extras/archive.py
    scores.json       a list that each call adds an entry to, the newest last: what was forecast,
                      when and by which command, each score for each predicted frame, and the
                      means; the same for copying the last frame of the context

Scores, per predicted frame and averaged over videos, of frames in [0, 1], as papers have them:

    mse, mae          summed over the pixels of a frame (and the channels, in colour), although papers
                      call the sum a mean; before clipping to [0, 1], which the models never leave
    psnr              in dB, after clipping; 100 for a perfect frame
    ssim              after clipping; scikit-image's 7x7 window, data_range=1
    ssim_range2       the same with data_range=2: the figure that papers on Moving MNIST report, since
                      scikit-image assumed that range for floats
"""

import dataclasses
from pathlib import Path
from typing import Annotated

from extras.cli import InputError  # comes before Keras
from extras import cli

import numpy as np
import tyro
from skimage.metrics import structural_similarity

import data
import model as models
from extras import archive, runs, sources, sprites

SHIPPED = data.ASSETS / "forecaster.keras"
SCORES = ("mse", "mae", "psnr", "ssim", "ssim_range2")


@dataclasses.dataclass
class Request:
    """What to forecast."""

    model: tyro.conf.Positional[Path] = SHIPPED
    """A run folder or a .keras file; left out: the shipped weights."""
    data: str = "test"
    """test, validation (of the run's own clips, if it was trained on such), official, or the path of
    your own: a video file, an array (.npy, .npz, .h5, .nc), or a folder of such files or of frames."""
    count: int | None = None
    """How many videos; left out: 100 to score and 4 to animate, all of the official test file."""
    seed: int | None = None
    """Pick the videos at random by this seed; left out: the first ones."""
    context: int | None = None
    """Real frames to start from; left out: 10, for a run on own clips as in its training."""
    horizon: int | None = None
    """Frames to predict; left out: 10, for a run on own clips as in its training."""
    sprites: int = 0
    """Split the context into N videos of one moving thing each (0: off), forecast each, and take the
    brightest pixels; for bright things on black that keep their shape."""
    size: tuple[int, ...] | None = None
    """Height and width, or one number for a square, that own clips are resized and cropped to. Left
    out: arrays keep their size, others get that of the model's training videos."""
    value_range: Annotated[tuple[float, float] | None, tyro.conf.arg(name="range")] = None
    """Own clips: which values are 0 (black) and 1 (white), in the data's units; those of the run."""
    axes: str | None = None
    """Own arrays: their axes in order, a letter for each: N videos, T frames, H, W, C."""
    stride: int = 1
    """Own clips: keep every Nth frame."""
    fps: float | None = None
    """Own video files: sample this many frames a second by their time stamps."""
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
    predicted = np.clip(predicted, 0, 1)
    per_pixel = np.square(predicted.astype(np.float64) - real).mean(axis=(1, 2, 3))
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
    """What `score` returns, from a list of what `score_video` returned."""
    of_frames = np.mean(scores, axis=0)  # (names in SCORES, frames)
    scores = dict(zip(SCORES, of_frames.tolist()))
    scores["mean"] = dict(zip(SCORES, of_frames.mean(axis=1).tolist()))
    return scores


def persistence(video, context, frames):
    """The simplest forecast: the last frame of the context, again and again."""
    return np.repeat(video[context - 1 : context], frames, axis=0)


# What to forecast -------------------------------------------------------------------------------


def open_request(request, usual_count):
    """Open what a request names, and check that it fits together.

    Args:
        request: a `Request`; a context and a horizon that were left out are filled in.
        usual_count: how many videos to take if the request does not say.

    Returns:
        model: a `model.NextFrameModel`.
        videos: to be indexed by an array of numbers; videos of context + horizon frames, or less.
        indices: which of them to forecast.
        value_range: (low, high), what black and white are in the data's units.

    Raises:
        InputError: the model or the data cannot be used, or do not fit each other.
    """
    if request.sprites < 0:
        raise InputError(f"--sprites {request.sprites}: must be a number of sprites, or 0")
    model = runs.load_model(request.model)
    cli.make_folder(request.out)
    folder = request.model if request.model.is_dir() else request.model.parent
    run = runs.read_config(folder) if (folder / "config.json").exists() else {}
    # Moving MNIST is scored with 10 + 10 frames, however a model was trained.
    as_trained = run.get("data", data.MOVING_MNIST) != data.MOVING_MNIST
    if request.context is None:
        request.context = run["context"] if as_trained else 10
    if request.horizon is None:
        request.horizon = run["frames"] - run["context"] if as_trained else 10
    for name, frames in (("--context", request.context), ("--horizon", request.horizon)):
        if not 1 <= frames <= 100_000:
            raise InputError(f"{name} {frames}: must be a number of frames, 1 to 100,000")
    videos, value_range = sources.open_videos(request, model, run)
    indices = sources.choose_indices(len(videos), request.count, request.seed, usual_count)
    shape = videos[indices[:1]].shape
    if shape[1] < request.context:
        raise InputError(
            f"{request.data}: videos of {shape[1]} frames are shorter than "
            f"--context {request.context}"
        )
    models.check_channels(model, shape)
    return model, videos, indices, value_range


def forecast(request, model, context):
    """Roll the model out as a request says: (batch, context, ...) -> (batch, horizon, ...)."""
    context = data.to_float(context)
    if request.sprites:
        return sprites.rollout(model, context, request.horizon, request.sprites)
    return models.rollout(model, context, request.horizon)


# Forecast and score -----------------------------------------------------------------------------


def forecast_and_score(request, model, videos, indices, value_range):
    """Forecast videos into predictions.npz, some at a time, and score the forecasts.

    Args:
        request: a `Request`.
        model, videos, indices, value_range: as from `open_request`.

    Returns:
        scores, copy_last: what `score` returns, for the forecasts and for copying the last frame
            of the context, of as many frames as the videos have after it; None if they have none.
    """
    context, horizon = request.context, request.horizon
    scores, copy_last = [], []  # of each video
    with archive.write_predictions(
        request.out / "predictions.npz", videos, indices, context, horizon, value_range
    ) as write:
        for batch in sources.batches(videos, indices, horizon, verbose=1):
            predictions = forecast(request, model, batch[:, :context])
            write(predictions)
            scored = batch.shape[1] - context  # may be 0
            for video, predicted in zip(batch, predictions if scored else []):
                copies = persistence(video, context, scored)
                scores.append(score_video(video[context:], predicted[:scored]))
                copy_last.append(score_video(video[context:], copies))
    if not scores:
        return None, None
    return mean_over_videos(scores), mean_over_videos(copy_last)


def print_scores(scores, copy_last):
    """Print a row for each predicted frame, and the means."""
    print(f"{'':5}{'this model':^42}{'copying the last frame':^44}")
    heads = "".join(f"{head:>8}" for head in ("MSE", "MAE", "PSNR", "SSIM", "SSIM(2)"))
    print(f"frame{heads}    {heads}")
    rows = [
        (n + 1, [[s[name][n] for name in SCORES] for s in (scores, copy_last)])
        for n in range(len(scores["mse"]))
    ]
    rows.append(("mean", [[s["mean"][name] for name in SCORES] for s in (scores, copy_last)]))
    for frame, both in rows:
        cells = ["".join(f"{v:8.{d}f}" for v, d in zip(values, (2, 2, 2, 3, 3))) for values in both]
        print(f"{frame:>5}{'    '.join(cells)}")


def main():
    request = tyro.cli(Request, description=__doc__.split("\n\n")[0])
    cli.make_folder(request.out)
    with cli.folder_lock(request.out):
        write_forecasts(request)


def write_forecasts(request):
    """Do what a `Request` says, in an output folder that no other process uses."""
    here = runs.environment()
    scores_path = request.out / "scores.json"
    earlier = runs.read_json(scores_path, list) if scores_path.exists() else []
    usual_count = data.EVALUATION_VIDEOS if request.data == "official" else 100
    model, videos, indices, value_range = open_request(request, usual_count)
    scores, copy_last = forecast_and_score(request, model, videos, indices, value_range)
    print(f"predictions: {request.out / 'predictions.npz'}")
    if scores is None:
        print(f"{request.data} ends with the context: there is nothing to score")
        return
    scored = len(scores["mse"])
    if scored < request.horizon:
        print(f"{request.data} has {scored} frames after the context: only these are scored")
    names = ("data", "seed", "context", "horizon", "sprites")
    entry = {
        **{name: getattr(request, name) for name in names},
        "model": str(request.model),
        "count": len(indices),
        "range": value_range,
        **{key: here[key] for key in ("started", "command", "commit", "backend", "keras")},
        **scores,
        "copy_last": copy_last,
    }
    runs.write_json(scores_path, [*earlier, entry])  # first, so that no failing print costs them
    print(f"scores: {scores_path}")
    print_scores(scores, copy_last)


if __name__ == "__main__":
    cli.run(main)
