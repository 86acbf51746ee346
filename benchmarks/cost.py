"""What a training step costs on one device, counted without computing anything.

    KERAS_BACKEND=jax python benchmarks/cost.py
    KERAS_BACKEND=jax python benchmarks/cost.py --preset cpu --batch-size 32 --plan

Takes a minute or two. Prints first what the parts of a `Forecaster`'s step compute for one frame,
forward alone and with the gradient, and what they read and write for it, by XLA's count for this
machine in the preset's precision. (A CPU's bfloat16 is counted as float32.) A step of training goes
through them for each frame but the last.

Then prints, in GB for each precision: the state of the training (weights, their average, the
optimizer's moments) and the gradient; these and what JAX keeps of the steps of a video until it has
gone back through them; the same with `--remat`, which keeps only what each step was given, and the
rest of one step at a time. What a library needs to compute a convolution is left out.

`--plan` also compiles steps of 4 and of 6 frames for this machine, in float32 and without remat,
and prints what XLA plans for them, carried on to all frames: minutes. (For a CPU, XLA undoes remat,
and computes bfloat16 in float32, so it cannot tell about those.)
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import jax
import keras
import tyro
from keras import ops

import model as models
import train
from extras import cli
from extras.cli import InputError


def training(config):
    """A compiled model, its state as its `train_step` takes it, and a batch."""
    model = train.build_model(config)
    train.compile_model(model, config)
    videos, *_ = train.open_sets(config)
    batch = train.Batches(config, videos)[0]
    model._symbolic_build(data_batch=batch)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return model, tuple([variable.value for variable in group] for group in groups), batch


def work(config):
    """Count one frame's way through the `Forecaster`, in batches as the config says.

    Yields:
        part, GFLOP forward, MB moved forward, GFLOP with the gradient, MB moved with the gradient.
    """
    model = models.Forecaster(config.architecture)
    model.build()
    batch, size = config.batch_size, config.size
    frame = ops.zeros((batch, size, size, config.architecture.channels))
    states = model.initial_states(batch, size, size)
    history, measured = model.measure_motion(frame, states)
    stacks = {name: measured[name] for name in ("down", "coarse", "up")}
    x, features, _ = model.run_stacks(frame, history, stacks)
    # A part, its function, the arguments that have a gradient, and those that have none.
    parts = [
        (
            "convolutions, all but the motion's heads",
            model.run_stacks,
            {"frame": frame, "states": stacks},
            {"history": history},
        )
    ]
    if config.architecture.motion_radius:
        parts += [
            ("motion measured", model.measure_motion, {}, {"frame": frame, "states": states}),
            (
                "motion's heads, pixels moved",
                model.move,
                {"frame": frame, "x": x, "features": features},
                {"history": history},
            ),
        ]
    weights = [variable.value for variable in model.trainable_variables]
    for name, function, learning, fixed in parts:

        def forward(weights, learning, fixed, function=function):
            with keras.StatelessScope(zip(model.trainable_variables, weights)):
                return function(**learning, **fixed)

        def with_gradient(weights, learning, fixed):
            outputs, way_back = jax.vjp(lambda *inputs: forward(*inputs, fixed), weights, learning)
            return outputs, way_back(outputs)  # any numbers will do as the outputs' gradient

        counts = []
        for counted in (forward, with_gradient):
            program = jax.jit(counted).lower(weights, learning, fixed)
            cost = program.compile().cost_analysis()
            counts += [cost["flops"] / batch / 1e9, cost["bytes accessed"] / batch / 1e6]
        yield name, *counts


def kept_for_the_gradient(config):
    """Bytes that lie between the way forward and the way back, weights and batch left out."""
    model, (weights, others, optimizer, metrics), (x, y) = training(config)

    def way_back(weights):
        def loss(weights):
            return model.compute_loss_and_updates(
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
        model, state, batch = training(dataclasses.replace(config, frames=frames, context=2))
        step = jax.jit(model.train_step, donate_argnums=0).lower(state, batch)
        return step.compile().memory_analysis().temp_size_in_bytes

    four, six = plan(4), plan(6)
    return four + (config.frames - 4) * (six - four) / 2


def main(
    preset: Literal[tuple(train.PRESETS)] = "gpu", batch_size: int | None = None, plan: bool = False
):
    """What a training step costs on one device.

    Args:
        preset: a preset of train.py.
        batch_size: instead of the preset's.
        plan: also print what XLA plans for this machine.
    """
    if keras.backend.backend() != "jax":
        raise InputError("JAX is asked for this: set KERAS_BACKEND=jax")
    of_preset = train.PRESETS[preset]
    batch_size = of_preset.batch_size if batch_size is None else batch_size
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: give 1 or more")
    if of_preset.model == "forecaster":
        print(f"{preset + ', for one frame':40}     GFLOP   MB moved   with the gradient")
        counted = dataclasses.replace(of_preset, batch_size=batch_size)
        for part, *counts in work(counted):
            numbers = "{:10.3f} {:10.1f} {:10.3f} {:10.1f}".format(*counts)
            print(f"{part:40}{numbers}", flush=True)
    print(f"{preset}, batches of {batch_size}, in GB")
    print("precision       state and gradient   in all   with remat")
    for precision in ("float32", "mixed_bfloat16"):
        config = dataclasses.replace(of_preset, batch_size=batch_size, remat=False)
        architecture = dataclasses.replace(config.architecture, precision=precision)
        config = dataclasses.replace(config, architecture=architecture)
        state = training(config)[1]
        # The gradient is as large as the weights, which are the first part of the state.
        state = sum(array.nbytes for array in jax.tree.leaves((state, state[0])))
        kept = kept_for_the_gradient(config)
        given = kept_for_the_gradient(dataclasses.replace(config, remat=True))
        with_remat = given + kept / (config.frames - 1)  # and one step
        in_gb = [part / 1e9 for part in (state, state + kept, state + with_remat)]
        print(f"{precision:14}  {in_gb[0]:18.2f}  {in_gb[1]:7.2f}  {in_gb[2]:11.2f}", flush=True)
        if plan and precision == "float32":
            print(f"{'':36}{(state + planned(config)) / 1e9:7.2f}  planned by XLA", flush=True)


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main))
