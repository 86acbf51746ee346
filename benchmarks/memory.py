"""How much memory a training step needs on one device, counted without computing anything.

    KERAS_BACKEND=jax python benchmarks/memory.py --preset gpu

Counted are the state of the training (weights, their average, the optimizer's moments), the
gradient, and what JAX keeps of the steps of a video until it has gone back through them. With `--remat` that is only what a step was given, and the
rest of one step at a time. Not counted is what a library needs to compute a convolution.

`--plan` also compiles steps of 4 and of 6 frames for this machine, without `--remat`, and prints
what XLA plans for them, carried on to all frames: minutes. (For a CPU, XLA undoes `--remat`, and
computes bfloat16 in float32, so there it cannot tell about those.)
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extras import cli
from extras.cli import InputError

import jax
import keras
import numpy as np

import train


def training(config):
    """A `ClosedLoop`, its state as `train_step` takes it, and a batch."""
    closed_loop = train.ClosedLoop(train.build_model(config), config)
    batch = train.ClosedLoopVideos(config)[0]
    closed_loop._symbolic_build(data_batch=batch)
    groups = (
        closed_loop.trainable_variables,
        closed_loop.non_trainable_variables,
        closed_loop.optimizer.variables,
        closed_loop.metrics_variables,
    )
    return closed_loop, tuple([variable.value for variable in group] for group in groups), batch


def kept_for_the_gradient(config):
    """Bytes that lie between the way forward and the way back, weights and batch left out."""
    closed_loop, (weights, others, optimizer, metrics), (x, y) = training(config)

    def way_back(weights):
        def loss(weights):
            return closed_loop.compute_loss_and_updates(
                weights, others, metrics, x, y, None, training=True, optimizer_variables=optimizer
            )

        return jax.vjp(loss, weights, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(way_back)(weights).jaxpr
    given = {id(variable) for variable in (*jaxpr.invars, *jaxpr.constvars)}
    # A Literal, which has a `val`, is a constant within the program.
    kept = {id(v): v.aval for v in jaxpr.outvars if id(v) not in given and not hasattr(v, "val")}
    return sum(array.size * array.dtype.itemsize for array in kept.values())


def planned(config):
    """Bytes beside the state that XLA plans for a training step on this machine."""

    def plan(frames):
        closed_loop, state, batch = training(dataclasses.replace(config, frames=frames, context=2))
        step = jax.jit(closed_loop.train_step, donate_argnums=0).lower(state, batch)
        return step.compile().memory_analysis().temp_size_in_bytes

    four, six = plan(4), plan(6)
    return four + (config.frames - 4) * (six - four) / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=train.PRESETS, default="gpu")
    parser.add_argument("--batch-size", type=int, help="instead of the preset's")
    parser.add_argument("--plan", action="store_true")
    arguments = parser.parse_args()
    if keras.backend.backend() != "jax":
        raise InputError("JAX is asked for this: set KERAS_BACKEND=jax")
    preset = train.PRESETS[arguments.preset]
    batch_size = arguments.batch_size or preset.batch_size
    print(f"{arguments.preset}, batches of {batch_size}, in GB")
    print("precision       state and gradient   in all   with --remat")
    for precision in ("float32", "mixed_bfloat16"):
        config = dataclasses.replace(preset, precision=precision, batch_size=batch_size)
        whole, given = (
            # For each number of videos: so much for each, and so much for the weights.
            np.polyfit(
                [2, 4],
                [
                    kept_for_the_gradient(
                        dataclasses.replace(config, remat=remat, batch_size=videos)
                    )
                    for videos in (2, 4)
                ],
                1,
            )
            for remat in (False, True)
        )
        _, state, _ = training(dataclasses.replace(config, batch_size=1))
        gradient = sum(array.nbytes for array in state[0])
        state = gradient + sum(array.nbytes for array in jax.tree.leaves(state))
        one_step = whole / (preset.frames - 1)
        kept = [np.polyval(each, batch_size) for each in (whole, given + one_step)]
        print(
            f"{precision:14}  {state / 1e9:18.2f}"
            f"  {(state + kept[0]) / 1e9:7.1f}  {(state + kept[1]) / 1e9:13.1f}",
            flush=True,
        )
        if arguments.plan and precision == "float32":
            print(f"{'':36}{(state + planned(config)) / 1e9:5.1f}  planned by XLA", flush=True)


if __name__ == "__main__":
    cli.run(main)
