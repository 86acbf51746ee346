"""The models: one causal step, the same numbers however it is called, and Keras's own verbs."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import data
import model as models
import train
from extras.cli import InputError
from helpers import SMALL, array, replace

CONFIGS = {
    "forecaster": SMALL,
    "no coarse layers": replace(SMALL, depths=(1, 0, 1)),
    "plain stack": replace(SMALL, depths=(2, 0, 0), motion_radius=0),
    "keras-example": replace(SMALL, model="keras-example"),
}
CLASSES = ["forecaster", "keras-example"]
on_tensorflow = keras.backend.backend() == "tensorflow"


def build(kind, **changes):
    keras.utils.set_random_seed(1)
    return train.build_model(replace(CONFIGS[kind], **changes))


def some_videos(count=2, frames=5, size=32):
    videos = data.make_videos(data.load_digits("test"), count, seed=5, frames=frames, size=size)
    return data.to_float(videos)


# The contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_prediction_knows_nothing_of_later_frames(kind):
    model = build(kind)
    videos = some_videos()
    before = array(model(videos))
    assert before.shape == videos.shape and before.dtype == np.float32
    assert 0 <= before.min() and before.max() <= 1
    videos[:, 3] = 1 - videos[:, 3]
    after = array(model(videos))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3] != after[:, 3]).any() and (before[:, 4] != after[:, 4]).any()


def naive_rollout(model, context, horizon):
    """Append the last prediction and start again from the first frame, for every new frame."""
    video = context
    for _ in range(horizon):
        video = np.concatenate([video, array(model(video))[:, -1:]], axis=1)
    return video[:, context.shape[1] :]


@pytest.mark.parametrize("batch, frames, horizon", [(1, 1, 1), (2, 3, 3)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_rollout_is_whole_sequence_calls_on_own_predictions(kind, batch, frames, horizon):
    model = build(kind)
    context = some_videos(batch, frames)
    expected = naive_rollout(model, context, horizon)
    np.testing.assert_allclose(models.rollout(model, context, horizon), expected, atol=1e-5)


def test_rollout_takes_one_step_for_each_frame():
    model = build("forecaster")
    models.rollout(model, some_videos(frames=1), 1)
    steps = []
    ((size, step),) = model.compiled_steps.items()
    model.compiled_steps[size] = lambda inputs: steps.append(1) or step(inputs)
    models.rollout(model, some_videos(frames=4), 7)
    assert len(steps) == 4 + 7 - 1


def test_rollout_sees_new_weights():
    model = build("forecaster")
    context = some_videos(frames=2)
    before = models.rollout(model, context, 2)
    model.pixel_motion_head.bias.assign(model.pixel_motion_head.bias + 3 * np.eye(19)[0])
    assert np.abs(models.rollout(model, context, 2) - before).max() > 0.01


@pytest.mark.jax
@pytest.mark.parametrize("kind", CLASSES)
def test_frames_that_are_not_real_are_the_models_own(kind):
    model = build(kind)
    videos = some_videos(frames=6)
    real_mask = np.ones((2, 6), bool)
    real_mask[:, 3:] = False
    closed = array(model(videos, real_mask=real_mask))
    np.testing.assert_allclose(closed[:, 2:], models.rollout(model, videos[:, :3], 4), atol=1e-5)
    # A draw for each video: the second one here is given real frames throughout.
    real_mask[1] = True
    mixed = array(model(videos, real_mask=real_mask))
    np.testing.assert_allclose(mixed[0], closed[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], array(model(videos))[1], atol=1e-5)


@pytest.mark.parametrize("height, width", [(20, 28), (33, 8), (5, 11)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_frames_of_any_size_give_frames_of_that_size(kind, height, width):
    model = build(kind)
    videos = np.random.default_rng(0).random((2, 3, height, width, 1)).astype("float32")
    assert array(model(videos)).shape == videos.shape
    assert models.rollout(model, videos, 2).shape == (2, 2, height, width, 1)


def test_frames_that_do_not_fit_are_refused():
    model = build("forecaster")
    with pytest.raises(InputError, match="3 channels; this model is for 1"):
        models.rollout(model, np.zeros((1, 2, 32, 32, 3), "float32"), 1)
    with pytest.raises(InputError, match="uint8.*to_float"):
        models.rollout(model, np.zeros((1, 2, 32, 32, 1), "uint8"), 1)


# ConvLSTM2D -------------------------------------------------------------------------------


@pytest.mark.jax
@pytest.mark.parametrize(
    "size, activation, bias", [(3, "tanh", True), (5, "relu", True), (1, "relu", False)]
)
def test_step_has_the_numbers_and_the_weights_of_keras_layer(size, activation, bias):
    options = {"padding": "same", "activation": activation, "use_bias": bias}
    stock = keras.layers.ConvLSTM2D(7, size, return_sequences=True, **options)
    ours = models.ConvLSTM2D(7, size, return_sequences=True, **options)
    videos = np.random.default_rng(0).normal(size=(2, 4, 10, 8, 3)).astype("float32")
    stock.build(videos.shape)
    ours.build(videos.shape)
    ours.set_weights([w + 0.1 for w in stock.get_weights()])
    stock.set_weights(ours.get_weights())
    expected = array(stock(videos))
    np.testing.assert_allclose(array(ours(videos)), expected, atol=1e-6)
    states = ours.initial_states(2, 10, 8)
    for n in range(4):
        h, states = ours.step(videos[:, n], states)
        np.testing.assert_allclose(array(h), expected[:, n], rtol=1e-4, atol=1e-5)


class Unrolled(keras.Model):
    """A ConvLSTM2D of ours that reads a video by its step."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, videos):
        states = self.layer.initial_states(2, 10, 8)
        outputs = []
        for n in range(videos.shape[1]):
            h, states = self.layer.step(videos[:, n], states)
            outputs.append(h)
        return keras.ops.stack(outputs, axis=1)


@pytest.mark.parametrize(
    "size, activation", [pytest.param(3, "tanh", marks=pytest.mark.jax), (5, "relu")]
)
def test_step_has_the_gradients_of_keras_layer(size, activation):
    options = {"padding": "same", "activation": activation, "return_sequences": True}
    stock = keras.layers.ConvLSTM2D(6, size, **options)
    ours = models.ConvLSTM2D(6, size, **options)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 10, 8, 3)).astype("float32")
    y = rng.normal(size=(2, 3, 10, 8, 6)).astype("float32")
    stock.build(x.shape)
    ours.build(x.shape)
    ours.set_weights(stock.get_weights())
    before = stock.get_weights()
    # A step of plain gradient descent at rate 1 moves each weight by its gradient.
    for model in (keras.Sequential([stock]), Unrolled(ours)):
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
        model.train_on_batch(x, y)
    for start, expected, got in zip(before, stock.get_weights(), ours.get_weights()):
        assert np.abs(expected - start).max() > 1e-4
        np.testing.assert_allclose(got - start, expected - start, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("option", [{"padding": "valid"}, {"strides": 2}, {"dropout": 0.5}])
def test_options_that_step_does_not_know_are_refused(option):
    with pytest.raises(ValueError, match="step"):
        models.ConvLSTM2D(4, 3, **option)


# Keras's verbs ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_keras_own_verbs_work(tmp_path, capsys, kind):
    """From Python, without train.py: with arrays, losses and optimizers of one's own."""
    model = build(kind)
    rng = np.random.default_rng(0)
    videos = rng.random((4, 3, 16, 24, 1)).astype("float32")
    x, y = data.shift_frames(videos)
    context = videos[:, :2]

    model.compile("adam", "mse")
    before = model.get_weights()
    history = model.fit(x, y, batch_size=2, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2 and np.isfinite(history.history["loss"]).all()
    assert any((one != other).any() for one, other in zip(before, model.get_weights()))
    mse = np.square(array(model(x)) - y).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(mse, rel=1e-3)
    for shape in ((1, 19, 16, 16, 1), (2, 12, 16, 16, 1), (2, 12, 24, 20, 1)):
        other = rng.random(shape).astype("float32")
        predictions = model.predict(other, verbose=0)
        np.testing.assert_allclose(predictions, array(model(other)), atol=1e-5)
    model.summary()
    trainable = sum(weight.size for weight in map(array, model.trainable_weights))
    assert f"Trainable params: {trainable:,}" in capsys.readouterr().out

    forecast = models.rollout(model, context, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(models.rollout(loaded, context, 3), forecast)
    np.testing.assert_array_equal(models.rollout(model, context, 3), forecast)


@pytest.mark.skipif(not on_tensorflow, reason="a SavedModel is TensorFlow's")
@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_is_exported_for_a_stated_number_of_frames(tmp_path, kind):
    model = build(kind)
    videos = some_videos(frames=3)
    forecast = models.rollout(model, videos, 2)
    shape = (None, *videos.shape[1:])
    model.export(
        tmp_path / "model", input_signature=[keras.InputSpec(shape=shape, dtype="float32")]
    )
    exported = keras.layers.TFSMLayer(tmp_path / "model", call_endpoint="serve")
    np.testing.assert_allclose(array(exported(videos)), array(model(videos)), atol=1e-5)
    np.testing.assert_array_equal(models.rollout(model, videos, 2), forecast)


def test_a_saved_model_is_restored_bit_for_bit(tmp_path):
    """In another process, which knows nothing but model.py."""
    videos = some_videos()
    np.save(tmp_path / "videos.npy", videos)
    code = f"import keras, model, numpy as np\nvideos = np.load({str(tmp_path / 'videos.npy')!r})\n"
    expected = {}
    for kind in CLASSES:
        path = tmp_path / kind
        network = build(kind)
        expected[kind] = array(network(videos)), models.rollout(network, videos, 2)
        network.save(f"{path}.keras")  # having been used must not matter
        code += (
            f"loaded = keras.models.load_model('{path}.keras')\n"
            "y = keras.ops.convert_to_numpy(loaded(videos))\n"
            f"np.savez('{path}.npz', y=y, forecast=model.rollout(loaded, videos, 2))\n"
        )
    subprocess.run([sys.executable, "-c", code], cwd=Path(models.__file__).parent, check=True)
    for kind, (y, forecast) in expected.items():
        got = np.load(tmp_path / f"{kind}.npz")
        np.testing.assert_array_equal(got["y"], y)
        np.testing.assert_array_equal(got["forecast"], forecast)


# What they are made of --------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset, parameters",
    [("tiny", 88_702), ("cpu", 3_270_630), ("gpu", 3_270_630), ("keras-example", 745_537)],
)
def test_parameter_counts(preset, parameters):
    assert train.build_model(train.PRESETS[preset]).count_params() == parameters


def test_a_plain_stack_has_no_part_that_it_does_not_use():
    model = build("plain stack")
    names = {layer.name for layer in model.layers}
    assert not {name for name in names if "motion" in name or "history" in name}
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), "mse")
    videos = some_videos()
    model.train_on_batch(*data.shift_frames(videos))
    for variable, weight in zip(model.weights, before, strict=True):
        assert (array(variable) != weight).any(), variable.path


@pytest.mark.parametrize("kind", CLASSES)
def test_bfloat16_is_close_to_float32(kind):
    videos = some_videos()
    exact, half = build(kind), build(kind, precision="mixed_bfloat16")
    half.set_weights(exact.get_weights())
    assert {layer.compute_dtype for layer in half._flatten_layers()} >= {"bfloat16", "float32"}
    predictions = array(half(videos))
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, array(exact(videos)), atol=0.05)
    forecast = models.rollout(half, videos, 2)
    np.testing.assert_allclose(forecast, models.rollout(exact, videos, 2), atol=0.05)
