"""The optimizer: Muon for convolution kernels, and the learning rates. Open it to try others.

`make_optimizer` is all that training uses.
"""

import re

import keras
import numpy as np
from keras import ops

MOMENTUM = 0.95  # Muon's (Jordan et al. 2024)

# Polynomial-decay averaging (Shamir and Zhang 2013, section 4): the weights of step s count about
# s^8, so it averages the last tenth of the steps, however many there are.
AVERAGE_DECAY = 9


@keras.saving.register_keras_serializable("next_frame")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon for convolution kernels, too, and another moving average of the weights.

    Keras sends every kernel that is not two-dimensional to Adam. Here a convolution's kernel
    (height, width, in, out) takes Muon's step as the matrix (height * width * in, out), as in
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". (A
    Conv2DTranspose of step 2 and size 2, whose kernel is (2, 2, out, in), multiplies by just
    that matrix, (2 * 2 * out, in), too.)
    """

    def _should_use_adamw(self, variable):
        if len(variable.shape) != 4:
            return super()._should_use_adamw(variable)
        return any(re.search(layer, variable.path) for layer in self.exclude_layers)

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = ops.reshape(x, (-1, x.shape[-1]))  # (height * width * in, out)
        return ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)

    def lr_adjust(self, x):
        rows, columns = np.prod(x.shape[:-1]), x.shape[-1]
        return x * self.rms_rate * float(max(rows, columns)) ** 0.5

    def _update_model_variables_moving_average(self, trainable_variables):
        # Each call counts, as with gradient accumulation not each one moves the weights.
        step = ops.cast(self._iterations, "float32")
        momentum = step / (step + AVERAGE_DECAY)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average):
            average.assign(momentum * average + (1 - momentum) * variable)

    def finalize_variable_values(self, var_list):
        # Also of layers that were frozen after the model was compiled
        super().finalize_variable_values(self._trainable_variables)


@keras.saving.register_keras_serializable("next_frame")
class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rise from zero, stay, and fall to zero, all in straight lines.

    Hagele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
    durations": as good as a cosine, and until it falls it does not depend on the end.

    Args:
        peak: the learning rate between rise and fall.
        warmup: steps of the rise.
        start, end: the steps with which the fall begins and ends; equal: it never does.
    """

    def __init__(self, peak, warmup, start, end):
        self.peak, self.warmup, self.start, self.end = peak, warmup, start, end

    def __call__(self, step):
        step = ops.cast(step, "float32")
        share = ops.minimum(1.0, step / self.warmup) if self.warmup else 1.0
        if self.start < self.end:
            share = ops.minimum(share, (self.end - step) / (self.end - self.start))
        return self.peak * ops.maximum(0.0, share)

    def get_config(self):
        return {"peak": self.peak, "warmup": self.warmup, "start": self.start, "end": self.end}


def learning_rate(config):
    """The schedule of a `train.Config`: Muon's learning rate, or Adam's without Muon."""
    peak = config.muon_learning_rate or config.adam_learning_rate
    steps = config.epochs * config.steps_per_epoch
    return WarmupStableDecay(peak, config.warmup_steps, (1 - config.cooldown) * steps, steps)


def make_optimizer(config, adam_layers):
    """Muon and Adam, with their schedule, clipping and averaging as configured.

    Args:
        config: a `train.Config`.
        adam_layers: names of layers whose kernels Adam trains, too: the first layer and the heads
            are no hidden layers (Jordan et al. 2024).
    """
    muon = config.muon_learning_rate > 0
    return ConvolutionMuon(
        learning_rate(config),
        # Patterns that are searched in a variable's path; an empty one is in every path.
        exclude_layers=[f"(^|/){name}/" for name in adam_layers] if muon else [""],
        adam_lr_ratio=config.adam_learning_rate / config.muon_learning_rate if muon else 1,
        adam_weight_decay=None,
        weight_decay=config.weight_decay if muon else None,
        momentum=MOMENTUM,
        nesterov=True,
        global_clipnorm=config.global_clipnorm or None,
        use_ema=config.average,
    )
