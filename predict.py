"""Forecast the next ten frames of videos from their first ten, and score the forecasts.

    python predict.py                              the shipped weights on 100 test videos
    python predict.py runs/cpu --count 1000        a run of yours
    python predict.py --data validation --horizon 20
    python predict.py --data official          all of the official test file, as papers do
    python predict.py --data clips.npy         your own: (videos, frames, height, width)
    python predict.py runs/clips --data film.mp4   or a video, or a folder of them: clips.py

After the context the model sees nothing but its own predictions; the real frames are used
for scores alone. Written to the output folder:

    predictions.npz   context, truth: as the data has them, uint8 in 0..255 or floats in
                      [0, 1]; prediction: float32 in [0, 1]; indices: which videos they are.
                      All but the last (videos, frames, height, width, channels).
    scores.json       a list that each call adds an entry to, the newest last: what was
                      forecast, when and by which command, each score for each predicted
                      frame, and the means; the same for copying the last frame of the context

Videos are forecast and written some at a time, so that memory does not grow with their
number.

Scores, per predicted frame and averaged over videos, as the literature computes them:

    mse, mae          summed over the pixels of a frame (and the channels, in colour), before
                      clipping to [0, 1]
    psnr              in dB, after clipping; at most 100, which a perfect frame gets
    ssim              after clipping; scikit-image's 7x7 window, data_range=1
    ssim_range2       the same with data_range=2: the figure that papers on Moving MNIST
                      report, since scikit-image assumed that range for floats
"""

import contextlib
import dataclasses
import json
import zipfile
from pathlib import Path

from extras import cli
from extras.cli import InputError, atomic_write

import numpy as np
import tyro
from skimage.metrics import structural_similarity

from extras import clips
import data
import train

SHIPPED = data.ASSETS / "forecaster.keras"
SCORES = ("mse", "mae", "psnr", "ssim", "ssim_range2")


@dataclasses.dataclass
class Request:
    """What to forecast."""

    model: tyro.conf.Positional[Path] = SHIPPED
    """A run folder or a .keras file; the shipped weights if it is left out."""
    data: str = "test"
    """test, validation (of the run's own clips, if it was trained on such), official, or the path
    of a .npy or .npz file of videos, of a video file, or of a folder of video files or frames."""
    count: int | None = None
    """How many videos; if it is left out 100 to score or 4 to animate, or all if they are fewer,
    and all to score on the official test file."""
    seed: int | None = None
    """Pick the videos at random by this seed; the first ones if it is left out."""
    context: int = 10
    """Real frames to start from."""
    horizon: int = 10
    """Frames to predict."""
    size: int | None = None
    """Height and width that a video file or a folder is resized and cropped to; the model's own
    if it is left out."""
    out: Path = Path("outputs")
    """Folder to write to."""


def score(truth, prediction):
    """Compare predicted frames with the real ones.

    Args:
        truth, prediction: (videos, frames, height, width, channels), uint8 in 0..255 or
            float in [0, 1].

    Returns:
        A dict: for each name in SCORES a list over frames of the mean over videos, and
        "mean", a dict of the means over frames. See the top of this file for definitions.
    """
    return summary(np.mean([score_video(*videos) for videos in zip(truth, prediction)], axis=0))


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


def summary(of_frames):
    """What `score` returns, from the means over videos of what `score_video` returned."""
    scores = dict(zip(SCORES, of_frames.tolist()))
    scores["mean"] = dict(zip(SCORES, of_frames.mean(axis=1).tolist()))
    return scores


def open_videos(request, model):
    """The videos that a request names, of context + horizon frames or less.

    Own clips are cut into windows that share no frame, with the channels of the model.

    Returns:
        Videos to be indexed, as from `data.open_videos`.

    Raises:
        InputError: the data cannot be used.
    """
    frames = request.context + request.horizon
    if clips.are_clips(request.data):
        size = request.size or model.get_build_config()["input_shape"][-2]
        model.check_frames((size, size, model.channels))
        cli.make_folder(request.out)
        all_frames, spans = clips.open_clips(request.data, request.out, size, model.channels)
    elif request.size is not None:
        raise InputError(f"--size is for video files and folders; {request.data} has its own size")
    elif (config := own_clips_of(request)) is None:
        return data.open_videos(request.data, frames)
    elif request.data == "test":
        raise InputError(
            f"{request.model} was trained on {config.data}, which has no test set: "
            "try --data validation, or the path of other clips"
        )
    else:
        all_frames, spans = clips.open_clips(
            config.data, request.model, config.size, config.channels
        )
        _, spans = clips.split_clips(spans, config.frames)
    return clips.Windows(all_frames, clips.long_enough(spans, frames), frames, step=frames)


def own_clips_of(request):
    """The config of a run on own clips, if the request is for its fixed sets; else None."""
    if request.data in ("test", "validation") and (request.model / "config.json").exists():
        config = train.read_config(request.model)
        if config.data != train.MOVING_MNIST:
            return config
    return None


def open_request(request, usual_count):
    """Open what a request names, and check that it fits together.

    Args:
        request: a `Request`.
        usual_count: how many videos to take if the request does not say.

    Returns:
        model: a `model.NextFrameModel`.
        videos: as from `open_videos`.
        indices: which of them to forecast.

    Raises:
        InputError: the model or the data cannot be used, or do not fit each other.
    """
    for name, frames in (("--context", request.context), ("--horizon", request.horizon)):
        if not 1 <= frames <= 100_000:
            raise InputError(f"{name} {frames}: must be a number of frames, 1 to 100,000")
    if request.size is not None and request.size < 7:
        raise InputError(f"--size {request.size}: must be at least 7, as SSIM's window is")
    model = train.load_model(request.model)
    videos = open_videos(request, model)
    indices = data.choose_videos(len(videos), request.count, request.seed, usual_count)
    shape = videos[indices[:1]].shape
    if shape[1] < request.context:
        raise InputError(
            f"{request.data}: videos of {shape[1]} frames are shorter than "
            f"--context {request.context}"
        )
    model.check_frames(shape)
    cli.make_folder(request.out)
    return model, videos, indices


def forecast_request(request, usual_count):
    """Forecast what a request names, all of it in memory.

    Args:
        request, usual_count: as for `open_request`, which see for errors.

    Returns:
        context, truth, prediction: (videos, frames, height, width, channels). The truth has
            as many frames as the data has after the context, at most the horizon.
        indices: which videos of the data they are.
    """
    model, videos, indices = open_request(request, usual_count)
    parts = train.forecasts(model, videos, indices, request.context, request.horizon, verbose=1)
    videos, prediction = (np.concatenate(part) for part in zip(*parts))
    context, truth = np.split(videos, [request.context], axis=1)
    return context, truth, prediction, indices


@contextlib.contextmanager
def npz_array(archive, name, shape, dtype):
    """Within, write an array to a .npz archive part by part: yields write(part)."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda part: file.write(np.asarray(part, dtype).tobytes())


def write_forecasts(path, model, videos, indices, context, horizon):
    """Forecast videos into a .npz file, and score the forecasts.

    Args:
        path: the file to write, described at the top of this file.
        model, videos, indices, context, horizon: as for `train.forecasts`.

    Returns:
        ours, copying: the means over videos of what `score_video` returns, for the forecasts
            and for copying the last frame of the context; (names in SCORES, scored frames).
    """
    _, frames, *frame_shape = videos[indices[:1]].shape
    count, dtype, scored = len(indices), videos[indices[:1]].dtype, frames - context
    sums = np.zeros((2, len(SCORES), scored))
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        shape = (count, horizon, *frame_shape)
        with npz_array(archive, "prediction", shape, np.float32) as write:
            for some, predictions in train.forecasts(
                model, videos, indices, context, horizon, verbose=1
            ):
                write(predictions)
                for video, predicted in zip(some, predictions if scored else ()):
                    real = video[context:]
                    copies = np.repeat(video[context - 1 : context], scored, axis=0)
                    sums += score_video(real, predicted[:scored]), score_video(real, copies)
        for name, part in (("context", slice(context)), ("truth", slice(context, None))):
            shape = (count, context if name == "context" else scored, *frame_shape)
            with npz_array(archive, name, shape, dtype) as write:
                for index in indices:
                    write(videos[[index]][:, part])
        with npz_array(archive, "indices", indices.shape, indices.dtype) as write:
            write(indices)
    return sums / count


def read_scores(path):
    """The entries of a scores.json, the oldest first; none if there is no such file.

    Raises:
        InputError: it is not JSON.
    """
    try:
        scores = json.loads(path.read_text()) if path.exists() else []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be added to ({error}): move it away") from None
    return scores if isinstance(scores, list) else [scores]  # there was once a single one


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
    request = cli.parse(Request, description=__doc__.split("\n\n")[0])
    here = train.environment()
    scores_path = request.out / "scores.json"
    earlier = read_scores(scores_path)
    everything = request.data == "official"
    model, videos, indices = open_request(request, data.EVALUATION_VIDEOS if everything else 100)

    path = request.out / "predictions.npz"
    means = write_forecasts(path, model, videos, indices, request.context, request.horizon)
    print(f"predictions: {path}")
    scored = means.shape[-1]
    if scored == 0:
        print(f"{request.data} ends with the context: there is nothing to score")
        return
    if scored < request.horizon:
        print(f"{request.data} has {scored} frames after the context: only these are scored")

    scores, copy_last = map(summary, means)
    print_scores(scores, copy_last)
    entry = {
        "model": str(request.model),
        "data": request.data,
        "count": len(indices),
        "seed": request.seed,
        "context": request.context,
        "horizon": request.horizon,
        **{key: here[key] for key in ("started", "command", "commit", "backend", "keras")},
        **scores,
        "copy_last": copy_last,
    }
    train.write_json(scores_path, [*earlier, entry])
    print(f"scores: {scores_path}")


if __name__ == "__main__":
    cli.run(main)
