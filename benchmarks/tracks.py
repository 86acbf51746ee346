"""How good is a forecast that is told how Moving MNIST moves? Sprites, and their tracks.

    python benchmarks/tracks.py

A yardstick, and no model for other videos. A small network learns to predict the next ten places
of a digit from its last ten, from a million simulated tracks that are made as the videos are. It
never sees a picture. `method/sprites.py` then takes the context of a test video apart into two
sprites and says how each has moved. A digit is centred by its mass, so a sprite's centroid tells
its place. Each sprite is drawn at all places where it may be next, weighted by their
probabilities, and the brighter sprite is seen.

Takes five minutes on two CPU cores for 1,000 test videos, training included. Prints the squared
error summed over pixels: the mean over videos and frames with its standard error over videos, and
that of each frame.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import keras
import numpy as np
import tyro
from floor import CONTEXT, HORIZON, PLACES, SIZE, digit_places, show_errors
from keras import ops

import data
import predict
from extras import cli
from method import sprites

TRACKS, BATCH_SIZE = 1_000_000, 1024
UNITS, LAYERS, LEARNING_RATE = 384, 3, 2e-2


def network_inputs(displacements, places):
    """What the network reads about an axis: that axis, then the other one.

    Args:
        displacements: (..., 2, CONTEXT - 1), integers in -RADIUS..RADIUS.
        places: the last ones, (..., 2), integers in 0..36.

    Returns:
        Integers from 0, (rows, 2, CONTEXT); two rows for each digit.
    """
    each = np.concatenate([displacements + sprites.RADIUS, places[..., None]], axis=-1)
    return np.stack([each, each[..., ::-1, :]], axis=-2).reshape(-1, 2, CONTEXT)


def build_network():
    """(rows, 2, CONTEXT) integers -> (rows, HORIZON, PLACES) logits of one axis."""
    inputs = keras.Input((2, CONTEXT), dtype="int32")
    displacements = ops.one_hot(inputs[:, :, :-1], 2 * sprites.RADIUS + 1)
    place = ops.one_hot(inputs[:, :, -1], PLACES)
    flatten = keras.layers.Flatten()
    x = ops.concatenate([flatten(displacements), flatten(place)], axis=-1)  # (rows, 236)
    for _ in range(LAYERS):
        x = keras.layers.Dense(UNITS, activation="relu")(x)
    x = keras.layers.Dense(HORIZON * PLACES, name="logits")(x)
    return keras.Model(inputs, ops.reshape(x, (-1, HORIZON, PLACES)))


def train_network(tracks=TRACKS):
    """Train the network for one epoch of simulated tracks."""
    keras.utils.set_random_seed(0)
    # Ten parts, since the positions, before they are rounded, need eight times the memory.
    places = np.concatenate(
        [digit_places(np.random.default_rng(n).random((tracks // 10, 4))) for n in range(10)]
    )
    inputs = network_inputs(np.diff(places[..., :CONTEXT]), places[..., CONTEXT - 1])
    network = build_network()
    # After 200,000 tracks the cross-entropy is 0.34 with Muon, and 0.45 with Adam.
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, len(inputs) // BATCH_SIZE, warmup_target=LEARNING_RATE, warmup_steps=100
    )
    optimizer = keras.optimizers.Muon(rate, adam_lr_ratio=0.1, exclude_layers=["logits"])
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    targets = places[..., CONTEXT:].reshape(-1, HORIZON)
    network.fit(inputs, targets, batch_size=BATCH_SIZE, verbose=2)
    return network


def shift_matrices(chances, places):
    """Matrices that move the rows of a picture to each place, as probable as it is.

    Args:
        chances: (batch, HORIZON, PLACES), probabilities of the new places.
        places: (batch,), where the picture's digit is.

    Returns:
        (batch, HORIZON, SIZE, SIZE); a column says where a row of the picture goes.
    """
    pixels = np.arange(SIZE)
    # (batch, SIZE, SIZE): the place that takes the old row to the new one.
    place = pixels[:, None] - pixels + places[:, None, None]
    padded = np.pad(chances, [(0, 0), (0, 0), (SIZE, SIZE)])  # no chance outside of 0..36
    return np.moveaxis(padded[np.arange(len(places))[:, None, None], :, place + SIZE], -1, 1)


def forecast(network, context, horizon=HORIZON):
    """(batch, CONTEXT, SIZE, SIZE, 1) -> (batch, HORIZON, SIZE, SIZE, 1), float32 in [0, 1]."""
    layers, displacements = sprites.decompose(context, 2)
    last = layers[:, :, -1, :, :, 0].reshape(-1, SIZE, SIZE)  # (batch * 2, SIZE, SIZE)
    displacements = displacements.reshape(-1, CONTEXT - 1, 2).swapaxes(1, 2)
    mass = np.stack([last.sum(axis=2), last.sum(axis=1)], axis=1)  # (batch * 2, 2 axes, SIZE)
    centroids = mass @ np.arange(SIZE) / np.maximum(mass.sum(axis=-1), 1e-6)
    places = np.clip(np.round(centroids - data.DIGIT_SIZE / 2), 0, PLACES - 1).astype(int)
    inputs = network_inputs(displacements, places)
    chances = keras.activations.softmax(network.predict(inputs, batch_size=4096, verbose=0))
    chances = np.asarray(chances).reshape(-1, 2, HORIZON, PLACES)  # (batch * 2, 2 axes, ...)
    down, right = (shift_matrices(chances[:, axis], places[:, axis]) for axis in (0, 1))
    moved = down @ last[:, None] @ right.swapaxes(2, 3)  # (batch * 2, HORIZON, SIZE, SIZE)
    return moved.reshape(-1, 2, HORIZON, SIZE, SIZE, 1).max(axis=1)


def main(count: int = 1000):
    """How good is a forecast that is told how Moving MNIST moves?

    Args:
        count: how many test videos.
    """
    videos = data.EvaluationVideos("test")
    indices = predict.choose_indices(len(videos), count)
    network, errors = train_network(), []
    for chosen in np.split(indices, range(100, count, 100)):
        batch = data.to_float(videos[chosen])
        difference = forecast(network, batch[:, :CONTEXT]) - batch[:, CONTEXT:]
        errors.append(np.square(difference).sum(axis=(2, 3, 4)))  # (videos, HORIZON)
    show_errors(f"tracks, {count} test videos", np.concatenate(errors))


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main))
