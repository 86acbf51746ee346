"""How fast the collection is, and what its shortcuts bring.

    python benchmarks/speed.py

Takes about three minutes on two CPU cores. Every comparison is measured in turns, A B A B ...,
in one process, so that a machine that slows down slows both; printed are the median and the
range over the turns. Run nothing else meanwhile.
"""

import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extras import cli  # noqa: F401

import keras
import numpy as np

import data
import model as models
import train
from extras import clips, runs

TURNS = 5


def in_turns(*actions):
    """Seconds that each action takes, an array (actions, TURNS); a first turn is not counted."""
    seconds = np.empty((TURNS + 1, len(actions)))
    for turn in seconds:
        for n, action in enumerate(actions):
            start = time.perf_counter()
            action()
            turn[n] = time.perf_counter() - start
    return seconds[1:].T


def show(name, values, unit):
    print(
        f"{name:58}{np.median(values):9.2f} {unit:10}({values.min():.2f} to {values.max():.2f})",
        flush=True,
    )


def training_step(config, stock=False):
    """An action: one training step, on a batch that stays the same."""
    fused_step = models.ConvLSTM2D.step
    if stock:
        models.ConvLSTM2D.step = lambda layer, frame, states: layer.cell(frame, states)
    closed_loop = train.ClosedLoop(train.build_model(config), config)
    batch = train.ClosedLoopVideos(config)[0]
    closed_loop.train_on_batch(*batch)  # compiles it
    models.ConvLSTM2D.step = fused_step
    return lambda: closed_loop.train_on_batch(*batch)


def bare_convolutions(config):
    """An action: the convolutions of a training step alone, forward and backward.

    On TensorFlow. Its share of a whole step's time is how near training comes to the rate
    at which the machine can convolve.
    """
    import tensorflow as tf

    model = train.build_model(config)
    shapes = []  # (transposed, strides, input, kernel)

    def recorded(layer, call):
        def record(x, *rest, **options):
            if isinstance(layer, models.ConvLSTM2D):
                *size, channels, filters = layer.cell.kernel.shape
                shape = (*x.shape[:3], channels + layer.filters)
                shapes.append((False, 1, shape, (*size, shape[-1], filters)))
            else:
                transposed = isinstance(layer, keras.layers.Conv2DTranspose)
                shapes.append((transposed, layer.strides[0], x.shape, layer.kernel.shape))
            return call(x, *rest, **options)

        return record

    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, models.ConvLSTM2D):
            layer.step = recorded(layer, layer.step)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            layer.call = recorded(layer, layer.call)
    size = config.batch_size, *clips.height_and_width(config.size)
    model.step(tf.zeros((*size, 1)), model.initial_states(*size))

    frames = config.frames - 1
    inputs = [tf.random.normal((frames, *shape)) for _, _, shape, _ in shapes]
    kernels = [tf.random.normal(kernel) / 100 for _, _, _, kernel in shapes]

    def convolve(x, w, transposed, strides):
        if not transposed:
            return tf.nn.conv2d(x, w, strides, "SAME")
        batch, height, width, _ = x.shape
        size = (batch, height * strides, width * strides, w.shape[2])
        return tf.nn.conv2d_transpose(x, w, size, strides)

    @tf.function
    def forward_and_backward(inputs, kernels, output_gradients):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernels])
            outputs = [  # frame by frame, as in training
                tf.stack([convolve(x_n, w, *rest) for x_n in tf.unstack(x)])
                for x, w, (*rest, _, _) in zip(inputs, kernels, shapes)
            ]
        return tape.gradient(outputs, [inputs, kernels], output_gradients)

    output_gradients = [
        tf.random.normal((frames, *convolve(x[0], w, *rest).shape))
        for x, w, (*rest, _, _) in zip(inputs, kernels, shapes)
    ]
    return lambda: forward_and_backward(inputs, kernels, output_gradients)


def whole_video_for_each_frame(model, context, horizon):
    """Forecast as the Keras example does: read the whole video again for every new frame."""
    video = context
    for _ in range(horizon):
        prediction = np.asarray(model(video)[:, -1:])
        video = np.concatenate([video, prediction], axis=1)


def frame_by_frame(digits, count, seed):
    """Moving MNIST drawn one video, digit and frame at a time."""
    numbers = np.random.default_rng(seed).random((count, 2, 4))
    videos = np.zeros((count, 20, 64, 64), np.uint8)
    for video, rows in zip(videos, numbers):
        for choice, x, y, angle in rows:
            dx, dy = 0.1 * np.cos(2 * np.pi * angle), 0.1 * np.sin(2 * np.pi * angle)
            for frame in video:
                x, y = x + dx, y + dy
                if not 0 < x < 1:
                    x, dx = min(max(x, 0), 1), -dx
                if not 0 < y < 1:
                    y, dy = min(max(y, 0), 1), -dy
                window = frame[int(36 * y) :, int(36 * x) :][:28, :28]
                np.maximum(window, digits[int(choice * len(digits))], out=window)
    return videos


def main():
    here = runs.environment()
    print(
        f"{here['backend']}, Keras {here['keras']}, {', '.join(here['devices'])}, {here['cpus']} CPUs"
    )

    ours, example = train.PRESETS["cpu"], train.PRESETS["keras-example"]
    our_step = training_step(ours)
    actions = [our_step, training_step(ours, stock=True)]
    actions += [training_step(dataclasses.replace(ours, precision="mixed_bfloat16"))]
    if keras.backend.backend() == "tensorflow":
        actions += [bare_convolutions(ours)]
    seconds, stock, bfloat16, *bare = in_turns(*actions)
    show("training, cpu preset", ours.batch_size / seconds, "videos/s")
    show("  its fused ConvLSTM2D step against Keras's", stock / seconds, "times")
    show("  bfloat16 against float32", seconds / bfloat16, "times")
    if bare:
        show("  its convolutions alone, of the whole step", 100 * bare[0] / seconds, "%")
    fused_example, stock_example = in_turns(
        training_step(example), training_step(example, stock=True)
    )
    show("training, keras-example preset", example.batch_size / fused_example, "videos/s")
    show("  its fused ConvLSTM2D step against Keras's", stock_example / fused_example, "times")
    ratio = (ours.batch_size / seconds) / (example.batch_size / stock_example)
    show("cpu preset against keras-example with Keras's step", ratio, "times")

    model = train.build_model(ours)
    context = data.to_float(data.EvaluationVideos("validation")[np.arange(8)][:, :10])
    steps, growing = in_turns(
        lambda: models.rollout(model, context, 10),
        lambda: whole_video_for_each_frame(model, context, 10),
    )
    show("ten-frame forecast of 8 videos", steps, "s")
    show("  against reading the whole video for each frame", growing / steps, "times")

    digits = data.load_digits("train")
    assert (frame_by_frame(digits, 20, 1) == data.make_videos(digits, 20, 1)[..., 0]).all()
    at_once, one_by_one = in_turns(
        lambda: data.make_videos(digits, 1000, 0), lambda: frame_by_frame(digits, 1000, 0)
    )
    show("making 1,000 videos", at_once, "s")
    show("  against drawing frame by frame", one_by_one / at_once, "times")


if __name__ == "__main__":
    main()
