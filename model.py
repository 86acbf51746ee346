"""Predict the next frame with ConvLSTM2D layers, one frame at a time.

    (batch, frames, height, width, channels) in, a video of the same shape out:
    output frame n is the prediction of input frame n + 1.

All models here are one small step, `next_frame, states = model.step(frame, states)`.
Reading a real video, training in closed loop and forecasting are that same step with a
different answer to one question: is the next input the real frame, or our own prediction?

- `KerasExample` is the stack that the Keras site shows, without its leak: there, the last
  layer is a convolution over time, which sees the frame that it should predict.
- `SheetForecaster` takes a frame apart into sheets that move as a whole, one digit on each,
  and predicts by residual ConvLSTM2D layers how each will move.
- `Forecaster` predicts pixels, in any kind of video. It is told how what it sees has moved
  so far, and ends in two heads: one moves what is there into the next frame, one paints
  what is new.
"""

import functools

from extras.cli import InputError  # comes before Keras: it sets the backend's environment

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("next_frame")
class ConvLSTM2D(keras.layers.ConvLSTM2D):
    """Keras's ConvLSTM2D with a one-frame `step` of its own.

    The weights, the configuration and the numbers are those of Keras's layer. `step` runs
    one convolution over the input and the state together, where Keras's cell runs eight
    small ones (four gates, each for input and state). It works for any frame size.

    Shi et al. 2015, "Convolutional LSTM Network", equation 3, without peepholes.
    """

    def __init__(self, filters, kernel_size, padding="same", **kwargs):
        super().__init__(filters, kernel_size, padding=padding, **kwargs)
        cell = self.cell
        if padding != "same" or set(cell.strides + cell.dilation_rate) != {1}:
            raise ValueError("step() needs padding='same' and strides and dilation of 1")
        if cell.dropout or cell.recurrent_dropout:
            raise ValueError("step() knows no dropout")

    def empty_states(self, batch, height, width):
        """States before the first frame: [h, c], each (batch, height, width, filters)."""
        shape = (batch, height, width, self.filters)
        return [ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)]

    def step(self, frame, states):
        """One frame (batch, height, width, channels) -> h and the new states [h, c]."""
        if not self.built:
            self.build((None, None, *frame.shape[1:]))
        cell = self.cell
        h, c = (ops.cast(state, self.compute_dtype) for state in states)
        kernel = ops.concatenate([cell.kernel, cell.recurrent_kernel], axis=2)
        frame_and_h = ops.concatenate([ops.cast(frame, self.compute_dtype), h], axis=-1)
        gates = ops.conv(frame_and_h, ops.cast(kernel, self.compute_dtype), padding="same")
        if cell.use_bias:
            gates = gates + ops.cast(cell.bias, self.compute_dtype)
        i, f, candidate, o = ops.split(gates, 4, axis=-1)  # (batch, height, width, filters) each
        c = cell.recurrent_activation(f) * c + cell.recurrent_activation(i) * cell.activation(
            candidate
        )
        h = cell.recurrent_activation(o) * cell.activation(c)
        return h, [h, c]


class NextFrameModel(keras.Model):
    """What both models share: videos are read by a loop over `step`.

    A subclass gives `empty_states(batch, height, width)` and
    `step(frame, states, training)`, and `fold`: the number by which the height and the
    width of a frame must be divisible.
    """

    fold = 1
    remat = False  # whether `read` keeps only the states of a step, for a gradient in less memory

    @functools.cached_property
    def compiled_step(self):
        """`step`, compiled once: {"frame", "states"} -> [next frame, new states]."""
        return OneStep(self).predict_on_batch

    def build(self, videos_shape, real_shape=None):
        self.channels = videos_shape[-1]
        self.check_frames(videos_shape)
        frame = ops.zeros((1, *videos_shape[2:]))
        self.step(frame, self.empty_states(1, *videos_shape[2:4]))  # every layer builds itself

    def check_frames(self, videos_shape):
        """Raise an InputError unless (..., height, width, channels) suits this model."""
        height, width, channels = videos_shape[-3:]
        if channels != self.channels:
            raise InputError(f"frames have {channels} channels; this model is for {self.channels}")
        if height % self.fold or width % self.fold or 0 in (height, width):
            raise InputError(
                f"frames are {height} x {width} pixels; this model needs both divisible by "
                f"{self.fold}: crop or resize them"
            )

    def compute_output_shape(self, videos_shape, real_shape=None):
        return videos_shape

    def call(self, videos, real=None, training=False):
        """Predict the frame after each frame.

        Args:
            videos: (batch, frames, height, width, channels), float32 in [0, 1]; the number
                of frames must be known, height and width divisible by `fold`.
            real: None, or (batch, frames) of booleans. Where it is False, the model is
                given its own prediction of that frame instead of the real one. None means
                real frames throughout ("teacher forcing"). The first frame is always real.

        Returns:
            predictions: the shape of `videos`; frame n predicts frame n + 1, and knows
                nothing of the frames after n.
        """
        predictions, _ = self.read(videos, real, training)
        return predictions

    def read(self, videos, real=None, training=False):
        """What `call` does; returns the predictions, and a list of the states after each."""
        self.check_frames(videos.shape)
        if videos.shape[1] is None:
            # TensorFlow's `predict` forgets it after videos of two lengths.
            raise InputError(
                "the number of frames is not known here: forecast with rollout(), or call "
                "the model itself on the videos"
            )
        states = self.empty_states(ops.shape(videos)[0], *videos.shape[2:4])
        step = functools.partial(self.step, training=training)
        if self.remat:
            step = keras.remat(step)  # computes what is inside again where a gradient needs it
        predictions, all_states = [], []
        for n in range(videos.shape[1]):
            frame = videos[:, n]  # (batch, height, width, channels)
            if real is not None and n > 0:
                frame_is_real = ops.reshape(real[:, n], (-1, 1, 1, 1))
                frame = ops.where(frame_is_real, frame, predictions[-1])
            prediction, states = step(frame, states)
            predictions.append(prediction)
            all_states.append(states)
        return ops.stack(predictions, axis=1), all_states


class OneStep(keras.Model):
    """One step as a model of its own, since Keras compiles whole models."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.compile(jit_compile=use_xla())

    def call(self, inputs):
        return self.model.step(inputs["frame"], inputs["states"])


@keras.saving.register_keras_serializable("next_frame")
class KerasExample(NextFrameModel):
    """The stack of keras.io/examples/vision/conv_lstm, with a last layer that cannot cheat.

    Three ConvLSTM2D layers of 64 filters (5x5, 3x3, 1x1; relu), BatchNormalization between
    them, then a 3x3 convolution with a sigmoid over one frame; the published example ends
    in a 3x3x3 convolution, whose output n sees frame n + 1, which is its target. And here
    a frame is normalised while the next one is not known yet, so BatchNormalization works
    on one frame of all videos in the batch, where there it works on whole videos.

    Args:
        filters: filters of each ConvLSTM2D layer.
        precision: dtype policy of the layers, "float32" or "mixed_bfloat16".
    """

    def __init__(self, filters=64, precision="float32", **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.precision = precision
        self.conv_lstms = [
            ConvLSTM2D(
                filters, size, activation="relu", dtype=precision, name=f"conv_lstm_{size}x{size}"
            )
            for size in (5, 3, 1)
        ]
        self.norms = [
            keras.layers.BatchNormalization(dtype=precision, name=f"norm_{n}") for n in (0, 1)
        ]
        self.output_layer = None  # made in build: its filters are the frames' channels

    def build(self, videos_shape, real_shape=None):
        self.output_layer = keras.layers.Conv2D(
            videos_shape[-1], 3, padding="same", activation="sigmoid", name="output_head"
        )
        super().build(videos_shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "precision": self.precision}

    def empty_states(self, batch, height, width):
        return [layer.empty_states(batch, height, width) for layer in self.conv_lstms]

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        new_states = []
        x = frame
        for n, (conv_lstm, state) in enumerate(zip(self.conv_lstms, states)):
            x, state = conv_lstm.step(x, state)  # (batch, height, width, filters)
            new_states.append(state)
            if n < len(self.norms):
                x = self.norms[n](x, training=training)
        return ops.cast(self.output_layer(x), "float32"), new_states


class Pyramid(NextFrameModel):
    """What both forecasters share: residual ConvLSTM2D layers at one or two scales.

    Sizes below are for frames of 64x64. The layers stand in three groups: at 16x16, at
    8x8, and at 16x16 again; any of them may be empty.

    Args:
        encoder_filters: filters of the first convolution, at 32x32.
        filters: filters of each ConvLSTM2D layer at 16x16.
        coarse_filters: filters of each ConvLSTM2D layer at 8x8.
        layers: how many ConvLSTM2D layers (at 16x16 going down, at 8x8, at 16x16 going up).
        precision: dtype policy of the layers, "float32" or "mixed_bfloat16".
    """

    def __init__(self, encoder_filters, filters, coarse_filters, layers, precision, **kwargs):
        super().__init__(**kwargs)
        self.architecture = {
            "encoder_filters": encoder_filters,
            "filters": filters,
            "coarse_filters": coarse_filters,
            "layers": tuple(layers),
        }
        self.precision = precision
        self.layers_down, self.coarse_layers, _ = layers
        self.fold = 8 if self.coarse_layers else 4

        widths = [filters] * layers[0] + [coarse_filters] * layers[1] + [filters] * layers[2]
        self.norms = [
            keras.layers.LayerNormalization(dtype=precision, name=f"norm_{n}")
            for n in range(len(widths))
        ]
        self.conv_lstms = [
            ConvLSTM2D(width, 3, dtype=precision, name=f"conv_lstm_{n}")
            for n, width in enumerate(widths)
        ]
        # 6x6 in steps of 2 is a 3x3 convolution over blocks of 2x2 pixels.
        self.encoder = self.convolution(encoder_filters, 6, 2, "encoder")
        self.down = self.convolution(filters, 3, 2, "down")
        if self.coarse_layers:
            self.down_to_coarse = self.convolution(coarse_filters, 3, 2, "down_to_coarse")
            self.up_from_coarse = self.twice_as_large(filters, "up_from_coarse")

    def convolution(self, filters, size, strides, name, activation="silu"):
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            activation=activation,
            dtype=self.precision,
            name=name,
        )

    def twice_as_large(self, filters, name):
        # Each pixel becomes 2x2 pixels: a 1x1 convolution and depth-to-space in one.
        return keras.layers.Conv2DTranspose(filters, 2, strides=2, dtype=self.precision, name=name)

    def get_config(self):
        return {**super().get_config(), **self.architecture, "precision": self.precision}

    def empty_layer_states(self, batch, height, width):
        """The ConvLSTM2D layers' states before the first frame: a list of [h, c]."""
        first_coarse, last_coarse = self.layers_down, self.layers_down + self.coarse_layers
        states = []
        for n, layer in enumerate(self.conv_lstms):
            scale = 8 if first_coarse <= n < last_coarse else 4
            states.append(layer.empty_states(batch, height // scale, width // scale))
        return states

    def pyramid(self, frame, hint, states):
        """Pass a frame through the convolutions and the ConvLSTM2D layers.

        Args:
            frame: (batch, height, width, channels).
            hint: what else the ConvLSTM2D layers should know; it is added to their input,
                (batch, height / 4, width / 4, filters), or something that broadcasts to it.
            states: a list of [h, c], from `empty_layer_states` or from the last frame.

        Returns:
            x: (batch, height / 4, width / 4, filters).
            skip: what the encoder saw, (batch, height / 2, width / 2, encoder_filters).
            states: the new ones.
        """
        new_states = []

        def recur(x, how_many):
            """Pass x through the next ConvLSTM2D layers; each adds to what it was given."""
            for _ in range(how_many):
                n = len(new_states)
                h, state = self.conv_lstms[n].step(self.norms[n](x), states[n])
                new_states.append(state)
                x = x + h
            return x

        skip = self.encoder(frame)  # (batch, 32, 32, encoder_filters)
        x = self.down(skip) + hint  # (batch, 16, 16, filters)
        x = recur(x, self.layers_down)
        if self.coarse_layers:
            coarse = recur(
                self.down_to_coarse(x), self.coarse_layers
            )  # (batch, 8, 8, coarse_filters)
            x = x + self.up_from_coarse(coarse)  # (batch, 16, 16, filters)
        x = recur(x, len(self.conv_lstms) - len(new_states))
        return x, skip, new_states


@keras.saving.register_keras_serializable("next_frame")
class SheetForecaster(Pyramid):
    """Take a frame apart into sheets, and predict with ConvLSTM2D layers how each will move.

    A frame is seen as a few sheets upon each other, each of which moves as a whole
    (`separate`). Every sheet is a video of its own, and all pass through the same `Pyramid`,
    as if they were more videos in the batch; what it says about a sheet becomes the
    probabilities of the next displacement, and how far to trust them. The predicted frame
    are the sheets, as they were when a real frame was last seen, in their predicted places
    (`translate`), with the brightest pixels in sight. So nothing is ever drawn anew, and
    shapes stay sharp for as long as their place is known.

    (Hsieh et al. 2018, "Learning to decompose and disentangle representations for video
    prediction", have components and their motion, too; there, a network learns to find them.)

    Args:
        encoder_filters, filters, coarse_filters, layers, precision: see `Pyramid`.
        motion_radius: how far a sheet can move between two frames, in pixels along each
            axis. Moving MNIST moves 3.6 pixels.
        history: how many of its last displacements each sheet remembers.
        sheets: into how many a frame is taken apart.
    """

    def __init__(
        self,
        encoder_filters=16,
        filters=32,
        coarse_filters=48,
        layers=(0, 2, 0),
        motion_radius=4,
        history=9,
        sheets=2,
        precision="float32",
        **kwargs,
    ):
        super().__init__(encoder_filters, filters, coarse_filters, layers, precision, **kwargs)
        self.architecture |= {
            "motion_radius": motion_radius,
            "history": history,
            "sheets": sheets,
        }
        self.motion_radius = motion_radius
        self.history = history
        self.sheets = sheets
        self.displacements = np.arange(-motion_radius, motion_radius + 1, dtype="float32")
        self.history_in = keras.layers.Dense(filters, dtype=precision, name="history_in")
        self.motion_hidden = [
            keras.layers.Dense(16 * filters, activation="silu", name=f"motion_hidden_{n}")
            for n in (0, 1)
        ]
        # Logits of vertical and of horizontal displacements, and how uncertain each is.
        self.motion_head = keras.layers.Dense(2 * len(self.displacements) + 2, name="motion_head")

    def empty_states(self, batch, height, width):
        frame = (height, width, self.channels)
        both = 2 * len(self.displacements)  # vertical and horizontal ones
        each = batch * self.sheets
        return {
            "layers": self.empty_layer_states(each, height, width),
            # The sheets as they are now, and as they were when a real frame was last seen.
            "sheets": ops.zeros((each, *frame)),
            "reference": ops.zeros((each, *frame)),
            # How far each has moved since then, down and to the right, in pixels.
            "position": ops.zeros((each, 2)),
            "spread": ops.zeros((each, 2)),  # how uncertain that is: the scale of `translate`
            # Probabilities of the last displacements, newest first.
            "history": ops.zeros((each, self.history * both)),
            "motion": ops.zeros((each, both)),  # logits of the next displacements
            "next_frame": ops.zeros((batch, *frame)),
            "motion_error": ops.zeros((batch,)),  # see `motion_error`; for training only
        }

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        both = 2 * len(self.displacements)
        apart = (-1, self.sheets, *frame.shape[1:])  # (batch, sheets, height, width, channels)
        # A frame that is our own prediction, to within half a grey level, brings no news: then
        # the sheets are where they were predicted. Otherwise, it is taken apart.
        surprise = ops.max(ops.abs(frame - states["next_frame"]), axis=(1, 2, 3))  # (batch,)
        news = ops.repeat(surprise > 0.5 / 255, self.sheets)  # (batch * sheets,)
        last_sheets = ops.reshape(states["sheets"], apart)
        measure = functools.partial(separate, frame, last_sheets, self.motion_radius)
        nothing = [last_sheets, ops.zeros_like(states["motion"])]
        real_sheets, measured = ops.cond(ops.any(news), measure, lambda: nothing)
        real_sheets = ops.reshape(real_sheets, (-1, *frame.shape[1:]))  # (batch * sheets, ...)
        predicted = ops.reshape(softmax_of_both(states["motion"]), (-1, both))
        moved_by = ops.where(news[:, None], measured, predicted)  # (batch * sheets, both)
        history = ops.concatenate([moved_by, states["history"][:, :-both]], axis=-1)

        news_of_pixels = news[:, None, None, None]
        reference = ops.where(news_of_pixels, real_sheets, states["reference"])
        position = ops.where(news[:, None], 0.0, states["position"])  # (batch * sheets, 2)
        spread = ops.where(news[:, None], 0.0, states["spread"])
        in_place = ops.stop_gradient(
            translate(reference, position, SHARP * ops.ones_like(position))
        )
        sheets = ops.where(news_of_pixels, real_sheets, in_place)  # (batch * sheets, 64, 64, ...)

        hint = self.history_in(history)[:, None, None]  # (batch * sheets, 1, 1, filters)
        x, _, layers = self.pyramid(sheets, hint, states["layers"])
        # What is said about a sheet is the mean over its places, by their brightness.
        brightness = ops.average_pool(ops.mean(sheets, axis=-1, keepdims=True), 4, strides=4)
        brightness = brightness + 1e-4  # for a sheet that is black
        brightness = brightness / ops.sum(brightness, axis=(1, 2), keepdims=True)
        x = ops.sum(ops.cast(x, "float32") * brightness, axis=(1, 2))  # (batch * sheets, filters)
        x = ops.concatenate([x, history], axis=-1)
        for layer in self.motion_hidden:
            x = layer(x)  # (batch * sheets, 16 * filters)
        x = self.motion_head(x)
        # Most often a displacement is about the last one. Times 3: a softmax starts out flat,
        # and this lets it sharpen sooner.
        motion = 3 * (x[:, :-2] + 2 * moved_by)  # (batch * sheets, both)
        # A displacement tells where something came from, so it moves by the opposite.
        position = position - ops.sum(softmax_of_both(motion) * self.displacements, axis=-1)
        spread = spread + ops.softplus(x[:, -2:] - 2)  # who guesses twice is less certain
        next_sheets = translate(reference, position, spread + SHARP)
        next_frame = ops.max(ops.reshape(next_sheets, apart), axis=1)
        return next_frame, {
            "layers": layers,
            "sheets": sheets,
            "reference": reference,
            "position": position,
            "spread": spread,
            "history": history,
            "motion": motion,
            "next_frame": next_frame,
            "motion_error": self.motion_error(states, measured, news),
        }

    def motion_error(self, states, measured, news):
        """Cross-entropy between the motion that was predicted and the one that is measured.

        Summed over the sheets, each weighted by the brightness of all its pixels, which is
        that of the squared error; 0 where there was no real frame to measure, (batch,).
        """
        logits = ops.reshape(states["motion"], (-1, 2, len(self.displacements)))
        log_probability = ops.reshape(ops.log_softmax(logits), (-1, measured.shape[-1]))
        error = -ops.sum(measured * log_probability, axis=-1)  # (batch * sheets,)
        error = error * ops.sum(ops.mean(states["sheets"], axis=-1), axis=(1, 2))
        return ops.sum(ops.reshape(ops.where(news, error, 0.0), (-1, self.sheets)), axis=1)


def softmax_of_both(logits):
    """Logits of vertical, then horizontal displacements (..., 2 D) -> probabilities (..., 2, D)."""
    return ops.softmax(ops.reshape(logits, (-1, 2, logits.shape[-1] // 2)))


SHARP = 0.05  # a scale, in pixels, of `translate` that only rounds to whole pixels


def separate(frame, sheets, radius):
    """Take a frame apart into sheets that lie upon each other, of which each moves as a whole.

    Two things that overlap look like one, until they move apart. But if a thing moves as a
    whole, nothing of it was ever darker than what is seen at its place now. So each sheet
    is moved to where it fits best below the frame, and where the sheets together explain
    most of the frame; then it loses what is brighter than the frame. In the beginning every
    sheet is the whole frame; as soon as one moves differently from the others, it loses
    what does not move along. What no sheet explains is new, and is given to all of them.

    Nothing is learned here, and no gradient passes: it is a measurement. (Layers that move
    as a whole are those of Wang and Adelson 1994, "Representing moving images with layers";
    that the brightest pixel is in sight is the definition of Moving MNIST.)

    Args:
        frame: (batch, height, width, channels).
        sheets: those of the last frame, (batch, sheets, height, width, channels); black
            before the first one.
        radius: R, the farthest displacement along each axis, in pixels.

    Returns:
        sheets: those of this frame, (batch, sheets, height, width, channels). Their brightest
            pixels are the frame.
        moved_by: (batch * sheets, 2 (2 R + 1)): from which of -R..R pixels away each came, as
            ones and zeros; first vertically, then horizontally. Zeros for a sheet that was black.
    """
    frame, sheets = ops.stop_gradient(frame), ops.stop_gradient(sheets)
    count, height, width, channels = sheets.shape[1:]
    displacements = 2 * radius + 1

    # Every second pixel of each sheet, of its brightness, moved in every direction:
    # (batch, sheets, 32, 32, 81).
    moved = ops.reshape(ops.mean(sheets, axis=-1), (-1, height, width, 1))
    moved = displaced(moved, radius)
    moved = ops.reshape(moved, (-1, count, *moved.shape[1:]))
    target = ops.mean(frame, axis=-1)[:, 1::2, 1::2, None]  # (batch, 32, 32, 1)

    below = [ops.minimum(moved[:, k], target) for k in range(count)]  # (batch, 32, 32, 81)
    lost = [ops.sum(ops.square(moved[:, k] - below[k]), axis=(1, 2)) for k in range(count)]
    explained = [ops.zeros_like(target)] * count  # by each sheet, (batch, 32, 32, 1)
    best = [None] * count
    for k in 2 * list(range(count)):  # in the second round knowing what the others explain
        others = [explained[other] for other in range(count) if other != k]
        others = functools.reduce(ops.maximum, others, ops.zeros_like(target))
        left = ops.sum(ops.square(target - ops.maximum(below[k], others)), axis=(1, 2))
        # Explaining the frame counts most: a sheet may still hold what is another's.
        best[k] = ops.one_hot(ops.argmin(lost[k] + 20 * left, axis=-1), displacements**2)
        explained[k] = ops.sum(below[k] * best[k][:, None, None], axis=-1, keepdims=True)

    best = ops.reshape(ops.stack(best, axis=1), (-1, displacements, displacements))
    vertical, horizontal = ops.sum(best, axis=2), ops.sum(best, axis=1)  # (batch * sheets, 9)
    moved = ops.reshape(sheets, (-1, height, width, channels))
    moved = move(moved, vertical[:, None, None], horizontal[:, None, None])
    seen = ops.minimum(ops.reshape(moved, (-1, *sheets.shape[1:])), frame[:, None])
    seen = seen + (frame - ops.max(seen, axis=1))[:, None]
    moved_by = ops.concatenate([vertical, horizontal], axis=-1)
    # Where a black sheet fits best is for rounding to decide.
    had_content = ops.reshape(ops.max(sheets, axis=(2, 3, 4)) > 0, (-1, 1))
    return [seen, ops.where(had_content, moved_by, 0.0)]


def translate(frame, position, scale):
    """Move each frame as a whole, by any number of pixels, to a place that may be uncertain.

    The place is rounded to whole pixels, as it is in Moving MNIST; the result is the mean
    over a logistic distribution of what is rounded. (The "discretized logistic" of Salimans
    et al. 2017, "PixelCNN++", section 2.1, over places instead of colours.)

    Args:
        frame: (batch, height, width, channels).
        position: the mean of the distribution, (batch, 2): pixels down and to the right.
        scale: its width along each axis in pixels, (batch, 2), above 0.

    Returns:
        The moved frame, (batch, height, width, channels). Beyond the edges lies black.
    """

    def share_of(size, position, scale):
        """How much of each old row (or column) each new one takes: (batch, new, old)."""
        pixel = np.arange(size, dtype="float32")
        distance = pixel[:, None] - pixel - position[:, None, None]
        scale = scale[:, None, None]
        return ops.sigmoid((distance + 0.5) / scale) - ops.sigmoid((distance - 0.5) / scale)

    height, width = frame.shape[1:3]
    rows = share_of(height, position[:, 0], scale[:, 0])
    columns = share_of(width, position[:, 1], scale[:, 1])
    frame = ops.einsum("byv,bvxc->byxc", rows, frame)
    return ops.einsum("bxu,byuc->byxc", columns, frame)


def displaced(frame, radius):
    """Every second pixel of a frame, after each displacement of up to `radius` pixels.

    (batch, height, width, 1) -> (batch, height / 2, width / 2, (2 radius + 1)^2): in the last
    axis every vertical displacement with every horizontal one; see `move` for what they mean.
    """
    displacements = 2 * radius + 1
    one_hot = np.eye(displacements, dtype="float32")
    down = one_hot.reshape(displacements, 1, 1, displacements)
    across = np.einsum("xo,yp->xypo", one_hot, one_hot)
    across = across.reshape(1, displacements, displacements, displacements**2)
    frame = ops.conv(frame, down, strides=(2, 1), padding="same")
    return ops.conv(frame, across, strides=(1, 2), padding="same")


@keras.saving.register_keras_serializable("next_frame")
class Forecaster(Pyramid):
    """Predict pixels: some are moved from the last frame to the next, and some are painted.

    This is the model for any kind of video. It is told how what it sees has moved so far, and
    ends in two heads: one moves what is there into the next frame, one paints what is new.
    `layers=(3, 0, 0)` with `motion_radius=0` is the plain stack: the same code with parts
    left out.

    Args:
        encoder_filters, filters, coarse_filters, layers, precision: see `Pyramid`. What the
            encoder saw also goes straight to the decoder, so that fine detail need not pass
            the narrow middle.
        motion_radius: how far, in pixels along each axis, the motion head can move a pixel
            between two frames; 0 leaves the head out, and the history.
        history: of how many steps the measured motion is remembered (`match`, `follow`)
            and given to the ConvLSTM2D layers and to the motion head; 0 measures nothing.
    """

    def __init__(
        self,
        encoder_filters=16,
        filters=32,
        coarse_filters=96,
        layers=(1, 2, 1),
        motion_radius=4,
        history=9,
        precision="float32",
        **kwargs,
    ):
        super().__init__(encoder_filters, filters, coarse_filters, layers, precision, **kwargs)
        self.architecture |= {"motion_radius": motion_radius, "history": history}
        self.motion_radius = motion_radius
        self.history = history if motion_radius else 0
        if self.history:
            self.history_hidden = self.convolution(128, 1, 1, "history_hidden")
            self.history_in = self.convolution(filters, 3, 1, "history_in", activation=None)
            self.motion_hidden = [self.convolution(128, 1, 1, f"motion_hidden_{n}") for n in (0, 1)]
            self.coarse_motion_head = keras.layers.Conv2D(
                2 * (2 * motion_radius + 1), 1, name="coarse_motion_head"
            )
        self.up = self.twice_as_large(encoder_filters, "up")
        self.decoder = self.convolution(2 * encoder_filters, 3, 1, "decoder")
        self.synthesis_head = None  # made in build: its filters are the frames' channels
        if motion_radius:
            self.motion_head = keras.layers.Conv2DTranspose(
                2 * (2 * motion_radius + 1) + 1, 2, strides=2, name="motion_head"
            )

    def build(self, videos_shape, real_shape=None):
        # Most pixels of Moving MNIST are black, and sigmoid(-2) is nearly so.
        self.synthesis_head = keras.layers.Conv2DTranspose(
            videos_shape[-1],
            2,
            strides=2,
            bias_initializer=keras.initializers.Constant(-2.0),
            name="synthesis_head",
        )
        super().build(videos_shape)

    def empty_states(self, batch, height, width):
        states = {"layers": self.empty_layer_states(batch, height, width)}
        if self.history:
            blocks = (batch, height // 4, width // 4)
            both = 2 * (2 * self.motion_radius + 1)  # vertical and horizontal displacements
            states["last_frame"] = ops.zeros((batch, height, width, self.channels))
            states["tracks"] = ops.zeros((*blocks, 1 + self.history * both))  # see `follow`
            states["motion"] = ops.zeros((*blocks, both))  # which is predicted; only to look at
        return states

    def step(self, frame, states, training=False):
        """One frame (batch, height, width, channels) -> the next one, and the new states."""
        new_states, hint = {}, 0
        if self.history:
            moved_by = match(frame, states["last_frame"], self.motion_radius)
            # (batch, 16, 16, history * 2 * displacements)
            history, new_states["tracks"] = follow(frame, moved_by, states["tracks"])
            new_states["last_frame"] = frame
            hint = self.history_in(self.history_hidden(history))  # (batch, 16, 16, filters)
        x, skip, new_states["layers"] = self.pyramid(frame, hint, states["layers"])
        if self.history:
            motion = ops.concatenate([x, ops.cast(history, x.dtype)], axis=-1)
            for layer in self.motion_hidden:
                motion = layer(motion)  # (batch, 16, 16, 128)
            # (batch, 16, 16, 2 * displacements); times 3: see `motion`
            new_states["motion"] = 3 * self.coarse_motion_head(ops.cast(motion, "float32"))
        x = ops.concatenate([self.up(x), skip], axis=-1)  # (batch, 32, 32, 2 * encoder_filters)
        x = ops.cast(self.decoder(x), "float32")  # the heads are always float32

        next_frame = ops.sigmoid(self.synthesis_head(x))  # (batch, 64, 64, channels)
        if self.motion_radius:
            vertical, horizontal, gate = self.motion(x, new_states.get("motion"))
            moved = move(frame, vertical, horizontal)  # (batch, 64, 64, channels)
            next_frame = gate * moved + (1 - gate) * next_frame
        return next_frame, new_states

    def motion(self, x, coarse_motion=None):
        """Decoder features -> how the last frame moves into the next; see `move`.

        Args:
            x: (batch, height / 2, width / 2, 2 * encoder_filters).
            coarse_motion: logits of the displacements, vertical and horizontal ones, for
                blocks of 4x4 pixels, (batch, height / 4, width / 4, 2 (2 R + 1)); x refines
                them pixel by pixel.

        Returns:
            vertical, horizontal: (batch, height, width, 2 R + 1), probabilities of the
                displacements -R..R in pixels, R being `motion_radius`.
            gate: (batch, height, width, 1) in [0, 1]; 1 takes the moved pixel, 0 the
                painted one.
        """
        logits = self.motion_head(x)  # (batch, 64, 64, 2 (2 R + 1) + 1)
        # Times 3: a softmax starts out flat, which would blur; this lets it sharpen sooner.
        logits, gate = 3 * logits[..., :-1], logits[..., -1:]
        if coarse_motion is not None:
            logits = logits + ops.repeat(ops.repeat(coarse_motion, 4, axis=1), 4, axis=2)
        vertical, horizontal = ops.split(logits, 2, axis=-1)
        return ops.softmax(vertical), ops.softmax(horizontal), ops.sigmoid(gate)


def move(frame, vertical, horizontal):
    """Move the pixels of a frame: a pass along the columns, then one along the rows.

    In each pass a pixel becomes the mean of its neighbours in that direction, weighted by
    its own probabilities of coming from each of them:

        moved[y, x] = sum over dx of horizontal[y, x, dx]
                      * sum over dy of vertical[y, x + dx, dy] * frame[y + dy, x + dx]

    Two passes over 2 R + 1 neighbours each stand for one over (2 R + 1)^2.

    Args:
        frame: (batch, height, width, channels).
        vertical, horizontal: (batch, height, width, 2 R + 1), probabilities of taking the
            pixel from -R..R pixels away. Beyond the edges lies black.

    Returns:
        The moved frame, (batch, height, width, channels).
    """
    height, width, channels = frame.shape[1:]
    displacements = vertical.shape[-1]
    # Neighbours come side by side by a convolution with a kernel of ones and zeros: on a CPU
    # its gradient is much faster than that of as many slices.
    one_hot = np.eye(displacements, dtype="float32")
    # For one channel both are the same, and the first is faster.
    gather = ops.conv if channels == 1 else ops.depthwise_conv
    for weights, size in ((vertical, (displacements, 1)), (horizontal, (1, displacements))):
        kernel = np.repeat(one_hot.reshape(*size, 1, displacements), channels, axis=2)
        sources = gather(frame, kernel, padding="same")
        sources = ops.reshape(sources, (-1, height, width, channels, displacements))
        frame = ops.sum(weights[:, :, :, None] * sources, axis=-1)
    return frame


def match(frame, last_frame, radius):
    """Measure how the last frame moved into this one: the counterpart of `move`.

    Around every fourth pixel a window of 16x16 pixels is compared with the last frame's
    windows up to `radius` pixels away, and the squared differences become probabilities.
    (Smaller windows often fit in several places, larger ones often hold two digits.)
    Nothing is learned here, and no gradient passes: it is a measurement. (Networks for
    optical flow begin with the like; Dosovitskiy et al. 2015, "FlowNet", section 3.)

    Args:
        frame, last_frame: (batch, height, width, channels); channels are averaged.
        radius: R, the farthest displacement along each axis, in pixels.

    Returns:
        (batch, height / 4, width / 4, 2 (2 R + 1)): the probabilities that a window came
        from -R..R pixels away, first vertically, then horizontally. Over an even area, where
        nothing can be measured, they are all alike.
    """
    frame, last_frame = (
        ops.stop_gradient(ops.mean(f, axis=-1, keepdims=True)) for f in (frame, last_frame)
    )
    displacements = 2 * radius + 1
    sources = displaced(last_frame, radius)  # (batch, 32, 32, 81)
    difference = ops.square(sources - frame[:, 1::2, 1::2])
    difference = ops.average_pool(difference, 4, strides=2, padding="same")  # (batch, 16, 16, 81)
    difference = ops.average_pool(difference, 3, strides=1, padding="same")
    # The window has about 64 samples: 6 for each whole pixel that differs.
    probability = ops.softmax(-400 * difference)
    probability = ops.reshape(
        probability, (-1, *difference.shape[1:3], displacements, displacements)
    )
    return ops.concatenate([ops.sum(probability, axis=4), ops.sum(probability, axis=3)], axis=-1)


def follow(frame, moved_by, tracks):
    """Remember how each thing in the picture has moved, wherever it has moved to.

    A place's track is the list of displacements that led there. It moves along with what
    is there: a place asks where its content came from, and takes over the track from
    there. In between lies interpolation, in which a place counts by its brightness, since
    the black background has no motion. Like `match`, this is a measurement.

    Displacements stay probabilities over whole pixels. Their means would hold the same in
    less space, but the next displacement is far harder to learn from those.

    Args:
        frame: (batch, height, width, channels).
        moved_by: (batch, height / 4, width / 4, 2 (2 R + 1)), of this frame, from `match`.
        tracks: (batch, height / 4, width / 4, 1 + history * 2 (2 R + 1)), those of the last
            frame: brightness, and the displacements times the brightness.

    Returns:
        history: (batch, height / 4, width / 4, history * 2 (2 R + 1)), probabilities of this
            frame's displacement, of the one before, and so on; zeros where there was none.
        tracks: those of this frame.
    """
    height, width = moved_by.shape[1:3]
    both = moved_by.shape[-1]  # vertical and horizontal displacements
    displacements = np.arange(both // 2, dtype="float32") - both // 4
    vertical, horizontal = (
        ops.sum(probability * displacements, axis=-1, keepdims=True) / 4  # in blocks of 4 pixels
        for probability in ops.split(moved_by, 2, axis=-1)
    )
    padded = ops.pad(tracks, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = ops.zeros_like(tracks)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            nearness = ops.relu(1 - ops.abs(vertical - y)) * ops.relu(1 - ops.abs(horizontal - x))
            moved += nearness * padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
    past = moved[..., 1:] / (moved[..., :1] + 1e-4)
    history = ops.concatenate([moved_by, past[..., :-both]], axis=-1)

    brightness = ops.stop_gradient(ops.mean(frame, axis=-1, keepdims=True))
    brightness = ops.average_pool(brightness, 4, strides=4, padding="same")
    # A little from around, so that a digit's dark edge knows its track.
    brightness += 0.01 * ops.average_pool(brightness, 5, strides=1, padding="same")
    return history, ops.concatenate([brightness, brightness * history], axis=-1)


def rollout(model, context, horizon):
    """Forecast: read the context, then go on from the model's own predictions.

    Every new frame costs one step, however long the video already is.

    Args:
        model: a `NextFrameModel`.
        context: real frames, (batch, frames, height, width, channels), float32 in [0, 1].
        horizon: how many frames to predict after the context.

    Returns:
        float32 array (batch, horizon, height, width, channels) in [0, 1].
    """
    model.check_frames(context.shape)
    batch, frames, height, width, _ = context.shape
    states = model.empty_states(batch, height, width)
    predictions = []
    for n in range(frames + horizon - 1):
        frame = context[:, n] if n < frames else predictions[-1]  # (batch, height, width, channels)
        inputs = {"frame": frame, "states": states}
        prediction, states = model.compiled_step(inputs)
        if n >= frames - 1:
            predictions.append(prediction)
    return np.stack(predictions, axis=1)


def use_xla():
    """Whether to compile with XLA: always on JAX; on TensorFlow its own kernels are faster.

    On two CPU cores XLA's convolutions are several times slower than TensorFlow's, which
    are oneDNN's, and an unrolled video takes XLA minutes to compile.
    """
    return keras.backend.backend() == "jax"
