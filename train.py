"""Train a next-frame model on Moving MNIST or on your own clips, on a GPU or on a laptop's CPU.

    python train.py --preset tiny              a first look, in about a minute
    python train.py                            the shipped size, on two CPU cores
    python train.py --preset gpu               (KERAS_BACKEND=jax is faster there)
    python train.py --batch-size 8 --run runs/mine
    python train.py --data clips --run runs/clips      your own: videos, or folders of frames
    python train.py --resume runs/mine         go on after an interruption
    python train.py --resume runs/mine --epochs 80     go on for longer than was planned
    python train.py --init assets/forecaster.keras     start from trained weights
    python train.py --config runs/mine/config.json --run runs/again     repeat a run
    python train.py --preset gpu --devices all         several GPUs, on JAX; see devices.py

Training is in closed loop: the model reads ten real frames and goes on from its own
predictions, as it must when it forecasts. Early in training most of its inputs beyond the
context are still real frames; their share falls from 1 to 0 ("scheduled sampling", Bengio
et al. 2015; but once a model goes on by itself, it stays so until the video ends). Gradients
flow through the predictions that are fed back.

A run leaves all that is needed to look at it, to repeat it and to go on with it:

    config.json         every hyperparameter
    environment.json    command, versions, device, commit; one entry for each start
    log.csv, curve.png  a row for each epoch, and its picture
    samples/            forecasts of validation videos
    best.keras          the averaged weights with the lowest validation error
    last.keras          the averaged weights of the last epoch
    checkpoint.keras    everything that `--resume` needs
    before-cooldown.keras   the same, from before the learning rates fell: a run that
                        is given more epochs goes on from here
    init.keras          the weights that it started from, with `--init`
    clips-cache.npy, clips-cache.json    your own clips, converted; see clips.py
    tensorboard/, wandb/    what `--log` reports
"""

import argparse
import csv
import dataclasses
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import typing
import warnings
from pathlib import Path
from typing import Literal

from extras import cli
from extras.cli import Failure, InputError, atomic_write

import keras
import matplotlib.figure
import numpy as np
import tyro
from keras import ops
from PIL import Image

from extras import clips
import data
from extras import devices
import model as models

MOVING_MNIST = "moving-mnist"


@dataclasses.dataclass(frozen=True)
class Config:
    """All hyperparameters; their defaults are the `cpu` preset."""

    model: Literal["sheets", "forecaster", "keras-example"] = "sheets"
    """Sheets that move as a whole, for bright things on black; a forecaster of pixels, for any
    video; or the stack that the Keras site shows."""
    encoder_filters: int = 16
    """Filters of the first convolution."""
    filters: int = 32
    """Filters of each ConvLSTM2D layer at a quarter of the frame's size, and of what leads there
    (keras-example: of each ConvLSTM2D layer)."""
    coarse_filters: int = 48
    """Filters of each ConvLSTM2D layer at an eighth of the frame's size."""
    layers: tuple[int, int, int] = (0, 2, 0)
    """How many ConvLSTM2D layers stand at a quarter of the frame's size going down, at an eighth,
    and at a quarter going up; a forecaster with `3 0 0` is a plain stack."""
    motion_radius: int = 4
    """Pixels that a sheet, or a pixel, can be moved between two frames; 0: a forecaster without
    motion."""
    history: int = 9
    """Steps of which the measured motion is remembered; 0: a forecaster that measures none."""
    sheets: int = 2
    """Into how many sheets a frame is taken apart."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """bfloat16 halves the memory and is faster on a GPU; on most CPUs it is slower."""

    data: str = MOVING_MNIST
    """moving-mnist, or the path of your own clips: a video file, a folder of video files or of
    folders of numbered frames, or a .npy or .npz file. Every tenth clip is for validation."""
    channels: tyro.conf.Fixed[int] = 1
    """Of a frame: 1 grey, 3 colour. Follows from the data, or from the weights of `--init`."""
    digits_per_video: int = 2
    """Digits in a video of Moving MNIST (2: Srivastava et al. 2015)."""
    frames: int = 20
    """Frames of a training video (20: Srivastava et al. 2015)."""
    size: int = 64
    """Height and width of a frame in pixels (64: Srivastava et al. 2015). Own clips are resized
    and cropped to it."""
    context: int = 10
    """Real frames that a forecast starts from (10: Srivastava et al. 2015)."""

    batch_size: int = 4
    """Videos in a batch, on all devices together. On a CPU more updates pay more than larger
    batches."""
    accumulate: int = 1
    """Parts that a batch is trained in, one after the other, for a gradient in less memory; the
    result is the same up to rounding."""
    remat: bool = False
    """Keep only the states of each step for the gradient, and compute the rest of it again
    ("rematerialisation", Chen et al. 2016): far less memory, and about a third more time."""
    steps_per_epoch: int = 250
    """Batches in an epoch, after which the run is scored and saved. All videos are new."""
    epochs: int = 24
    """Epochs in all; the learning rates end at zero with the last one."""
    validation_videos: int = 200
    """Validation videos to forecast after each epoch; of own clips all, if they are fewer."""
    sample_every: int = 4
    """Epochs between two pictures of forecasts."""

    loss: Literal["squared_error", "binary_crossentropy"] = "squared_error"
    """Squared error is summed over pixels and averaged over frames; cross-entropy is averaged
    over pixels, as in the Keras example."""
    motion_loss: float = 0.1
    """Weight of a second loss, if motion is measured: the cross-entropy between the predicted
    motion and what is then measured, summed over pixels by their brightness. 0: none."""
    teacher_forcing: bool = False
    """Give real frames throughout, as the Keras example does."""
    sampling_epochs: int = 6
    """Epochs during which the probability of a real frame beyond the context falls from 1 to
    0 (scheduled sampling, Bengio et al. 2015, linear decay)."""
    muon: bool = True
    """Muon (Jordan et al. 2024) for all kernels but those of the encoder's first convolution
    and of the heads, and Adam for the rest; or else Adam for everything."""
    learning_rate: float = 5e-3
    """Muon's learning rate; an update is scaled to Adam's size (Liu et al. 2025)."""
    adam_learning_rate: float = 1e-3
    """Adam's learning rate (1e-3: Kingma and Ba 2015)."""
    weight_decay: float = 0.01
    """Muon's weight decay, multiplied by the learning rate in each step."""
    warmup_steps: int = 100
    """Steps over which the learning rates rise from zero."""
    cooldown: float = 0.4
    """Share of the epochs, the last ones, over which the learning rates fall to zero in a
    straight line (Hagele et al. 2024); before, they are constant, so that the end can be
    postponed. 0: they stay constant."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together; 0: no clipping."""
    average: float = 0.999
    """Momentum of the moving average of the weights that is scored and saved; 0: none."""
    init: str = ""
    """A .keras file, or a run's folder, whose weights to start from; the options that shape
    the model are taken from it."""
    seed: int = 0
    """Initial weights, training videos and scheduled sampling follow from it."""


PRESETS = {
    # The same ideas in a minute: for tests and a first look.
    "tiny": Config(
        encoder_filters=8,
        filters=16,
        coarse_filters=24,
        layers=(0, 1, 0),
        frames=12,
        context=6,
        steps_per_epoch=60,
        epochs=5,
        sampling_epochs=2,
        validation_videos=40,
        sample_every=1,
        average=0.99,
        warmup_steps=20,
    ),
    # Two CPU cores; the shipped size.
    "cpu": Config(),
    # Two CPU cores, any kind of video.
    "forecaster": Config(
        model="forecaster",
        coarse_filters=96,
        layers=(1, 2, 1),
        epochs=14,
        sampling_epochs=12,
        cooldown=0.5,
    ),
    # One GPU; not measured on one yet.
    "gpu": Config(
        model="forecaster",
        encoder_filters=64,
        filters=128,
        coarse_filters=256,
        layers=(2, 2, 2),
        precision="mixed_bfloat16",
        batch_size=64,
        steps_per_epoch=160,
        epochs=200,
        sampling_epochs=100,
        validation_videos=500,
        learning_rate=2e-3,
        sample_every=20,
    ),
    # keras.io/examples/vision/conv_lstm: 64 filters, batches of 5, Adam, cross-entropy,
    # teacher forcing, 900 videos an epoch, 20 epochs. It also stops early, and lowers the
    # learning rate, when the validation loss rests; with new videos it never rests for long.
    "keras-example": Config(
        model="keras-example",
        filters=64,
        batch_size=5,
        steps_per_epoch=180,
        epochs=20,
        loss="binary_crossentropy",
        teacher_forcing=True,
        muon=False,
        warmup_steps=0,
        cooldown=0.0,
        clip_norm=0.0,
        average=0.0,
    ),
}


# What is trained --------------------------------------------------------------------------


def build_model(config):
    """The model that a config describes, with new weights."""
    if config.model == "keras-example":
        model = models.KerasExample(config.filters, precision=config.precision)
    else:
        a_class = models.Forecaster if config.model == "forecaster" else models.SheetForecaster
        more = {"sheets": config.sheets} if config.model == "sheets" else {}
        model = a_class(
            config.encoder_filters,
            config.filters,
            config.coarse_filters,
            config.layers,
            config.motion_radius,
            config.history,
            precision=config.precision,
            **more,
        )
    model.build((None, None, config.size, config.size, config.channels))
    return model


class ClosedLoop(keras.Model):
    """A next-frame model as `fit` trains it.

    {"videos": x, "real": which of its frames to use} -> {"frames": the predictions}, and,
    if the config has a loss for it, "motion": of a forecaster the predicted motion, for blocks
    of 4x4 pixels, (batch, frames - 1, size / 4, size / 4, 2 (2 motion_radius + 1)), as logits;
    of sheets the cross-entropy itself, (batch, frames - 1), since they measure it anyway.
    """

    def __init__(self, model, config):
        super().__init__()
        self.model = model
        model.remat = config.remat
        self.built = True  # the model is
        self.has_motion_loss = has_motion_loss(config)
        self.motion = "motion_error" if config.model == "sheets" else "motion"
        losses = {"frames": LOSSES[config.loss]}
        weights = {"frames": 1}
        if self.has_motion_loss:
            losses["motion"] = MOTION_LOSSES[config.model]
            weights["motion"] = config.motion_loss
        self.compile(make_optimizer(config), losses, weights, jit_compile=models.use_xla())
        self.optimizer.build(self.trainable_variables)

    def get_config(self):
        return {}  # only the weights of what is saved are ever loaded again

    def call(self, inputs, training=False):
        frames, states = self.model.read(inputs["videos"], inputs["real"], training)
        outputs = {"frames": frames}
        if self.has_motion_loss:
            outputs["motion"] = ops.stack([state[self.motion] for state in states], axis=1)
        return outputs


def has_motion_loss(config):
    measures_motion = config.model in MOTION_LOSSES and config.motion_radius and config.history
    return bool(measures_motion and config.motion_loss)


def squared_error(y, prediction):
    """Squared error summed over the pixels of a frame, averaged over frames and videos."""
    return ops.mean(ops.sum(ops.square(y - prediction), axis=(2, 3, 4)))


def motion_cross_entropy(videos, motion):
    """Cross-entropy between predicted and measured motion, where the next frame is bright.

    The pixels' error teaches motion only where a guess is nearly right; this teaches it
    everywhere, and far sooner.

    Args:
        videos: real ones, (batch, frames, height, width, channels).
        motion: logits, (batch, frames - 1, height / 4, width / 4, 2 (2 R + 1)).

    Returns:
        A number: the mean over frames and videos of the sum over pixels, each weighted by
        its brightness.
    """
    frames = ops.reshape(videos[:, :-1], (-1, *videos.shape[2:]))
    next_frames = ops.reshape(videos[:, 1:], (-1, *videos.shape[2:]))
    motion = ops.reshape(motion, (-1, *motion.shape[2:]))
    measured = models.match(next_frames, frames, motion.shape[-1] // 4)
    both_axes = zip(ops.split(measured, 2, axis=-1), ops.split(motion, 2, axis=-1))
    cross_entropy = -sum(ops.sum(p * ops.log_softmax(q), axis=-1) for p, q in both_axes)
    brightness = ops.mean(next_frames, axis=-1, keepdims=True)
    brightness = 16 * ops.average_pool(brightness, 4, strides=4)[..., 0]  # of blocks of 4x4
    return ops.mean(ops.sum(brightness * cross_entropy, axis=(1, 2)))


def mean_motion_error(videos, motion_error):
    """The mean of what sheets measured, (batch, frames - 1)."""
    return ops.mean(motion_error)


LOSSES = {"squared_error": squared_error, "binary_crossentropy": "binary_crossentropy"}
MOTION_LOSSES = {"forecaster": motion_cross_entropy, "sheets": mean_motion_error}


class ClosedLoopVideos(data.MovingMNIST):
    """Training pairs as `ClosedLoop` takes them.

    What Keras calls a batch is one of the `accumulate` parts of ours, and of that the share of
    this process. Random numbers are drawn for the whole batch, whoever uses them.

    Args:
        config: a `Config`.
        epoch: the epoch to start at.
        windows: `clips.Windows` to draw videos from; None: Moving MNIST.
    """

    def __init__(self, config, epoch=0, windows=None):
        super().__init__(
            config.seed,
            config.batch_size,
            config.steps_per_epoch * config.accumulate,
            epoch,
            config.digits_per_video,
            config.frames,
            config.size,
        )
        self.config = config
        self.windows = windows

    def draw(self, seed, rows=slice(None)):
        if self.windows is None:
            return super().draw(seed, rows)
        rng = np.random.default_rng(seed)
        return self.windows[rng.integers(len(self.windows), size=self.batch_size)[rows]]

    def __getitem__(self, index):
        """{"videos": x, "real": (batch, frames - 1) booleans}, {"frames": y, "motion": x and y}."""
        config = self.config
        index, part = divmod(index, config.accumulate)
        rows = devices.own_rows(config.batch_size, config.accumulate, part)
        videos = self.draw([data.TRAINING, config.seed, self.epoch, index], rows)
        x, y = data.shift_frames(videos)
        real = np.ones((config.batch_size, config.frames - 1), bool)
        if not config.teacher_forcing:
            step = self.epoch * config.steps_per_epoch + index
            sampling_steps = config.sampling_epochs * config.steps_per_epoch
            probability = 1 - min(1, step / max(1, sampling_steps))
            rng = np.random.default_rng([data.SAMPLING, config.seed, self.epoch, index])
            beyond = real[:, config.context :]  # (batch_size, frames - 1 - context)
            beyond[:] = rng.random(beyond.shape) < probability
            # Once the model goes on by itself it stays so, as it must when it forecasts.
            beyond[:] = np.logical_and.accumulate(beyond, axis=1)
        targets = {"frames": y}
        if has_motion_loss(config):
            targets["motion"] = np.concatenate([x[:, :1], y], axis=1)  # the whole videos
        return {"videos": x, "real": real[rows]}, targets


@keras.saving.register_keras_serializable("next_frame")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon for convolution kernels, too, and an average of the weights that warms up.

    Keras sends every kernel that is not two-dimensional to Adam. Here a convolution's kernel (height,
    width, in, out) takes Muon's step as the matrix (height * width * in, out), as in
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". (A
    Conv2DTranspose of step 2 and size 2, whose kernel is (2, 2, out, in), multiplies by
    just that matrix, (2 * 2 * out, in), too.)
    """

    def _should_use_adamw(self, variable):
        excluded = any(layer in variable.path for layer in self.exclude_layers)
        return len(variable.shape) not in (2, 4) or excluded

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = ops.reshape(x, (-1, x.shape[-1]))  # (height * width * in, out)
        return ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)

    def lr_adjust(self, x):
        rows, columns = np.prod(x.shape[:-1]), x.shape[-1]
        return x * self.rms_rate * float(max(rows, columns)) ** 0.5

    def _get_current_learning_rate(self):
        # Of the updates; Keras's schedules count the parts of accumulated batches.
        return self._learning_rate(self.iterations)

    def _update_model_variables_moving_average(self, trainable_variables):
        # Keras's momentum is constant, so its average remembers the random start for long.
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, step / (step + 9))
        if self.gradient_accumulation_steps:  # Keras averages after each part of a batch
            last_part = (self._iterations + 1) % self.gradient_accumulation_steps == 0
            momentum = ops.where(last_part, momentum, 1.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average):
            average.assign(momentum * average + (1 - momentum) * variable)


def cooldown_start(config):
    """The epoch, counted from 0, with which the learning rates begin to fall."""
    return config.epochs - round(config.cooldown * config.epochs)


@keras.saving.register_keras_serializable("next_frame")
class WarmUpStableCoolDown(keras.optimizers.schedules.LearningRateSchedule):
    """Rise from zero, stay, and fall to zero, all in straight lines.

    Hagele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
    durations": as good as a cosine, and until it falls it does not depend on the end.

    Args:
        peak: the learning rate between rise and fall.
        warmup: steps of the rise.
        start, end: the steps with which the fall begins and ends; None: it never does.
    """

    def __init__(self, peak, warmup, start=None, end=None):
        self.peak, self.warmup, self.start, self.end = peak, warmup, start, end

    def __call__(self, step):
        step = ops.cast(step, "float32")
        share = ops.minimum(1.0, step / self.warmup) if self.warmup else 1.0
        if self.end is not None:
            share = ops.minimum(share, (self.end - step) / (self.end - self.start))
        return self.peak * ops.maximum(0.0, share)

    def get_config(self):
        return {"peak": self.peak, "warmup": self.warmup, "start": self.start, "end": self.end}


def learning_rate(config):
    """The schedule of a config: Muon's learning rate, or Adam's if there is no Muon."""
    peak = config.learning_rate if config.muon else config.adam_learning_rate
    start, end = cooldown_start(config), config.epochs
    if start == end:
        return WarmUpStableCoolDown(peak, config.warmup_steps)
    steps = config.steps_per_epoch
    return WarmUpStableCoolDown(peak, config.warmup_steps, start * steps, end * steps)


def make_optimizer(config):
    """Muon and Adam, with their schedule, clipping and averaging as configured."""
    return ConvolutionMuon(
        learning_rate(config),
        # Adam for all variables with one of these in their names; "" is in every name.
        exclude_layers=["encoder", "head"] if config.muon else [""],
        adam_lr_ratio=config.adam_learning_rate / config.learning_rate if config.muon else 1,
        adam_weight_decay=None,
        weight_decay=config.weight_decay if config.muon else None,
        momentum=0.95,
        ns_steps=5,
        nesterov=True,
        global_clipnorm=config.clip_norm or None,
        use_ema=config.average > 0,
        ema_momentum=config.average or 0.99,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
    )


# Forecasting ------------------------------------------------------------------------------

# What is forecast together: frames of so many pixels in all, and no more predicted values
# than this. Both bound the memory, whatever the size and the number of frames.
PIXELS_AT_ONCE = 50 * 64 * 64
VALUES_AT_ONCE = 2**25


def forecasts(model, videos, indices, context, horizon, verbose=0):
    """Roll the model out over any number of videos, some at a time.

    Args:
        model: a `model.NextFrameModel`.
        videos: an array (videos, frames, height, width, channels), uint8 or float in [0, 1],
            or what `data.open_videos` returns.
        indices: which of them to forecast.
        context: frames of a video to start from.
        horizon: frames to predict.
        verbose: 1 shows a progress bar.

    Yields:
        some: the next few of the videos, as they are: context, and what frames follow it.
        predictions: float32 array (some, horizon, height, width, channels) in [0, 1].
    """
    height, width, channels = videos[indices[:1]].shape[2:]
    pixels = height * width
    at_once = min(PIXELS_AT_ONCE // pixels, VALUES_AT_ONCE // (pixels * channels * horizon))
    at_once = max(1, at_once)
    bar = keras.utils.Progbar(len(indices), verbose=verbose, unit_name="video")
    for start in range(0, len(indices), at_once):
        some = videos[indices[start : start + at_once]]
        yield some, models.rollout(model, data.to_float(some[:, :context]), horizon)
        bar.update(start + len(some))


# The run folder ---------------------------------------------------------------------------

CHECKPOINT = "checkpoint.keras"
BEFORE_COOLDOWN = "before-cooldown.keras"


def sample_path(folder, epoch):
    """Where the forecasts after an epoch, counted from 0, are drawn."""
    return folder / "samples" / f"epoch-{epoch + 1:04d}.png"


class RunFolder(keras.callbacks.Callback):
    """After each epoch: forecast validation videos, then save all that a run leaves.

    The model that is scored and saved is a second one, which holds the averaged weights;
    the one in training is never touched, so a run does not depend on when it is scored.

    Every process of a run scores it, each on a device of its own: so none waits for another,
    and all of them stop when the score is no number. Process 0 saves.
    """

    def __init__(self, folder, config, model, rows, asked_to_stop, videos):
        super().__init__()
        self.folder = folder
        self.config = config
        self.trained = model
        self.averaged = build_model(config)
        self.rows = rows  # of log.csv, one for each epoch so far
        self.asked_to_stop = asked_to_stop
        self.started = time.monotonic()
        self.videos = videos  # for validation; see `forecasts`
        count = min(config.validation_videos, len(videos))
        if isinstance(videos, clips.Windows):
            self.indices = np.linspace(0, len(videos) - 1, count).astype(int)  # of all clips
        else:
            self.indices = np.arange(count)

    def on_train_batch_end(self, batch, logs):
        if self.asked_to_stop():
            raise KeyboardInterrupt
        self.check_number(logs["loss"])

    def on_epoch_end(self, epoch, logs):
        with devices.over(None):  # scoring and saving wait for no other process
            self.score_and_save(epoch, logs)

    def score_and_save(self, epoch, logs):
        self.copy_averaged_weights()
        error, samples = self.forecast()
        self.check_number(error.mean())  # the last step may have spoilt the weights
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
                "val_mse": f"{error.mean():.3f}",
                "val_mse_first_frame": f"{error[0]:.3f}",
                "val_mse_last_frame": f"{error[-1]:.3f}",
                # That of the epoch's last step; steps count from 0.
                "learning_rate": f"{float(rate(steps - 1)):.3g}",
                "seconds": f"{time.monotonic() - self.started:.1f}",
            }
        )
        self.started = time.monotonic()
        if devices.process > 0:
            return
        if (epoch + 1) % self.config.sample_every == 0 or epoch + 1 == self.config.epochs:
            self.draw_samples(samples, sample_path(self.folder, epoch))
        self.save(best)

    def check_number(self, loss):
        if not np.isfinite(loss):
            raise Failure(
                f"the loss is no longer a number in epoch {len(self.rows) + 1}; {self.folder} "
                "keeps the weights before it. Try a lower --learning-rate or --adam-learning-rate"
            )

    def copy_averaged_weights(self):
        self.averaged.set_weights(self.trained.get_weights())
        optimizer = self.model.optimizer
        if optimizer.use_ema:
            averages = optimizer._model_variables_moving_average
            for average, variable in zip(averages, self.averaged.trainable_variables):
                # By way of NumPy: on JAX both would share one array, which `fit` deletes.
                variable.assign(ops.convert_to_numpy(average))

    def forecast(self):
        """Forecast the validation videos.

        Returns:
            error: squared error of each predicted frame, (horizon,).
            samples: the first three videos, each with its forecast.
        """
        context, horizon = self.config.context, self.config.frames - self.config.context
        error, samples = np.zeros(horizon), []
        for some, predictions in forecasts(
            self.averaged, self.videos, self.indices, context, horizon
        ):
            difference = predictions - data.to_float(some[:, context:])
            error += np.square(difference).sum(axis=(0, 2, 3, 4))
            samples += list(zip(some, predictions))[: 3 - len(samples)]
        return error / len(self.indices), samples

    def save(self, best):
        with atomic_write(self.folder / "last.keras") as path:
            self.averaged.save(path)
        if best:
            with atomic_write(self.folder / "best.keras") as path:
                self.averaged.save(path)
        with atomic_write(self.folder / "log.csv") as path, open(path, "w", newline="") as file:
            # A run may have begun with an earlier version, which wrote other columns.
            writer = csv.DictWriter(file, self.rows[-1], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(self.folder / "curve.png") as path:
            self.draw_curve(path)
        if len(self.rows) == cooldown_start(self.config) < self.config.epochs:
            with atomic_write(self.folder / BEFORE_COOLDOWN) as path:
                self.model.save(path)
        # Last, so that whatever it counts as done has been written.
        with atomic_write(self.folder / CHECKPOINT) as path:
            self.model.save(path)

    def draw_curve(self, path):
        videos = [int(row["videos"]) for row in self.rows]
        figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for column, label in [
            ("val_mse_last_frame", "last predicted frame"),
            ("val_mse", "mean of the predicted frames"),
            ("val_mse_first_frame", "first predicted frame"),
        ]:
            axes.plot(videos, [float(row[column]) for row in self.rows], marker=".", label=label)
        axes.set(xlabel="training videos", ylabel="MSE, summed over pixels", ylim=(0, None))
        axes.set_title("Forecasts of validation videos, averaged weights")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)

    def draw_samples(self, samples, path):
        videos, predictions = zip(*samples)
        context = self.config.context
        strip = data.forecast_strip(
            [video[:context] for video in videos],
            [video[context:] for video in videos],
            predictions,
        )
        with atomic_write(path) as temporary:
            strip.save(temporary)


# Tracking ---------------------------------------------------------------------------------


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback, and the pictures of forecasts."""

    def __init__(self, folder, config):
        super().__init__(folder / "tensorboard", write_graph=False)
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if (path := sample_path(self.folder, epoch)).exists():
            with self._val_writer.as_default(), Image.open(path) as picture:
                self.summary.image("forecasts", np.asarray(picture)[None], step=epoch)


class WeightsAndBiases(keras.callbacks.Callback):
    """Does for Weights & Biases what that does; wandb's own callback fails on JAX."""

    def __init__(self, folder, config):
        super().__init__()
        import wandb

        self.folder = folder
        self.picture = wandb.Image
        try:
            self.run = wandb.init(
                dir=folder, name=folder.name, config=dataclasses.asdict(config), resume="auto"
            )
        except wandb.Error as error:
            raise Failure(f"--log wandb: {error}; WANDB_MODE=offline needs no account") from None

    def on_epoch_end(self, epoch, logs=None):
        values = {**logs, "learning_rate": float(self.model.optimizer.learning_rate)}
        if (path := sample_path(self.folder, epoch)).exists():
            values["forecasts"] = self.picture(str(path))
        self.run.log(values, step=epoch)

    def on_train_end(self, logs=None):
        self.run.finish()


TRACKERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


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
        else keras.distribution.list_devices()[:1],
        "processes": devices.processes,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
    }


def read_json(path, kind):
    """The content of a run's JSON file, a `kind`: dict or list.

    Raises:
        InputError: it is missing, or something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"there is no run with {path}: {error}") from None
    if type(content) is not kind:
        raise InputError(f"{path} was not written by a run: it should hold a {kind.__name__}")
    return content


def write_json(path, content):
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_config(path):
    """The config in a run's folder, or in a .json file.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    path = path if path.suffix == ".json" else path / "config.json"
    fields = read_json(path, dict)
    try:
        config = Config(**{**fields, "layers": tuple(fields["layers"])})
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not the config of a run of this version; environment.json beside it "
            f"names the commit that it is of ({error})"
        ) from None
    check(config)
    return config


def read_log(folder, epochs):
    """The rows of log.csv for the epochs that are done.

    Raises:
        InputError: they are not there.
    """
    if epochs == 0:
        return []
    path = folder / "log.csv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))[:epochs]
        columns = ("videos", "val_mse", "val_mse_first_frame", "val_mse_last_frame")
        if len(rows) == epochs and all(float(row[name]) > 0 for row in rows for name in columns):
            return rows
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} should have the rows of {epochs} epochs, and has not: restore it")


def check(config):
    """Raise an InputError, with the remedy, for a config that cannot be trained."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        is_choice = typing.get_origin(field.type) is Literal
        choices = typing.get_args(field.type) if is_choice else [value]
        kinds = (float, int) if isinstance(field.default, float) else (type(field.default),)
        if type(value) not in kinds or value not in choices:
            raise InputError(f"{option(field.name)} cannot be {value!r}")
        # NumPy's seeds end there. Anything else of that size is a slip of the finger.
        largest = 2**32 - 1 if field.name == "seed" else 1_000_000
        if type(value) in (int, float) and value > largest:
            raise InputError(f"{option(field.name)} must be at most {largest:,}, not {value}")
    positive = "batch_size accumulate steps_per_epoch epochs validation_videos sample_every"
    positive += " encoder_filters filters coarse_filters digits_per_video context"
    positive += " learning_rate adam_learning_rate size"
    if config.model == "sheets":
        positive += " sheets motion_radius history"
    not_negative = (
        "motion_radius history motion_loss sampling_epochs warmup_steps seed weight_decay clip_norm"
    )
    for name in positive.split():
        if not getattr(config, name) > 0:
            raise InputError(f"{option(name)} must be above 0, not {getattr(config, name)}")
    for name in not_negative.split():
        if not getattr(config, name) >= 0:
            raise InputError(f"{option(name)} must not be below 0, not {getattr(config, name)}")
    if config.batch_size % config.accumulate:
        raise InputError(
            f"--batch-size {config.batch_size} cannot be divided into --accumulate "
            f"{config.accumulate} equal parts"
        )
    if config.model == "keras-example" and (config.accumulate > 1 or config.remat):
        raise InputError(
            "--accumulate and --remat are not for keras-example: its BatchNormalization takes "
            "the mean of the whole batch, and counts each step once"
        )
    if not 0 <= config.cooldown <= 1:
        raise InputError(f"--cooldown is a share: it must lie in 0..1, not {config.cooldown}")
    if not 0 <= config.average < 1:
        raise InputError(f"--average must be below 1, and not below 0, not {config.average}")
    if config.validation_videos > data.EVALUATION_VIDEOS:
        raise InputError(
            f"--validation-videos {config.validation_videos}: there are {data.EVALUATION_VIDEOS}"
        )
    if config.frames <= config.context:
        raise InputError(
            f"--frames {config.frames} leaves nothing to predict after --context {config.context}"
        )
    layers_are_counts = all(type(count) is int and count >= 0 for count in config.layers)
    if len(config.layers) != 3 or not layers_are_counts or sum(config.layers) == 0:
        raise InputError(f"--layers {config.layers} must be three counts, one of them above 0")
    if config.data == MOVING_MNIST and config.size < data.DIGIT_SIZE:
        raise InputError(f"--size {config.size} must be at least {data.DIGIT_SIZE}: a digit's size")
    if config.channels not in ((1,) if config.data == MOVING_MNIST else (1, 3)):
        raise InputError(f"--channels cannot be {config.channels} for --data {config.data}")


def option(field):
    """The name of a config's field on the command line."""
    return "--" + field.replace("_", "-")


def train(config, folder, resume=False, log=None, distribution=None):
    """Train as configured, and leave a run folder.

    Args:
        config: a `Config`.
        folder: the run folder; new, or with `resume` one that is to go on. Its config may
            then differ in `epochs` alone.
        log: "tensorboard" or "wandb" reports the run there, too.
        distribution: what `devices.start` returns; None trains on one device.

    Raises:
        InputError: the config cannot be trained, or the folder cannot be used.
        Failure: the loss became infinite or not a number.
    """
    check(config)
    if keras.backend.backend() not in ("tensorflow", "jax"):
        raise InputError("training needs KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax")
    if log and not importlib.util.find_spec(log):
        raise InputError(f"--log {log} needs one more package: pip install {log}")
    if distribution:
        count = distribution.device_mesh.devices.size
        if config.batch_size % (config.accumulate * count):
            raise InputError(
                f"--batch-size {config.batch_size} cannot be shared equally by {count} devices"
                + (f", in {config.accumulate} parts each" if config.accumulate > 1 else "")
            )
    build_model(config)  # what cannot be built is refused before a folder is made for it
    if devices.process > 0:  # the folder is that of process 0
        return train_in(folder, config, resume, log, distribution)
    cli.make_folder(folder)
    with cli.folder_lock(folder):
        train_in(folder, config, resume, log, distribution)


def train_in(folder, config, resume, log, distribution):
    """What `train` does within a folder that no other run uses."""
    writes = devices.process == 0
    if writes and not resume and (folder / "config.json").exists():
        raise InputError(
            f"{folder} holds a run already: go on with it by --resume {folder}, "
            "delete it, or choose another folder by --run"
        )
    here = environment(distribution)
    print(f"{here['backend']} on {', '.join(here['devices'])}, {config.precision}")
    available = len(keras.distribution.list_devices())
    if available > 1 and not distribution:
        print(f"Only the first of {available} devices is used; --devices all uses them all.")
    if config.data == MOVING_MNIST:
        shape = (config.digits_per_video, config.frames, config.size)
        training, validation = None, data.EvaluationVideos("validation", *shape)
    else:
        given = config.channels if resume or config.init else None
        if not writes:
            devices.meet(distribution)  # when process 0 has converted the clips
            if not (folder / "clips-cache.json").exists():
                raise InputError(f"{folder} must be a folder that all hosts share, with --data")
        frames, spans = clips.open_clips(config.data, folder, config.size, given)
        if writes:
            devices.meet(distribution)
        training, validation = clips.split_clips(spans, config.frames)
        print(f"{len(training)} clips to train on, {len(validation)} to validate on")
        training = clips.Windows(frames, training, config.frames, step=1)
        validation = clips.Windows(frames, validation, config.frames, step=config.frames)
        config = dataclasses.replace(config, channels=frames.shape[-1])

    keras.utils.set_random_seed(config.seed)
    with devices.over(distribution):
        model = build_model(config)
        closed_loop = ClosedLoop(model, config)
    if config.init and not resume:
        try:
            model.set_weights(load_model(config.init).get_weights())
        except ValueError as error:
            raise InputError(f"--init {config.init} does not fit these options: {error}") from None
    if resume:
        # Each process reads a file before process 0 may write it: all have read the config
        # once all have loaded the checkpoint, since JAX compares what they load.
        planned = read_config(folder)
        epoch = load_checkpoint(closed_loop, folder, config)
        if config != planned:
            epoch = change_the_end(closed_loop, folder, planned, config, epoch)
        rows = read_log(folder, epoch)
        if writes:
            starts = read_json(folder / "environment.json", list)
            write_json(folder / "environment.json", [*starts, here])
    else:
        epoch, rows = 0, []
        if writes:
            start_folder(folder, config, closed_loop, here)

    print(
        f"{config.model}, {model.count_params():,} parameters; {config.epochs} epochs of "
        f"{config.steps_per_epoch} batches of {config.batch_size} videos"
        + (f", in {config.accumulate} parts each" if config.accumulate > 1 else "")
        + f", into {folder}"
    )
    print("The first batch takes longest: the model is compiled for it.", flush=True)
    videos = ClosedLoopVideos(config, epoch, training)
    with cli.polite_ctrl_c() as asked_to_stop:
        run_folder = RunFolder(folder, config, model, rows, asked_to_stop, validation)
        trackers = [TRACKERS[log](folder, config)] if log and writes else []
        with devices.over(distribution):
            closed_loop.fit(
                videos,
                shuffle=False,  # all videos are random, and a run that goes on needs their order
                initial_epoch=epoch,
                epochs=config.epochs,
                callbacks=[data.TellEpoch(videos), run_folder, *trackers],
            )


def start_folder(folder, config, closed_loop, here):
    """Make a run of a folder: write what it can be resumed from, before its first epoch."""
    if config.init:
        with atomic_write(folder / "init.keras") as path:
            closed_loop.model.save(path)
    with atomic_write(folder / CHECKPOINT) as path:
        closed_loop.save(path)
    write_json(folder / "environment.json", [here])
    write_json(folder / "config.json", dataclasses.asdict(config))  # now it is a run


def load_model(path):
    """Load a next-frame model.

    Args:
        path: a run folder, of which `best.keras` is taken, or a .keras file.

    Returns:
        A `model.NextFrameModel`.

    Raises:
        InputError: there is none, or the file is not such a model.
    """
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / "best.keras"
        if not path.exists():
            raise InputError(f"{folder} has no best.keras: a run has one after its first epoch")
    if not path.exists():
        raise InputError(f"{path}: no such model")
    if path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras model: name one, or the folder of a run")
    try:
        with warnings.catch_warnings(action="ignore"):
            # Keras's safe mode, its default, runs no code that a file brings along.
            model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken file can fail anywhere within Keras
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} is not a .keras model that this version can load; it may be damaged, or of "
            f"another version: {reason}"
        ) from None
    if not isinstance(model, models.NextFrameModel):
        raise InputError(f"{path} holds a {type(model).__name__}, not a model of model.py")
    weights = model.get_weights()
    if not weights or not all(np.isfinite(weight).all() for weight in weights):
        raise InputError(f"{path} has no weights, or some that are no numbers: name another one")
    return model


def load_checkpoint(closed_loop, folder, config, name=CHECKPOINT):
    """Put a run's whole state into the model and its optimizer; return the epochs done."""
    path = folder / name
    if not path.exists():
        raise InputError(f"{folder} has no {name} to go on from")
    try:
        closed_loop.load_weights(path)
    except Exception as error:  # what a damaged file raises depends on the damage
        first_line = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be loaded: {first_line}") from None
    steps = int(ops.convert_to_numpy(closed_loop.optimizer.iterations))
    return steps // config.steps_per_epoch


def change_the_end(closed_loop, folder, planned, config, epoch):
    """Have a run end after another number of epochs; return those that are done.

    If its learning rates have begun to fall already, it goes back to where they did, and
    what came of it is kept under a name of its own.
    """
    if epoch > min(cooldown_start(planned), cooldown_start(config)):
        if config.epochs < planned.epochs:
            raise InputError(
                f"{folder} has done {epoch} epochs: with --epochs {config.epochs} its learning "
                f"rates would have had to fall from epoch {cooldown_start(config) + 1} on"
            )
        epoch = load_checkpoint(closed_loop, folder, config, BEFORE_COOLDOWN)
        if devices.process > 0:
            return epoch
        for name in ("best.keras", "log.csv"):
            with atomic_write(folder / f"{planned.epochs}-epochs-{name}") as path:
                shutil.copyfile(folder / name, path)
        with atomic_write(folder / CHECKPOINT) as path:
            closed_loop.save(path)
        print(
            f"back to epoch {epoch}; what {planned.epochs} epochs gave is kept: "
            f"{folder}/{planned.epochs}-epochs-*"
        )
    if devices.process == 0:
        write_json(folder / "config.json", dataclasses.asdict(config))
    return epoch


def architecture_of(path):
    """The fields of a config that shape the model in a file, its channels among them.

    Raises:
        InputError: there is no such model.
    """
    model = load_model(path)
    if isinstance(model, models.KerasExample):
        shape = {"model": "keras-example", "filters": model.filters}
    else:
        name = "sheets" if isinstance(model, models.SheetForecaster) else "forecaster"
        shape = {"model": name, **model.architecture}
    return {**shape, "channels": model.channels}


def main():
    # What the defaults of all other options come from is read before them.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    first.add_argument("--init")
    first.add_argument("--resume", type=Path)
    for name in ("--devices", "--coordinator", "--process-id", "--process-count"):
        first.add_argument(name)
    chosen, _ = first.parse_known_args()
    processes = (chosen.coordinator, chosen.process_id, chosen.process_count)
    distribution = None
    if chosen.devices:
        distribution = devices.start(chosen.devices, *processes)
    elif any(processes):
        raise InputError("--coordinator, --process-id and --process-count need --devices all")
    preset_name = chosen.preset or "cpu"
    if preset_name not in PRESETS:
        raise InputError(f"no preset {preset_name!r}: choose one of {', '.join(PRESETS)}")
    source = chosen.resume or chosen.config
    defaults = read_config(source) if source else PRESETS[preset_name]
    init = "" if chosen.resume else chosen.init or defaults.init
    if init and not chosen.init:  # the config's, of which the run has kept a copy
        folder = source if source.is_dir() else source.parent
        if (folder / "init.keras").exists():
            init = str(folder / "init.keras")
    architecture = {**architecture_of(init), "init": init} if init else {}
    defaults = dataclasses.replace(defaults, **architecture)

    def arguments(
        hyperparameters: tyro.conf.OmitArgPrefixes[Config] = defaults,
        preset: Literal[tuple(PRESETS)] = "cpu",
        config: Path | None = None,
        run: Path | None = None,
        resume: Path | None = None,
        log: Literal[tuple(TRACKERS)] | None = None,
        devices: str | None = None,
        coordinator: str | None = None,
        process_id: str | None = None,
        process_count: str | None = None,
    ):
        """Train a next-frame model on Moving MNIST, or on your own clips.

        Args:
            hyperparameters: The preset's hyperparameters; any of them can be set.
            preset: Where the defaults below come from; `--preset NAME --help` shows them.
            config: A run's config.json, to take the defaults from instead: it repeats the run.
            run: The new run's folder; runs/PRESET if it is left out.
            resume: Go on with the run in this folder, with its own config; `--epochs` alone
                can be given anew.
            log: Report the run there, too; each needs one more package of this name.
            devices: `all`, or how many, to share each batch; needs KERAS_BACKEND=jax.
            coordinator: HOST:PORT of process 0, if a run has several processes and no launcher
                that tells them (Slurm, Open MPI, Kubernetes and Cloud TPU do).
            process_id: Which of the processes this is, from 0 on.
            process_count: How many there are; 1: this one is alone, whatever a launcher says.
        """
        return hyperparameters, run, resume, log

    config, run, resume, log = cli.parse(arguments, description=__doc__.split("\n\n")[0])
    anew = dataclasses.replace(defaults, epochs=config.epochs)
    if resume and (chosen.preset or chosen.config or run or chosen.init or config != anew):
        raise InputError(
            f"--resume {resume} goes on with that run as it is: give no other option than "
            "--epochs, --log or --devices"
        )
    if chosen.config and (chosen.preset or not run):
        raise InputError("--config takes the place of --preset, and needs a new folder: --run DIR")
    for field, value in architecture.items():
        if field != "sheets" and getattr(config, field) != value:  # these shape no weights
            raise InputError(f"{option(field)} of {init} is {value}: leave the option out")
    folder = resume or run or Path("runs") / preset_name
    try:
        train(config, folder, bool(resume), log, distribution)
    except KeyboardInterrupt:
        if (folder / "config.json").exists():
            print(f"\nstopped; go on with: python train.py --resume {folder}", file=sys.stderr)
        raise
    except OSError as error:  # the disk is full, say
        if (folder / "config.json").exists():
            raise Failure(f"{error}; then go on with: python train.py --resume {folder}") from None
        raise
    if devices.process > 0:
        return
    best = min(read_log(folder, config.epochs), key=lambda row: float(row["val_mse"]))
    print(f"best validation MSE {best['val_mse']} after epoch {best['epoch']}: {folder}/best.keras")
    print(f"look at it: python animate.py {folder}")


if __name__ == "__main__":
    with devices.ending_together():
        cli.run(main)
