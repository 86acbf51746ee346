"""Where videos come from: Moving MNIST, the official file, own clips. Open it to add a source.

The rest of the product sees arrays of videos, or objects that are indexed like them.
"""

from extras.cli import InputError  # comes before Keras

import keras
import numpy as np

import data
from extras import clips, devices, official

# Videos that are forecast together have at most this many pixels in a frame, all of them
# together, and this many predicted values: that bounds the memory.
BATCH_PIXELS = 50 * 64 * 64
BATCH_VALUES = 2**25

CLIP_OPTIONS = {"value_range": None, "axes": None, "stride": 1, "fps": None}  # and defaults


def check_config(config):
    """Raise an InputError, with the remedy, for fields of a config that do not fit together."""
    if config.frames <= config.context:
        raise InputError(
            f"--frames {config.frames} leaves nothing to predict after --context {config.context}"
        )
    height, width = clips.height_and_width(config.size)
    if config.data == data.MOVING_MNIST and (height != width or height < data.DIGIT_SIZE):
        raise InputError(
            f"--size {height} {width}: Moving MNIST is square, and at least {data.DIGIT_SIZE}"
        )
    if config.model == "keras-example" and config.remat:
        raise InputError(
            "--remat is not for keras-example: its BatchNormalization counts each step"
        )


def training_sets(config, folder, distribution):
    """Open what to train and to validate on.

    Args:
        config: a `Config` of train.py.
        folder: the run folder, which holds converted clips.
        distribution: what `devices.start` returned.

    Returns:
        training: `clips.Windows`, or None for Moving MNIST.
        validation: videos to be indexed by an array of numbers.
        channels: those of the videos.

    Raises:
        InputError: the clips cannot be used.
    """
    if config.data == data.MOVING_MNIST:
        refuse_clip_options(vars(config))
        validation = data.EvaluationVideos(
            "validation", config.digits_per_video, config.frames, config.size[0]
        )
        return None, validation, 1
    if devices.process > 0:
        devices.barrier(distribution)  # process 0 has converted the clips
        if not (folder / clips.DESCRIPTION).exists():
            raise InputError(f"{folder} must be a folder that all hosts share, with --data")
    opened = open_clips_of_run(folder, vars(config), channels=None)
    if devices.process == 0:
        devices.barrier(distribution)
    spans, validation_spans = clips.split_clips(opened.spans, config.frames)
    training = clips.Windows(opened.frames, spans, config.frames, step=1)
    validation = clips.Windows(opened.frames, validation_spans, config.frames, step=config.frames)
    name_by_end = dict(zip(opened.spans[:, 1].tolist(), opened.names))
    names = [name_by_end[end] for _, end in validation_spans.tolist()]
    where = "" if validation_spans[0, 0] in opened.spans[:, 0] else "the end of "
    print(
        f"training clips: {len(spans)}; validation: stretches of {config.frames} frames: "
        f"{len(validation)}, from {where}{', '.join(names[:3])}{' and others' * (len(names) > 3)}"
    )
    return training, validation, opened.frames.shape[-1]


def open_clips_of_run(folder, config, channels):
    """The clips of a run, as it converted them when it began; else they are converted now.

    They are not converted again, because clips that were added since would move others between
    training and validation.
    """
    converted = all((folder / name).exists() for name in (clips.CACHE, clips.DESCRIPTION))
    if (folder / "config.json").exists() and converted:
        return clips.open_cache(folder)
    options = {name: config.get(name, default) for name, default in CLIP_OPTIONS.items()}
    return clips.open_clips(config["data"], folder, config["size"], channels, **options)


def refuse_clip_options(options):
    """Raise an InputError if a dict of options has some that are for own clips only."""
    given = [
        name for name, default in CLIP_OPTIONS.items() if options.get(name) not in (default, None)
    ]
    if given:
        names = " ".join("--" + name.replace("value_", "") for name in given)
        raise InputError(f"{names}: only for own clips, which --data PATH names")


def folder_of(path):
    """The folder of a model, which has all else of its run: a run's folder, or a .keras file's."""
    return path if path.is_dir() else path.parent


def has_own_clips(run):
    """Whether a run, of which this is the config, was trained on own clips; {}: there is no run."""
    return run.get("data", data.MOVING_MNIST) != data.MOVING_MNIST


def open_videos(request, model, run):
    """Open the videos that a request names; see `predict.forecast`.

    Args:
        request: a `predict.Request`.
        model: the model that will forecast them.
        run: the config of its run, a dict; empty if there is none.

    Returns:
        videos: to be indexed by an array of numbers. Own clips are cut into windows of context +
            horizon frames that do not overlap. If no clip has as many, a window has as many frames
            as the longest clip.
        value_range: (low, high), what black and white are in the data's units.

    Raises:
        InputError: the data cannot be used.
    """
    frames = request.context + request.horizon
    if request.data in ("test", "validation", "official"):
        if request.size is not None:
            raise InputError("--size is for own clips, which --data PATH names")
        refuse_clip_options(vars(request))
    if request.data == "official":
        return official.load()[:, :frames], (0, 1)
    if request.data in ("test", "validation") and not has_own_clips(run):
        digits, size = run.get("digits_per_video", 2), run.get("size", [64])[0]  # as in training
        return data.EvaluationVideos(request.data, digits, frames, size), (0, 1)
    if request.data == "test":
        raise InputError(
            f"{request.model} was trained on {run['data']}, which has no test set: "
            "try --data validation, or the path of other clips"
        )
    channels = model.architecture.channels
    if request.data == "validation":
        folder = folder_of(request.model)
        value_range = run.get("value_range")
        opened = open_clips_of_run(folder, run, channels)
        _, spans = clips.split_clips(opened.spans, run["frames"])
    else:
        if (request.out / "config.json").exists():
            raise InputError(
                f"--out {request.out} is the folder of a run, whose clips would be lost: name "
                "another"
            )
        size, endings = request.size, clips.endings(request.data)
        if size is None and endings.isdisjoint(clips.ARRAYS):
            size = model.frame_size
        options = {name: getattr(request, name) for name in CLIP_OPTIONS}
        # As in training, unless they are given: where every second frame is kept, things move twice
        # as far. (--axes is for arrays alone, and --fps for videos: --stride takes its place.)
        if not endings.isdisjoint(clips.ARRAYS):
            options["axes"] = request.axes or run.get("axes")
        elif endings.isdisjoint(clips.PICTURES) and options["fps"] is options["stride"] is None:
            options["fps"] = run.get("fps")
        if options["stride"] is None:
            options["stride"] = run.get("stride", 1)
        value_range = options["value_range"] = request.value_range or run.get("value_range")
        opened = clips.open_clips(request.data, request.out, size, channels, **options)
        spans = opened.spans
    longest = int((spans[:, 1] - spans[:, 0]).max())
    length = min(frames, max(longest, request.context))
    spans = clips.long_enough(spans, length, "--context")
    windows = clips.Windows(opened.frames, spans, length, step=length)
    left_over = int(np.diff(spans).sum()) - len(windows) * length
    print(
        f"stretches of {length} frames{', context and truth' * (length > request.context)}: "
        f"{len(windows)}; frames left over at the ends of clips: {left_over}"
    )
    height, width = model.frame_size
    if request.size is None and opened.frames.shape[1:3] != (height, width):
        print(
            f"these frames keep their size; the model was trained on {height} x {width} pixels, "
            f"which --size {height} {width} would make of them"
        )
    return windows, tuple(value_range or (0, 1))


def choose_indices(available, count=None, seed=None, usual_count=100):
    """Numbers of the videos to forecast.

    Args:
        available: how many there are to choose from.
        count: how many; None takes `usual_count`, or all if they are fewer.
        seed: None takes the first ones; an integer picks at random, by this seed.

    Returns:
        Integer array (count,), values in 0..available - 1.

    Raises:
        InputError: count or seed is not in range.
    """
    if count is None:
        count = min(usual_count, available)
    if not 1 <= count <= available:
        raise InputError(f"--count {count}: there are {available:,} videos to choose from")
    if seed is None:
        return np.arange(count)
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or above")
    return np.random.default_rng(seed).choice(available, count, replace=False)


def batches(videos, indices, horizon, verbose=0):
    """Some of the videos, as many at a time as can be forecast together.

    Args:
        videos: to be indexed by an array of numbers: (videos, frames, height, width, channels).
        indices: which of them.
        horizon: how many frames of each will be predicted.
        verbose: 1 shows a progress bar.

    Yields:
        The next videos, as they are.
    """
    height, width, channels = videos[indices[:1]].shape[2:]
    pixels = height * width
    batch_size = min(BATCH_PIXELS // pixels, BATCH_VALUES // (pixels * channels * horizon))
    batch_size = max(1, batch_size)
    bar = keras.utils.Progbar(len(indices), verbose=verbose, unit_name="video")
    for start in range(0, len(indices), batch_size):
        yield videos[indices[start : start + batch_size]]
        bar.update(min(start + batch_size, len(indices)))
