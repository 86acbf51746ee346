"""The run folder: save, resume, load a model. Open it to change what a run leaves behind.

config.json         every hyperparameter
environment.json    command, versions, device, commit; one entry for each start
log.csv, curve.png  a row for each epoch, and its picture
samples/            forecasts of validation videos
best.keras          the averaged weights with the lowest validation error
last.keras          the averaged weights of the last epoch
checkpoint.keras    everything that `--resume` needs
init.keras          the weights that it started from, with `--init`
clips-cache.npy, clips-cache.json    your own clips, converted; see clips.py
tensorboard/, wandb/    what `--log` reports
"""

import contextlib
import csv
import dataclasses
import functools
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

from extras.cli import Failure, InputError, atomic_write  # comes before Keras

import keras
import matplotlib.figure
import numpy as np
import pydantic
from keras import ops

import data
import model as models
from extras import cli, devices, pictures, sources
from extras.optimizer import cooldown_start, learning_rate

SHIPPED = data.ASSETS / "forecaster.keras"
CHECKPOINT, INIT = "checkpoint.keras", "init.keras"
EARLIER_COMMIT = "4faf66b"  # the last one with other models and other fields in a config


# Models ---------------------------------------------------------------------------------------


def load_model(path):
    """Load a next-frame model.

    Args:
        path: a run folder, of which `best.keras` is taken, or a .keras file.

    Returns:
        A `model.NextFrameModel`.

    Raises:
        InputError: there is none, or the file is not such a model.
    """
    devices.list_devices()  # without one the file would be called damaged
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / "best.keras"
        if not path.exists():
            raise InputError(f"{folder} has no best.keras: a run has one after its first epoch")
    if not path.exists():
        raise InputError(f"{path}: no such model: name the folder of a run, or a .keras file")
    if path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras model: name one, or the folder of a run")
    try:
        with warnings.catch_warnings(action="ignore"):
            # Keras's safe mode, its default, runs no code that a file brings along.
            model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken file can fail anywhere within Keras
        reason = textwrap.shorten(str(error), 200)  # Keras may quote a whole config
        raise InputError(
            f"{path} cannot be loaded: its layers are not those of model.py (make a new layer an "
            "option of Architecture that is off by default), or the file is damaged, or of an "
            f"earlier version (`git checkout {EARLIER_COMMIT}`): {reason}"
        ) from None
    if not isinstance(model, models.NextFrameModel):
        raise InputError(f"{path} holds a {type(model).__name__}, not a model of model.py")
    weights = model.get_weights()
    if not weights or not all(np.isfinite(weight).all() for weight in weights):
        raise InputError(f"{path} has no weights, or some that are no numbers: name another one")
    return model


def initial_model(config):
    """The model whose weights a run starts from; None: it starts from new ones.

    Args:
        config: a `Config` of train.py.

    Raises:
        InputError: `--init` names none, or one of another size.
    """
    if config.init is None:
        return None
    model = load_model(config.init)
    theirs = dataclasses.asdict(model.architecture)
    ours = dataclasses.asdict(config.architecture)
    different = [
        as_option(name, value)
        for name, value in theirs.items()
        if value != ours[name] and name not in ("channels", "precision")  # see `copy_weights`
    ]
    if different:
        raise InputError(
            f"--init: these weights are of a model of another size, with {', '.join(different)}; "
            "--config RUN takes the size of a run"
        )
    return model


def as_option(name, value):
    """A field of a config -> how it is typed."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {' '.join(map(str, np.atleast_1d(value)))}"


def copy_weights(source, model):
    """Give a model the weights of another one; those for grey frames serve for colour, too.

    Raises:
        InputError: the models differ in more than that.
    """
    values = [ops.convert_to_numpy(weight) for weight in source.weights]
    if (source.architecture.channels, model.architecture.channels) == (1, 3):
        for n, (value, variable) in enumerate(zip(values, model.weights)):
            for axis, (old, new) in enumerate(zip(value.shape, variable.shape)):
                if (old, new) == (1, 3):  # the first kernel takes the mean of the channels
                    value = np.repeat(value, 3, axis) / (1 if "head" in variable.path else 3)
            values[n] = value
    if [value.shape for value in values] != [tuple(weight.shape) for weight in model.weights]:
        raise InputError("--init: these weights are of another kind of model, or for colour")
    model.set_weights(values)


# The files of a run -------------------------------------------------------------------------


def read_json(path, kind):
    """The content of a run's JSON file, a `kind`: dict or list.

    Raises:
        InputError: it is missing, or something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if type(content) is not kind:
        raise InputError(f"{path} was not written by a run: it should hold a {kind.__name__}")
    return content


def write_json(path, content):
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_config(path, kind=dict):
    """The config in a run's folder or in a .json file.

    Args:
        path: the folder or the file.
        kind: what to return: a dict of the fields, or `train.Config`, which checks them.

    Raises:
        InputError: there is none, or an earlier version wrote it.
    """
    path = Path(path)
    if path.suffix != ".json" or path.is_dir():
        path = path / "config.json"
    if not path.exists():
        raise InputError(f"there is no run with {path}: name the folder of a run")
    fields = read_json(path, dict)
    if fields.get("init") == INIT:
        fields["init"] = str(path.with_name(INIT).absolute())
    try:
        return kind(**fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] != "unexpected_keyword_argument":
        raise InputError(f"{path} is no config of this version: {field}: {first['msg']}")
    try:
        commit = read_json(path.with_name("environment.json"), list)[-1]["commit"]
    except (InputError, LookupError, TypeError):
        commit = EARLIER_COMMIT
    raise InputError(
        f"{path} is of an earlier version ({field}): `git checkout {commit}` goes on with it"
    )


def write_config(folder, config):
    """Write a `train.Config`; the weights that a run started from are those that it has kept."""
    fields = dataclasses.asdict(config)
    if config.init is not None:
        fields["init"] = INIT
    write_json(folder / "config.json", fields)


def read_log(folder, epochs=None):
    """The rows of log.csv for the epochs that are done; None: for as many as there are.

    Raises:
        InputError: they are not there.
    """
    if epochs == 0:
        return []
    path = Path(folder) / "log.csv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))[:epochs]
        columns = ("videos", "val_mse", "val_mse_first_frame", "val_mse_last_frame")
        whole = len(rows) == epochs if epochs else len(rows) > 0
        if whole and all(float(row[name]) > 0 for row in rows for name in columns):
            return rows
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} should have a row for each epoch, and has not: restore it")


def environment(distribution=None):
    """What a run ran on, for `environment.json`."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    backend = keras.backend.backend()
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "commit": commit,
        "backend": f"{backend} {sys.modules[backend].__version__}",
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "devices": distribution.device_mesh.devices.tolist()
        if distribution
        else devices.list_devices()[:1],
        "processes": devices.processes,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
    }


def sample_path(folder, epoch):
    """Where the forecasts after an epoch, counted from 0, are drawn."""
    return folder / "samples" / f"epoch-{epoch + 1:04d}.png"


# Starting and resuming -----------------------------------------------------------------------


@contextlib.contextmanager
def own_folder(folder, resume):
    """Within, no other run uses this folder, and who stops a run is told how it goes on.

    (Several processes of one run use the folder of process 0.)

    Raises:
        InputError: it cannot be used, or holds a run that is not to be resumed.
    """
    if devices.process > 0:
        yield
        return
    with cli.folder_lock(folder):
        if not resume and (folder / "config.json").exists():
            raise InputError(
                f"{folder} holds a run already: go on with it by --resume {folder}, "
                "delete it, or choose another folder by --run"
            )
        try:
            yield
        except (KeyboardInterrupt, OSError) as error:  # OSError: the disk is full, say
            if not (folder / "config.json").exists():
                raise
            go_on = f"go on with: python train.py --resume {folder}"
            if isinstance(error, OSError):
                raise Failure(f"{error}; then {go_on}") from None
            print(f"\nstopped; {go_on}", file=sys.stderr)
            raise


def start(folder, config, closed_loop, here):
    """Make a run of a folder: write what it can be resumed from, before its first epoch.

    Args:
        folder: an existing folder.
        config: a `Config` of train.py.
        closed_loop: the compiled model in training.
        here: what `environment` returns.
    """
    if devices.process > 0:
        return
    if config.init is not None:
        with atomic_write(folder / INIT) as path:
            closed_loop.model.save(path)
    with atomic_write(folder / CHECKPOINT) as path:
        closed_loop.save(path)
    write_json(folder / "environment.json", [here])
    write_config(folder, config)  # now it is a run


def resume(folder, planned, config, closed_loop, here):
    """Put a run's state into the model and its optimizer.

    Args:
        folder, config, closed_loop, here: as for `start`.
        planned: the `Config` that the run had; `config` may differ from it in `epochs`.

    Returns:
        epoch: how many epochs are done.
        rows: those of log.csv, one for each.

    Raises:
        InputError: a file of the run is missing or damaged, or it is too late for other epochs.
    """
    # Process 0 changes files below. The checkpoint, at which JAX lets all processes wait for each
    # other, comes first, so that none reads a file that has changed already.
    epoch = load_checkpoint(closed_loop, folder, config)
    rows = read_log(folder, epoch)
    if config != planned and epoch > min(cooldown_start(planned), cooldown_start(config)):
        raise InputError(
            f"{folder} has done {epoch} epochs: with --epochs {config.epochs} its learning rates "
            f"should be other ones by now. Start another run from its weights: --config {folder} "
            f"--init {folder} --run OTHER"
        )
    if devices.process == 0:
        starts = read_json(folder / "environment.json", list)
        write_config(folder, config)
        write_json(folder / "environment.json", [*starts, here])
    return epoch, rows


def load_checkpoint(closed_loop, folder, config):
    """Put a run's whole state into the model and its optimizer; return the epochs done."""
    path = folder / CHECKPOINT
    if not path.exists():
        raise InputError(f"{folder} has no {CHECKPOINT} to go on from")
    try:
        closed_loop.load_weights(path)
    except Exception as error:  # what a damaged file raises depends on the damage
        first_line = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be loaded: {first_line}") from None
    steps = int(ops.convert_to_numpy(closed_loop.optimizer.iterations))
    return steps // config.steps_per_epoch


# After each epoch ---------------------------------------------------------------------------


class ScoreAndSave(keras.callbacks.Callback):
    """After each epoch: forecast validation videos, then save all that a run leaves.

    The model that is scored and saved is a second one, which holds the averaged weights; the
    one in training is never touched, so a run does not depend on when it is scored.

    Every process of a run scores it, each on a device of its own: so none waits for another,
    and all of them stop when the score is no number. Process 0 saves.

    Args:
        folder: the run folder.
        config: a `Config` of train.py.
        averaged: a model like the one in training.
        rows: those of log.csv, one for each epoch so far.
        asked_to_stop: a function that tells whether Ctrl-C was pressed.
        training: the `data.MovingMNIST` that `fit` is given; it is told each epoch.
        validation: videos, to be indexed by an array of numbers. As many as the config says are
            forecast, evenly spaced.
    """

    async_safe = True  # Keras then does not wait for each batch before it starts the next

    def __init__(self, folder, config, averaged, rows, asked_to_stop, training, validation):
        super().__init__()
        self.folder = folder
        self.config = config
        self.averaged = averaged
        self.rows = rows
        self.asked_to_stop = asked_to_stop
        self.training = training
        self.validation = validation
        count = min(config.validation_videos, len(validation))
        self.indices = np.linspace(0, len(validation) - 1, count).astype(int)
        self.started = time.monotonic()

    def on_train_begin(self, logs=None):
        error, _ = self.forecast(data.copy_last)
        self.copy_last_mse = error.mean()
        print(
            f"Copying the last frame gives a val_mse of {self.copy_last_mse:.6g}; "
            "a model has learned something once its own is lower."
        )

    def on_train_end(self, logs=None):
        if devices.process > 0:
            return
        best = min(self.rows, key=lambda row: float(row["val_mse"]))
        print(
            f"best validation MSE {best['val_mse']} after epoch {best['epoch']}, against "
            f"{self.copy_last_mse:.6g} for copying the last frame: {self.folder}/best.keras"
        )
        print(f"look at it: python animate.py {self.folder}")

    def on_epoch_begin(self, epoch, logs=None):
        self.training.epoch = epoch

    def on_train_batch_end(self, batch, logs):
        if self.asked_to_stop():
            raise KeyboardInterrupt
        self.check_finite(logs["loss"])

    def on_epoch_end(self, epoch, logs):
        with devices.distribution_scope(None):  # scoring and saving wait for no other process
            self.score_and_save(epoch, logs)

    def score_and_save(self, epoch, logs):
        self.copy_averaged_weights()
        error, samples = self.forecast(functools.partial(models.rollout, self.averaged))
        self.check_finite(error.mean())  # the last step may have spoilt the weights
        best = all(error.mean() < float(row["val_mse"]) for row in self.rows)
        steps = (epoch + 1) * self.config.steps_per_epoch
        rate = learning_rate(self.config)
        logs["val_mse"] = error.mean()  # for the progress bar
        self.rows.append(
            {
                "epoch": epoch + 1,
                "videos": steps * self.config.batch_size,
                "loss": f"{logs['loss']:.4f}",
                "motion_loss": f"{logs['motion_loss']:.4f}" if "motion_loss" in logs else "",
                "val_mse": f"{error.mean():.6g}",
                "val_mse_first_frame": f"{error[0]:.6g}",
                "val_mse_last_frame": f"{error[-1]:.6g}",
                # That of the epoch's last step; steps count from 0.
                "learning_rate": f"{float(rate(steps - 1)):.3g}",
                "seconds": f"{time.monotonic() - self.started:.1f}",
            }
        )
        self.started = time.monotonic()
        if devices.process > 0:
            return
        with atomic_write(sample_path(self.folder, epoch)) as path:
            pictures.forecast_strip(*samples).save(path)
        self.save(best)

    def check_finite(self, loss):
        if not np.isfinite(loss):
            raise Failure(
                f"the loss is no longer a number in epoch {len(self.rows) + 1}; {self.folder} "
                "keeps the weights before it. Try a lower --muon-learning-rate or "
                "--adam-learning-rate"
            )

    def copy_averaged_weights(self):
        self.averaged.set_weights(self.model.model.get_weights())  # of `ClosedLoop.model`
        optimizer = self.model.optimizer
        if optimizer.use_ema:
            averages = optimizer._model_variables_moving_average
            for average, variable in zip(averages, self.averaged.trainable_variables):
                # By way of NumPy: on JAX both would share one array, which `fit` deletes.
                variable.assign(ops.convert_to_numpy(average))

    def forecast(self, predict):
        """Forecast the validation videos.

        Args:
            predict: a function of the context and the horizon, as `data.copy_last` is.

        Returns:
            error: squared error of each predicted frame, (horizon,).
            samples: context, truth and prediction of the first three videos.
        """
        context, horizon = self.config.context, self.config.frames - self.config.context
        error, samples = np.zeros(horizon), []
        for videos in sources.batches(self.validation, self.indices, horizon):
            real = data.to_float(videos[:, :context])
            predictions = predict(real, horizon)
            difference = predictions - data.to_float(videos[:, context:])
            error += np.square(difference).sum(axis=(0, 2, 3, 4))
            samples += list(zip(videos[:, :context], videos[:, context:], predictions))
            samples = samples[:3]
        return error / len(self.indices), list(zip(*samples))

    def save(self, best):
        with atomic_write(self.folder / "last.keras") as path:
            self.averaged.save(path)
        if best:
            with atomic_write(self.folder / "best.keras") as path:
                self.averaged.save(path)
        with atomic_write(self.folder / "log.csv") as path, open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[-1])
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(self.folder / "curve.png") as path:
            draw_curve(self.rows, self.copy_last_mse).savefig(path, dpi=120)
        # Last, so that whatever it counts as done has been written.
        with atomic_write(self.folder / CHECKPOINT) as path:
            self.model.save(path)


def draw_curve(rows, copy_last_mse):
    """A figure of the validation error over training, from the rows of log.csv."""
    videos = [int(row["videos"]) for row in rows]
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for column, label in [
        ("val_mse_last_frame", "last predicted frame"),
        ("val_mse", "mean of the predicted frames"),
        ("val_mse_first_frame", "first predicted frame"),
    ]:
        axes.plot(videos, [float(row[column]) for row in rows], marker=".", label=label)
    axes.axhline(copy_last_mse, color="grey", linestyle=":", label="copying the last frame: mean")
    axes.set(xlabel="training videos", ylabel="MSE, summed over pixels", ylim=(0, None))
    axes.set_title("Forecasts of validation videos, averaged weights")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
