"""Frames as pictures: every pixel where it belongs, in the colours that tell frames apart."""

import numpy as np
import pytest

from extras import pictures


def video(frames, seed=0, channels=3):
    shape = (frames, 12, 16, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_predicted_frames_stand_below_those_that_they_predict():
    context, truth, prediction = (
        np.stack([video(n, seed)]) for n, seed in ((3, 0), (2, 1), (4, 2))
    )
    floats = prediction / np.float32(255)
    strip = np.asarray(pictures.forecast_strip(context, truth, {"predicted": floats}))
    tile_height, tile_width, gap, margin = 12 + 4, 16 + 4, 2, 80
    assert strip.shape == (2 * (tile_height + gap) + gap, margin + 7 * (tile_width + gap), 3)

    def tile(row, column):
        top, left = gap + row * (tile_height + gap), margin + column * (tile_width + gap)
        return strip[top : top + tile_height, left : left + tile_width]

    real, predicted = pictures.REAL_COLOUR, pictures.PREDICTED_COLOUR
    shown = [(tile(0, n), frame, real) for n, frame in enumerate([*context[0], *truth[0]])]
    shown += [(tile(1, 3 + n), frame, predicted) for n, frame in enumerate(prediction[0])]
    for picture, frame, colour in shown:
        expected = np.full(picture.shape, colour, np.uint8)
        expected[2:-2, 2:-2] = frame  # within a border
        np.testing.assert_array_equal(picture, expected)
    for row, column in ((0, 5), (0, 6), (1, 0), (1, 2)):  # no truth there, or no prediction
        assert (tile(row, column) == 255).all()
    assert (strip[:, :margin] < 128).any()  # the labels


def test_error_map_shows_too_bright_in_orange_and_too_dark_in_blue():
    truth = np.array([0, 255, 255], np.uint8).reshape(1, 1, 3, 1)
    prediction = np.array([1, 1, 0.5], np.float32).reshape(1, 1, 3, 1)
    too_bright, right, too_dark = pictures.error_map(truth, prediction)[0, 0]
    assert too_bright[0] == 1 > too_bright[1] > too_bright[2] == 0
    assert (right == 0).all()
    assert too_dark[0] == 0 < too_dark[1] < too_dark[2] == pytest.approx(0.5, abs=0.01)
