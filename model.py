"""Predict the next frame with ConvLSTM2D layers, one frame at a time.

    (batch, frames, height, width, channels) in, a video of the same shape out:
    output frame n is the prediction of input frame n + 1.

Every model here is one small step, `next_frame, states = model.step(frame, states)`: it reads one
frame and its memory, the states, and returns the next frame and the new memory. Teacher forcing,
training in closed loop and forecasting are that same step with a different answer to one question:
is the next input the real frame, or the model's own prediction?

- `KerasExample` is the stack that the Keras site shows, without its leak.
- `Forecaster` is a U-Net of residual ConvLSTM2D layers for videos of any kind.
"""

import dataclasses
import functools
from typing import Literal

from extras.cli import InputError  # comes before Keras: see extras/cli.py

import keras
import numpy as np
import pydantic
import tyro
from keras import ops
from pydantic import NonNegativeInt, PositiveInt

from extras import compiling, motion


@keras.saving.register_keras_serializable("next_frame")
class ConvLSTM2D(keras.layers.ConvLSTM2D):
    """Keras's ConvLSTM2D with a one-frame `step`; the weights and the numbers are the same.

    h is the layer's output, and c its memory. The gates i, f and o say how much of the candidate to
    write, how much of c to keep, and how much to show. (Shi et al. 2015, "Convolutional LSTM
    Network", equation 3; without its peepholes, as in Keras.) Keras's cell runs eight
    convolutions: for each of the three gates and the candidate one on the input and one on h.
    `step` joins input and h, and runs one.
    """

    def __init__(self, filters, kernel_size, padding="same", **kwargs):
        super().__init__(filters, kernel_size, padding=padding, **kwargs)
        cell = self.cell
        if padding != "same" or any(n != 1 for n in cell.strides + cell.dilation_rate):
            raise ValueError("step() needs padding='same' and strides and dilation of 1")
        if cell.dropout or cell.recurrent_dropout:
            raise ValueError("step() knows no dropout")

    def initial_states(self, batch, height, width):
        """States before the first frame: [h, c], each (batch, height, width, filters), zeros."""
        shape = (batch, height, width, self.filters)
        return [ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)]

    def step(self, frame, states):
        """One frame (batch, height, width, channels) -> h, and the new states [h, c]."""
        if not self.built:
            self.build((None, None, *frame.shape[1:]))
        cell = self.cell
        # Keras casts the inputs of a model, and in `rollout` the states are some.
        h, c = (ops.cast(state, self.compute_dtype) for state in states)
        # (kernel height, kernel width, channels + filters, 4 filters)
        kernel = ops.concatenate([cell.kernel, cell.recurrent_kernel], axis=2)
        frame_and_h = ops.concatenate([ops.cast(frame, self.compute_dtype), h], axis=-1)
        gates = ops.conv(frame_and_h, ops.cast(kernel, self.compute_dtype), padding="same")
        if cell.use_bias:
            gates = gates + ops.cast(cell.bias, self.compute_dtype)
        i, f, candidate, o = ops.split(gates, 4, axis=-1)  # (batch, height, width, filters) each
        i, f, o = (cell.recurrent_activation(gate) for gate in (i, f, o))
        c = f * c + i * cell.activation(candidate)
        h = o * cell.activation(c)
        return h, [h, c]


class ConvLSTMStack(keras.layers.Layer):
    """A stack of residual ConvLSTM2D layers: each adds its output to its input.

    Args:
        depth: how many layers; 0 passes its input on.
        filters: filters of each, and channels of the input.
        dtype: dtype policy of the layers.
    """

    def __init__(self, depth, filters, dtype, name):
        super().__init__(dtype=dtype, name=name)
        self.norms = [keras.layers.LayerNormalization(dtype=dtype) for _ in range(depth)]
        self.conv_lstms = [ConvLSTM2D(filters, 3, dtype=dtype) for _ in range(depth)]
        self.built = True  # no `build` is needed: each layer is built in its first step

    def initial_states(self, batch, height, width):
        return [layer.initial_states(batch, height, width) for layer in self.conv_lstms]

    def step(self, x, states):
        """x (batch, height, width, filters) -> the same shape, and the new states."""
        new_states = []
        for norm, conv_lstm, state in zip(self.norms, self.conv_lstms, states):
            h, state = conv_lstm.step(norm(x), state)
            x = x + h
            new_states.append(state)
        return x, new_states


@pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})
class Architecture:
    """The size of a model; the defaults are those of the shipped weights."""

    # Each field is an option of train.py, with the line below it as its help; pydantic checks it.
    channels: tyro.conf.Fixed[Literal[1, 3]] = 1
    """Of a frame: 1 grey, 3 colour. Follows from the data."""
    encoder_filters: PositiveInt = 32
    """Filters of the first convolution, at half the frame's size."""
    filters: PositiveInt = 64
    """Filters of each ConvLSTM2D layer at a quarter of the frame's size (keras-example: of all)."""
    coarse_filters: PositiveInt = 128
    """Filters of each ConvLSTM2D layer at an eighth of the frame's size."""
    depths: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (1, 2, 1)
    """ConvLSTM2D layers at a quarter going down, at an eighth, at a quarter going up."""
    motion_radius: int = pydantic.Field(4, ge=0, le=7)  # `motion.advect_history` looks no farther
    """Pixels that anything can move in a frame, along each axis (Moving MNIST: 3.6), at most 7; 0:
    no motion is measured, and all is painted."""
    motion_history: PositiveInt = 9
    """Frames for which the measured motion is remembered (9: all of the context's)."""
    motion_units: PositiveInt = 128
    """Units of the 1x1 convolutions that read the motion."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Number format of the inner layers (bfloat16 takes less memory); heads and measured motion are
    always float32."""


class NextFrameModel(compiling.Model):  # a keras.Model that compiles a loop over frames
    """What all models share: a loop over `step` that reads a video.

    A subclass gives `initial_states(batch, height, width)` and `step(frame, states, training)`.

    Args:
        architecture: an `Architecture`.
    """

    remat = False  # True: gradient checkpointing, less memory for more computation

    def __init__(self, architecture, **kwargs):
        # The inner layers have a precision of their own.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.architecture = architecture

    # Keras saves what `get_config` returns, and rebuilds the model from it.
    def get_config(self):
        return {**super().get_config(), **dataclasses.asdict(self.architecture)}

    @classmethod
    def from_config(cls, config):
        names = [field.name for field in dataclasses.fields(Architecture) if field.name in config]
        return cls(Architecture(**{name: config.pop(name) for name in names}), **config)

    # Keras passes a shape for each argument of `call`.
    def build(self, videos_shape, real_mask_shape=None):
        self.frame_size = videos_shape[2:4]
        frame = ops.zeros((1, *videos_shape[2:]))
        # One step on zeros builds every layer.
        self.step(frame, self.initial_states(1, *videos_shape[2:4]))

    # So that Keras need not trace all frames to know it.
    def compute_output_shape(self, videos_shape, real_mask_shape=None):
        return videos_shape

    def call(self, videos, real_mask=None, training=False):
        """Predict the frame after each frame.

        Args:
            videos: (batch, frames, height, width, channels), float32 in [0, 1].
            real_mask: None, or (batch, frames) of booleans. Where it is False, the model is given
                its own prediction of that frame instead of the real one. None means real frames
                throughout ("teacher forcing"). The first frame is always real.

        Returns:
            predictions: the shape of `videos`; frame n predicts frame n + 1, and depends on no
                frame after n.
        """
        predictions, _ = self.unroll(videos, real_mask, training)
        return predictions

    def unroll(self, videos, real_mask=None, training=False):
        """What `call` does; returns the predictions, and a list of the states after each."""
        if not self.built:  # Keras builds a model that is called, but another may call `unroll`
            self.build(tuple(videos.shape))
        states = self.initial_states(ops.shape(videos)[0], *videos.shape[2:4])
        step = functools.partial(self.step, training=training)
        if self.remat:
            step = keras.remat(step)
        predictions, all_states = [], []
        for n in range(videos.shape[1]):
            frame = videos[:, n]  # (batch, height, width, channels)
            if real_mask is not None and n > 0:
                is_real = ops.reshape(real_mask[:, n], (-1, 1, 1, 1))
                frame = ops.where(is_real, frame, predictions[-1])
            prediction, states = step(frame, states)
            predictions.append(prediction)
            all_states.append(states)
        return ops.stack(predictions, axis=1), all_states


@keras.saving.register_keras_serializable("next_frame")
class KerasExample(NextFrameModel):
    """The stack of keras.io/examples/vision/conv_lstm, with a last layer that cannot cheat.

    Three ConvLSTM2D layers (5x5, 3x3, 1x1; relu) with BatchNormalization between them, then a 3x3
    convolution with a sigmoid over one frame. The published example ends in a 3x3x3 convolution,
    whose output n sees frame n + 1, its own target. Here BatchNormalization works on one frame of
    all videos in the batch, since the later frames are not known yet; there, on whole videos.
    Of the architecture it has the channels, the filters of each layer (64 in the published example)
    and the precision.
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(architecture, **kwargs)
        filters, precision = architecture.filters, architecture.precision
        self.conv_lstms = [
            ConvLSTM2D(filters, size, activation="relu", dtype=precision, name=name)
            for size, name in ((5, "encoder_conv_lstm"), (3, "conv_lstm_2"), (1, "conv_lstm_3"))
        ]
        self.norms = [keras.layers.BatchNormalization(dtype=precision) for _ in range(2)]
        self.paint_head = keras.layers.Conv2D(
            architecture.channels,
            3,
            padding="same",
            activation="sigmoid",
            dtype="float32",
            name="paint_head",
        )

    def initial_states(self, batch, height, width):
        return [layer.initial_states(batch, height, width) for layer in self.conv_lstms]

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        first, second, third = self.conv_lstms
        x, first_state = first.step(frame, states[0])  # (batch, height, width, filters)
        x, second_state = second.step(self.norms[0](x, training=training), states[1])
        x, third_state = third.step(self.norms[1](x, training=training), states[2])
        return self.paint_head(x), [first_state, second_state, third_state]


# Factor of the displacements' logits. At first all displacements are about equally likely, so a
# moved pixel is a mean of its neighbours; with a factor above 1 training picks one of them sooner.
LOGIT_SCALE = 3.0
# Added to the gate's logit: at first about sigmoid(2) = 88% of a pixel is moved, and 12% painted.
GATE_BIAS = 2.0


@keras.saving.register_keras_serializable("next_frame")
class Forecaster(NextFrameModel):
    """A U-Net of residual ConvLSTM2D layers whose heads move pixels and paint them.

    frame 64x64 -> encoder 32x32 -> stack 16x16 -> stack 8x8 -> stack 16x16 -> decoder 32x32
    -> heads 64x64

    A strided encoder leads to ConvLSTM2D layers at a quarter of the frame's size, and to wider
    ones at an eighth, which see farther; then it goes back up. Two motion heads say where the
    frame's pixels will be next, for blocks and then for each pixel; a paint head paints what is
    new; and a gate blends both answers pixel by pixel. Besides the frame, the model gets a
    measurement: how each block of 4x4 pixels has moved over the frames before (extras/motion.py).
    After 7,200 videos of Moving MNIST the error was 66.0 with it, and 84.7 without
    (benchmarks/README.md). Comments give the sizes for 64x64.
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(architecture, **kwargs)
        encoder_filters = architecture.encoder_filters
        filters, coarse_filters = architecture.filters, architecture.coarse_filters
        depths, precision = architecture.depths, architecture.precision
        motion_radius, motion_units = architecture.motion_radius, architecture.motion_units
        self.motion_radius = motion_radius
        # Probabilities of -R..R pixels, vertically, then horizontally; 18 for R = 4.
        self.motion_channels = 2 * (2 * motion_radius + 1)
        # Of each block its contrast, and the displacements so far times that contrast: so, where
        # blocks are averaged, an even block, which shows no motion, does not count. See
        # `motion.advect_history`.
        self.carried_channels = 1 + architecture.motion_history * self.motion_channels

        def convolution(filters, size, strides, name, activation="silu"):
            return keras.layers.Conv2D(
                filters, size, strides, "same", activation=activation, dtype=precision, name=name
            )

        def upsampling(filters, name, dtype=precision):
            # Each pixel becomes 2x2 pixels.
            return keras.layers.Conv2DTranspose(filters, 2, strides=2, dtype=dtype, name=name)

        # Muon trains kernels; Adam trains biases, norms, and layers with "encoder" or "head" in
        # their names. See extras/optimizer.py.
        self.encoder = convolution(encoder_filters, 6, 2, "encoder")
        self.down = convolution(filters, 3, 2, "down")
        self.stack_down = ConvLSTMStack(depths[0], filters, precision, "stack_down")
        self.down_to_coarse = convolution(coarse_filters, 3, 2, "down_to_coarse")
        self.stack_coarse = ConvLSTMStack(depths[1], coarse_filters, precision, "stack_coarse")
        self.up_from_coarse = upsampling(filters, "up_from_coarse")
        self.stack_up = ConvLSTMStack(depths[2], filters, precision, "stack_up")
        self.up = upsampling(encoder_filters, "up")
        self.decoder = convolution(2 * encoder_filters, 3, 1, "decoder")
        self.paint_head = upsampling(architecture.channels, "paint_head", "float32")
        if motion_radius:
            self.history_hidden = convolution(motion_units, 1, 1, "history_hidden")
            self.history_in = convolution(filters, 3, 1, "history_in", activation=None)
            self.motion_hidden = [
                convolution(motion_units, 1, 1, f"motion_hidden_{n}") for n in (0, 1)
            ]
            self.block_motion_head = keras.layers.Conv2D(
                self.motion_channels, 1, dtype="float32", name="block_motion_head"
            )
            self.pixel_motion_head = upsampling(
                self.motion_channels + 1, "pixel_motion_head", "float32"
            )
        # A layer of your own goes here, after the others: made before them, it would change their
        # initial weights, which are drawn in this order. `step` calls it. If it keeps a state,
        # `initial_states` returns the first one. Let it be off by default, so that files saved
        # before still load: with a field `my_layer: bool = False` in `Architecture`, which is the
        # option --my-layer, and here `if architecture.my_layer:`.

    def padded_size(self, height, width):
        """Height and width rounded up to multiples of 8, which the layers need."""
        return height + -height % 8, width + -width % 8

    def initial_states(self, batch, height, width):
        height, width = self.padded_size(height, width)
        quarter = (batch, height // 4, width // 4)
        states = {
            "down": self.stack_down.initial_states(*quarter),
            "coarse": self.stack_coarse.initial_states(batch, height // 8, width // 8),
            "up": self.stack_up.initial_states(*quarter),
        }
        if self.motion_radius:
            states["previous_frame"] = ops.zeros((batch, height, width, self.architecture.channels))
            states["carried_history"] = ops.zeros((*quarter, self.carried_channels))
            # No memory, but one more output: logits of the next displacements, for the loss.
            states["predicted_motion"] = ops.zeros((*quarter, self.motion_channels))
        return states

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        height, width = frame.shape[1:3]
        frame = motion.pad_frames(frame, *self.padded_size(height, width))
        states = dict(states)  # a copy: `unroll` keeps the states of every step

        skip = self.encoder(frame)  # (batch, 32, 32, encoder_filters)
        x = self.down(skip)  # (batch, 16, 16, filters)
        if self.motion_radius:
            # From where in the previous frame each block has come, found by comparing its
            # surroundings: probabilities, (batch, 16, 16, motion_channels). The first frame has no
            # previous one, so all displacements are equally likely.
            displacement = motion.block_matching(
                frame, states["previous_frame"], self.motion_radius
            )
            # This displacement and those before it, for the layers; `carried_history` is kept for
            # the next frame. They are advected: a block takes over the history of the place that it
            # came from.
            # (batch, 16, 16, motion_history * motion_channels)
            history, states["carried_history"] = motion.advect_history(
                frame, displacement, states["carried_history"]
            )
            states["previous_frame"] = frame
            x = x + self.history_in(self.history_hidden(history))  # (batch, 16, 16, filters)
        x, states["down"] = self.stack_down.step(x, states["down"])
        coarse = self.down_to_coarse(x)  # (batch, 8, 8, coarse_filters)
        coarse, states["coarse"] = self.stack_coarse.step(coarse, states["coarse"])
        x = x + self.up_from_coarse(coarse)  # (batch, 16, 16, filters)
        x, states["up"] = self.stack_up.step(x, states["up"])

        upsampled = self.up(x)  # (batch, 32, 32, encoder_filters)
        features = ops.concatenate([upsampled, skip], axis=-1)  # twice as many filters
        features = self.decoder(features)  # (batch, 32, 32, 2 encoder_filters)
        painted = ops.sigmoid(self.paint_head(features))  # (batch, 64, 64, channels)
        if not self.motion_radius:
            return painted[:, :height, :width], states

        # The motion head gets the measured history directly, too: that lowered the error
        # (benchmarks/README.md).
        block_motion = ops.concatenate([x, ops.cast(history, x.dtype)], axis=-1)
        for layer in self.motion_hidden:
            block_motion = layer(block_motion)  # (batch, 16, 16, motion_units)
        # How each block of 4x4 pixels will move, which every pixel refines. Both motion heads give
        # logits of 9 vertical and 9 horizontal displacements.
        # (batch, 16, 16, motion_channels)
        block_motion = LOGIT_SCALE * self.block_motion_head(block_motion)
        states["predicted_motion"] = block_motion
        pixel_motion = self.pixel_motion_head(features)  # (batch, 64, 64, motion_channels + 1)
        # Its last channel is the gate.
        gate = ops.sigmoid(pixel_motion[..., -1:] + GATE_BIAS)  # (batch, 64, 64, 1)
        logits = LOGIT_SCALE * pixel_motion[..., :-1]  # (batch, 64, 64, motion_channels)
        logits = logits + ops.repeat(ops.repeat(block_motion, 4, axis=1), 4, axis=2)
        vertical, horizontal = (ops.softmax(part) for part in ops.split(logits, 2, axis=-1))
        moved = motion.warp(frame, vertical, horizontal)  # (batch, 64, 64, channels)
        next_frame = gate * moved + (1 - gate) * painted
        return next_frame[:, :height, :width], states


def rollout(model, context, horizon):
    """Forecast: read the context, then go on from the model's own predictions.

    Every new frame costs one step, however long the video already is.

    Args:
        model: a `NextFrameModel`.
        context: real frames, (batch, frames, height, width, channels), float32 in [0, 1].
        horizon: how many frames to predict after the context.

    Returns:
        float32 array (batch, horizon, height, width, channels) in [0, 1].

    Raises:
        InputError: the frames are uint8, or have another number of channels than the model.
    """
    batch, frames, height, width, channels = context.shape
    expected = model.architecture.channels
    if channels != expected:
        raise InputError(f"frames have {channels} channels; this model is for {expected}")
    if keras.backend.standardize_dtype(context.dtype) == "uint8":
        raise InputError("frames are uint8; a model reads floats in [0, 1]: see data.to_float")
    # `model.step`, compiled: takes a dict, returns NumPy arrays.
    step = compiling.compiled_step(model, height, width)
    states = model.initial_states(batch, height, width)
    predictions = []
    for n in range(frames + horizon - 1):
        frame = context[:, n] if n < frames else predictions[-1]  # (batch, height, width, channels)
        prediction, states = step({"frame": frame, "states": states})
        if n >= frames - 1:  # the last frame of the context already gives the first prediction
            predictions.append(prediction)
    return np.stack(predictions, axis=1)
