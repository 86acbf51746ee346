"""The models: one causal step, the same numbers however it is called, and Keras's own verbs."""

import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import SMALL, array, replace

import data
import model as models
import train

CONFIGS = {
    "forecaster": SMALL,
    "plain stack": replace(SMALL, depths=(2, 0, 0), motion_radius=0),
    "keras-example": replace(SMALL, model="keras-example", layers=((6, 5), (4, 3))),
}
CLASSES = ["forecaster", "keras-example"]
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="is about TensorFlow's own data or files"
)


def build(kind, **changes):
    keras.utils.set_random_seed(1)
    return train.build_model(replace(CONFIGS[kind], **changes))


built = functools.cache(build)  # for tests that leave a model as it is


def some_videos(count=2, frames=4, size=32):
    videos = data.make_videos(data.load_digits("test"), count, seed=5, frames=frames, size=size)
    return data.to_float(videos)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_prediction_knows_nothing_of_later_frames(kind):
    videos = some_videos().astype("float64")  # as NumPy has floats
    before = array(built(kind)(videos))
    assert before.shape == videos.shape and before.dtype == np.float32
    assert 0 <= before.min() and before.max() <= 1
    videos[:, 2] = 1 - videos[:, 2]
    after = array(built(kind)(videos))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2] != after[:, 2]).any() and (before[:, 3] != after[:, 3]).any()


@pytest.mark.parametrize(
    "kind, batch, frames, horizon, size",
    [("forecaster", 1, 1, 1, (5, 11)), ("forecaster", 2, 3, 3, (20, 28)),
     ("plain stack", 1, 2, 3, (5, 11)), ("keras-example", 2, 3, 2, (5, 11))],
)  # fmt: skip
def test_rollout_is_whole_sequence_calls_on_own_predictions(kind, batch, frames, horizon, size):
    """... for frames of any size."""
    context = np.random.default_rng(0).random((batch, frames, *size, 1)).astype("float32")
    video = context
    for _ in range(horizon):  # append the last prediction, and start again from the first frame
        video = np.concatenate([video, array(built(kind)(video))[:, -1:]], axis=1)
    forecast = models.rollout(built(kind), context, horizon)
    np.testing.assert_allclose(forecast, video[:, frames:], atol=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
def test_frames_that_are_not_real_are_the_models_own(kind):
    """So that training in closed loop is a forecast."""
    model, videos = built(kind), some_videos(frames=5)
    real_mask = np.ones((2, 5), bool)
    real_mask[:, 2:] = False
    real_mask[:, 0] = False  # the first frame is real, whatever the mask says
    real_mask[1] = True  # a mask for each video: the second one is given real frames throughout
    predictions = array(model({"videos": videos, "real_mask": real_mask}))
    forecast = models.rollout(model, videos[:, :2], 4)
    np.testing.assert_allclose(predictions[0, 1:], forecast[0], atol=1e-5)
    np.testing.assert_allclose(predictions[1], array(model(videos))[1], atol=1e-5)
    if kind == "forecaster":  # whose step is the same in training, where it is written out
        training = array(model({"videos": videos, "real_mask": real_mask}, training=True))
        np.testing.assert_allclose(training, predictions, atol=1e-5)


@pytest.mark.parametrize("size, activation, bias", [(3, "tanh", True), (5, "relu", False)])
def test_step_has_the_numbers_and_gradients_of_keras_layer(size, activation, bias):
    # As it is copied into another project, without its registration: it needs Keras alone.
    names = {"keras": keras, "ops": keras.ops}
    exec(inspect.getsource(models.ConvLSTM2D).split("\n", 1)[1], names)  # noqa: S102  our own

    class Stepwise(names["ConvLSTM2D"]):
        def call(self, sequences, initial_state=None):
            states, outputs = self.initial_states(2, 10, 8), []
            for n in range(4):
                h, states = self.step(sequences[:, n], states)
                outputs.append(h)
            return keras.ops.stack(outputs, axis=1)

    options = {"activation": activation, "use_bias": bias, "return_sequences": True}
    stock = keras.layers.ConvLSTM2D(6, size, padding="same", **options)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(2, 4, 10, 8, n)).astype("float32") for n in (3, 6))
    stock.build(x.shape)
    before = [weight + 0.02 for weight in stock.get_weights()]
    outputs, gradients = [], []
    for layer in (stock, Stepwise(6, size, **options)):
        model = keras.Sequential([keras.Input(batch_shape=x.shape), layer])
        layer.set_weights(before)
        outputs.append(array(model(x)))
        # A step of plain gradient descent at rate 1 moves each weight by its gradient.
        model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
        model.train_on_batch(x, y)
        gradients.append([new - old for old, new in zip(before, layer.get_weights())])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    for expected, got in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "option, remedy",
    [({"padding": "valid"}, "padding='same'"), ({"strides": 2}, "strides"),
     ({"data_format": "channels_first"}, "channels last"),
     ({"recurrent_dropout": 0.5}, "keras.layers.Dropout beside this layer"),
     ({"activity_regularizer": "l2"}, "add_loss")],
)  # fmt: skip
def test_options_that_step_does_not_know_are_refused(option, remedy):
    with pytest.raises(ValueError, match=remedy):
        models.ConvLSTM2D(4, 3, **option)


class WithDropout(models.KerasExample):
    """What that error says to do."""

    traces = 0

    def __init__(self, architecture):
        super().__init__(architecture)
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, inputs, training=False):
        self.traces += 1
        return super().call(inputs, training)

    def step(self, frame, states, training=False):
        return super().step(self.dropout(frame, training=training), states, training)


@pytest.mark.jax
def test_keras_own_verbs_work_and_compile_once(capsys):
    """From Python, without train.py: with arrays, losses and optimizers of one's own."""
    x, y = data.shift_frames(some_videos(count=4, frames=3, size=28))
    architecture = CONFIGS["keras-example"].architecture
    copy = keras.models.clone_model(models.KerasExample(architecture))
    assert copy.architecture == architecture and not copy.built
    model = WithDropout(architecture)  # not built yet
    model.compile("adam", "mse")

    def use_all_verbs():
        losses = model.fit(x, y, validation_data=(x, y), batch_size=4, verbose=0).history
        model.train_on_batch(x, y)
        model.test_on_batch(x, y)
        model.predict(x, verbose=0)
        models.rollout(model, x, 2)
        return losses["loss"] + losses["val_loss"]

    losses = use_all_verbs()
    traces, forecast = model.traces, models.rollout(model, x, 2)
    losses += use_all_verbs()
    assert model.traces == traces  # nothing is compiled again for the same shapes
    assert np.isfinite(losses).all() and len(set(losses)) == 4  # the weights have changed
    assert (models.rollout(model, x, 2) != forecast).any()
    predictions = array(model(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), predictions, atol=1e-5)  # no dropout
    mse = np.square(predictions - y).mean()
    assert model.evaluate(x, y, batch_size=4, verbose=0) == pytest.approx(mse, rel=1e-3)
    model.summary()
    trainable = sum(weight.size for weight in map(array, model.trainable_weights))
    assert f"Trainable params: {trainable:,}" in capsys.readouterr().out


@on_tensorflow
@pytest.mark.parametrize("kind", ["keras-example", "forecaster"])
def test_what_is_not_known_before_a_batch_is_not_needed(tmp_path, kind):
    """Neither for tf.data of unknown shapes, nor for an export without a signature."""
    import tensorflow as tf

    model = train.MODELS[kind](CONFIGS[kind].architecture)  # not built yet
    videos = some_videos(frames=3)
    predictions = array(model(videos))
    model.export(tmp_path / "model", verbose=False)
    exported = keras.layers.TFSMLayer(tmp_path / "model", call_endpoint="serve")
    np.testing.assert_allclose(array(exported(videos)), predictions, atol=1e-5)
    # Two sizes, and two frames and one
    batches = [data.shift_frames(part) for part in (videos, videos[:1, :2, 5:, :13])]
    unknown = tf.TensorSpec((None, None, None, None, 1))
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=(unknown, unknown)
    )
    model.compile("adam", "mse")
    loss = model.fit(dataset, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(loss).all()


# Also where Keras's own settings are others than here.
RESTORE = """
import keras
keras.config.set_floatx("float64")
keras.config.set_image_data_format("channels_first")
keras.config.set_dtype_policy("mixed_bfloat16")
import sys, model, numpy as np
x, y = np.load("videos.npz").values()
for kind in sys.argv[1:]:
    network = keras.models.load_model(f"{kind}.keras")
    forecast = network(x)
    network.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
    network.train_on_batch(x, y)
    np.savez(f"{kind}.npz", keras.ops.convert_to_numpy(forecast), *network.get_weights())
"""


def test_a_saved_model_is_restored_bit_for_bit(tmp_path):
    """In another process, which knows nothing but model.py; and it goes on to train as before."""
    x, y = data.shift_frames(some_videos(frames=3))
    np.savez(tmp_path / "videos.npz", x, y)
    expected = {}
    for kind in CLASSES:
        network = build(kind)
        forecast = array(network(x))
        network.save(tmp_path / f"{kind}.keras")  # having been used must not matter
        network.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
        network.train_on_batch(x, y)
        expected[kind] = [forecast, *network.get_weights()]
    environment = {**os.environ, "PYTHONPATH": str(Path(models.__file__).parent)}
    command = [sys.executable, "-c", RESTORE, *CLASSES]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    for kind in CLASSES:
        restored = np.load(tmp_path / f"{kind}.npz").values()
        for n, (one, other) in enumerate(zip(expected[kind], restored, strict=True)):
            assert one.dtype == other.dtype
            tolerance = {"rtol": 1e-5, "atol": 1e-6} if n else {"rtol": 0}
            np.testing.assert_allclose(other, one, **tolerance)


def test_bfloat16_is_close_to_float32():
    context, exact = some_videos(frames=2), built("forecaster")
    half = build("forecaster", precision="mixed_bfloat16")
    half.set_weights(exact.get_weights())
    assert {layer.compute_dtype for layer in half._flatten_layers()} >= {"bfloat16", "float32"}
    forecast = models.rollout(half, context, 3)
    assert forecast.dtype == np.float32
    np.testing.assert_allclose(forecast, models.rollout(exact, context, 3), atol=0.05)
