"""Train a next-frame model on Moving MNIST or on your own clips, on a GPU or on a laptop's CPU.

    python train.py --preset tiny                      a first look, in a minute or two
    python train.py                                    an hour on two CPU cores
    KERAS_BACKEND=jax python train.py --preset gpu     the shipped weights, on an H100
    python train.py --filters 96 --run runs/mine       any hyperparameter is an option
    python train.py --data clips --run runs/clips      your own: videos, frames, arrays
    python train.py --resume runs/mine                 go on after an interruption
    python train.py --config runs/mine --run runs/again     repeat a run

Training is in closed loop: the model reads ten real frames and goes on from its own predictions,
as it must when it forecasts. In the first `sampling_epochs` it is helped: each frame after the ten
is real with a probability that falls from 1 to 0 ("scheduled sampling", Bengio et al. 2015); once
it has been given its own prediction, it goes on alone to the end. Gradients flow through the
predictions that are fed back. What a run leaves in its folder is listed in extras/runs.py.

One batch of the `cpu` preset, with its shapes:

    videos               (16, 20, 64, 64, 1)  new ones, float32 in [0, 1]
    x, y                 (16, 19, 64, 64, 1)  frames 1 to 19, and 2 to 20, which are the targets
    real_mask            (16, 19)             whether x, or the last prediction, is the input
    predictions          (16, 19, 64, 64, 1)  by 19 steps of the model
    predicted motion     (16, 19, 16, 16, 18) logits for each block of 4x4 pixels
    loss                 squared error of all 19 predictions, + 0.1 x the motion's cross-entropy
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from extras.cli import InputError  # comes before Keras: see extras/cli.py
from extras import cli

import keras
import numpy as np
import pydantic
import tyro
from keras import ops
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

import data
import model as models
from extras import clips, devices, motion, optimizer, runs, sources, trackers


# A loss takes the real and the predicted frames, both (batch, frames - 1, height, width, channels).
# --motion-weight was chosen for a loss that is summed over pixels, as the motion's is.


def squared_error(y, prediction):
    """Squared error summed over the pixels of a frame, averaged over frames and videos."""
    return ops.mean(ops.sum(ops.square(y - prediction), axis=(2, 3, 4)))


LOSSES = {"squared_error": squared_error, "binary_crossentropy": "binary_crossentropy"}

MODELS = {"forecaster": models.Forecaster, "keras-example": models.KerasExample}


@pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class Config:
    """The hyperparameters."""

    # The defaults are the `cpu` preset.
    # tyro makes an option of each field, and its help of the line below it; pydantic checks values.

    # The data
    data: str = pydantic.Field(data.MOVING_MNIST, min_length=1)
    """moving-mnist, or your own clips: a video file, an array, a folder of these or of frames."""
    frames: PositiveInt = 20
    """Frames of a training video (20: Srivastava et al. 2015)."""
    context: PositiveInt = 10
    """Real frames that a forecast starts from (10: Srivastava et al. 2015)."""
    size: tuple[PositiveInt, ...] = pydantic.Field((64,), min_length=1, max_length=2)
    """Height and width in pixels, or one number for a square (64: Srivastava et al. 2015)."""
    digits_per_video: PositiveInt = 2
    """Digits in a video of Moving MNIST (2: Srivastava et al. 2015)."""
    value_range: Annotated[tuple[float, float] | None, tyro.conf.arg(name="range")] = None
    """Own clips: which values are 0 (black) and 1 (white), in the data's units."""
    axes: str | None = None
    """Own arrays: a letter for each axis, in order: N videos, T frames, H, W, C."""
    stride: PositiveInt = 1
    """Own clips: keep every Nth frame."""
    fps: PositiveFloat | None = None
    """Own video files: frames a second to sample, by their time stamps."""

    # Training
    epochs: PositiveInt = 6
    """How many; see --cooldown."""
    steps_per_epoch: PositiveInt = 125
    """Batches in an epoch, after which the run is scored and saved."""
    batch_size: PositiveInt = 16
    """Videos in a batch, on all devices together."""
    muon_learning_rate: NonNegativeFloat = 5e-3
    """Of Muon, an optimizer for hidden layers' kernels (Jordan et al. 2024); 0: Adam trains all."""
    adam_learning_rate: PositiveFloat = 1e-3
    """Of Adam, for the first layer, the heads, biases and norms (1e-3: Kingma and Ba 2015)."""
    sampling_epochs: NonNegativeInt = 4
    """Epochs in which the probability that a frame beyond the context is real falls to 0."""
    seed: int = pydantic.Field(0, ge=0, lt=2**32)
    """Initial weights, training videos and scheduled sampling follow from it."""
    validation_videos: PositiveInt = 200
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
    """Between real and predicted frames. binary_crossentropy is a mean over pixels: with it divide
    --motion-weight by their number (64x64: 2.4e-5)."""
    motion_weight: NonNegativeFloat = 0.1
    """Weight of the cross-entropy between predicted and measured motion; 0: none."""
    teacher_forcing: bool = False
    """Give real frames throughout, as the Keras example does."""
    weight_decay: NonNegativeFloat = 0.01
    """How much Muon's kernels shrink in a step, times the learning rate."""
    warmup_steps: NonNegativeInt = 100
    """Steps over which the learning rates rise from zero."""
    cooldown: float = pydantic.Field(0.8, ge=0, le=1)
    """Share of the epochs, the last ones, in which the learning rates fall to zero (Hagele et al.
    2024); 0: they stay."""
    global_clipnorm: NonNegativeFloat = 1.0
    """Largest norm of all gradients together; 0: no clipping."""
    average: bool = True
    """Score and save a moving average of the weights (Shamir and Zhang 2013)."""


# Whatever a preset leaves out, in its architecture too, is as in `cpu`.
PRESETS = {
    # A first look, and for tests.
    "tiny": Config(
        architecture=models.Architecture(
            encoder_filters=8, filters=16, coarse_filters=24, depths=(0, 1, 0), motion_units=64
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
    # One GPU: the same model, with twenty times as many videos. It trained the shipped weights.
    "gpu": Config(
        architecture=models.Architecture(precision="mixed_bfloat16"),
        batch_size=64,
        steps_per_epoch=375,
        epochs=10,
        sampling_epochs=3,
        cooldown=0.4,
    ),
    # keras.io/examples/vision/conv_lstm: 64 filters, batches of 5, Adam, cross-entropy, teacher
    # forcing, 900 videos an epoch, 20 epochs. (It also stops early, and lowers the learning rate,
    # when the validation loss stops improving. That is left out here.)
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
    height, width = clips.height_and_width(config.size)
    model.build((None, None, height, width, config.architecture.channels))
    return model


class ClosedLoop(keras.Model):
    """A next-frame model with the mask as one more input, and the motion as one more output.

    {"videos": x, "real_mask": which of its frames to use} -> {"frames": the predictions}, and, if
    there is a motion loss, "motion": logits of the predicted motion, for blocks of 4x4 pixels,
    (batch, frames - 1, height / 4, width / 4, 2 (2 motion_radius + 1)), height and width being
    those of padded frames. The losses are over all frames - 1 predictions, those within the context too;
    scores count only those after it.
    """

    def __init__(self, model, config):
        super().__init__()
        self.model = model
        self.built = True  # its only layer, the model, is built
        losses, weights = {"frames": LOSSES[config.loss]}, {"frames": 1}
        if has_motion_loss(config):
            losses["motion"], weights["motion"] = motion.cross_entropy, config.motion_weight
        self.outputs_motion = "motion" in losses
        self.compile(optimizer.make_optimizer(config), loss=losses, loss_weights=weights)
        # Now and not in the first step, so that `--resume` can load the optimizer's state.
        self.optimizer.build(self.trainable_variables)

    def get_config(self):
        return {}  # a checkpoint is never rebuilt from this: `runs.resume` loads its weights

    def call(self, inputs, training=False):
        frames, states = self.model.unroll(inputs["videos"], inputs["real_mask"], training)
        outputs = {"frames": frames}  # (batch, frames - 1, height, width, channels)
        if self.outputs_motion:
            outputs["motion"] = ops.stack([state["predicted_motion"] for state in states], axis=1)
        return outputs


def has_motion_loss(config):
    measures_motion = config.model == "forecaster" and config.architecture.motion_radius > 0
    return measures_motion and config.motion_weight > 0


class ClosedLoopVideos(data.MovingMNIST):
    """Training pairs as `ClosedLoop` takes them.

    One Keras batch: batch_size videos, sharded over processes. Random numbers are drawn for the
    whole batch, so that what is trained does not depend on the processes.

    Args:
        config: a `Config`.
        epoch: the epoch to start at.
        windows: `clips.Windows`, all stretches of own clips that are as long as a video; None:
            Moving MNIST.
    """

    def __init__(self, config, epoch=0, windows=None):
        super().__init__(
            config.seed,
            config.batch_size,
            config.steps_per_epoch,
            epoch,
            config.digits_per_video,
            config.frames,
            config.size[0],
        )
        self.config = config
        self.windows = windows

    def __getitem__(self, index):
        """{"videos": x, "real_mask": booleans}, {"frames": y, "motion": the whole videos}."""
        config, seeds = self.config, [self.seed, self.epoch, index]
        rows = devices.process_rows(config.batch_size)  # all, unless processes share the batch
        if self.windows is None:
            videos = self.draw(index)
        else:
            rng = np.random.default_rng([data.TRAINING, *seeds])
            videos = self.windows[rng.integers(len(self.windows), size=config.batch_size)]
        videos = data.to_float(videos[rows])
        x, y = data.shift_frames(videos)
        real_mask = np.ones((config.batch_size, config.frames - 1), bool)
        if not config.teacher_forcing:
            batches_done = self.epoch * config.steps_per_epoch + index
            sampling_batches = config.sampling_epochs * config.steps_per_epoch
            is_over = batches_done >= sampling_batches
            probability = 0 if is_over else 1 - batches_done / sampling_batches
            rng = np.random.default_rng([data.SAMPLING, *seeds])
            # Beyond the context each frame is real with this probability; after the first that is
            # not, none is: the model goes on by itself, as it must when it forecasts.
            real = rng.random(real_mask[:, config.context :].shape) < probability
            real_mask[:, config.context :] = np.logical_and.accumulate(real, axis=1)
        targets = {"frames": y}
        if has_motion_loss(config):
            # The target of the motion's loss: it measures in the real videos how things moved.
            targets["motion"] = videos
        return {"videos": x, "real_mask": real_mask[rows]}, targets


# Training ---------------------------------------------------------------------------------------


def train(config, folder, resume=False, log=None, distribution=None):
    """Train as configured, and leave a run folder.

    Args:
        config: a `Config`.
        folder: the run folder; new, or with `resume` one that is to go on. Its config may then
            differ in `epochs` alone.
        log: "tensorboard" or "wandb" reports the run there, too.
        distribution: what `devices.start` returns; None trains on one device.

    Raises:
        InputError: the config cannot be trained, or the folder cannot be used.
        Failure: the loss became infinite or not a number.
    """
    folder = Path(folder)
    sources.check_config(config)
    trackers.check_installed(log)
    initial = None if resume else runs.initial_model(config)
    with runs.own_folder(folder, resume):
        fit(config, folder, initial, resume, log, distribution)


def fit(config, folder, initial, resume, log, distribution):
    """What `train` does, within a folder that no other run uses."""
    here = runs.environment(distribution)
    print(f"{here['backend']} on {', '.join(here['devices'])}, {config.architecture.precision}")
    windows, validation, channels = sources.training_sets(config, folder, distribution)
    architecture = dataclasses.replace(config.architecture, channels=channels)
    config = dataclasses.replace(config, architecture=architecture)

    keras.utils.set_random_seed(config.seed)
    with devices.distribution_scope(distribution):
        model = build_model(config)
        closed_loop = ClosedLoop(model, config)
    epoch, log_rows = 0, []
    if resume:
        epoch, log_rows = runs.resume(
            folder, runs.read_config(folder, Config), config, closed_loop, here
        )
        if epoch == config.epochs:
            print(
                f"All epochs of {folder} are done. Start another run from its weights: "
                f"--config {folder} --init {folder} --run OTHER"
            )
    else:
        if initial:
            runs.copy_weights(initial, model)
        runs.start(folder, config, closed_loop, here)

    print(
        f"{config.model}, {model.count_params():,} parameters; {config.epochs} epochs of "
        f"{config.steps_per_epoch} batches of {config.batch_size} videos, into {folder}"
    )
    print("The first batch takes longest: the model is compiled for it.", flush=True)
    training = ClosedLoopVideos(config, epoch, windows)
    # The moving average of the weights forecasts better than the weights, so it has a model of its
    # own. In place of validation_data: after each epoch `ScoreAndSave` copies the average into it,
    # forecasts validation videos with it in closed loop, logs the error as val_mse, and saves.
    averaged = build_model(config)
    with cli.polite_ctrl_c() as asked_to_stop, devices.distribution_scope(distribution):
        score_and_save = runs.ScoreAndSave(
            folder, config, averaged, log_rows, asked_to_stop, training, validation
        )
        callbacks = [score_and_save]
        if log and devices.process == 0:
            callbacks.append(trackers.TRACKERS[log](folder, config))
        closed_loop.fit(
            training,
            shuffle=False,  # all videos are random already, and --resume needs their order
            initial_epoch=epoch,
            epochs=config.epochs,
            callbacks=callbacks,
        )


# The command line -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Start:
    """Which run this is, and where its hyperparameters come from."""

    preset: Literal[tuple(PRESETS)] = "cpu"
    """Where the defaults below come from; see --preset NAME --help."""
    run: Path | None = None
    """The new run's folder; runs/PRESET if it is left out."""
    resume: Path | None = None
    """Go on with the run in this folder, as it is, with no other option than --epochs, --log or
    --devices."""
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
    defaults = runs.read_config(source, Config) if source else PRESETS[start.preset]
    arguments = tyro.cli(
        Arguments,
        default=Arguments(start, defaults, devices.Devices()),
        description=__doc__.split("\n\n")[0],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.SuppressFixed),
    )
    config = arguments.hyperparameters
    if start.resume:
        changed = config != dataclasses.replace(defaults, epochs=config.epochs)
        # A `Start` with nothing but these two: any difference is another option.
        if changed or start != Start(resume=start.resume, log=start.log):
            raise InputError(
                f"--resume {start.resume} goes on with that run as it is: give no other option "
                "than --epochs, --log or --devices"
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
    distribution = devices.start(arguments.devices, config.batch_size)
    train(config, folder, bool(start.resume), start.log, distribution)


if __name__ == "__main__":
    with devices.ending_together():
        cli.run(main)
