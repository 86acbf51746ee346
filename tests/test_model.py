"""These tests also run on the JAX backend: see test_backends.py."""

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

PRESETS = list(train.PRESETS)


def build(preset, **changes):
    keras.utils.set_random_seed(1)
    return train.build_model(train.dataclasses.replace(train.PRESETS[preset], **changes))


def plain_stack(size=32):
    return build("tiny", model="forecaster", layers=(2, 0, 0), motion_radius=0, size=size)


def some_videos(count=2, frames=5, size=32):
    videos = data.make_videos(data.load_digits("test"), count, seed=5, frames=frames, size=size)
    return data.to_float(videos)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_prediction_knows_nothing_of_later_frames(preset):
    model = build(preset, size=32)
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


@pytest.mark.parametrize("batch, frames, horizon", [(1, 1, 1), (3, 1, 3), (2, 4, 3)])
@pytest.mark.parametrize("kind", ["tiny", "forecaster", "keras-example", "plain"])
def test_rollout_is_whole_sequence_calls_on_own_predictions(kind, batch, frames, horizon):
    if kind == "plain":
        model = plain_stack()
    else:
        model = build(kind, size=32, filters=8)
    context = some_videos(batch, frames)
    expected = naive_rollout(model, context, horizon)
    np.testing.assert_allclose(models.rollout(model, context, horizon), expected, atol=1e-5)


def test_rollout_takes_one_step_for_each_frame():
    model = build("tiny", size=32)
    steps = []
    step = model.compiled_step
    model.__dict__["compiled_step"] = lambda inputs: steps.append(1) or step(inputs)
    models.rollout(model, some_videos(frames=4), 7)
    assert len(steps) == 4 + 7 - 1


def test_rollout_sees_new_weights():
    model = build("tiny", size=32)
    context = some_videos(frames=2)
    before = models.rollout(model, context, 2)
    model.motion_head.bias.assign(model.motion_head.bias + np.eye(20)[0])
    assert np.abs(models.rollout(model, context, 2) - before).max() > 0.01


def test_frames_that_are_not_real_are_the_models_own():
    model = build("tiny", size=32)
    videos = some_videos(frames=6)
    real = np.ones((2, 6), bool)
    real[:, 3:] = False
    closed = array(model(videos, real=real))
    forecast = models.rollout(model, videos[:, :3], 4)
    np.testing.assert_allclose(closed[:, 2:], forecast, atol=1e-5)
    # A draw for each video: the second one here is given real frames throughout.
    real[1] = True
    mixed = array(model(videos, real=real))
    np.testing.assert_allclose(mixed[0], closed[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], array(model(videos))[1], atol=1e-5)


@pytest.mark.parametrize(
    "size, activation, bias", [(3, "tanh", True), (5, "relu", True), (1, "relu", False)]
)
def test_step_has_the_numbers_and_the_weights_of_keras_layer(size, activation, bias):
    options = {"padding": "same", "activation": activation, "use_bias": bias}
    stock = keras.layers.ConvLSTM2D(7, size, return_sequences=True, **options)
    videos = np.random.default_rng(0).normal(size=(2, 4, 10, 8, 3)).astype("float32")
    expected = array(stock(videos))
    ours = models.ConvLSTM2D(7, size, return_sequences=True, **options)
    ours.build(videos.shape)
    ours.set_weights([w + 0.1 for w in stock.get_weights()])
    stock.set_weights(ours.get_weights())
    expected = array(stock(videos))
    np.testing.assert_allclose(array(ours(videos)), expected, atol=1e-6)
    states = ours.empty_states(2, 10, 8)
    for n in range(4):
        h, states = ours.step(videos[:, n], states)
        np.testing.assert_allclose(array(h), expected[:, n], rtol=1e-4, atol=1e-5)


class Unrolled(keras.Model):
    """A ConvLSTM2D of ours that reads a video by its step."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, videos):
        states = self.layer.empty_states(2, 10, 8)
        outputs = []
        for n in range(videos.shape[1]):
            h, states = self.layer.step(videos[:, n], states)
            outputs.append(h)
        return keras.ops.stack(outputs, axis=1)


@pytest.mark.parametrize("size, activation", [(3, "tanh"), (5, "relu")])
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


@pytest.mark.parametrize("preset", ["tiny", "forecaster", "keras-example"])
def test_a_saved_model_is_restored_bit_for_bit(tmp_path, preset):
    model = build(preset, size=32)
    videos = some_videos()
    np.save(tmp_path / "videos.npy", videos)
    models.rollout(model, videos, 1)  # having been used must not matter
    model.save(tmp_path / "model.keras")
    # In another process, which knows nothing but model.py.
    code = (
        "import keras, model, numpy as np\n"
        f"folder = {str(tmp_path)!r}\n"
        "loaded = keras.models.load_model(folder + '/model.keras')\n"
        "videos = np.load(folder + '/videos.npy')\n"
        "np.save(folder + '/y.npy', keras.ops.convert_to_numpy(loaded(videos)))\n"
        "np.save(folder + '/forecast.npy', model.rollout(loaded, videos, 2))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(models.__file__).parent, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), array(model(videos)))
    forecast = models.rollout(model, videos, 2)
    np.testing.assert_array_equal(np.load(tmp_path / "forecast.npy"), forecast)


@pytest.mark.parametrize(
    "preset, parameters",
    [
        ("tiny", 167_476),
        ("cpu", 735_604),
        ("forecaster", 1_636_838),
        ("gpu", 15_079_718),
        ("keras-example", 745_537),
    ],
)
def test_parameter_counts(preset, parameters):
    assert build(preset).count_params() == parameters


def test_plain_stack_has_no_parts_of_the_pyramid():
    model = train.build_model(
        train.dataclasses.replace(
            train.PRESETS["forecaster"],
            encoder_filters=32,
            filters=64,
            layers=(3, 0, 0),
            motion_radius=0,
        )
    )
    names = {layer.name for layer in model.layers}
    assert not names & {"down_to_coarse", "up_from_coarse", "motion_head", "history_in"}
    assert model.count_params() == 950_977


def test_a_model_works_at_other_frame_sizes_than_it_was_built_for():
    model = build("tiny", size=64)
    videos = some_videos(size=40)[:, :, :32]  # 32 x 40
    assert array(model(videos)).shape == videos.shape
    assert models.rollout(model, videos, 2).shape == (2, 2, 32, 40, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dy, dx", [(0, 0), (2, -1), (-3, 3)])
def test_move_takes_pixels_from_where_it_is_told(dy, dx, channels):
    frame = np.random.default_rng(0).random((2, 12, 10, channels)).astype("float32")
    vertical, horizontal = np.zeros((2, 2, 12, 10, 7), "float32")
    vertical[..., 3 + dy] = 1
    horizontal[..., 3 + dx] = 1
    moved = array(models.move(frame, vertical, horizontal))
    black = np.pad(frame, [(0, 0), (3, 3), (3, 3), (0, 0)])
    expected = black[:, 3 + dy : 15 + dy, 3 + dx : 13 + dx]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
def test_predict_on_videos_of_several_lengths_says_what_to_do_instead():
    model = build("tiny", size=32)
    model.predict(some_videos(frames=2), verbose=0)
    with pytest.raises(ValueError, match="forecast with rollout"):
        model.predict(some_videos(frames=3), verbose=0)


def test_move_is_the_sum_that_it_says():
    rng = np.random.default_rng(0)
    frame = rng.random((1, 6, 5, 1)).astype("float32")
    vertical, horizontal = rng.dirichlet(np.ones(5), (2, 1, 6, 5)).astype("float32")
    expected = np.zeros((6, 5))
    for y, x, dy, dx in np.ndindex(6, 5, 5, 5):
        source_y, source_x = y + dy - 2, x + dx - 2
        if 0 <= source_y < 6 and 0 <= source_x < 5:
            weight = horizontal[0, y, x, dx] * vertical[0, y, source_x, dy]
            expected[y, x] += weight * frame[0, source_y, source_x, 0]
    moved = array(models.move(frame, vertical, horizontal))
    np.testing.assert_allclose(moved[0, ..., 0], expected, rtol=1e-5)


def two_digits(frames, count=10):
    """Videos of two digits, and each of the digits alone: (count, frames, 64, 64, 1) each."""
    numbers = np.random.default_rng(4).random((count, 2, 4))
    digits = data.load_digits("test")
    first, second = (
        data.to_float(data.move_digits(digits, numbers[:, n : n + 1], frames)) for n in (0, 1)
    )
    return np.maximum(first, second), first, second


def test_separate_finds_the_digits_that_overlap_and_how_they_move():
    videos, *digits = two_digits(frames=10)
    sheets = np.zeros((10, 2, 64, 64, 1), "float32")
    for n in range(10):
        sheets, moved_by = (array(part) for part in models.separate(videos[:, n], sheets, 4))
        np.testing.assert_allclose(sheets.max(axis=1), videos[:, n], atol=1e-6)
    # Which sheet has which digit is left open.
    errors = [
        [np.square(sheets[:, k] - digit[:, -1]).sum(axis=(1, 2, 3)) for digit in digits]
        for k in (0, 1)
    ]
    either = errors[0][0] + errors[1][1], errors[0][1] + errors[1][0]
    assert np.median(np.minimum(*either)) < 1e-6 and np.minimum(*either).mean() < 2
    # A sheet moved from where its digit was.
    vertical, horizontal = moved_by.reshape(10, 2, 2, 9).argmax(axis=-1).transpose(2, 0, 1) - 4
    assert (np.sort(moved_by, axis=-1)[:, -3:] == [0, 1, 1]).all()
    for video in np.flatnonzero(np.minimum(*either) < 1e-6):
        order = (0, 1) if either[0][video] < either[1][video] else (1, 0)
        for k, digit in zip(order, digits):
            shift = vertical[video, k], horizontal[video, k]
            before = np.pad(digit[video, -2, :, :, 0], 4)
            before = before[4 + shift[0] : 68 + shift[0], 4 + shift[1] : 68 + shift[1]]
            np.testing.assert_allclose(before, digit[video, -1, :, :, 0], atol=1e-6)


def test_separate_gives_what_is_new_to_every_sheet():
    frame = np.zeros((1, 32, 32, 3), "float32")
    frame[0, 10:20, 12:22] = np.random.default_rng(0).random((10, 10, 3))
    sheets, _ = models.separate(frame, np.zeros((1, 2, 32, 32, 3), "float32"), 4)
    np.testing.assert_array_equal(array(sheets)[:, 0], frame)
    frame[0, 2:4, 2:4, 1] = 0.25
    sheets, moved_by = models.separate(frame, sheets, 4)
    np.testing.assert_allclose(array(sheets)[:, 1], frame, atol=1e-6)
    assert array(moved_by)[0].reshape(2, 9).argmax(axis=1).tolist() == [4, 4]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("y, x", [(0, 0), (7, -2), (-30, 40)])
def test_translate_by_whole_pixels_moves_pixels(y, x, channels):
    frame = np.random.default_rng(0).random((1, 16, 12, channels)).astype("float32")
    position = np.array([[y, x]], "float32")
    moved = array(models.translate(frame, position, np.full((1, 2), models.SHARP, "float32")))
    black = np.pad(frame, [(0, 0), (40, 40), (40, 40), (0, 0)])
    np.testing.assert_allclose(moved, black[:, 40 - y : 56 - y, 40 - x : 52 - x], atol=2e-4)


def test_translate_to_an_uncertain_place_is_the_mean_over_places():
    frame = np.zeros((1, 64, 64, 1), "float32")
    frame[0, 30, 30] = 1
    position, scale = np.array([[2.3, -4.0]], "float32"), np.array([[1.5, 0.4]], "float32")
    moved = array(models.translate(frame, position, scale))[0, :, :, 0]
    drawn = np.random.default_rng(0).logistic(position[0], scale[0], (200_000, 2)).round()
    for axis in (0, 1):
        share = np.bincount(np.int64(drawn[:, axis]) + 30, minlength=64)[:64] / len(drawn)
        np.testing.assert_allclose(moved.sum(axis=1 - axis), share, atol=0.005)


def test_sheets_know_their_own_predictions():
    """What was predicted is not taken apart; it differs from what is, however little, is."""
    model = build("tiny")
    videos, *_ = two_digits(frames=4, count=3)
    states = model.empty_states(3, 64, 64)
    for n in range(4):
        prediction, states = model.step(videos[:, n], states)
    assert np.abs(array(states["position"])).max() > 0.1
    _, own = model.step(prediction, states)
    np.testing.assert_array_equal(array(own["reference"]), array(states["reference"]))
    rounded = data.to_float(data.to_uint8(array(prediction)))  # as a file would keep it
    _, from_file = model.step(rounded, states)
    np.testing.assert_array_equal(array(from_file["reference"]), array(states["reference"]))
    other = array(prediction).copy()
    other[0, 40, 40] = 1 - other[0, 40, 40]
    _, news = model.step(other, states)
    same = array(news["reference"]) == array(states["reference"])
    assert not same[:2].all() and same[2:].all()  # two sheets a video


def test_a_forecast_of_sheets_is_made_of_what_was_seen():
    """Each predicted frame has, sheet by sheet, the brightness of the last real one."""
    model = build("tiny")
    context, *_ = two_digits(frames=5, count=2)
    context = np.pad(context, [(0, 0), (0, 0), (32, 32), (32, 32), (0, 0)])  # far from the edges
    states = model.empty_states(2, 128, 128)
    for n in range(5):
        prediction, states = model.step(context[:, n], states)
    reference = array(states["reference"]).sum(axis=(1, 2, 3))
    for n in range(3):
        prediction, states = model.step(prediction, states)
        place = array(states["position"])
        moved = array(models.translate(states["reference"], place, np.full_like(place, 0.3)))
        np.testing.assert_allclose(moved.sum(axis=(1, 2, 3)), reference, rtol=1e-3)


@pytest.mark.parametrize("dy, dx", [(0, 0), (2, -1), (-3, 4)])
def test_match_finds_where_a_digit_came_from(dy, dx):
    digit = data.load_digits("test")[0] / np.float32(255)
    last_frame, frame = np.zeros((2, 1, 48, 64, 1), "float32")
    last_frame[0, 8:36, 20:48, 0] = frame[0, 8 - dy : 36 - dy, 20 - dx : 48 - dx, 0] = digit
    vertical, horizontal = np.split(array(models.match(frame, last_frame, 4)), 2, axis=-1)
    assert vertical.shape == horizontal.shape == (1, 12, 16, 9)
    for probability, displacement in ((vertical, dy), (horizontal, dx)):
        np.testing.assert_allclose(probability.sum(axis=-1), 1, rtol=1e-5)
        at_the_digit = probability[0, 4:7, 7:10].mean(axis=(0, 1))
        assert at_the_digit.argmax() == 4 + displacement and at_the_digit.max() > 0.9
    np.testing.assert_allclose(vertical[0, -1, -1], 1 / 9, rtol=1e-5)  # black, and was black


def test_follow_remembers_each_displacement_of_a_digit_that_moves():
    digit = data.load_digits("test")[0] / np.float32(255)
    moves = [(3, 1), (2, -2), (-4, 3), (-1, -3), (3, 0)]  # how it moves, in order
    places = np.cumsum([(10, 12), *moves], axis=0)
    last_frame = np.zeros((1, 64, 64, 1), "float32")
    tracks = np.zeros((1, 16, 16, 1 + 4 * 18), "float32")  # of the last 4 displacements
    for top, left in places:
        frame = np.zeros_like(last_frame)
        frame[0, top : top + 28, left : left + 28, 0] = digit
        moved_by = models.match(frame, last_frame, 4)
        history, tracks = models.follow(frame, moved_by, tracks)
        last_frame = frame
    bright = frame.reshape(16, 4, 16, 4).mean(axis=(1, 3)) > 0.3
    history = array(history)[0][bright].reshape(-1, 4, 2, 9)  # (blocks, steps, axes, displacements)
    came_from = history.argmax(axis=-1) - 4
    expected = -np.array(moves[:0:-1])  # newest first; the oldest is forgotten
    assert (came_from == expected).mean() > 0.95
    np.testing.assert_allclose(history.sum(axis=-1), 1, atol=0.01)


def test_move_undoes_what_match_measures():
    """Both mean the same by a displacement: where a pixel came from."""
    digit = data.load_digits("test")[0] / np.float32(255)
    last_frame, frame = np.zeros((2, 1, 64, 64, 1), "float32")
    last_frame[0, 20:48, 16:44, 0] = frame[0, 23:51, 14:42, 0] = digit
    measured = array(models.match(frame, last_frame, 4))[0, 8:10, 6:8].mean(axis=(0, 1))
    field = np.broadcast_to(measured, (1, 64, 64, 18)).astype("float32")
    moved = array(models.move(last_frame, *np.split(field, 2, axis=-1)))
    assert np.square(moved - frame).sum() < 0.05 * np.square(last_frame - frame).sum()


@pytest.mark.parametrize("kind", ["sheets", "forecaster"])
def test_bfloat16_is_close_to_float32(kind):
    videos = some_videos()
    exact = build("tiny", model=kind, size=32)
    half = build("tiny", model=kind, size=32, precision="mixed_bfloat16")
    half.set_weights(exact.get_weights())
    assert half.conv_lstms[0].compute_dtype == "bfloat16"
    predictions = array(half(videos))
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, array(exact(videos)), atol=0.05)
    forecast = models.rollout(half, videos, 2)
    np.testing.assert_allclose(forecast, models.rollout(exact, videos, 2), atol=0.05)


def test_frames_that_do_not_fit_are_named():
    model = build("tiny", size=32)
    with pytest.raises(InputError, match="36 x 32 .* divisible by 8"):
        models.rollout(model, np.zeros((1, 2, 36, 32, 1), "float32"), 1)
    with pytest.raises(InputError, match="3 channels"):
        model(np.zeros((1, 2, 32, 32, 3), "float32"))
    with pytest.raises(InputError, match="divisible by 4"):
        plain_stack()(np.zeros((1, 2, 34, 32, 1), "float32"))
