"""How fast training and forecasting are, and where the time goes.

    python benchmarks/speed.py

Takes about four minutes on two CPU cores; run nothing else meanwhile. What is compared is timed in
turns, A B A B ..., in one process, so that a machine that slows down slows both. Prints the median
and the range over the turns:

    training videos a second of the presets but `keras-small` (`gpu` on a GPU only: it is `cpu` with
        larger batches), of `cpu` in bfloat16, too
    on TensorFlow, what the convolutions of a training step take when nothing else is done: their
        share of the step says how near training comes to the machine's rate of convolving
    on TensorFlow, by its profiler, the parts of the forecaster's training step
    the one-frame step of ConvLSTM2D against the layer as Keras calls it, and how far both differ
    the rollout against reading the whole video again for each new frame
    making training videos
"""

import collections
import dataclasses
import functools
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import keras
import numpy as np
from keras import ops

import data
import model as models
import train
from extras import cli, runs
from method import motion

PRESETS, ON_TENSORFLOW = train.PRESETS, keras.backend.backend() == "tensorflow"
TURNS = 3
# The parts of a training step, and what TensorFlow's names of their operations have in them.
# `name_operations` makes the first two names.
PARTS = {
    "ConvLSTM2D layers": "conv_lstm_step",
    "measuring and moving pixels": "motion_tools",
    "optimizer": "muon",
    "other layers, losses": "",
}


def in_turns(*actions, turns=TURNS):
    """Seconds that each action takes, (actions, turns); a first turn compiles, and is left out."""
    seconds = np.empty((turns + 1, len(actions)))
    for turn in seconds:
        for n, action in enumerate(actions):
            start = time.perf_counter()
            action()
            turn[n] = time.perf_counter() - start
    return seconds[1:].T


def show(name, values, unit):
    values = np.asarray(values)
    print(
        f"{name:58}{np.median(values):9.2f} {unit:9} ({values.min():.2f} to {values.max():.2f})",
        flush=True,
    )


# Training ---------------------------------------------------------------------------------------


def training_step(config):
    """An action: one training step, on a batch that stays the same."""
    model = train.build_model(config)
    train.compile_model(model, config)
    videos, *_ = train.open_sets(config)
    return functools.partial(model.train_on_batch, *train.Batches(config, videos)[0])


def bare_convolutions(step):
    """An action: the convolutions of a training step alone, forward and backward, one by one."""
    import tensorflow as tf

    model = step.func.__self__  # whose `train_on_batch` a step is
    train_step = tf.function(model.train_step)
    random_tensor = functools.cache(tf.random.normal)
    convolutions = []
    for op in train_step.get_concrete_function(step.args).graph.get_operations():
        if op.type in ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"):
            arguments = {name: op.get_attr(name) for name in ("strides", "padding")}
            for argument, tensor in zip(op.op_def.input_arg, op.inputs):
                arguments[argument.name] = (
                    tf.constant(op.outputs[0].shape)  # the backward ones are told their result's
                    if tensor.dtype == tf.int32
                    else random_tensor(tuple(tensor.shape))
                )
            convolutions.append(functools.partial(getattr(tf.raw_ops, op.type), **arguments))

    def convolve():
        for convolution in convolutions:
            convolution()

    return convolve


def name_operations():
    """Let TensorFlow's profiler tell the operations of ConvLSTM2D and of method/motion.py apart."""

    def named(function, name):
        def call(*arguments, **options):
            with keras.name_scope(name):
                return function(*arguments, **options)

        return call

    models.ConvLSTM2D.step = named(models.ConvLSTM2D.step, "conv_lstm_step")
    for name in ("block_matching", "advect_history", "warp"):
        setattr(motion, name, named(getattr(motion, name), "motion_tools"))


def profile(action):
    """Seconds that all threads of TensorFlow spend in an action: by part; in convolutions."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            action()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    by_part, in_convolutions = collections.Counter(), 0
    for plane in space.planes:
        for thread in plane.lines:
            for event in thread.events if thread.name.startswith("tf_Compute") else ():
                # "path/of/its/name:Type"; what else a thread does has no such name.
                name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if name and not name.startswith("ExecutorState"):
                    part = next(part for part, word in PARTS.items() if word in name)
                    by_part[part] += event.duration_ps / 1e12
                    in_convolutions += event.duration_ps / 1e12 * ("Conv2D" in kind)
    return by_part, in_convolutions


def show_training():
    """Time presets, and take the `cpu` preset's step apart."""
    on_gpu = "gpu" in keras.distribution.list_devices()[0].lower()
    for name in ("tiny", "keras-example", *(["gpu"] if on_gpu else [])):
        # A step of keras-example takes many seconds on a CPU.
        turns = 1 if name == "keras-example" else TURNS
        (seconds,) = in_turns(training_step(PRESETS[name]), turns=turns)
        show(f"training, {name} preset", PRESETS[name].batch_size / seconds, "videos/s")

    config = PRESETS["cpu"]
    step = training_step(config)
    in_bfloat16 = dataclasses.replace(config.architecture, precision="mixed_bfloat16")
    actions = [step, training_step(dataclasses.replace(config, architecture=in_bfloat16))]
    actions += [bare_convolutions(step)] if ON_TENSORFLOW else []
    seconds, bfloat16, *bare = in_turns(*actions)
    show("training, cpu preset", config.batch_size / seconds, "videos/s")
    show("  in bfloat16", config.batch_size / bfloat16, "videos/s")
    if ON_TENSORFLOW:
        show("  its convolutions alone, of the whole step", 100 * bare[0] / seconds, "%")
        by_part, in_convolutions = profile(step)
        for part in PARTS:
            show(f"  {part}", 100 * by_part[part] / by_part.total(), "%")
        show("  all convolutions, in any part", 100 * in_convolutions / by_part.total(), "%")


# ConvLSTM2D -------------------------------------------------------------------------------------


class Stepwise(keras.Model):
    """A `model.ConvLSTM2D` by its one-frame step: (batch, frames, ...) -> h for each frame."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, videos):
        states, outputs = self.layer.initial_states(*videos.shape[:1], *videos.shape[2:4]), []
        for n in range(videos.shape[1]):
            h, states = self.layer.step(videos[:, n], states)
            outputs.append(h)
        return ops.stack(outputs, axis=1)


def show_layer(filters, size, batch=8, frames=19):
    """Time forward and backward passes of a ConvLSTM2D layer: Keras's call, and our step."""
    layer = models.ConvLSTM2D(filters, 3, return_sequences=True)  # its `call` is Keras's own
    videos = np.random.default_rng(0).random((batch, frames, size, size, filters), np.float32)
    both = keras.Sequential([layer]), Stepwise(layer)
    difference = np.abs(np.subtract(*(ops.convert_to_numpy(model(videos)) for model in both))).max()
    for model in both:
        # TensorFlow's kernels are faster than XLA's on a CPU, see method/loop.py.
        model.compile("sgd", "mse", jit_compile=not ON_TENSORFLOW)
    stock, ours = in_turns(*(functools.partial(m.train_on_batch, videos, videos) for m in both))
    show(f"ConvLSTM2D's step against Keras, {filters} at {size}x{size}", stock / ours, "times")
    show("  largest difference between their outputs", 1e6 * difference, "millionths")


# Forecasting, data ------------------------------------------------------------------------------


def growing_sequence(model, context, horizon):
    """Forecast as the Keras example does: read the whole video again for every new frame."""
    video = context
    for _ in range(horizon):
        video = np.concatenate([video, models.rollout(model, video, 1)], axis=1)
    return video[:, -horizon:]


def show_forecasts():
    model = train.build_model(PRESETS["cpu"])
    context = data.to_float(data.EvaluationVideos("validation")[np.arange(8)][:, :10])
    actions = [
        functools.partial(rollout, model, context, 10)
        for rollout in (models.rollout, growing_sequence)
    ]
    np.testing.assert_allclose(*(action() for action in actions), atol=1e-5)
    steps, growing = in_turns(*actions)
    show("forecasts of ten frames", 8 / steps, "videos/s")
    show("  against reading the whole video for each frame", growing / steps, "times")


def main():
    here = runs.environment()
    where = f"{', '.join(here['devices'])}, {here['cpus']} CPUs"
    print(f"{here['backend']}, Keras {here['keras']}, {where}, commit {here['commit']}")
    name_operations()
    show_training()
    show_layer(64, 16)
    show_layer(128, 8)
    show_forecasts()
    digits = data.load_digits("train")
    (seconds,) = in_turns(functools.partial(data.make_videos, digits, 1000, 0))
    show("making training videos", 1000 / seconds, "videos/s")


if __name__ == "__main__":
    cli.run(main)
