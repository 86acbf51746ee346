"""The loop over the frames of a video, and what is the same for all models. Open it to see how a
step becomes a Keras model.
"""

import functools

import keras
from keras import ops

from method.errors import ROUNDING, InputError


def check_frames(frames):
    """Raise an InputError unless `frames`, any array, holds floats in [0, 1]."""
    frames = ops.convert_to_numpy(frames)
    low, high = (frames.min(), frames.max()) if frames.size else (0, 1)
    check_dtype(frames.dtype)
    if not -ROUNDING <= low <= high <= 1 + ROUNDING:  # False for NaN, too
        raise InputError(
            f"frames have values from {low:.6g} to {high:.6g}: models and scores take floats in "
            "[0, 1], and data.to_float divides uint8 by 255"
        )


def check_dtype(dtype):
    """Raise an InputError unless a dtype is one of floats."""
    dtype = keras.backend.standardize_dtype(dtype)
    if "float" not in dtype:
        raise InputError(
            f"frames are {dtype}: models and scores take floats in [0, 1], and data.to_float "
            "divides uint8 by 255"
        )


class NextFrameModel(keras.Model):
    """A Keras model that predicts the next frame at every frame of a video.

    A subclass has

        initial_states(batch, height, width)    the memory before the first frame
        step(frame, states, training)           one frame -> the next frame, and the new memory

    states being tensors in lists and dicts. Inputs are videos, (batch, frames, height, width,
    channels), floats in [0, 1] that are computed with as float32, or a dict of two:

        videos       as above
        real_mask    (batch, frames), booleans. Where it is False, the model is given its own
                     prediction of that frame instead of the real one. The first frame of a video
                     is always real.

    Without `real_mask` all frames are real ("teacher forcing"). The output has the shape of
    `videos`: frame n predicts frame n + 1, and depends on no frame after n.

    Args:
        architecture: a `model.Architecture`, whose `precision` prevails over a `dtype` and over
            Keras's global policy.

    Raises:
        InputError: videos are no floats, or have another number of channels than the model.
    """

    # True: gradient checkpointing, less memory for more computation. A step is then computed twice,
    # so none of its layers may change variables of its own: Dropout would drop others the second
    # time, and the gradient would be wrong; BatchNormalization would count a frame twice.
    remat = False

    def __init__(self, architecture, **kwargs):
        # Each layer within says its own precision, and videos stay float32. Keras reads the model's
        # to know whether the loss must be scaled, as float16 needs.
        super().__init__(**{**kwargs, "dtype": architecture.precision, "autocast": False})
        self.architecture = architecture
        # TensorFlow's own kernels are several times faster than XLA's on a CPU, and XLA takes
        # minutes to compile a video's gradient. JAX has nothing but XLA.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    # Keras saves what the two `get_...config` return, and rebuilds the model from it.
    def get_config(self):
        architecture = keras.saving.serialize_keras_object(self.architecture)
        return {**super().get_config(), "architecture": architecture}

    @classmethod
    def from_config(cls, config):
        architecture = keras.saving.deserialize_keras_object(config["architecture"])
        others = {name: value for name, value in config.items() if name != "architecture"}
        return cls(architecture, **others)

    def get_build_config(self):
        # Not yet built: nor is what Keras makes of it, such as a copy by `clone_model`.
        return {"weights": self.count_weights()} if self.weights else None

    def build_from_config(self, config):
        self.build()
        self.check_weights(config)

    def count_weights(self):
        # Of LoRA's weights a file has no more than what they add to their kernels.
        return sum("lora_" not in weight.name for weight in self.weights)

    def check_weights(self, config):
        """Raise a ValueError unless a file, of this build config, has as many weights."""
        if self.count_weights() != config["weights"]:  # Keras would leave the others out
            raise ValueError(
                f"the file has {config['weights']} weights, and the code's {type(self).__name__} "
                f"has {self.count_weights()}: it has gained or lost a layer since"
            )

    def check_channels(self, channels):
        """Raise an InputError if frames have another number of channels; None: not known yet."""
        if channels not in (None, self.architecture.channels):
            raise InputError(
                f"frames have {channels} channel{'s' * (channels > 1)}; this model is for "
                f"{self.architecture.channels} (Architecture(channels=3) is for colour; prepare.py "
                "has --grey and --colour)"
            )

    def build(self, inputs_shape=None):
        # One step on zeros builds every layer, for frames of any size.
        size = (16, 16)
        frame = ops.zeros((1, *size, self.architecture.channels), "float32")
        self.step(frame, self.initial_states(1, *size))

    # So that Keras need not trace all frames to know it.
    def compute_output_shape(self, inputs_shape):
        return inputs_shape["videos"] if isinstance(inputs_shape, dict) else inputs_shape

    def call(self, inputs, training=False):
        predictions, *_ = self.unroll(**self.read_inputs(inputs), training=training)
        return predictions

    def read_inputs(self, inputs):
        """Returns the dict that the class describes, of either kind of inputs; videos float32."""
        inputs = inputs if isinstance(inputs, dict) else {"videos": inputs}
        videos = inputs["videos"]
        check_dtype(videos.dtype)
        self.check_channels(videos.shape[-1])
        return {**inputs, "videos": ops.cast(videos, "float32")}  # NumPy's floats are float64

    def initial_outputs(self, batch, height, width):
        """Zeros in the shapes of what `step_outputs` returns first; see there."""
        return [ops.zeros((batch, height, width, self.architecture.channels), "float32")]

    def step_outputs(self, frame, states, training=False):
        """`step`, for a model that has more outputs: [next frame, others ...], new states."""
        next_frame, states = self.step(frame, states, training=training)
        return [next_frame], states

    def unroll(self, videos, real_mask=None, training=False):
        """Run through videos; returns the outputs of each step: [(batch, frames, ...), ...]."""
        batch, frames, height, width, _ = ops.shape(videos)
        real_mask = True if real_mask is None else real_mask
        real_mask = ops.broadcast_to(real_mask, (batch, frames))  # refuses one of other frames
        first_is_real = ops.ones((batch, 1), "bool")
        real_mask = ops.concatenate([first_is_real, real_mask[:, 1:]], axis=1)
        outputs = self.initial_outputs(batch, height, width)
        states = self.initial_states(batch, height, width)
        step = functools.partial(self.step_outputs, training=training)
        if self.remat and training:
            step = keras.remat(step)

        def next_step(real_frame, is_real, outputs, states):
            frame = ops.where(is_real[:, None, None, None], real_frame, outputs[0])
            return step(frame, states)

        if training and isinstance(frames, int):
            # Written out frame by frame: faster, and a layer with variables of its own to change,
            # such as Dropout and BatchNormalization, may do so on JAX, too.
            every = []
            for n in range(frames):
                outputs, states = next_step(videos[:, n], real_mask[:, n], outputs, states)
                every.append(outputs)
            return [ops.stack(parts, axis=1) for parts in zip(*every)]

        # Otherwise the step is compiled once for all frames, however many there are.
        def loop_body(n, outputs, states, every):
            real_frame, is_real = (ops.take(part, n, axis=1) for part in (videos, real_mask))
            # TensorFlow wants to see that no shape changes, also where it does not know all of it.
            outputs, states = keras.tree.map_structure(
                lambda old, new: ops.reshape(new, ops.shape(old)),
                (outputs, states),
                next_step(real_frame, is_real, outputs, states),
            )
            every = [ops.scatter_update(e, [[n]], o[None]) for e, o in zip(every, outputs)]
            return n + 1, outputs, states, every

        kept = outputs if training else outputs[:1]  # only training asks for more than frames
        every = [ops.zeros((frames, *ops.shape(part)), part.dtype) for part in kept]
        start = (ops.convert_to_tensor(0, "int32"), outputs, states, every)
        *_, every = ops.while_loop(lambda n, *_: n < frames, loop_body, start)
        return [ops.swapaxes(part, 0, 1) for part in every]  # (batch, frames, ...) each
