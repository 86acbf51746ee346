"""How training scales over devices: measured on simulated ones, and on paper for real ones.

    KERAS_BACKEND=jax python benchmarks/scaling.py

Simulated devices are threads that share this machine's cores, so N of them are no faster than
one: what is measured is what sharing a batch costs. A step over N devices would ideally take as
long as the same batch takes on one ("strong", the batch stays; "weak", it grows with N).

On paper, a step of the `gpu` preset takes the time of its arithmetic on one GPU, and then that
of exchanging the gradients, one after the other; a ring of N devices sends 2 (N - 1) / N of their
bytes from each (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms"). XLA computes
and sends at the same time where it can, so this is the cautious end. Every device makes the
whole update of the weights, so that part never becomes shorter.
"""

import os
import sys
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"  # before JAX starts
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataclasses

from extras import cli
from extras.cli import InputError

import jax
import keras
import numpy as np

from extras import devices
import memory
import train

TURNS = 10

# NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s in bfloat16 and 67 in float32, dense; NVLink
# with 900 GB/s, which is 450 in each direction. Its DGX H100 user guide: one ConnectX-7 of
# 400 Gbit/s for each GPU.
BFLOAT16, FLOAT32 = 989e12, 67e12
REACHED = 0.15  # assumed share of that peak, for convolutions of 128 and 256 filters
MESSAGE = 10e-6  # assumed seconds for a message to arrive, however short
NETWORKS = {  # devices, bytes a second from each
    "8 GPUs, one host, NVLink": (8, 450e9),
    "8 hosts of 1 GPU, 400 Gbit/s": (8, 50e9),
    "8 hosts of 8 GPUs, 400 Gbit/s for each": (64, 50e9),
    "8 hosts of 1 GPU, 10 Gbit/s": (8, 1.25e9),
}


def step_seconds(config, count):
    """Median seconds of a training step on the first `count` devices."""
    distribution = devices.start(devices.Devices(devices=str(count), process_count=1))
    with devices.distribution_scope(distribution):
        closed_loop = train.ClosedLoop(train.build_model(config), config)
        batch = train.ClosedLoopVideos(config)[0]
        closed_loop.train_on_batch(*batch)  # compiles it
        seconds = []
        for _ in range(TURNS):
            started = time.perf_counter()
            closed_loop.train_on_batch(*batch)
            seconds.append(time.perf_counter() - started)
    return np.median(seconds)


def measure():
    config = dataclasses.replace(
        train.PRESETS["tiny"], frames=4, context=2, size=(32,), depths=(1, 0, 0), motion_radius=0
    )
    print(f"on {os.cpu_count()} cores; a step of a small model, in milliseconds")
    print("batch  1 device  2 devices  4 devices   the same work on one, divided by 4's time")
    times = {}
    for batch_size in (8, 16, 32):
        config = dataclasses.replace(config, batch_size=batch_size)
        for count in (1, 2, 4):
            times[batch_size, count] = step_seconds(config, count)
        one, two, four = (times[batch_size, count] for count in (1, 2, 4))
        print(
            f"{batch_size:5}  {1e3 * one:8.1f}  {1e3 * two:9.1f}  {1e3 * four:9.1f}  "
            f"{one / four:8.0%}"
        )
    weak = times[8, 1], times[16, 2], times[32, 4]
    print(
        f"strong, batch 8: {times[8, 1] / times[8, 2]:.2f} and {times[8, 1] / times[8, 4]:.2f} "
        "times as fast on 2 and 4 devices; weak, 8 videos each: "
        f"{2 * weak[0] / weak[1]:.2f} and {4 * weak[0] / weak[2]:.2f} times the videos"
    )


def operations(config):
    """Floating-point operations of a training step: (of each video, of the update)."""

    def count(frames, batch_size):
        smaller = dataclasses.replace(config, frames=frames, context=2, batch_size=batch_size)
        closed_loop, state, batch = memory.training(smaller)
        return jax.jit(closed_loop.train_step).lower(state, batch).cost_analysis()["flops"]

    two_steps, three_steps, two_videos = count(3, 1), count(4, 1), count(3, 2)
    of_a_step = three_steps - two_steps
    video = two_videos - two_steps + (config.frames - 3) * of_a_step
    return video, two_steps - (two_videos - two_steps)


def on_paper():
    config = train.PRESETS["gpu"]
    parameters = train.build_model(config).count_params()
    video, update = operations(config)
    seconds_of_video = video / (REACHED * BFLOAT16)
    seconds_of_update = update / (REACHED * FLOAT32)
    print(
        f"\ngpu preset: {parameters / 1e6:.2f} M parameters, {4 * parameters / 1e6:.0f} MB of "
        f"gradients in float32; {video / 1e9:.0f} GFLOP for a video, {update / 1e9:.0f} for the "
        f"update of the weights\nassumed: {REACHED:.0%} of an H100's peak, so "
        f"{1e3 * seconds_of_video:.2f} ms for a video and {1e3 * seconds_of_update:.2f} ms for "
        "the update"
    )
    batch = config.batch_size
    alone = batch * seconds_of_video + seconds_of_update
    print(f"one GPU: a batch of {batch} takes {1e3 * alone:.0f} ms")
    print(
        f"{'':40}   sent,   exchange,  batch of {batch}    {batch} videos each   at least 90% from"
    )
    print(f"{'':40}     MB          ms    ms                ms            (videos each)")
    for name, (count, bandwidth) in NETWORKS.items():
        sent = 2 * (count - 1) / count * 4 * parameters
        exchange = sent / bandwidth + 2 * (count - 1) * MESSAGE
        strong = batch / count * seconds_of_video + seconds_of_update + exchange
        weak = alone + exchange
        # A batch that grows with the devices against a device's share of it; and a batch that is
        # shared against the whole of it on one device.
        weak_from = max(0, 9 * exchange - seconds_of_update) / seconds_of_video
        shared = 9 * (seconds_of_update + exchange) - 10 * seconds_of_update / count
        strong_from = shared / seconds_of_video
        print(
            f"{name:40} {sent / 1e6:7.0f}  {1e3 * exchange:10.2f}  {1e3 * strong:5.0f} "
            f"{alone / (count * strong):6.0%}  {1e3 * weak:8.0f} {alone / weak:6.0%}"
            f"   shared {strong_from:.0f}, growing {weak_from:.0f}"
        )


def main():
    if keras.backend.backend() != "jax":
        raise InputError("several devices need KERAS_BACKEND=jax")
    measure()
    on_paper()


if __name__ == "__main__":
    cli.run(main)
