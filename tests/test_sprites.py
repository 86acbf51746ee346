"""Sprites: videos taken apart exactly and rightly, and forecast sprite by sprite."""

import numpy as np
import pytest

import data
from method import sprites


def patches(velocities, frames):
    """A patch of noise for each velocity, which start apart: (1, frames, 32, 32, 1)."""
    noise = np.random.default_rng(1).uniform(0.1, 1, (len(velocities), 8, 8))
    video = np.zeros((1, frames, 32, 32, 1), np.float32)
    for k, (down, right) in enumerate(velocities):
        for n in range(frames):
            y, x = 2 + 12 * k + n * down, 12 + n * right
            video[0, n, y : y + 8, x : x + 8, 0] = noise[k]
    return video


@pytest.mark.parametrize("shape, count", [((2, 10, 64, 64, 1), 2), ((1, 4, 17, 30, 3), 3)])
def test_sprites_recompose_exactly(monkeypatch, shape, count):
    noise = np.random.default_rng(0).random(shape).astype("float32")
    context = np.where(noise > 0.7, noise, 0)
    apart, displacements = sprites.decompose(context, count)
    assert apart.shape == (shape[0], count, *shape[1:]) and apart.dtype == np.float32
    assert displacements.shape == (shape[0], count, shape[1] - 1, 2)
    np.testing.assert_array_equal(apart.max(axis=1), context)
    assert apart.min() >= 0
    nothing, at_rest = sprites.decompose(0 * context, count)
    assert not nothing.any() and not at_rest.any()
    monkeypatch.setattr(sprites, "CHUNK_PIXELS", 1)  # video by video
    np.testing.assert_array_equal(sprites.decompose(context, count)[0], apart)


def test_two_digits_come_apart():
    digits, numbers = data.load_digits("test"), np.random.default_rng(4).random((20, 2, 4))
    alone = [data.move_digits(digits, numbers[:, [k]], frames=10) for k in (0, 1)]
    alone = data.to_float(np.stack(alone, axis=1))  # (videos, digits, 10, 64, 64, 1)
    apart, _ = sprites.decompose(alone.max(axis=1), 2)
    # Which sprite has which digit is arbitrary.
    errors = [np.square(apart[:, order] - alone) for order in ([0, 1], [1, 0])]
    errors = np.sum(errors, axis=(2, 3, 4, 5, 6)).min(axis=0)
    # A digit has about 100 bright pixels, and each video 20 digits.
    assert np.median(errors) < 1 and np.mean(errors) < 20


def test_rollout_forecasts_each_sprite_by_itself():
    def forecast(context, horizon):
        """Knows one motion in a frame: moves all pixels by the last one."""
        predictions = []
        for video in context:
            before, last = (np.argwhere(frame[..., 0] > 0).min(axis=0) for frame in video[-2:])
            shifts = [tuple(n * (last - before)) for n in range(1, horizon + 1)]
            predictions.append([np.roll(video[-1], shift, axis=(0, 1)) for shift in shifts])
        return np.array(predictions, "float32")

    video = patches([(1, 2), (-1, -2)], frames=6)
    context, truth = video[:, :4], video[:, 4:]
    np.testing.assert_array_equal(sprites.rollout(forecast, context, 2, count=2), truth)


def test_bright_ground_is_warned_of_once(capsys):
    sprites.print_once.cache_clear()
    dark = patches([(1, 1), (-1, 0)], frames=3)
    sprites.rollout(data.copy_last, dark, 2, 2)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        sprites.rollout(data.copy_last, 1 - dark, 2, 2)
    warning = capsys.readouterr().err
    assert "black ground" in warning and warning.count("\n") == 1
