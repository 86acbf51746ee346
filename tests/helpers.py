"""What several test files share: small configs, their command lines, and what a run has left."""

import contextlib
import csv
import dataclasses
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

import data
import train
from extras import prepared, runs


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
# A quarter of the time: a plain stack, which measures no motion. For all that is about the run,
# and not about the model. The last of its six epochs cools down.
QUICK = replace(SMALL, depths=(1, 0, 0), motion_radius=0, frames=3, epochs=6, cooldown=0.25)
# It learns something.
TRAINED = replace(
    SMALL, encoder_filters=8, filters=8, coarse_filters=8, motion_units=8, size=40, batch_size=4,
    steps_per_epoch=40, sampling_epochs=1, warmup_steps=10, validation_videos=20,
)  # fmt: skip
# Twelve clips of eight colour frames
CLIPS = np.random.default_rng(0).integers(0, 256, (12, 8, 24, 32, 3), dtype=np.uint8)
ON_CLIPS = replace(QUICK, frames=4, size=data.SIZE, epochs=2, sampling_epochs=0)


def option(field):
    """The command line's name for a field of `train.Config`."""
    return "--" + field.replace("_", "-")


def fields(config):
    """A config's fields and those of its architecture, by name."""
    of_config = dataclasses.asdict(config)
    return {**of_config.pop("architecture"), **of_config}


def options(config):
    """The command line that gives the `tiny` preset the fields of a config."""
    for field, value in fields(config).items():
        if value != fields(train.PRESETS["tiny"])[field]:
            if isinstance(value, bool):
                yield option(field if value else f"no_{field}")
            else:
                yield from (option(field), *map(str, keras.tree.flatten(value)))


def prepare(path, clips, **attributes):
    """Write videos (frames, height, width, channels) to a prepared file."""
    with prepared.Writer(path) as writer:
        for name, value in attributes.items():
            setattr(writer, name, value)
        for number, clip in enumerate(clips):
            writer.append(clip)
            writer.end_clip(f"clip {number}")


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def files_in(folder):
    """Names of all files anywhere in a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def log_of(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def log_without_times(folder):
    return [{name: row[name] for name in row if name != "seconds"} for row in log_of(folder)]


def state_of(folder):
    """Every array of a run's checkpoint, the optimizer's included, by name."""
    arrays = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with zipfile.ZipFile(folder / runs.CHECKPOINT) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(read)
    return arrays


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
    states = state_of(one), state_of(other)
    assert states[0].keys() == states[1].keys() and len(states[0]) > 20
    for name, values in states[0].items():
        np.testing.assert_array_equal(values, states[1][name], err_msg=name)
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


@contextlib.contextmanager
def interrupt_before_step(step):
    """Within, training is interrupted, as by Ctrl-C, before the step of that number, from 0 on."""

    class Interrupting(runs.Watch):
        begun = 0

        def on_train_batch_begin(self, batch, logs=None):
            if self.run.epoch * self.run.config.steps_per_epoch + self.begun == step:
                raise KeyboardInterrupt
            self.begun += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "Watch", Interrupting)
        yield
