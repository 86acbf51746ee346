"""One step of the optimizer, the average of the weights, and the learning rates."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from helpers import SMALL, array

import train
from method.optimizer import make_optimizer

FIRST_STEP = dataclasses.replace(SMALL, warmup_steps=0, average=False, global_clipnorm=0.0)


def first_step(config, gradient):
    """What the optimizer does to a kernel and to a bias in its first step."""
    kernel = keras.Variable(np.zeros(gradient.shape, "float32"), name="kernel")
    bias = keras.Variable(np.zeros(8, "float32"), name="bias")
    make_optimizer(config, ()).apply([gradient, np.ones(8, "float32")], [kernel, bias])
    return array(kernel), array(bias)


def test_muon_moves_a_kernel_by_an_orthogonal_matrix():
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32")
    kernel, bias = first_step(FIRST_STEP, gradient)
    matrix = kernel.reshape(36, 8) / (FIRST_STEP.muon_learning_rate * 0.2 * 36**0.5)
    singular_values = np.linalg.svd(matrix, compute_uv=False)
    assert 0.6 < singular_values.min() and singular_values.max() < 1.3  # Newton-Schulz's range
    u, _, v = np.linalg.svd(gradient.reshape(36, 8), full_matrices=False)
    assert (matrix * (u @ v)).sum() < -0.8 * 8  # downhill, along the gradient's directions
    np.testing.assert_allclose(bias, -FIRST_STEP.adam_learning_rate, rtol=1e-3)
    # A dense kernel takes the same step.
    dense, _ = first_step(FIRST_STEP, gradient.reshape(36, 8))
    np.testing.assert_allclose(dense, kernel.reshape(36, 8), rtol=1e-4)


def test_adam_moves_everything_without_muon():
    gradient = np.ones((3, 3, 4, 8), "float32")
    for moved in first_step(dataclasses.replace(FIRST_STEP, muon_learning_rate=0.0), gradient):
        np.testing.assert_allclose(moved, -1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "model, expected",
    [("forecaster", {"encoder", "block_motion_head", "pixel_motion_head", "paint_head"}),
     ("keras-example", {"conv_lstm_1", "paint_head"})],
)  # fmt: skip
def test_muon_is_kept_from_the_first_convolution_and_the_heads(model, expected):
    model = train.build_model(dataclasses.replace(SMALL, model=model))
    rule = make_optimizer(SMALL, model.adam_layers)
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    adam = {kernel.path.split("/")[1] for kernel in kernels if rule._should_use_adamw(kernel)}
    assert adam == expected
    # A layer whose name has one of these names in it is another one.
    attention = keras.Variable(np.zeros((4, 4)), name="multi_paint_head_attention")
    assert not rule._should_use_adamw(attention)
    with keras.name_scope("paint_head"):  # as in a step of a model that is not built yet
        kernel = keras.Variable(np.zeros((3, 3, 4, 1)), name="kernel")
    with keras.name_scope("embedding"):  # whose table Keras's Muon leaves to Adam, too
        table = keras.Variable(np.zeros((4, 4)), name="embeddings")
    assert rule._should_use_adamw(kernel) and rule._should_use_adamw(table)


@pytest.mark.parametrize("accumulated", [None, 3])
def test_the_weights_are_averaged_with_polynomial_decay(accumulated):
    weight = keras.Variable(np.zeros(1, "float32"))
    rule = make_optimizer(dataclasses.replace(FIRST_STEP, average=True), ())
    rule.gradient_accumulation_steps = accumulated
    weights = []
    for step in range(30):
        weight.assign([step])
        rule.apply([np.ones(1, "float32")], [weight])
        weights.append(array(weight)[0])
    # By Shamir and Zhang's product the weights of step s count 9 (s + 1) (s + 2) ... (s + 8).
    shares = [math.prod(range(s + 1, s + 9)) for s in range(30)]
    (average,) = rule._model_variables_moving_average
    assert array(average)[0] == pytest.approx(np.average(weights, weights=shares), rel=1e-4)


@pytest.mark.parametrize("muon, peak", [(5e-3, 5e-3), (0.0, 1e-3)])
@pytest.mark.parametrize(
    "cooldown, shares",
    [(0.2, {0: 0, 10: 0.5, 20: 1, 80: 1, 90: 0.5, 100: 0}), (0.0, {0: 0, 10: 0.5, 20: 1, 1000: 1})],
)
def test_the_learning_rate_rises_stays_and_ends_at_zero(muon, peak, cooldown, shares):
    config = dataclasses.replace(
        SMALL, epochs=10, steps_per_epoch=10, warmup_steps=20, cooldown=cooldown,
        muon_learning_rate=muon, adam_learning_rate=1e-3,
    )  # fmt: skip
    rule = make_optimizer(config, ())
    for step, share in shares.items():
        rule.iterations.assign(step)
        assert float(rule.learning_rate) == pytest.approx(share * peak, abs=1e-7)
