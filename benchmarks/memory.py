"""How much memory a training step takes on one device, as XLA plans it when it compiles the step.

    KERAS_BACKEND=jax python benchmarks/memory.py --preset gpu

Nothing is trained, and the step is compiled for a CPU, whatever it is meant for. Compiling all
19 steps of a video takes long there, so a few frames are compiled twice, and the rest follows:
the memory grows by the same amount with every frame (`--frames 5 7 9` shows it).
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from command_line import InputError

import jax
import keras
import numpy as np

import train


def step_memory(config):
    """GB that one training step of a config needs: (the state of the training, the rest).

    The state is the weights, their average, the optimizer's two moments and, with `accumulate`,
    the gradient so far. The rest is what lies in memory while the step is computed.
    """
    model = train.build_model(config)
    closed_loop = train.ClosedLoop(model, config)
    batch = train.ClosedLoopVideos(dataclasses.replace(config, steps_per_epoch=1))[0]
    closed_loop._symbolic_build(data_batch=batch)
    variables = (
        closed_loop.trainable_variables,
        closed_loop.non_trainable_variables,
        closed_loop.optimizer.variables,
        closed_loop.metrics_variables,
    )
    state = tuple([variable.value for variable in group] for group in variables)
    step = jax.jit(closed_loop.train_step, donate_argnums=0)
    plan = step.lower(state, batch).compile().memory_analysis()
    size = sum(array.nbytes for array in jax.tree.leaves(state))
    return size / 1e9, plan.temp_size_in_bytes / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=train.PRESETS, default="gpu")
    parser.add_argument("--batch-size", type=int, help="instead of the preset's")
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 6])
    arguments = parser.parse_args()
    if keras.backend.backend() != "jax":
        raise InputError("XLA's plan comes from JAX: set KERAS_BACKEND=jax")
    preset = train.PRESETS[arguments.preset]
    if arguments.batch_size:
        preset = dataclasses.replace(preset, batch_size=arguments.batch_size)
    print(
        "precision       remat  accumulate  state  "
        + "  ".join(f"{frames} frames" for frames in arguments.frames)
        + f"  all {preset.frames} frames, in GB"
    )
    for precision in ("float32", "mixed_bfloat16"):
        for remat in (False, True):
            for accumulate in (1, 4):
                config = dataclasses.replace(
                    preset, precision=precision, remat=remat, accumulate=accumulate, context=2
                )
                started = time.monotonic()
                rest = []
                for frames in arguments.frames:
                    state, temporary = step_memory(dataclasses.replace(config, frames=frames))
                    rest.append(temporary)
                each, none = np.polyfit(arguments.frames, rest, 1)
                print(
                    f"{precision:14}  {remat!s:5}  {accumulate:10}  {state:5.2f}  "
                    + "  ".join(f"{r:8.3f}" for r in rest)
                    + f"  {state + none + each * preset.frames:8.2f}"
                    + f"    ({time.monotonic() - started:.0f} s)",
                    flush=True,
                )


if __name__ == "__main__":
    command_line.run(main)
