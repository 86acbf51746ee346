"""Forecast the next ten frames of videos from their first ten, and score the forecasts.

    python predict.py                              the shipped weights on 100 test videos
    python predict.py runs/cpu --count 1000        a run of yours
    python predict.py --data validation --horizon 20
    python predict.py --data clips.npy             your own: (videos, frames, height, width)

After the context the model sees nothing but its own predictions; the real frames are used
for scores alone. Written to the output folder:

    predictions.npz   context, truth: as the data has them, uint8 in 0..255 or floats in
                      [0, 1]; prediction: float32 in [0, 1]; indices: which videos they are.
                      All but the last (videos, frames, height, width, channels).
    scores.json       each score for each predicted frame, and the means; the same for
                      copying the last frame of the context

Scores, per predicted frame and averaged over videos, as the literature computes them:

    mse, mae          summed over the pixels of a frame, before clipping to [0, 1]
    psnr              in dB, after clipping; at most 100, which a perfect frame gets
    ssim              after clipping; scikit-image's 7x7 window, data_range=1
    ssim_range2       the same with data_range=2: the figure that papers on Moving MNIST
                      report, since scikit-image assumed that range for floats
"""

import dataclasses
from pathlib import Path

import command_line
from command_line import InputError, written_whole

import keras
import numpy as np
import tyro
from skimage.metrics import structural_similarity

import data
import model as models
import train

SHIPPED = data.ASSETS / "forecaster.keras"
BATCH_SIZE = 50  # videos that are forecast together
SCORES = ("mse", "mae", "psnr", "ssim", "ssim_range2")


@dataclasses.dataclass
class Request:
    """What to forecast."""

    model: tyro.conf.Positional[Path] = SHIPPED
    """A run folder or a .keras file; the shipped weights if it is left out."""
    data: str = "test"
    """test, validation, official, or the path of a .npy or .npz file of videos."""
    count: int | None = None
    """How many videos; if it is left out 100 to score or 4 to animate, or all if they are fewer."""
    seed: int | None = None
    """Pick the videos at random by this seed; the first ones if it is left out."""
    context: int = 10
    """Real frames to start from."""
    horizon: int = 10
    """Frames to predict."""
    out: Path = Path("outputs")
    """Folder to write to."""


def forecast(model, context, horizon):
    """Roll the model out over any number of videos, a batch at a time.

    Args:
        model: a `model.NextFrameModel`.
        context: (videos, frames, height, width, channels), uint8 or float in [0, 1].
        horizon: frames to predict.

    Returns:
        float32 array (videos, horizon, height, width, channels) in [0, 1].
    """
    predictions = np.empty((len(context), horizon, *context.shape[2:]), np.float32)
    bar = keras.utils.Progbar(len(context), unit_name="video")
    for start in range(0, len(context), BATCH_SIZE):
        batch = data.to_float(context[start : start + BATCH_SIZE])
        predictions[start : start + BATCH_SIZE] = models.rollout(model, batch, horizon)
        bar.update(start + len(batch))
    return predictions


def score(truth, prediction):
    """Compare predicted frames with the real ones.

    Args:
        truth, prediction: (videos, frames, height, width, channels), uint8 in 0..255 or
            float in [0, 1].

    Returns:
        A dict: for each name in SCORES a list over frames of the mean over videos, and
        "mean", a dict of the means over frames. See the top of this file for definitions.
    """
    sums = {name: np.zeros(truth.shape[1]) for name in SCORES}
    for real, predicted in zip(truth, prediction):
        real, predicted = data.to_float(real), data.to_float(predicted)
        difference = predicted.astype(np.float64) - real  # (frames, height, width, channels)
        sums["mse"] += np.square(difference).sum(axis=(1, 2, 3))
        sums["mae"] += np.abs(difference).sum(axis=(1, 2, 3))
        predicted = np.clip(predicted, 0, 1)
        per_pixel = np.square(predicted.astype(np.float64) - real).mean(axis=(1, 2, 3))
        sums["psnr"] += -10 * np.log10(np.maximum(per_pixel, 1e-10))
        for name, data_range in (("ssim", 1), ("ssim_range2", 2)):
            sums[name] += [
                structural_similarity(*frames, data_range=data_range, channel_axis=-1)
                for frames in zip(real, predicted)
            ]
    scores = {name: (total / len(truth)).tolist() for name, total in sums.items()}
    scores["mean"] = {name: float(np.mean(scores[name])) for name in SCORES}
    return scores


def forecast_request(request, usual_count):
    """Load what a request names, and forecast.

    Args:
        request: a `Request`.
        usual_count: how many videos to take if the request does not say.

    Returns:
        context, truth, prediction: (videos, frames, height, width, channels). The truth has
            as many frames as the data has after the context, at most the horizon.
        indices: which videos of the data they are.

    Raises:
        InputError: the model or the data cannot be used, or do not fit each other.
    """
    for name, frames in (("--context", request.context), ("--horizon", request.horizon)):
        if not 1 <= frames <= 100_000:
            raise InputError(f"{name} {frames}: must be a number of frames, 1 to 100,000")
    videos, indices = data.choose_videos(
        request.data,
        request.count,
        request.seed,
        request.context + request.horizon,
        usual_count,
    )
    if videos.shape[1] < request.context:
        raise InputError(
            f"{request.data}: videos of {videos.shape[1]} frames are shorter than "
            f"--context {request.context}"
        )
    model = train.load_model(request.model)
    model.check_frames(videos.shape)
    command_line.make_folder(request.out)
    context, truth = np.split(videos, [request.context], axis=1)
    return context, truth, forecast(model, context, request.horizon), indices


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
    request = command_line.parse(Request, description=__doc__.split("\n\n")[0])
    context, truth, prediction, indices = forecast_request(request, usual_count=100)

    path = request.out / "predictions.npz"
    with written_whole(path) as temporary:
        np.savez_compressed(
            temporary, context=context, truth=truth, prediction=prediction, indices=indices
        )
    print(f"predictions: {path}")
    scored = truth.shape[1]
    if scored == 0:
        (request.out / "scores.json").unlink(missing_ok=True)  # those of other predictions
        print(f"{request.data} ends with the context: there is nothing to score")
        return
    if scored < request.horizon:
        print(f"{request.data} has {scored} frames after the context: only these are scored")

    scores = score(truth, prediction[:, :scored])
    copy_last = score(truth, np.repeat(context[:, -1:], scored, axis=1))
    print_scores(scores, copy_last)
    path = request.out / "scores.json"
    report = {
        "model": str(request.model),
        "data": request.data,
        "count": len(context),
        "seed": request.seed,
        "context": request.context,
        "horizon": request.horizon,
        **scores,
        "copy_last": copy_last,
    }
    train.write_json(path, report)
    print(f"scores: {path}")


if __name__ == "__main__":
    command_line.run(main)
