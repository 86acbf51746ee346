"""Measuring motion and moving pixels: known displacements are found, whatever is bright."""

import numpy as np
import pytest
from helpers import array

import data
from method import motion

DIGIT = data.to_float(data.load_digits("test")[0])
NEGATIVE = pytest.mark.parametrize("negative", [False, True], ids=["bright", "dark"])


def digit_at(top, left, height=64, width=64):
    """A frame (1, height, width, 1) of one digit."""
    frame = np.zeros((1, height, width, 1), "float32")
    frame[0, top : top + 28, left : left + 28, 0] = DIGIT
    return frame


def test_warp_is_the_sum_that_it_says():
    rng = np.random.default_rng(0)
    frame = rng.random((1, 6, 5, 3)).astype("float32")
    vertical, horizontal = rng.dirichlet(np.ones(5), (2, 1, 6, 5)).astype("float32")
    around = np.pad(frame[0], [(2, 2), (2, 2), (0, 0)], mode="symmetric")
    # Beyond the edges the probabilities are not needed: the rows' pass sees warped pixels there.
    columns, expected = np.zeros((2, 6, 5, 3))
    for y, x, dy in np.ndindex(6, 5, 5):
        columns[y, x] += vertical[0, y, x, dy] * around[y + dy, x + 2]
    columns = np.pad(columns, [(0, 0), (2, 2), (0, 0)], mode="symmetric")
    for y, x, dx in np.ndindex(6, 5, 5):
        expected[y, x] += horizontal[0, y, x, dx] * columns[y, x + dx]
    warped = array(motion.warp(frame, vertical, horizontal))
    np.testing.assert_allclose(warped[0], expected, rtol=1e-5)


@NEGATIVE
@pytest.mark.parametrize("dy, dx", [(2, -1), (-3, 4)])
def test_block_matching_finds_where_a_digit_came_from(dy, dx, negative):
    frame, previous_frame = digit_at(8 - dy, 20 - dx, height=48), digit_at(8, 20, height=48)
    if negative:
        frame, previous_frame = 1 - frame, 1 - previous_frame
    measured = array(motion.block_matching(frame, previous_frame, 4))
    vertical, horizontal = np.split(measured, 2, axis=-1)
    assert vertical.shape == horizontal.shape == (1, 12, 16, 9)
    for probability, displacement in ((vertical, dy), (horizontal, dx)):
        np.testing.assert_allclose(probability.sum(axis=-1), 1, rtol=1e-5)
        at_the_digit = probability[0, 4:7, 7:10].mean(axis=(0, 1))
        assert at_the_digit.argmax() == 4 + displacement and at_the_digit.max() > 0.9
    np.testing.assert_allclose(vertical[0, -1, -1], 1 / 9, rtol=1e-4)  # even, and was even
    # Warping means the same by a displacement: where a pixel came from.
    everywhere = (
        np.broadcast_to(part[:, 4:7, 7:10].mean(axis=(1, 2), keepdims=True), (1, 48, 64, 9))
        for part in (vertical, horizontal)
    )
    warped = array(motion.warp(previous_frame, *everywhere))
    assert np.square(warped - frame).sum() < 0.02 * np.square(DIGIT).sum()


@NEGATIVE
def test_the_history_has_each_displacement_of_a_digit_that_moves(negative):
    moves = [(3, 1), (2, -2), (-4, 3), (-1, -3), (3, 0)]  # how it moves, in order
    previous_frame = np.full((1, 64, 64, 1), float(negative), "float32")
    carried = np.zeros((1, 16, 16, 1 + 4 * 18), "float32")  # of the last 4 displacements
    for top, left in np.cumsum([(10, 12), *moves], axis=0):
        digit = digit_at(top, left)
        frame = 1 - digit if negative else digit
        moved_by = motion.block_matching(frame, previous_frame, 4)
        history, carried = motion.advect_history(frame, moved_by, carried)
        previous_frame = frame
    at_the_digit = digit.reshape(16, 4, 16, 4).mean(axis=(1, 3)) > 0.3
    # (blocks, steps, axes, displacements)
    history = array(history)[0][at_the_digit].reshape(-1, 4, 2, 9)
    came_from = history.argmax(axis=-1) - 4
    expected = -np.array(moves[:0:-1])  # newest first; the oldest is forgotten
    assert (came_from == expected).mean() > 0.95
    np.testing.assert_allclose(history.sum(axis=-1), 1, atol=0.01)


@NEGATIVE
def test_the_loss_is_least_for_the_motion_that_is_then_measured(negative):
    videos = data.to_float(data.make_videos(data.load_digits("test"), 2, seed=4, frames=4))
    videos = 1 - videos if negative else videos
    steps = [motion.block_matching(videos[:, n + 1], videos[:, n], 4) for n in range(3)]
    right = np.log(np.stack(list(map(array, steps)), axis=1) + 1e-9)  # (2, 3, 16, 16, 18)
    wrong = np.roll(right, 1, axis=-1)
    unknown = np.zeros_like(right)
    losses = [float(motion.cross_entropy(videos, logits)) for logits in (right, unknown, wrong)]
    assert losses == sorted(losses)
    # Two axes, 9 displacements each, at every pixel by the contrast of its block.
    contrast = videos[:, 1:].reshape(2, 3, 16, 4, 16, 4).std(axis=(3, 5)).sum() * 16 / 6
    assert losses[1] == pytest.approx(2 * np.log(9) * contrast, rel=1e-4)
    assert losses[0] < 0.1 * losses[1]
