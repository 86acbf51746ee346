"""Forecast the next ten frames of videos from their first ten, and score the forecasts.

    python predict.py                              the shipped weights on 100 test videos
    python predict.py --sprites 2                  the same, each frame taken apart into two sprites
    python predict.py runs/cpu --count 1000        a run of yours
    python predict.py --data validation --horizon 20
    python predict.py --data official              all of the official test file, as papers do
    python predict.py runs/clips --data film.mp4   your own: videos, frames, arrays

After the context the model sees nothing but its own predictions; the real frames are used for
scores alone. Written to the output folder:

    predictions.npz   context, truth: as the data has them, uint8 in 0..255 or floats; prediction:
                      float32; all three (videos, frames, height, width, channels). range: which
                      floats are black and white, [0, 1] or those of `--range`. indices: which
                      videos they are.
    scores.json       a list that each call that scores adds an entry to, the newest last: what was
                      forecast, when and by which command, each score for each predicted frame,
                      and the means; the same for copying the last frame of the context

Scores, per predicted frame and averaged over videos, of frames in [0, 1]:

    mse, mae          squared and absolute error, summed over the pixels of a frame (in colour over
                      the channels, too), though called a mean, as in papers; before clipping to
                      [0, 1], which the models never leave
    psnr              the squared error in dB, after clipping: more is better, 100 is perfect
    ssim              similarity of structure, after clipping: 1 is perfect; scikit-image's 7x7
                      window, data_range=1
    ssim_range2       the same with data_range=2: what papers on Moving MNIST report, since
                      scikit-image assumed that range for floats
"""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

from extras.cli import InputError, atomic_write  # comes before Keras
from extras import cli

import keras
import numpy as np
import tyro
from skimage.metrics import structural_similarity

import data
import model as models
from extras import runs, sources, sprites

SCORES = ("mse", "mae", "psnr", "ssim", "ssim_range2")


@dataclasses.dataclass
class Request:
    """What to forecast."""

    model: tyro.conf.Positional[Path] = runs.SHIPPED
    """A run folder or a .keras file; left out: the shipped weights."""
    data: str | None = None
    """test, validation (of a run on own clips: theirs), official, or your own: a video file, an
    array (.npy, .npz, .h5, .nc), a folder of such files or of frames. None: test; of a run on own
    clips validation."""
    count: int | None = None
    """How many videos. None: 100 to score, or all of the official test file; 4 to animate."""
    seed: int | None = None
    """Pick the videos at random by this seed. None: the first ones."""
    context: int | None = None
    """Real frames to start from. None: 10, for a run on own clips as in its training."""
    horizon: int | None = None
    """Frames to predict. None: 10, for a run on own clips as in its training."""
    sprites: int = 0
    """Split the context into N videos of one moving thing each, forecast each, and take the
    brightest pixels; for bright things on black that keep their shape. 0: off."""
    size: tuple[int, ...] | None = None
    """Height and width, or one number for a square, that own clips are resized and cropped to.
    None: arrays keep their size, others get that of the model's training videos."""
    value_range: Annotated[tuple[float, float] | None, tyro.conf.arg(name="range")] = None
    """Own clips: which values are 0 (black) and 1 (white), in the data's units. None: as in the
    run."""
    axes: str | None = None
    """An own array: its axes in order, a letter for each: N videos, T frames, H, W, C. None: as in
    the run."""
    stride: int | None = None
    """Own clips: keep every Nth frame. None: as in the run."""
    fps: float | None = None
    """Own video files: sample this many frames a second by their time stamps. None: as in the run,
    unless --stride is given."""
    out: Path = Path("outputs")
    """Folder to write to."""


# Scores -----------------------------------------------------------------------------------------


def score(truth, prediction, verbose=0):
    """Compare predicted frames with the real ones.

    Args:
        truth, prediction: (videos, frames, height, width, channels), uint8 in 0..255 or float in
            [0, 1].
        verbose: 1 shows a progress bar.

    Returns:
        A dict: for each name in SCORES a list over frames of the mean over videos, and "mean", a
        dict of the means over frames. See the top of this file for definitions.
    """
    of_videos = []
    bar = keras.utils.Progbar(len(truth), verbose=verbose, unit_name="video")
    for videos in zip(truth, prediction):
        of_videos.append(score_video(*videos))
        bar.add(1)
    return mean_over_videos(of_videos)


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
    """What `score` returns, from a list of what `score_video` returns."""
    means = np.mean(scores, axis=0)  # (names in SCORES, frames)
    scores = dict(zip(SCORES, means.tolist()))
    scores["mean"] = dict(zip(SCORES, means.mean(axis=1).tolist()))
    return scores


# Forecasts ------------------------------------------------------------------------------------


def forecast(request, usual_count):
    """Open what a request names, and forecast it.

    Args:
        request: a `Request`; data, context and horizon are filled in where they were left out.
        usual_count: how many videos to take if the request does not say.

    Returns:
        context, truth: (videos, frames, height, width, channels), uint8 in 0..255 or float in
            [0, 1]. The truth has as many frames as the data has after the context, at most the
            horizon.
        prediction: (videos, horizon, height, width, channels), float32 in [0, 1].
        indices: which videos of the data they are.
        value_range: (low, high), what black and white are in the data's units.

    Raises:
        InputError: the model or the data cannot be used, or do not fit each other.
    """
    if request.sprites < 0:
        raise InputError(f"--sprites {request.sprites}: must be a number of sprites, or 0")
    model = runs.load_model(request.model)
    folder = sources.folder_of(request.model)
    run = runs.read_config(folder) if (folder / "environment.json").exists() else {}
    # Moving MNIST is scored with 10 + 10 frames, however a model was trained.
    as_trained = sources.has_own_clips(run) and request.data != "official"
    if request.data is None:
        request.data = "validation" if as_trained else "test"
    if request.context is None:
        request.context = run["context"] if as_trained else 10
    if request.horizon is None:
        request.horizon = run["frames"] - run["context"] if as_trained else 10
    for name, frames in (("--context", request.context), ("--horizon", request.horizon)):
        if not 1 <= frames <= 100_000:
            raise InputError(f"{name} {frames}: must be a number of frames, 1 to 100,000")
    videos, value_range = sources.open_videos(request, model, run)
    indices = sources.choose_indices(len(videos), request.count, request.seed, usual_count)
    frames = videos[indices[:1]].shape[1]
    if frames < request.context:
        raise InputError(
            f"{request.data}: videos of {frames} frames are shorter than "
            f"--context {request.context}"
        )

    rollout = models.rollout
    if request.sprites:
        rollout = functools.partial(sprites.rollout, count=request.sprites)
    parts = [
        (batch, rollout(model, data.to_float(batch[:, : request.context]), request.horizon))
        for batch in sources.batches(videos, indices, request.horizon, verbose=1)
    ]
    videos, prediction = (np.concatenate(part) for part in zip(*parts))
    context, truth = np.split(videos, [request.context], axis=1)
    return context, truth, prediction, indices, value_range


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


def main():
    request = tyro.cli(Request, description=__doc__.split("\n\n")[0])
    with cli.folder_lock(request.out):
        forecast_and_score(request)


def forecast_and_score(request):
    """Do what a `Request` says, in an output folder that no other process uses."""
    here = runs.environment()
    scores_path = request.out / "scores.json"
    earlier = runs.read_json(scores_path, list) if scores_path.exists() else []
    usual_count = data.EVALUATION_VIDEOS if request.data == "official" else 100
    context, truth, prediction, indices, value_range = forecast(request, usual_count)

    def in_units(videos):
        """Values in [0, 1] -> the data's units; uint8 is left as it is."""
        low, high = value_range
        return videos if value_range == (0, 1) else low + (high - low) * data.to_float(videos)

    path = request.out / "predictions.npz"
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            context=in_units(context),
            truth=in_units(truth),
            prediction=in_units(prediction),
            range=np.array(value_range, float),
            indices=indices,
        )
    print(f"predictions: {path}")
    scored = truth.shape[1]
    if scored == 0:
        print(f"{request.data} ends with the context: there is nothing to score")
        return
    if scored < request.horizon:
        print(f"{request.data} has {scored} frames after the context: only these are scored")
    scores = score(truth, prediction[:, :scored], verbose=1)
    copying = score(truth, data.copy_last(context, scored))
    names = ("data", "seed", "context", "horizon", "sprites")
    entry = {
        **{name: getattr(request, name) for name in names},
        "model": str(request.model),
        "count": len(indices),
        "range": value_range,
        **{key: here[key] for key in ("started", "command", "commit", "backend", "keras")},
        **scores,
        "copy_last": copying,
    }
    runs.write_json(scores_path, [*earlier, entry])  # first, so that no failing print costs them
    print(f"scores: {scores_path}")
    print_scores(scores, copying)
    if scores["mean"]["mse"] > copying["mean"]["mse"]:
        print(
            "These forecasts are worse than copying the last frame: the model does not know such "
            "videos. Train one on them: python train.py --data PATH"
        )


if __name__ == "__main__":
    cli.run(main)
