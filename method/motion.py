"""How pixels have moved, and moving them: open it to change what the forecaster knows of motion.

Three standard tools of video coding and optical flow, none with weights of its own:

- `block_matching` measures how the previous frame moved into this one;
- `advect_history` keeps each place's past displacements, carried along with what moves;
- `warp` moves the pixels of a frame;

and `cross_entropy`, the loss of a motion that was predicted.

Motion is given as probabilities: for each whole displacement -R..R, first vertically, then
horizontally, so the last axis has 2 (2 R + 1) values ("vertical and horizontal" below). A
displacement says where a pixel came from: +2 vertically, from two pixels further down.
"""

import functools

import numpy as np
from keras import ops

# A person's own keras.json may say channels_first.
convolve, depthwise_convolve, average_pool = (
    functools.partial(operation, data_format="channels_last")
    for operation in (ops.conv, ops.depthwise_conv, ops.average_pool)
)

BLOCK = 4  # pixels; motion is measured once for each block of 4x4 pixels

# How sharply differences tell displacements apart: exp(-SHARPNESS * difference), where 1 is the
# difference between windows that have nothing in common. With 80 the right displacement of a
# lone digit gets a probability of 0.98, with 20 of 0.79.
SHARPNESS = 80.0

# Below this variance a window is taken as textureless. (Compression alone leaves about 1e-4.)
TEXTURELESS = 1e-3


def padded_size(height, width):
    """Height and width rounded up to multiples of 8: the layers halve them three times."""
    return height + -height % 8, width + -width % 8


def pad_frames(frames):
    """Continue frames (batch, height, width, channels) to `padded_size`, mirrored."""
    size = ops.shape(frames)[1:3]
    for axis, (length, padded) in enumerate(zip(size, padded_size(*size)), start=1):
        if not (isinstance(length, int) and length == padded):
            place = ops.arange(padded, dtype="int32")
            mirror = ops.maximum(ops.minimum(place, 2 * length - 1 - place), 0)
            frames = ops.take(frames, mirror, axis=axis)
    return frames


def mirrored(frame, rows, columns):
    """Continue a frame beyond its edges by its mirror image, so that no edge appears there."""
    return ops.pad(frame, [(0, 0), (rows, rows), (columns, columns), (0, 0)], mode="symmetric")


def block_matching(frame, previous_frame, radius):
    """Measure how the previous frame moved into this one.

    The windows around each block are compared with the previous frame's windows up to `radius`
    pixels away, on every second pixel. The mean squared difference, relative to the variance
    of the window, becomes a probability by a softmax. Nothing is learned, and no gradient
    passes. (Jain and Jain 1981, "Displacement measurement and its application in interframe
    image coding"; Dosovitskiy et al. 2015, "FlowNet", section 3, begins with the like.)

    Args:
        frame, previous_frame: (batch, height, width, channels), height and width being multiples
            of 4; channels are averaged.
        radius: R, the farthest displacement along each axis, in pixels.

    Returns:
        Vertical and horizontal, (batch, height / 4, width / 4, 2 (2 R + 1)). In a
        textureless area, where nothing can be measured, all are alike.
    """
    frame, previous_frame = (
        ops.stop_gradient(ops.mean(image, axis=-1, keepdims=True))
        for image in (frame, previous_frame)
    )
    # Every second pixel, displaced in each way: (batch, height / 2, width / 2, (2 R + 1)^2).
    count = 2 * radius + 1
    one_hot = np.eye(count, dtype="float32")
    down = one_hot.reshape(count, 1, 1, count)
    across = np.einsum("xo,yp->xypo", one_hot, one_hot).reshape(1, count, count, count**2)
    displaced = mirrored(previous_frame, radius, radius)[:, 1:, 1:]
    displaced = convolve(displaced, down, strides=(2, 1), padding="valid")
    displaced = convolve(displaced, across, strides=(1, 2), padding="valid")

    pixels = frame[:, 1::2, 1::2]  # (batch, height / 2, width / 2, 1)
    difference = window_mean(ops.square(displaced - pixels))  # (batch, height / 4, width / 4, ...)
    variance = window_mean(ops.square(pixels)) - ops.square(window_mean(pixels))
    # Two windows of this variance that have nothing in common differ by twice as much.
    difference = difference / (2 * variance + TEXTURELESS)
    probability = ops.softmax(-SHARPNESS * difference)
    probability = ops.reshape(probability, (*ops.shape(probability)[:3], count, count))
    return ops.concatenate([ops.sum(probability, axis=4), ops.sum(probability, axis=3)], axis=-1)


def window_mean(values):
    """Mean over the window of each block, of every second pixel: half the height and width.

    A window is 16x16 pixels around its block. Windows of 8x8 fit in several places (the right
    displacement of a lone digit in 85% of blocks, against 99.8%), and larger ones often hold two
    things that move differently.
    """
    values = average_pool(values, 4, strides=2, padding="same")
    return average_pool(values, 3, strides=1, padding="same")


def contrast(frame):
    """RMS contrast: the standard deviation of each block's pixels.

    (batch, height, width, channels) -> (batch, height / 4, width / 4, 1).
    What has no contrast shows no motion. Bright on dark and dark on bright have the same.
    """
    frame = ops.stop_gradient(frame)
    mean = average_pool(frame, BLOCK, strides=BLOCK)
    square = average_pool(ops.square(frame), BLOCK, strides=BLOCK)
    variance = ops.mean(square - ops.square(mean), axis=-1, keepdims=True)  # over channels
    return ops.sqrt(ops.maximum(variance, 0.0))


def advect_history(frame, displacement, carried):
    """Remember how each thing in the picture has moved, wherever it has moved to.

    Each block has a history: the displacements that led there, newest first. It is advected,
    that is, it moves along with what is there: a block asks where its content came from, and
    takes over the history from there, interpolated between the nearest blocks. In this a
    block counts by its contrast, since an even ground has no motion. Like `block_matching`,
    this is a measurement.

    The history holds probabilities, not mean displacements: those would say the same in less
    space, but the next displacement is far harder to learn from them.

    Args:
        frame: (batch, height, width, channels).
        displacement: how it moved, from `block_matching`.
        carried: (batch, height / 4, width / 4, 1 + steps * 2 (2 R + 1)), from the previous frame:
            contrast, and contrast times the history. Zeros before the first frame.

    Returns:
        history: (batch, height / 4, width / 4, steps * 2 (2 R + 1)): vertical and horizontal of
            this frame's displacement, of the one before, and so on; zeros where there was none.
        carried: that of this frame.
    """
    height, width, size = ops.shape(displacement)[1:]
    displacements = np.arange(size // 2, dtype="float32") - size // 4  # -R..R
    vertical, horizontal = (
        ops.sum(probability * displacements, axis=-1, keepdims=True) / BLOCK  # in blocks
        for probability in ops.split(displacement, 2, axis=-1)
    )
    padded = ops.pad(carried, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = ops.zeros_like(carried)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            nearness = ops.relu(1 - ops.abs(vertical - y)) * ops.relu(1 - ops.abs(horizontal - x))
            moved += nearness * padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
    past = moved[..., 1:] / (moved[..., :1] + 1e-4)
    history = ops.concatenate([displacement, past[..., :-size]], axis=-1)

    weight = contrast(frame)
    # A little from around, so that the even blocks of a thing and its rim know its history.
    weight += 0.01 * average_pool(weight, 5, strides=1, padding="same")
    return history, ops.concatenate([weight, weight * history], axis=-1)


def warp(frame, vertical, horizontal):
    """Move the pixels of a frame: a pass along the columns, then one along the rows.

    In each pass a pixel becomes the mean of its neighbours in that direction, weighted by its
    own probabilities of coming from each of them:

        warped[y, x] = sum over dx of horizontal[y, x, dx]
                       * sum over dy of vertical[y, x + dx, dy] * frame[y + dy, x + dx]

    Two passes over 2 R + 1 neighbours each stand for one over (2 R + 1)^2. (Finn et al. 2016,
    "Unsupervised learning for physical interaction through video prediction", section 3.1;
    Niklaus et al. 2017, "Video frame interpolation via adaptive separable convolution".)

    Args:
        frame: (batch, height, width, channels).
        vertical, horizontal: probabilities of the displacements -R..R, (batch, height, width,
            2 R + 1). Beyond the edges lies the frame's mirror image.

    Returns:
        The warped frame, (batch, height, width, channels).
    """
    batch, height, width, channels = ops.shape(frame)
    count = vertical.shape[-1]
    radius = count // 2
    # Neighbours come side by side by a convolution with a kernel of ones and zeros: on a CPU
    # its gradient is much faster than that of as many slices.
    one_hot = np.eye(count, dtype="float32")
    # The same for one channel, and `conv` is faster.
    gather = convolve if channels == 1 else depthwise_convolve
    for probabilities, rows, columns in ((vertical, radius, 0), (horizontal, 0, radius)):
        kernel = one_hot.reshape(2 * rows + 1, 2 * columns + 1, 1, count)
        kernel = np.repeat(kernel, channels, axis=2)
        neighbours = gather(mirrored(frame, rows, columns), kernel, padding="valid")
        neighbours = ops.reshape(neighbours, (batch, height, width, channels, count))
        frame = ops.sum(probabilities[:, :, :, None] * neighbours, axis=-1)
    return frame


def cross_entropy(videos, predicted):
    """Loss: the cross-entropy between the predicted motion and what is then measured.

    The pixels' error teaches motion only where a guess is nearly right; this teaches it everywhere,
    and far sooner.

    Args:
        videos: real ones, (batch, frames, height, width, channels); at least two frames.
        predicted: logits of the motion from each frame to the next, vertical and horizontal,
            (batch, frames - 1, height / 4, width / 4, 2 (2 R + 1)), the height and the width being
            those of padded frames.

    Returns:
        A number: the mean over frames and videos of the sum over pixels, each weighted by the
        contrast around it, since an even ground shows no motion.
    """
    frames, next_frames = (
        pad_frames(ops.reshape(part, (-1, *ops.shape(videos)[2:])))
        for part in (videos[:, :-1], videos[:, 1:])
    )
    predicted = ops.reshape(predicted, (-1, *ops.shape(predicted)[2:]))
    measured = block_matching(next_frames, frames, predicted.shape[-1] // 4)
    entropy = -sum(  # of both axes: (batch * (frames - 1), height / 4, width / 4)
        ops.sum(probability * ops.log_softmax(logits), axis=-1)
        for probability, logits in zip(ops.split(measured, 2, -1), ops.split(predicted, 2, -1))
    )
    weight = BLOCK**2 * contrast(next_frames)[..., 0]
    return ops.mean(ops.sum(weight * entropy, axis=(1, 2)))
