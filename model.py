"""Predict the next frame with ConvLSTM2D layers, one frame at a time.

    (batch, frames, height, width, channels) in, a video of the same shape out:
    output frame n is the prediction of input frame n + 1.

Every model here is one small step, `next_frame, states = model.step(frame, states)`: it reads one
frame and its memory, the states, and returns the next frame and the new memory. A loop calls it for
frame after frame (method/loop.py). Teacher forcing, training in closed loop and forecasting are
that same loop with a different answer to one question: is the next input the real frame, or the
model's own prediction?

- `KerasExample` is the stack that the Keras site shows, without its leak.
- `Forecaster` is a U of residual ConvLSTM2D stacks, for videos of any kind.

Both are Keras models: `compile`, `fit`, `evaluate`, `predict`, `save` and `export` work as usual.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import keras
import numpy as np
import pydantic
import tyro
from keras import ops

from method import motion
from method.loop import NextFrameModel, check_frames

Size = Annotated[int, pydantic.Field(ge=1, le=1024)]
Depth = Annotated[int, pydantic.Field(ge=0, le=100)]


@keras.saving.register_keras_serializable("next_frame")
class ConvLSTM2D(keras.layers.ConvLSTM2D):
    """Keras's ConvLSTM2D with a one-frame `step`; the weights and the numbers are the same.

    h is the layer's output, and c its memory. The gates i, f and o say how much of the candidate to
    write, how much of c to keep, and how much to show. (Shi et al. 2015, "Convolutional LSTM
    Network", equation 3; without its peepholes, as in Keras.) Keras's cell runs eight
    convolutions: for each of the three gates and the candidate one on the input and one on h.
    `step` joins input and h, and runs one. Padding is "same" unless given.

    Raises:
        ValueError: an option that `step` does not have.
    """

    def __init__(self, filters, kernel_size, padding="same", data_format="channels_last", **kwargs):
        super().__init__(filters, kernel_size, padding=padding, data_format=data_format, **kwargs)
        cell = self.cell
        if padding != "same" or any(n != 1 for n in cell.strides + cell.dilation_rate):
            raise ValueError("step() needs padding='same' and strides and dilation of 1")
        if data_format != "channels_last":
            raise ValueError("step() needs channels last, as data_format says")
        if cell.dropout or cell.recurrent_dropout:
            raise ValueError(
                "step() has no dropout: make a keras.layers.Dropout beside this layer, and call it "
                "on the layer's output, with training=training, in the step of your model"
            )
        if self.activity_regularizer:
            raise ValueError("step() has no activity_regularizer: a model's call has add_loss")

    def initial_states(self, batch, height, width):
        """States before the first frame: [h, c], each (batch, height, width, filters), zeros."""
        shape = (batch, height, width, self.filters)
        return [ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)]

    def step(self, frame, states):
        """One frame (batch, height, width, channels) -> h, and the new states [h, c]."""
        if not self.built:
            self.build((None, None, *frame.shape[1:]))
        cell, (h, c) = self.cell, states
        # (kernel height, kernel width, channels + filters, 4 filters)
        kernel = ops.concatenate([cell.kernel, cell.recurrent_kernel], axis=2)
        kernel = ops.cast(kernel, self.compute_dtype)
        frame_and_h = ops.concatenate([ops.cast(frame, self.compute_dtype), h], axis=-1)
        gates = ops.conv(frame_and_h, kernel, padding="same", data_format="channels_last")
        if cell.use_bias:
            gates = gates + ops.cast(cell.bias, self.compute_dtype)
        i, f, candidate, o = ops.split(gates, 4, axis=-1)  # (batch, height, width, filters) each
        i, f, o = (cell.recurrent_activation(gate) for gate in (i, f, o))
        c = f * c + i * cell.activation(candidate)
        h = o * cell.activation(c)
        return h, [h, c]


@keras.saving.register_keras_serializable("next_frame")
class KerasExample(NextFrameModel):
    """The stack of keras.io/examples/vision/conv_lstm, with a last layer that cannot cheat.

    ConvLSTM2D layers with BatchNormalization between them, then a 3x3 convolution with a sigmoid
    over one frame. The published example ends in a 3x3x3 convolution over time, whose output n sees
    frame n + 1, its own target. Here BatchNormalization works on one frame of all videos in the
    batch, since the later frames are not known yet; there, on whole videos.
    """

    adam_layers = ("conv_lstm_1", "paint_head")  # see `Forecaster`

    def __init__(self, architecture, **kwargs):
        super().__init__(architecture, **kwargs)
        dtype = architecture.precision
        # `Architecture.layers` lists filters and kernel of each: a layer more is a line more there.
        self.conv_lstms = [
            ConvLSTM2D(filters, kernel, activation="relu", dtype=dtype, name=f"conv_lstm_{n}")
            for n, (filters, kernel) in enumerate(architecture.layers, start=1)
        ]
        self.norms = [keras.layers.BatchNormalization(dtype=dtype) for _ in self.conv_lstms[1:]]
        self.paint_head = conv2d(architecture.channels, 3, 1, "paint_head", "sigmoid", "float32")

    def initial_states(self, batch, height, width):
        return [layer.initial_states(batch, height, width) for layer in self.conv_lstms]

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        x, new_states = frame, []
        for n, conv_lstm in enumerate(self.conv_lstms):
            x, state = conv_lstm.step(x, states[n])  # (batch, height, width, filters)
            new_states.append(state)
            if n < len(self.norms):
                x = self.norms[n](x, training=training)
        return self.paint_head(x), new_states


def conv2d(filters, kernel, strides, name, activation, dtype):
    """Keras's Conv2D; channels are last, whatever a person's keras.json says."""
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides,
        "same",
        "channels_last",
        activation=activation,
        name=name,
        dtype=dtype,
    )


@keras.saving.register_keras_serializable("next_frame")
@pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})
class Architecture:
    """The size of a model; the defaults are those of the shipped weights."""

    # Each field but `channels` is an option of train.py, with the line below it as its help.
    channels: tyro.conf.Fixed[Literal[1, 3]] = 1
    """Of a frame: 1 grey, 3 colour. Follows from the data."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Number format of the inner layers: bfloat16, or float16 where a GPU has no other, takes less
    memory; heads and measured motion are always float32."""

    # Of `KerasExample`
    layers: Annotated[
        tuple[tuple[Size, Size], ...], pydantic.Field(min_length=1, max_length=100)
    ] = (
        (64, 5),
        (64, 3),
        (64, 1),
    )
    """keras-example: filters and kernel size of each ConvLSTM2D layer."""

    # Of `Forecaster`
    encoder_filters: Size = 32
    """Filters of the first convolution, at half the frame's size."""
    filters: Size = 64
    """Filters of each ConvLSTM2D layer at a quarter of the frame's size."""
    coarse_filters: Size = 128
    """Filters of each ConvLSTM2D layer at an eighth of the frame's size."""
    depths: tuple[Depth, Depth, Depth] = (1, 2, 1)
    """ConvLSTM2D layers at a quarter going down, at an eighth, at a quarter going up."""
    motion_radius: int = pydantic.Field(4, ge=0, le=7)  # `motion.advect_history` looks no farther
    """Pixels that anything can move in a frame, along each axis (Moving MNIST: 3.6), at most 7; 0:
    no motion is measured, and all is painted."""
    motion_history: Size = 9
    """Frames for which the measured motion is remembered (9: all of the context's)."""
    motion_units: Size = 128
    """Units of the 1x1 convolutions that read the motion."""
    motion_weight: pydantic.NonNegativeFloat = 0.1
    """Weight of the loss of the predicted motion, which the model adds to yours in training; 0:
    none. It was chosen for a loss that is summed over pixels: divide it by their number for a mean
    (64x64: 2.4e-5)."""

    # Keras saves and rebuilds it by these two.
    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


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
    measurement: how each block of 4x4 pixels has moved over the frames before (method/motion.py).
    After 7,200 videos of Moving MNIST the error was 66.0 with it, and 84.7 without
    (benchmarks/README.md). In training it adds a loss of its own to yours: the cross-entropy
    between the motion that it predicts and the motion that is then measured in the real frames.
    Comments give the sizes for 64x64.
    """

    # Muon trains the kernels of hidden layers, and Adam all else: biases, norms, and these layers,
    # the first one and the heads (method/optimizer.py).
    adam_layers = ("encoder", "paint_head", "block_motion_head", "pixel_motion_head")

    def __init__(self, architecture, **kwargs):
        super().__init__(architecture, **kwargs)
        encoder_filters, filters = architecture.encoder_filters, architecture.filters
        coarse_filters, depths = architecture.coarse_filters, architecture.depths
        motion_units, dtype = architecture.motion_units, architecture.precision
        # Logits of -R..R pixels, vertically, then horizontally; 18 for R = 4.
        self.motion_channels = 2 * (2 * architecture.motion_radius + 1)

        def convolution(filters, kernel, strides, name, activation="silu"):
            return conv2d(filters, kernel, strides, name, activation, dtype)

        def upsampling(filters, name, dtype=dtype):  # each pixel becomes 2x2 pixels
            return keras.layers.Conv2DTranspose(
                filters, 2, strides=2, data_format="channels_last", dtype=dtype, name=name
            )

        self.encoder = convolution(encoder_filters, 6, 2, "encoder")
        self.down = convolution(filters, 3, 2, "down")
        self.stack_down = ConvLSTMStack(depths[0], filters, dtype, "stack_down")
        self.down_to_coarse = convolution(coarse_filters, 3, 2, "down_to_coarse")
        self.stack_coarse = ConvLSTMStack(depths[1], coarse_filters, dtype, "stack_coarse")
        self.up_from_coarse = upsampling(filters, "up_from_coarse")
        self.stack_up = ConvLSTMStack(depths[2], filters, dtype, "stack_up")
        self.up = upsampling(encoder_filters, "up")
        self.decoder = convolution(2 * encoder_filters, 3, 1, "decoder")
        self.paint_head = upsampling(architecture.channels, "paint_head", "float32")
        if architecture.motion_radius:
            self.history_hidden = convolution(motion_units, 1, 1, "history_hidden")
            self.history_in = convolution(filters, 3, 1, "history_in", activation=None)
            self.motion_hidden = [
                convolution(motion_units, 1, 1, f"motion_hidden_{n}") for n in (0, 1)
            ]
            self.block_motion_head = conv2d(
                self.motion_channels, 1, 1, "block_motion_head", None, "float32"
            )
            self.pixel_motion_head = upsampling(
                self.motion_channels + 1, "pixel_motion_head", "float32"
            )
        # A layer of your own goes here, after the others: made before them, it would change their
        # initial weights, which are drawn in this order. `step_outputs` calls it. If it keeps a
        # state, `initial_states` returns the first one. Files saved before load no more, unless a
        # field of `Architecture` turns it on, such as `my_layer: bool = False`.

    def initial_states(self, batch, height, width):
        height, width = motion.padded_size(height, width)
        quarter = (batch, height // 4, width // 4)
        states = {
            "down": self.stack_down.initial_states(*quarter),
            "coarse": self.stack_coarse.initial_states(batch, height // 8, width // 8),
            "up": self.stack_up.initial_states(*quarter),
        }
        if self.architecture.motion_radius:
            frame_shape = (batch, height, width, self.architecture.channels)
            states["previous_frame"] = ops.zeros(frame_shape, "float32")
            # Of each block the contrast c, then c times each past displacement: see
            # `motion.advect_history`.
            carried_channels = 1 + self.architecture.motion_history * self.motion_channels
            states["carried_history"] = ops.zeros((*quarter, carried_channels), "float32")
        return states

    def initial_outputs(self, batch, height, width):
        outputs = super().initial_outputs(batch, height, width)
        if self.architecture.motion_radius:
            height, width = motion.padded_size(height, width)
            motion_shape = (batch, height // 4, width // 4, self.motion_channels)
            outputs.append(ops.zeros(motion_shape, "float32"))
        return outputs

    def call(self, inputs, training=False):
        inputs = self.read_inputs(inputs)
        predictions, *block_motion = self.unroll(**inputs, training=training)
        videos = inputs["videos"]
        has_motion = block_motion and videos.shape[1] != 1  # a single frame shows none
        if training and has_motion and self.architecture.motion_weight:

            def motion_loss():  # what the last frame moves to is not known here
                return motion.cross_entropy(videos, block_motion[0][:, :-1])

            if videos.shape[1] is None:  # it may become a single frame
                no_loss = functools.partial(ops.zeros, (), "float32")
                loss = ops.cond(ops.shape(videos)[1] > 1, motion_loss, no_loss)
            else:
                loss = motion_loss()
            # Keras sums all losses in its floatx.
            self.add_loss(ops.cast(self.architecture.motion_weight * loss, keras.config.floatx()))
        return predictions

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        (next_frame, *_), states = self.step_outputs(frame, states, training)
        return next_frame, states

    def step_outputs(self, frame, states, training=False):
        """`step`, and logits of the motion that it predicts for blocks: see `move`."""
        height, width = ops.shape(frame)[1:3]
        frame = motion.pad_frames(frame)
        history, states = self.measure_motion(frame, states)
        x, features, states = self.run_stacks(frame, history, states)
        painted = ops.sigmoid(self.paint_head(features))  # (batch, 64, 64, channels)
        if history is None:
            return [painted[:, :height, :width]], states
        moved, gate, block_motion = self.move(frame, history, x, features)
        next_frame = gate * moved + (1 - gate) * painted
        return [next_frame[:, :height, :width], block_motion], states

    def measure_motion(self, frame, states):
        """How each block has moved into this frame, and in the frames before; no weights.

        Returns:
            history: (batch, 16, 16, motion_history * motion_channels), or None.
            states: with what the next frame needs.
        """
        if not self.architecture.motion_radius:
            return None, states
        # From where in the previous frame each block has come, found by comparing its surroundings:
        # probabilities, (batch, 16, 16, motion_channels). The first frame has no previous one, so
        # all displacements are equally likely.
        displacement = motion.block_matching(
            frame, states["previous_frame"], self.architecture.motion_radius
        )
        # A block takes over the history of the place that it came from ("advection").
        history, carried = motion.advect_history(frame, displacement, states["carried_history"])
        return history, {**states, "previous_frame": frame, "carried_history": carried}

    def run_stacks(self, frame, history, states):
        """The U of ConvLSTM2D stacks.

        Returns:
            x: what the last stack knows, (batch, 16, 16, filters).
            features: the same at half the frame's size, (batch, 32, 32, 2 encoder_filters).
            states: the new ones.
        """
        skip = self.encoder(frame)  # (batch, 32, 32, encoder_filters)
        x = self.down(skip)  # (batch, 16, 16, filters)
        if history is not None:
            x = x + self.history_in(self.history_hidden(history))
        x, down = self.stack_down.step(x, states["down"])
        coarse = self.down_to_coarse(x)  # (batch, 8, 8, coarse_filters)
        coarse, coarse_states = self.stack_coarse.step(coarse, states["coarse"])
        x = x + self.up_from_coarse(coarse)  # (batch, 16, 16, filters)
        x, up = self.stack_up.step(x, states["up"])
        features = ops.concatenate([self.up(x), skip], axis=-1)  # (batch, 32, 32, twice as many)
        return (
            x,
            self.decoder(features),
            {**states, "down": down, "coarse": coarse_states, "up": up},
        )

    def move(self, frame, history, x, features):
        """Move the pixels of a frame to where they will be next.

        Returns:
            moved: (batch, 64, 64, channels).
            gate: how much of each pixel is moved and not painted, (batch, 64, 64, 1) in [0, 1].
            block_motion: logits of the displacement of each block of 4x4 pixels, vertical, then
                horizontal, (batch, 16, 16, motion_channels).
        """
        # The motion head gets the measured history directly, too: that lowered the error
        # (benchmarks/README.md).
        block_motion = ops.concatenate([x, ops.cast(history, x.dtype)], axis=-1)
        for layer in self.motion_hidden:
            block_motion = layer(block_motion)  # (batch, 16, 16, motion_units)
        block_motion = LOGIT_SCALE * self.block_motion_head(block_motion)
        # Every pixel refines its block's motion.
        pixel_motion = self.pixel_motion_head(features)  # (batch, 64, 64, motion_channels + 1)
        pixel_motion, gate = ops.split(pixel_motion, [self.motion_channels], axis=-1)
        gate = ops.sigmoid(gate + GATE_BIAS)
        of_blocks = ops.repeat(ops.repeat(block_motion, 4, axis=1), 4, axis=2)
        logits = LOGIT_SCALE * pixel_motion + of_blocks  # (batch, 64, 64, motion_channels)
        vertical, horizontal = (ops.softmax(part) for part in ops.split(logits, 2, axis=-1))
        return motion.warp(frame, vertical, horizontal), gate, block_motion


def rollout(model, context, horizon):
    """Forecast: read the context, then go on from the model's own predictions.

    Args:
        model: a `NextFrameModel`.
        context: real frames, (batch, frames, height, width, channels), floats in [0, 1].
        horizon: how many frames to predict after the context.

    Returns:
        float32 array (batch, horizon, height, width, channels) in [0, 1].

    Raises:
        InputError: the frames are no floats in [0, 1], or have another number of channels than the
            model.
    """
    check_frames(context)
    model.check_channels(context.shape[-1])
    context = ops.convert_to_numpy(context).astype("float32", copy=False)
    if not model.built:
        model.build()
    batch, frames = context.shape[:2]
    unknown = np.zeros((batch, horizon - 1, *context.shape[2:]), "float32")
    real_mask = np.arange(frames + horizon - 1) < frames
    predictions = model.predict_on_batch(
        {
            "videos": np.concatenate([context, unknown], axis=1),
            "real_mask": np.tile(real_mask, (batch, 1)),
        }
    )  # (batch, frames + horizon - 1, height, width, channels)
    # The last frame of the context already gives the first prediction.
    return predictions[:, frames - 1 :]
