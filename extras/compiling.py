"""Keras models that unroll a loop over frames, compiled for TensorFlow or JAX. No need to open it.

`model.NextFrameModel` is one of these; `model.rollout` compiles its step here.
"""

import functools

from extras import cli  # noqa: F401  comes before Keras

import keras

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


class Model(keras.Model):
    """A Keras model whose `call` needs to know the number of frames."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # TensorFlow's own kernels are several times faster than XLA's on a CPU, and XLA takes
        # minutes to compile an unrolled video. JAX has nothing but XLA.
        self.supports_jit = not ON_TENSORFLOW

    # TensorFlow gives the number of frames up once it has seen two numbers. So each call of `fit`,
    # `evaluate` and `predict` compiles anew.
    def make_train_function(self, force=False):
        super().make_train_function(force or ON_TENSORFLOW)

    def make_test_function(self, force=False):
        super().make_test_function(force or ON_TENSORFLOW)

    def make_predict_function(self, force=False):
        return super().make_predict_function(force or ON_TENSORFLOW)

    @functools.cached_property
    def compiled_steps(self):
        """For each height and width: `step`, compiled; filled by `compiled_step`.

        Made on first use, because Keras would save models that it finds in __init__.
        """
        return {}


class OneStep(keras.Model):
    """One step as a model of its own, for `predict_on_batch` to compile: Keras compiles models."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.compile()

    def call(self, inputs):
        return self.model.step(inputs["frame"], inputs["states"])


def compiled_step(model, height, width):
    """The `step` of a `Model`, compiled for frames of this size: {"frame", "states"} -> NumPy."""
    if (height, width) not in model.compiled_steps:
        model.compiled_steps[height, width] = OneStep(model).predict_on_batch
    return model.compiled_steps[height, width]
