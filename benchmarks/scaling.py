"""How training scales over devices: measured on simulated ones, and on paper for real ones.

    KERAS_BACKEND=jax python benchmarks/scaling.py

Simulated devices are threads that share this machine's cores, so N of them are no faster than
one: what is measured is what sharing a batch costs. A step over N devices would ideally take as
long as the same batch takes on one ("strong", the batch stays; "weak", it grows with N).

On paper, a step of the `gpu` preset takes the time that was measured on one GPU, less the shares of
the batch that other devices take, and then that of exchanging the gradients. A ring of N devices
sends 2 (N - 1) / N of their bytes from each (Patarasuk and Yuan 2009, "Bandwidth optimal
all-reduce algorithms"). XLA computes and sends at the same time where it can, so this is the
cautious end. Every device makes the whole update of the weights, which never becomes shorter.

Takes a few minutes on two CPU cores. Prints milliseconds and efficiency for each number of
devices, and for each network from how many videos on each device 90% efficiency is reached.
"""

import os
import sys
import time
from pathlib import Path

# Before JAX starts; else it would measure the GPUs of a machine that has some.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from extras import start

    start.load_keras()  # quietly, and first of all

import dataclasses

import cost
import jax
import keras
import numpy as np

import train
from extras import cli, devices
from extras.cli import InputError

TURNS = 10

# Measured on one H100: the last epoch of the `gpu` preset, 375 batches of 64 videos, took 37.2
# seconds, with the forecasts of 200 validation videos.
BATCH_SECONDS = 37.2 / 375
# NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s in bfloat16 and 67 in float32, dense; NVLink
# with 900 GB/s, which is 450 in each direction. Its DGX H100 user guide: one ConnectX-7 of
# 400 Gbit/s for each GPU.
BFLOAT16, FLOAT32 = 989e12, 67e12
UPDATE_SHARE = 0.15  # assumed share of the float32 peak that the update of the weights reaches
MESSAGE = 10e-6  # assumed seconds for a message to arrive, however short
NETWORKS = {  # devices, bytes a second from each
    "8 GPUs, one host, NVLink": (8, 450e9),
    "8 hosts of 1 GPU, 400 Gbit/s": (8, 50e9),
    "8 hosts of 8 GPUs, 400 Gbit/s for each": (64, 50e9),
    "8 hosts of 1 GPU, 10 Gbit/s": (8, 1.25e9),
}


def step_seconds(config, count):
    """Median seconds of a training step on the first `count` devices."""
    devices.start(devices.Devices(devices=str(count), process_count=1), config.batch_size)
    model = train.build_model(config)
    train.compile_model(model, config)
    videos, *_ = train.open_sets(config)
    batch = train.Batches(config, videos)[0]
    model.train_on_batch(*batch)  # compiles it
    seconds = []
    for _ in range(TURNS):
        started = time.perf_counter()
        model.train_on_batch(*batch)
        seconds.append(time.perf_counter() - started)
    return np.median(seconds)


def measure():
    """Print what sharing a batch over simulated devices costs."""
    tiny = train.PRESETS["tiny"]
    architecture = dataclasses.replace(tiny.architecture, depths=(1, 0, 0), motion_radius=0)
    config = dataclasses.replace(tiny, architecture=architecture, frames=4, context=2, size=32)
    print(f"on {os.cpu_count()} cores; a step of a small model, in milliseconds")
    print("batch  1 device  2 devices  4 devices   one device's time by that of 4")
    times = {}
    for batch_size in (8, 16, 32):
        config = dataclasses.replace(config, batch_size=batch_size)
        for count in (1, 2, 4):
            times[batch_size, count] = 1e3 * step_seconds(config, count)
        one, two, four = (times[batch_size, count] for count in (1, 2, 4))
        print(f"{batch_size:5}  {one:8.1f}  {two:9.1f}  {four:9.1f}  {one / four:8.0%}", flush=True)
    strong = [times[8, 1] / times[8, count] for count in (2, 4)]
    weak = [count * times[8, 1] / times[8 * count, count] for count in (2, 4)]
    print("strong, batch 8: {:.2f} and {:.2f} times as fast on 2 and 4 devices".format(*strong))
    print("weak, 8 videos each: {:.2f} and {:.2f} times the videos".format(*weak))


def operations(config):
    """Floating-point operations of a training step: (of each video, of the update)."""

    def count(frames, batch_size):
        smaller = dataclasses.replace(config, frames=frames, context=2, batch_size=batch_size)
        model, state, batch = cost.training(smaller)
        return jax.jit(model.train_step).lower(state, batch).cost_analysis()["flops"]

    two_steps, three_steps, two_videos = count(3, 1), count(4, 1), count(3, 2)
    of_a_step = three_steps - two_steps
    video = two_videos - two_steps + (config.frames - 3) * of_a_step
    return video, two_steps - (two_videos - two_steps)


def on_paper():
    """Print what several GPUs would bring to the `gpu` preset."""
    config = train.PRESETS["gpu"]
    batch = config.batch_size
    gradients = 4 * train.build_model(config).count_params()  # bytes, in float32
    video, update = operations(config)
    update_seconds = update / (UPDATE_SHARE * FLOAT32)
    video_seconds = (BATCH_SECONDS - update_seconds) / batch
    print(
        f"\ngpu preset: {gradients / 1e6:.0f} MB of gradients; {video / 1e9:.0f} GFLOP for a "
        f"video, {update / 1e9:.0f} for the update of the weights\n"
        f"one H100: a batch of {batch} takes {1e3 * BATCH_SECONDS:.0f} ms (measured), its update "
        f"{1e3 * update_seconds:.1f} (at {UPDATE_SHARE:.0%} of the peak, assumed), so a video "
        f"{1e3 * video_seconds:.2f} ({video / video_seconds / BFLOAT16:.1%} of the peak)\n"
        f"\n| Devices | Sent by each | Exchange | {batch} videos shared: step, efficiency "
        f"| {batch} videos each: step, efficiency | 90% efficiency, shared; each |\n{6 * '|---'}|"
    )
    for name, (count, bandwidth) in NETWORKS.items():
        sent = 2 * (count - 1) / count * gradients
        exchange = sent / bandwidth + 2 * (count - 1) * MESSAGE
        strong = batch / count * video_seconds + update_seconds + exchange
        weak = BATCH_SECONDS + exchange
        # Videos in each device's batch from which 90% of the time goes into them: against one
        # device with as many videos, and against one device with all of them.
        weak_from = max(0, 9 * exchange - update_seconds) / video_seconds
        both_updates = 9 * (update_seconds + exchange) - 10 * update_seconds / count
        strong_from = both_updates / video_seconds
        print(
            f"| {name} | {sent / 1e6:.0f} MB | {1e3 * exchange:.1f} ms "
            f"| {1e3 * strong:.0f} ms, {BATCH_SECONDS / (count * strong):.0%} "
            f"| {1e3 * weak:.0f} ms, {BATCH_SECONDS / weak:.0%} "
            f"| from {strong_from:.0f} videos each; from {weak_from:.0f} |"
        )


def main():
    if keras.backend.backend() != "jax":
        raise InputError("several devices need KERAS_BACKEND=jax")
    measure()
    on_paper()


if __name__ == "__main__":
    cli.run(main)
