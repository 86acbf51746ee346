"""The run folder: save, resume, load a model. Open it to change what a run leaves behind.

config.json         every hyperparameter
environment.json    command, versions, device, commit, data; one entry for each start
log.csv, curve.png  a row for each epoch, and its picture
samples/            forecasts of validation videos
best.keras          the averaged weights with the lowest validation error
last.keras          the averaged weights of the last epoch
checkpoint.keras    everything that `--resume` needs
init.keras          the weights that it started from, with `--init`
tensorboard/, wandb/    what `--log` reports
"""

import contextlib
import csv
import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
import time
import warnings
import zipfile
from pathlib import Path

import keras
import matplotlib.figure
import numpy as np
import pydantic
from keras import ops

import data
from extras import cli, devices, pictures
from extras.cli import Failure, InputError, atomic_write
from method.loop import NextFrameModel

SHIPPED = data.ASSETS / "forecaster.keras"
CHECKPOINT, INIT = "checkpoint.keras", "init.keras"
EPOCHS = "epochs.txt"  # within the checkpoint
# One of these shows that a folder holds a run. The others are no sign of one: a start that failed
# may have left them.
OF_A_RUN = ("config.json", "best.keras", "last.keras", "log.csv", "curve.png", "samples")
COLUMNS = (
    "epoch", "videos", "loss", "frames_loss", "val_mse", "val_mse_first_frame",
    "val_mse_last_frame", "learning_rate", "seconds",
)  # fmt: skip
TIMED_STEPS = 10  # from which the time of a run is estimated


# Models ---------------------------------------------------------------------------------------


def load_model(path):
    """Load a next-frame model.

    Args:
        path: a run folder, of which `best.keras` is taken, or a .keras file.

    Returns:
        A `NextFrameModel`.

    Raises:
        InputError: there is none, or the file is not such a model.
    """
    devices.list_devices()  # without one the file would be called damaged
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / "best.keras"
        if not path.exists():
            raise InputError(
                f"{folder} has no best.keras: a run has one after its first epoch (go on with it: "
                f"python train.py --resume {quote(folder)})"
            )
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no such model: name the folder of a run, or a .keras file")
    if path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras model: name one, or the folder of a run")
    if path.name == CHECKPOINT:
        raise InputError(
            f"{path} is a checkpoint, from which --resume goes on: name its folder, or best.keras"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            # Keras's safe mode, its default, runs no code that a file brings along.
            model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken file can fail anywhere within Keras
        reason = textwrap.shorten(str(error), 200)  # Keras may quote a whole config
        raise InputError(
            f"{path} cannot be loaded: its layers are not those of model.py (make a new layer an "
            f"option of Architecture that is off by default), or the file is damaged: {reason}"
        ) from None
    if not isinstance(model, NextFrameModel):
        raise InputError(f"{path} holds a {type(model).__name__}, not a model of model.py")
    weights = model.get_weights()
    if not weights or not all(np.isfinite(weight).all() for weight in weights):
        raise InputError(f"{path} has no weights, or some that are no numbers: name another one")
    return model


def copy_averaged_weights(model, averaged):
    """Give a model the moving averages of the weights of another one, which is in training."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # in float16
    values = [ops.convert_to_numpy(variable) for variable in model.variables]
    if optimizer.use_ema:
        place = {id(variable): n for n, variable in enumerate(model.variables)}
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(optimizer._trainable_variables, averages):
            # By way of NumPy: on JAX both would share one array, which `fit` deletes.
            values[place[id(variable)]] = ops.convert_to_numpy(average)
    for variable, value in zip(averaged.variables, values):
        variable.assign(value)


# The files of a run -------------------------------------------------------------------------


def read_json(path, kind):
    """The content of a run's JSON file, a `kind`: dict, or list of dicts.

    Raises:
        InputError: it is missing, or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} cannot be read: it is no file")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    items = content if kind is list else ()
    if type(content) is not kind or any(type(item) is not dict for item in items):
        raise InputError(f"{path} was not written by a run: it should hold a {kind.__name__}")
    return content


def write_json(path, content):
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_config(path, kind):
    """The config of a run.

    Args:
        path: the run's folder, or its config.json.
        kind: `train.Config`, which checks the fields.

    Raises:
        InputError: there is none, or a field is not one of this version, or has no such value.
    """
    path = Path(path)
    if path.suffix != ".json" or path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"there is no run with {path}: name the folder of a run")
    fields = read_json(path, dict)
    if fields.get("init") == INIT:
        fields["init"] = str(path.with_name(INIT).absolute())
    try:
        return kind(**fields)
    except (pydantic.ValidationError, TypeError) as error:
        first = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": error}
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is no config of this version: {field}: {first['msg']}") from None


def write_config(folder, config):
    """Write a `train.Config`; the weights that a run started from are those that it has kept."""
    fields = dataclasses.asdict(config)
    if config.init is not None:
        fields["init"] = INIT
    write_json(folder / "config.json", fields)


def check_clips(folder, config, digest, otherwise):
    """Raise an InputError, with the remedy, unless a run was started with clips of this digest."""
    *_, last = [{}, *read_json(folder / "environment.json", list)]
    if last.get("clips") != digest:
        raise InputError(
            f"{config.data} has changed since {folder} was started, or is another file: restore "
            f"it, or {otherwise}"
        )


def quote(path):
    """A path as it can be typed in a terminal, with spaces in it, too."""
    return shlex.quote(str(path))


def read_log(folder, epochs=None):
    """The rows of log.csv for the epochs that are done; None: for as many as there are.

    Raises:
        InputError: they are not there.
    """
    path = Path(folder) / "log.csv"
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        rows = list(csv.DictReader(text.splitlines()))
        # A kill may have left the row of an epoch that is to be done again.
        whole = 0 <= len(rows) - epochs <= 1 if epochs is not None else len(rows) > 0
        numbers = [float(row[name]) for row in rows for name in COLUMNS]
        in_order = [float(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
        same_columns = all(len(row) == len(COLUMNS) for row in rows)
        if whole and np.isfinite(numbers).all() and in_order and same_columns:
            return rows[:epochs]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        pass
    raise InputError(f"{path} should have a row for each epoch, and has not: restore it")


def environment():
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
        "devices": devices.in_use(),
        "processes": devices.processes,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
    }


def sample_path(folder, epoch):
    """Where the forecasts after an epoch, counted from 0, are drawn."""
    return folder / "samples" / f"epoch-{epoch + 1:04d}.png"


# A run ------------------------------------------------------------------------------------------


class Run:
    """A run folder while it is trained in; `with` it, who stops the run is told how it goes on.

    Of several processes of one run, process 0 alone writes.

    Args:
        folder: new, or with `resume` the folder of a run.
        config: a `train.Config`; with `resume` it may differ from the run's in `epochs`, and in
            `data` where its clips have moved.
        resume: go on with the run that is there.
        digest: tells its clips from others; None: Moving MNIST.

    Attributes:
        epoch: how many epochs are done.
        rows: those of log.csv, one for each.

    Raises:
        InputError: the folder cannot be used, or holds a run that is not to be resumed.
    """

    def __init__(self, folder, config, resume, digest):
        year = time.localtime().tm_year
        if not 1980 <= year < 2108:  # a .keras file is a ZIP file, which notes no other years
            raise InputError(f"this machine's clock shows the year {year}: set it")
        self.folder = Path(folder)
        self.config = config
        self.resume = resume
        self.epoch, self.rows = 0, []
        self.environment = environment()
        if digest is not None:
            self.environment["clips"] = digest
        cli.say(f"{self.environment['backend']} on {', '.join(self.environment['devices'])}")
        self.initial = None
        if resume:
            self.check_resume()
        else:
            made = [name for name in OF_A_RUN if (self.folder / name).exists()]
            if made and devices.process == 0:
                raise InputError(
                    f"{folder} holds a run already ({made[0]}): go on with it by "
                    f"--resume {quote(folder)}, delete it, or choose another folder by --run"
                )
            for name in (CHECKPOINT, INIT, "environment.json"):
                cli.refuse_input(self.folder / name, config.data, config.init)
            if config.init is not None:
                self.initial = load_model(config.init)

    def check_resume(self):
        """Raise an InputError unless the folder's run can go on with this config and clips."""
        planned = read_config(self.folder, type(self.config))
        for field in dataclasses.fields(planned):
            theirs, ours = getattr(planned, field.name), getattr(self.config, field.name)
            if theirs != ours and field.name not in ("epochs", "data"):  # clips may have moved
                raise InputError(
                    f"{self.folder} was started with {field.name} {theirs}, and now it is {ours}: "
                    "only --epochs may change, and --data where its clips have moved"
                )
        again = f"start another run from its weights: --init {quote(self.folder)} --run OTHER"
        check_clips(self.folder, self.config, self.environment.get("clips"), again)

    def __enter__(self):
        self.signals = contextlib.ExitStack()
        self.asked_to_stop = self.signals.enter_context(cli.stop_politely())
        return self

    def __exit__(self, kind, error, _):
        self.signals.close()
        if devices.process > 0 or not (self.folder / "config.json").exists():
            return
        go_on = f"go on with: python train.py --resume {quote(self.folder)}"
        if isinstance(error, OSError):  # the disk is full, say
            raise Failure(f"{cli.reason(error)}; then {go_on}") from None
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"; epochs done: {len(self.rows)}; {go_on}") from None

    def copy_initial_weights(self, model):
        """Give a new model the weights that `--init` names.

        Raises:
            InputError: they are of another model, of one of another size, or for other frames.
        """
        if self.initial is None:
            return
        self.initial.check_channels(model.architecture.channels)
        theirs, ours = self.initial.weights, model.weights
        if [tuple(w.shape) for w in theirs] != [tuple(w.shape) for w in ours]:
            size = dataclasses.asdict(self.initial.architecture)
            mine = dataclasses.asdict(model.architecture)
            other = [f"{name} {value}" for name, value in size.items() if value != mine[name]]
            raise InputError(
                "--init: these weights are of another model"
                f"{': ' + ', '.join(other) if other else ''}; --config RUN takes the size of a run"
            )
        model.set_weights(self.initial.get_weights())

    def restore(self, model):
        """Begin: write what the run can be resumed from; or load it into a compiled model.

        Raises:
            InputError: nothing can be written to the folder, a file of the run is missing or
                damaged, more epochs are done than the config has, or it is too late for others.
        """
        if devices.process == 0:
            cli.make_folder(self.folder)
            # What a killed run left. Deeper folders may be those of other runs.
            for place in (self.folder, self.folder / "samples"):
                for leftover in place.glob(f"{cli.UNFINISHED}*"):
                    leftover.unlink()
        if not self.resume:
            if devices.process == 0:
                with devices.alone():  # saving waits for no other process
                    if self.initial is not None:
                        with atomic_write(self.folder / INIT) as path:
                            self.initial.save(path)
                    save_checkpoint(model, 0, self.folder / CHECKPOINT)
                write_json(self.folder / "environment.json", [self.environment])
                write_config(self.folder, self.config)  # now it is a run
            return
        self.epoch = load_checkpoint(model, self.folder / CHECKPOINT)
        self.rows = read_log(self.folder, self.epoch)
        done = f"{self.folder} has done {self.epoch} epoch{'s' * (self.epoch > 1)}"
        again = f"--config {quote(self.folder)} --init {quote(self.folder)} --run OTHER"
        if self.epoch > self.config.epochs:
            raise InputError(
                f"{done}, and --epochs {self.config.epochs} would take some back: leave it out, or "
                f"repeat the run with as many: --config {quote(self.folder)} --epochs "
                f"{self.config.epochs} --run OTHER"
            )
        rate = learning_rate(model)
        if self.rows and not np.isclose(rate, float(self.rows[-1]["learning_rate"]), rtol=0.01):
            raise InputError(
                f"{done}: with --epochs {self.config.epochs} its learning rates should be other "
                f"ones by now. Start another run from its weights: {again}"
            )
        if self.epoch == self.config.epochs:
            cli.say(
                f"All epochs of {self.folder} are done. Start another run from its weights: {again}"
            )
        if devices.process == 0:
            starts = read_json(self.folder / "environment.json", list)
            write_config(self.folder, self.config)
            write_json(self.folder / "environment.json", [*starts, self.environment])

    def start_log(self, copy_last_mse):
        """Note the error of copying the last frame, with which a model's is compared."""
        self.copy_last_mse = copy_last_mse
        self.started = time.monotonic()
        cli.say(
            f"Copying the last frame gives a val_mse of {copy_last_mse:.6g}; a model has learned "
            "something once its own is lower."
        )

    def save(self, epoch, logs, error, samples, model, averaged):
        """Save all that a run leaves, after an epoch.

        Args:
            epoch: its number, from 0.
            logs: Keras's, with the loss.
            error: squared error of each predicted frame of the validation videos.
            samples: context, truth and prediction of some of them.
            model, averaged: the compiled model, and that with the averaged weights.
        """
        self.check_finite(error.mean())  # the last step may have spoilt the weights
        best = all(error.mean() < float(row["val_mse"]) for row in self.rows)
        self.rows.append(
            {
                "epoch": epoch + 1,
                "videos": (epoch + 1) * self.config.steps_per_epoch * self.config.batch_size,
                "loss": f"{logs['loss']:.4f}",
                "frames_loss": f"{logs['frames_loss']:.4f}",  # without the motion's
                "val_mse": f"{error.mean():.6g}",
                "val_mse_first_frame": f"{error[0]:.6g}",
                "val_mse_last_frame": f"{error[-1]:.6g}",
                # The optimizer's after the epoch's last step
                "learning_rate": f"{learning_rate(model):.6g}",
                "seconds": f"{time.monotonic() - self.started:.1f}",
            }
        )
        self.started = time.monotonic()
        if devices.process > 0:
            return
        with atomic_write(sample_path(self.folder, epoch)) as path:
            context, truth, prediction = samples
            pictures.forecast_strip(context, truth, {"predicted": prediction}).save(path)
        with atomic_write(self.folder / "last.keras") as path:
            averaged.save(path)
        if best:
            with atomic_write(self.folder / "best.keras") as path:
                averaged.save(path)
        with (
            atomic_write(self.folder / "log.csv") as path,
            open(path, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(self.folder / "curve.png") as path:
            draw_curve(self.rows, self.copy_last_mse).savefig(path, dpi=120)
        # Last, so that whatever it counts as done has been written.
        save_checkpoint(model, epoch + 1, self.folder / CHECKPOINT)

    def check_finite(self, loss):
        """Raise a Failure if a loss is no number."""
        if not np.isfinite(loss):
            raise Failure(
                f"the loss is no longer a number in epoch {len(self.rows) + 1}; {self.folder} "
                "keeps the weights before it. Try a lower --muon-learning-rate or "
                "--adam-learning-rate"
            )


class Watch(keras.callbacks.Callback):
    """Stop a run after a step, if Ctrl-C was pressed or the loss is no number.

    Args:
        run: a `Run`.
    """

    async_safe = True  # Keras then does not wait for each batch before it starts the next

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.done = 0  # steps since the first, which waits for the model to be compiled

    def on_train_batch_end(self, batch, logs):
        if self.done == 0:
            self.started = time.monotonic()
        elif self.done == TIMED_STEPS:
            epochs = self.run.config.epochs - self.run.epoch
            left = epochs * self.run.config.steps_per_epoch - self.done
            minutes = (time.monotonic() - self.started) / self.done * left / 60
            cli.say("", f"about {minutes:.0f} minutes to go, and the validation after each epoch")
        self.done += 1
        if self.run.asked_to_stop():
            raise KeyboardInterrupt
        self.run.check_finite(logs["loss"])

    def on_train_end(self, logs=None):
        if devices.process > 0 or not self.run.rows:
            return
        best = min(self.run.rows, key=lambda row: float(row["val_mse"]))
        folder = self.run.folder
        cli.say(
            f"best validation MSE {best['val_mse']} after epoch {best['epoch']}, against "
            f"{self.run.copy_last_mse:.6g} for copying the last frame: {folder / 'best.keras'}",
            f"look at it: python animate.py {quote(folder)}",
        )


def save_checkpoint(model, epochs, path):
    """Write a compiled model, and how many epochs are done: `EPOCHS` within the .keras archive."""
    with atomic_write(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(EPOCHS, str(epochs))


def load_checkpoint(model, path):
    """Put a run's whole state into a compiled model: -> how many epochs are done.

    Raises:
        InputError: the file is missing, damaged, or of another model or optimizer.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name} to go on from")
    try:
        with zipfile.ZipFile(path) as archive:
            model.check_weights(json.loads(archive.read("config.json"))["build_config"])
            epochs = int(archive.read(EPOCHS))
        with warnings.catch_warnings():
            # Keras would leave the optimizer as new.
            warnings.filterwarnings("error", message="Skipping variable loading")
            model.load_weights(path)
        return epochs
    except Exception as error:  # what a damaged file raises depends on the damage
        first_line = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be loaded: {first_line}") from None


def learning_rate(model):
    """Of a compiled model's next step, a float."""
    return float(ops.convert_to_numpy(model.optimizer.learning_rate))


def draw_curve(rows, copy_last_mse):
    """A figure of the validation error over training, from the rows of log.csv."""
    videos = [float(row["videos"]) for row in rows]
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for column, label in [
        ("val_mse_last_frame", "last predicted frame"),
        ("val_mse", "mean of the predicted frames"),
        ("val_mse_first_frame", "first predicted frame"),
    ]:
        axes.plot(videos, [float(row[column]) for row in rows], marker=".", label=label)
    axes.axhline(copy_last_mse, color="grey", linestyle=":", label="copying the last frame: mean")
    axes.set(xlabel="training videos", ylabel="MSE, summed over pixels", xlim=0, ylim=0)
    axes.set_title("Forecasts of validation videos, averaged weights")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
