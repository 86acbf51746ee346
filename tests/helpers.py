"""What several test files share: small configs, their command lines, and what a run has left."""

import contextlib
import dataclasses
import math

import h5py
import keras
import numpy as np
import pytest

import data
import train
from extras import prepared, runs
from extras.cli import InputError


def replace(config, **changes):
    """`dataclasses.replace` for a `train.Config`, also for the fields of its architecture."""
    names = [name for name in changes if hasattr(config.architecture, name)]
    of_architecture = {name: changes.pop(name) for name in names}
    architecture = dataclasses.replace(config.architecture, **of_architecture)
    return dataclasses.replace(config, architecture=architecture, **changes)


# The smallest training that has every part: three epochs of two batches.
SMALL = replace(
    train.PRESETS["tiny"], encoder_filters=4, filters=4, coarse_filters=4, motion_units=4,
    depths=(0, 1, 0), frames=4, context=2, size=32, batch_size=2, steps_per_epoch=2, epochs=3,
    validation_videos=3, warmup_steps=1,
)  # fmt: skip
# It is compiled in a fraction of the time: for all that is about the run, and not about the model.
# The last of its six epochs cools down.
QUICK = replace(
    SMALL, model="keras-example", layers=((4, 3), (4, 3)), frames=3, epochs=6, cooldown=0.25
)
# Twelve clips of eight colour frames
CLIPS = np.random.default_rng(0).integers(0, 256, (12, 8, 24, 32, 3), dtype=np.uint8)
ON_CLIPS = replace(QUICK, frames=4, size=data.SIZE, epochs=2, sampling_epochs=0)


def options(config):
    """The command line that gives the `tiny` preset the fields of a config."""

    def fields(config):
        of_config = dataclasses.asdict(config)
        return {**of_config.pop("architecture"), **of_config}

    for field, value in fields(config).items():
        if value != fields(train.PRESETS["tiny"])[field]:
            name = field.replace("_", "-")
            if isinstance(value, bool):
                yield f"--{name}" if value else f"--no-{name}"
            else:
                yield from (f"--{name}", *map(str, keras.tree.flatten(value)))


def prepare(path, clips, **attributes):
    """Write videos (frames, height, width, channels) to a prepared file, and return its path."""
    with prepared.Writer(path) as writer:
        for name, value in attributes.items():
            setattr(writer, name, value)
        for number, clip in enumerate(clips):
            writer.append(clip)
            writer.end_clip(f"clip {number}")
    return path


def movie(frames=6, height=32, width=48, step=3):
    """uint8 (frames, height, width): a bright square moves right over a shaded ground."""
    video = np.tile(np.linspace(0, 80, width).astype(np.uint8), (frames, height, 1))
    side = height // 4
    for n in range(frames):
        left = n * step % (width - side)
        video[n, side // 2 : side // 2 + side, left : left + side] = 255
    return video


def read_clips(reader, path, **options):
    """Read a file: -> a list of clips (n, height, width, channels), and all notes in one string."""
    clips, notes = [], []
    for block in reader(path, notes.append, **options):
        if block.new_clip or not clips:
            clips.append([])
        clips[-1].append(block.frames)
    return [np.concatenate(blocks) for blocks in clips], "; ".join(notes)


def refusal(call, *arguments, **options):
    """-> the one line in which a call refuses what it is given."""
    with pytest.raises(InputError) as refused:
        call(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def store_elsewhere(file, name, shape, kind):
    """Give an `h5py.File` an array that is in another file: "external", "virtual" or a "link"."""
    if kind == "external":
        file.create_dataset(name, shape, np.uint8, external=[("other", 0, math.prod(shape))])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, np.uint8)
        layout[:] = h5py.VirtualSource("other.h5", name, shape)
        file.create_virtual_dataset(name, layout)
    else:
        file[name] = h5py.ExternalLink("other.h5", name)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def files_in(folder):
    """Names of all files anywhere in a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def log_without_times(folder):
    return [{name: row[name] for name in row if name != "seconds"} for row in runs.read_log(folder)]


def assert_same_weights(one, other):
    """Two models have the same weights, to the last bit; each is a model or its file."""
    weights = [
        (m if isinstance(m, keras.Model) else runs.load_model(m)).get_weights()
        for m in (one, other)
    ]
    for arrays in zip(*weights, strict=True):
        np.testing.assert_array_equal(*arrays)


def assert_same_run(one, other):
    """The same weights and optimizer, to the last bit, the same log, and nothing left over."""
    states = [checkpoint_variables(folder) for folder in (one, other)]
    assert len(states[0]) > 20
    for values in zip(*states, strict=True):
        np.testing.assert_array_equal(*values)
    assert log_without_times(one) == log_without_times(other)
    for name in ("best.keras", "last.keras"):
        assert_same_weights(one / name, other / name)
    assert files_in(one) == files_in(other)


def load_checkpoint(folder):
    """The compiled model of a run, as it was after its last step."""
    config = train.read_config(folder)
    model = train.build_model(config)
    train.compile_model(model, config)
    runs.load_checkpoint(model, folder / runs.CHECKPOINT)
    return model


def checkpoint_variables(folder):
    """All weights of a run, and all that its optimizer remembers, as arrays."""
    model = load_checkpoint(folder)
    return [array(variable) for variable in (*model.weights, *model.optimizer.variables)]


@contextlib.contextmanager
def before_step(step, act):
    """Within, training calls `act` before the step of that number, from 0 on."""

    class Acting(runs.Watch):
        begun = 0

        def on_train_batch_begin(self, batch, logs=None):
            if self.run.epoch * self.run.config.steps_per_epoch + self.begun == step:
                act()
            self.begun += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "Watch", Acting)
        yield


def interrupt():
    """As Ctrl-C does."""
    raise KeyboardInterrupt
