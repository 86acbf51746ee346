"""Report a run to TensorBoard or to Weights & Biases: open it to add another tracker."""

import dataclasses
import importlib.util

import keras
import numpy as np
from PIL import Image

from extras import devices, runs
from extras.cli import Failure, InputError


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback, and the pictures of forecasts."""

    def __init__(self, folder, config):
        super().__init__(folder / "tensorboard", write_graph=False)
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if (path := runs.sample_path(self.folder, epoch)).exists():
            with self._val_writer.as_default(), Image.open(path) as picture:
                self.summary.image("forecasts", np.asarray(picture)[None], step=epoch)


class WeightsAndBiases(keras.callbacks.Callback):
    """The same values and pictures for Weights & Biases; wandb's own callback fails on JAX."""

    def __init__(self, folder, config):
        super().__init__()
        import wandb

        self.folder = folder
        self.picture = wandb.Image
        try:
            self.run = wandb.init(
                dir=folder, name=folder.name, config=dataclasses.asdict(config), resume="auto"
            )
        except wandb.Error as error:
            raise Failure(
                f"--log wandb: {error}; WANDB_MODE=offline needs no account; then go on with: "
                f"python train.py --resume {runs.quote(folder)} --log wandb"
            ) from None

    def on_epoch_end(self, epoch, logs=None):
        values = {**logs, "learning_rate": runs.learning_rate(self.model)}
        if (path := runs.sample_path(self.folder, epoch)).exists():
            values["forecasts"] = self.picture(str(path))
        self.run.log(values, step=epoch)

    def on_train_end(self, logs=None):
        self.run.finish()


# The callback of each name, and the packages that it needs.
TRACKERS = {
    "tensorboard": (TensorBoard, ("tensorboard", "tensorflow")),  # Keras's needs both
    "wandb": (WeightsAndBiases, ("wandb",)),
}


def callbacks(name, folder, config):
    """The callbacks for `fit` that report a run; none without a name."""
    if name is None or devices.process > 0:
        return []
    tracker, _ = TRACKERS[name]
    return [tracker(folder, config)]


def check_installed(name):
    """Raise an InputError if a tracker's packages are missing."""
    packages = TRACKERS[name][1] if name else ()
    missing = [package for package in packages if not importlib.util.find_spec(package)]
    if missing:
        raise InputError(
            f"--log {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )
