"""Train a next-frame model on Moving MNIST or on your own clips, on a GPU or on a laptop's CPU.

    python train.py --preset tiny                      a first look, in two minutes
    python train.py --preset keras-small               the Keras site's stack, in 13 minutes
    python train.py                                    an hour on two CPU cores
    KERAS_BACKEND=jax python train.py --preset gpu     nine minutes on an H100
    python train.py --filters 96 --run runs/mine       any hyperparameter is an option
    python train.py --data clips.prepared --run runs/clips     your own clips, from prepare.py
    python train.py --resume runs/mine                 go on after an interruption
    python train.py --config runs/mine --run runs/again     repeat a run

Training is in closed loop: the model reads ten real frames and goes on from its own predictions,
as it must when it forecasts. At first some later frames are real, too ("scheduled sampling", Bengio
et al. 2015): each is real with probability p, which falls from 1 to 0 over the first
`sampling_epochs`; after a video's first predicted frame all are predicted. Gradients flow through
the predictions that are fed back. Four masks over time (# real, . predicted):

    p = 1        ###################
    p = 0.8      #################..
    p = 0.4      ############.......
    p = 0        ##########.........

One batch of the `cpu` preset, with its shapes:

    videos               (16, 20, 64, 64, 1)  new ones, float32 in [0, 1]
    x, y                 (16, 19, 64, 64, 1)  frames 1 to 19, and 2 to 20, which are the targets
    real_mask            (16, 19)             whether x, or the last prediction, is the input
    predictions          (16, 19, 64, 64, 1)  by 19 steps of the model
    loss                 squared error of all 19 predictions, + 0.1 x the motion's cross-entropy,
                         which the forecaster adds by itself
"""

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Annotated, Literal

import keras
import numpy as np
import pydantic
import tyro
from keras import ops

import data
import model as models
from extras import cli, clips, devices, runs, trackers
from extras.cli import InputError
from method.optimizer import make_optimizer

# A loss takes the real and the predicted frames, both (batch, frames - 1, height, width, channels).


@keras.saving.register_keras_serializable("next_frame")
def squared_error(y, prediction):
    """Squared error of each video, summed over the pixels of a frame, averaged over frames.

    Keras takes the mean over videos, each times its `sample_weight` if they have one.
    """
    return ops.mean(ops.sum(ops.square(y - prediction), axis=(2, 3, 4)), axis=1)


LOSSES = {
    "squared_error": squared_error,
    "binary_crossentropy": keras.losses.binary_crossentropy,  # a mean over pixels
}

MODELS = {"forecaster": models.Forecaster, "keras-example": models.KerasExample}

LARGEST_BATCH = 2**28  # pixels of a batch; as float32 they take 1 GB, and in colour three

Count = Annotated[int, pydantic.Field(ge=1, le=10**6)]


@pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class Config:
    """The hyperparameters."""

    # The defaults are the `cpu` preset. To change `tiny` or another one, edit `PRESETS` below.
    # tyro makes an option of each field, and its help of the line below it; pydantic checks values.

    # The data
    frames: Annotated[int, pydantic.Field(ge=2, le=1000)] = data.FRAMES
    """Frames of a training video (20: Srivastava et al. 2015)."""
    context: Count = data.CONTEXT
    """Real frames that a forecast starts from (10: Srivastava et al. 2015)."""
    size: Annotated[int, pydantic.Field(ge=data.DIGIT_SIZE, le=1024)] = data.SIZE
    """Moving MNIST: height and width in pixels (64: Srivastava et al. 2015)."""
    digits_per_video: Annotated[int, pydantic.Field(ge=1, le=100)] = data.DIGITS_PER_VIDEO
    """Moving MNIST: digits in a video (2: Srivastava et al. 2015)."""
    single_digit_share: float = pydantic.Field(0.0, ge=0, le=1)
    """Moving MNIST: share of a batch's videos that have one digit alone, as --sprites forecasts
    them."""
    data: str = pydantic.Field(data.MOVING_MNIST, min_length=1)
    """moving-mnist, or your own clips: a file that prepare.py has written, or a .npy of videos."""

    # Training
    epochs: Count = 6
    """How many; see --cooldown."""
    steps_per_epoch: Count = 125
    """Batches in an epoch, after which the run is scored and saved."""
    batch_size: Count = 16
    """Videos in a batch, on all devices together."""
    muon_learning_rate: pydantic.NonNegativeFloat = 5e-3
    """Of Muon, an optimizer for hidden layers' kernels (Jordan et al. 2024); 0: Adam trains all."""
    adam_learning_rate: pydantic.PositiveFloat = 1e-3
    """Of Adam, for the first layer, the heads, biases and norms (1e-3: Kingma and Ba 2015)."""
    sampling_epochs: pydantic.NonNegativeInt = 4
    """Epochs in which the probability falls to 0 that after a real frame the next is real, too."""
    seed: int = pydantic.Field(0, ge=0, lt=2**32)
    """Initial weights, training videos and scheduled sampling follow from it."""
    validation_videos: Count = 200
    """Validation videos to forecast after each epoch; all, if own clips have fewer."""
    init: str | None = None
    """Weights to start from, of a model of the same size: a .keras file or a run's folder."""

    # The model
    model: Literal[tuple(MODELS)] = "forecaster"
    """The forecaster, for videos of any kind, or the stack that the Keras site shows."""
    architecture: models.Architecture = models.Architecture()
    """The size of the model. See model.py."""
    remat: bool = False
    """Keep less for the gradient, and compute it again (Chen et al. 2016): a third slower."""

    # The loss and the optimizer
    loss: Literal[tuple(LOSSES)] = "squared_error"
    """Between real and predicted frames. binary_crossentropy is a mean over pixels: see
    --motion-weight."""
    teacher_forcing: bool = False
    """Give real frames throughout, as the Keras example does."""
    weight_decay: pydantic.NonNegativeFloat = 0.01
    """How much Muon's kernels shrink in a step, times the learning rate."""
    warmup_steps: pydantic.NonNegativeInt = 100
    """Steps over which the learning rates rise from zero."""
    cooldown: float = pydantic.Field(0.8, ge=0, le=1)
    """Share of the steps, the last ones, in which the learning rates fall to zero (Hagele et al.
    2024); 0: they stay."""
    global_clipnorm: pydantic.NonNegativeFloat = 1.0
    """Largest norm of all gradients together; 0: no clipping."""
    average: bool = True
    """Score and save a moving average of the weights (Shamir and Zhang 2013)."""

    def check(self):
        """Raise an InputError, with the remedy, for fields that do not fit together."""
        if self.frames <= self.context:
            raise InputError(
                f"--frames {self.frames} leaves nothing to predict after --context {self.context}"
            )
        if self.model == "keras-example" and self.remat:
            raise InputError(
                "--remat is not for keras-example: its BatchNormalization counts each step"
            )
        if self.data != data.MOVING_MNIST:
            for name in ("size", "digits_per_video", "single_digit_share"):
                if getattr(self, name) != getattr(Config(), name):
                    raise InputError(
                        f"{cli.option(name)} is for {data.MOVING_MNIST} alone: own clips are as "
                        "prepare.py has made them"
                    )

    def remarks(self):
        """Sentences on what somebody with this config probably did not intend."""
        if not self.teacher_forcing and self.sampling_epochs >= self.epochs:
            yield (
                f"WARNING: with {self.epochs} epochs and --sampling-epochs {self.sampling_epochs} "
                "training never reaches its closed loop: lower --sampling-epochs, to "
                f"{self.epochs // 2} say"
            )
        if self.teacher_forcing:
            yield "All frames in training are real (--teacher-forcing): there is no closed loop."
        if self.cooldown == 0:
            yield "The learning rates stay as they are to the end (--cooldown 0)."
        if self.warmup_steps >= self.epochs * self.steps_per_epoch:
            yield (
                f"WARNING: --warmup-steps {self.warmup_steps} are longer than the whole run: lower "
                "them"
            )
        # `layers` is all that the Keras site's stack has, and what the forecaster has not.
        default = models.Architecture()
        unused = [
            field.name
            for field in dataclasses.fields(self.architecture)
            if (field.name == "layers") == (self.model == "forecaster")
            and field.name not in ("channels", "precision")
            and getattr(self.architecture, field.name) != getattr(default, field.name)
        ]
        if unused:
            names = ", ".join(map(cli.option, unused))
            yield f"WARNING: {names}: not used by --model {self.model}"
        radius = self.architecture.motion_radius
        distance = data.STEP * (self.size - data.DIGIT_SIZE)
        measures = self.model == "forecaster" and radius > 0
        if measures and self.data == data.MOVING_MNIST and distance > radius:
            yield (
                f"WARNING: digits move up to {distance:.1f} pixels a frame, and --motion-radius is "
                f"{radius} (at most 7): what moves farther must be painted"
            )


# Whatever a preset leaves out, in its architecture too, is as in `cpu`.
PRESETS = {
    # A first look, and for tests: three ConvLSTM2D layers.
    "tiny": Config(
        architecture=models.Architecture(
            encoder_filters=8, filters=16, coarse_filters=24, depths=(1, 1, 1), motion_units=64
        ),
        frames=12,
        context=6,
        batch_size=4,
        steps_per_epoch=60,
        epochs=5,
        sampling_epochs=2,
        validation_videos=40,
        warmup_steps=20,
        cooldown=0.4,
    ),
    # Two CPU cores.
    "cpu": Config(),
    # One GPU: the same model, with twenty times as many videos. The shipped weights began
    # so (assets/README.md).
    "gpu": Config(
        architecture=models.Architecture(precision="mixed_bfloat16"),
        batch_size=64,
        steps_per_epoch=375,
        epochs=10,
        sampling_epochs=3,
        cooldown=0.4,
    ),
    # The layers of the next preset with a quarter of the filters, trained to forecast: in closed
    # loop, on squared error, at a higher rate. Two CPU cores take 13 minutes.
    "keras-small": Config(
        model="keras-example",
        architecture=models.Architecture(layers=((16, 5), (16, 3), (16, 1))),
        batch_size=5,
        steps_per_epoch=180,
        epochs=3,
        sampling_epochs=2,
        muon_learning_rate=0.0,
        adam_learning_rate=1e-2,
        warmup_steps=30,
        cooldown=0.6,
    ),
    # keras.io/examples/vision/conv_lstm: 64 filters a layer, batches of 5, Adam, cross-entropy,
    # teacher forcing, 900 videos an epoch, 20 epochs. (It also stops early, and lowers the learning
    # rate, when the validation loss stops improving. That is left out here.)
    "keras-example": Config(
        model="keras-example",
        batch_size=5,
        steps_per_epoch=180,
        epochs=20,
        loss="binary_crossentropy",
        teacher_forcing=True,
        muon_learning_rate=0.0,
        warmup_steps=0,
        cooldown=0.0,
        global_clipnorm=0.0,
        average=False,
    ),
}


# What is trained --------------------------------------------------------------------------------


def build_model(config):
    """The model that a config describes, with new weights."""
    model = MODELS[config.model](config.architecture)
    model.remat = config.remat
    model.build()
    return model


def compile_model(model, config):
    """Give a model its loss and its optimizer. Layers to be frozen must be frozen before."""
    loss = LOSSES[config.loss]
    # The same as a metric, since the forecaster adds its motion's loss to the loss.
    frames_loss = keras.metrics.MeanMetricWrapper(loss, name="frames_loss")
    model.compile(make_optimizer(config, model.adam_layers), loss=loss, metrics=[frames_loss])
    # Now and not in the first step, so that `--resume` can load the optimizer's state.
    model.optimizer.build(model.trainable_variables)


class Batches(keras.utils.PyDataset):
    """Training batches: ({"videos": x, "real_mask": which frames to use}, y).

    One after another, those of all epochs: give `fit` the config's `steps_per_epoch`. A batch
    depends on the config and its number alone.

    Args:
        config: a `Config`.
        videos: what to draw from, a `data.TrainingVideos` or `clips.Windows`.
        epoch: the epoch to start at.
    """

    def __init__(self, config, videos, epoch=0):
        super().__init__()
        self.config = config
        self.videos = videos
        self.batches_done = epoch * config.steps_per_epoch

    def __len__(self):
        left = self.config.epochs * self.config.steps_per_epoch - self.batches_done
        return max(1, left)  # Keras looks at a batch even when all epochs are done

    def __getitem__(self, index):
        config = self.config
        batch = self.batches_done + index
        seed = [config.seed, *divmod(batch, config.steps_per_epoch)]  # the epoch, and its step
        videos = self.videos.draw(config.batch_size, seed)
        x, y = data.shift_frames(videos)  # (batch, frames - 1, height, width, channels) each
        real_mask = np.ones(x.shape[:2], bool)
        if not config.teacher_forcing:
            sampling_batches = config.sampling_epochs * config.steps_per_epoch
            probability = max(0, 1 - batch / sampling_batches) if sampling_batches else 0
            rng = np.random.default_rng([data.SAMPLING, *seed])
            real = rng.random(real_mask[:, config.context :].shape) < probability
            real_mask[:, config.context :] = np.logical_and.accumulate(real, axis=1)
        return {"videos": x, "real_mask": real_mask}, y


def open_sets(config):
    """What to train and to validate on.

    Returns:
        training: has `draw(count, seed)`, as `data.TrainingVideos` has.
        validation: videos, to be indexed by an array of numbers.
        digest: tells these clips from others; None: Moving MNIST.
    """
    if config.data == data.MOVING_MNIST:
        options = config.digits_per_video, config.frames, config.size
        training = data.TrainingVideos(*options, config.single_digit_share)
        return training, data.EvaluationVideos("validation", *options), None
    opened = clips.open_clips(config.data)
    return *clips.training_sets(opened, config.frames), opened.digest


def rollout_error(forecast, videos, context):
    """Forecast videos, and square the error.

    Args:
        forecast: a function of the context and the horizon, as `data.copy_last` is.
        videos: batches of them, (batch, frames, height, width, channels).
        context: how many frames are given.

    Returns:
        error: squared error of each predicted frame, summed over pixels, averaged over videos:
            (frames - context,).
        samples: context, truth and prediction of the first three videos, or of fewer if the first
            batch has no more.
    """
    errors, samples = [], []
    for batch in videos:
        given, truth = batch[:, :context], batch[:, context:]
        prediction = forecast(data.to_float(given), truth.shape[1])
        errors.append(np.square(prediction - data.to_float(truth)).sum(axis=(2, 3, 4)))
        samples = samples or [part[:3] for part in (given, truth, prediction)]
    return np.concatenate(errors).mean(axis=0), samples


class Validation(keras.callbacks.Callback):
    """After each epoch: roll out validation videos, square the error, keep the best weights.

    The moving average of the weights forecasts better than the weights, so it is scored and saved,
    in a model of its own. The one in training is never touched.

    Args:
        config: a `Config`.
        averaged: a model like the one in training.
        videos: the validation set; as many as the config says are forecast, evenly spaced.
        run: the `runs.Run` that saves.
    """

    def __init__(self, config, averaged, videos, run):
        super().__init__()
        count = min(config.validation_videos, len(videos))
        indices = np.linspace(0, len(videos) - 1, count).astype(int)
        horizon = config.frames - config.context
        self.error = lambda forecast: rollout_error(
            forecast, data.batches(videos, indices, horizon), config.context
        )
        self.averaged = averaged
        self.run = run

    def on_train_begin(self, logs=None):
        error, _ = self.error(data.copy_last)
        self.run.start_log(error.mean())

    def on_epoch_end(self, epoch, logs):
        runs.copy_averaged_weights(self.model, self.averaged)
        with devices.alone():  # scoring and saving wait for no other process
            error, samples = self.error(functools.partial(models.rollout, self.averaged))
            logs["val_mse"] = error.mean()  # for the progress bar
            self.run.save(epoch, logs, error, samples, self.model, self.averaged)


# Training ---------------------------------------------------------------------------------------


def train(config, folder, resume=False, log=None):
    """Train as configured, and leave a run folder.

    Args:
        config: a `Config`.
        folder: the run folder; new, or with `resume` one that is to go on. Its config may then
            differ in `epochs`, and in `data` where its clips have moved.
        log: "tensorboard" or "wandb" reports the run there, too.

    Raises:
        InputError: the config cannot be trained, or the folder cannot be used.
        Failure: the loss became infinite or not a number.
    """
    config.check()
    trackers.check_installed(log)
    training, validation, digest = open_sets(config)
    _, frames, height, width, channels = validation[[0]].shape
    if config.batch_size * frames * height * width > LARGEST_BATCH:
        raise InputError(
            f"--batch-size {config.batch_size} with --frames {frames} of {height} x {width} makes "
            f"more than {LARGEST_BATCH:,} pixels: lower one of them"
        )
    architecture = dataclasses.replace(config.architecture, channels=channels)
    config = dataclasses.replace(config, architecture=architecture)
    with runs.Run(folder, config, resume, digest) as run:
        keras.utils.set_random_seed(config.seed)
        model = build_model(config)
        with devices.alone():
            averaged = build_model(config)
        run.copy_initial_weights(model)
        compile_model(model, config)
        run.restore(model)
        cli.say(
            f"{config.model}, {model.count_params():,} parameters, {architecture.precision}; "
            f"epochs: {config.epochs}, batches in each: {config.steps_per_epoch}, "
            f"videos in a batch: {config.batch_size}; into {folder}",
            *config.remarks(),
        )
        if architecture.precision == "float32" and devices.computes_bfloat16() and not resume:
            cli.say(
                "On this CPU --precision mixed_bfloat16 is faster: 1.2 to 1.6 times, by preset."
            )
        cli.say("The first batch takes longest: the model is compiled for it.")
        model.fit(
            devices.share(Batches(config, training, run.epoch)),
            shuffle=False,  # all videos are random already, and --resume needs their order
            steps_per_epoch=config.steps_per_epoch,
            initial_epoch=run.epoch,
            epochs=config.epochs,
            callbacks=[
                Validation(config, averaged, validation, run),
                runs.Watch(run),
                *trackers.callbacks(log, run.folder, config),
            ],
            verbose=1 if sys.stdout.isatty() else 2,  # 2: a line an epoch, in a log file
        )


# The command line -------------------------------------------------------------------------------


def read_config(path):
    """The `Config` of a run, from its folder or its config.json."""
    return runs.read_config(path, Config)


@dataclasses.dataclass(frozen=True)
class Start:
    """Which run this is, and where its hyperparameters come from."""

    preset: Literal[tuple(PRESETS)] = "cpu"
    """Where the defaults below come from; see --preset NAME --help."""
    run: Path | None = None
    """The new run's folder; runs/PRESET if it is left out."""
    resume: Path | None = None
    """Go on with the run in this folder, as it is, with no other option than --epochs, --log, those
    of several devices or, where its clips have moved, --data."""
    config: Path | None = None
    """A run's folder or config.json to take all defaults from: it repeats the run."""
    log: Literal[tuple(trackers.TRACKERS)] | None = None
    """Report the run there, too (pip install tensorboard, or wandb)."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    run: Start
    hyperparameters: Config
    devices: devices.Devices


def main():
    # First read which preset or run is meant; then read all options, with its values as defaults.
    start, _ = tyro.cli(Start, return_unknown_args=True, add_help=False)
    source = start.resume or start.config
    defaults = read_config(source) if source else PRESETS[start.preset]
    arguments = tyro.cli(
        Arguments,
        default=Arguments(start, defaults, devices.Devices()),
        description=__doc__.split("\n\n")[0],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.SuppressFixed),
    )
    config = arguments.hyperparameters
    # A `Start` with nothing but these two: any difference is another option.
    if start.resume and start != Start(resume=start.resume, log=start.log):
        raise InputError(
            f"--resume {start.resume} goes on with that run as it is: give no other option than "
            "--epochs, --log, --data or those of several devices"
        )
    if start.config and start.preset != Start.preset:
        raise InputError(
            "--preset and --config both say where defaults come from: give one of them"
        )
    if start.config and not start.run:
        raise InputError("--config needs a new folder: --run DIR")
    if config.data != data.MOVING_MNIST:
        config = dataclasses.replace(config, data=str(Path(config.data).absolute()))
    folder = start.resume or start.run or Path("runs") / start.preset
    devices.start(arguments.devices, config.batch_size)
    train(config, folder, bool(start.resume), start.log)


if __name__ == "__main__":
    with devices.ending_together():
        cli.run(main)
