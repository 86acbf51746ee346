"""The same code on the JAX backend: the tests that depend on it, and the same numbers."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import data
import model as models
import predict
import train

ROOT = Path(models.__file__).parent

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax" or importlib.util.find_spec("jax") is None,
    reason="compares another backend with JAX",
)


def on_jax(*command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "file, chosen",
    [
        # All but the presets that take JAX a minute each to compile on a CPU.
        ("test_model.py", "not cpu and not gpu"),
        ("test_train.py", "second or keras-example or moves or average or warms"),
    ],
)
def test_passes_on_jax_too(file, chosen):
    result = on_jax(
        "-m", "pytest", "-q", "-n0", "-pno:cacheprovider", f"tests/{file}", "-k", chosen
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-3000:]


def test_the_shipped_weights_forecast_the_same_on_jax(tmp_path):
    context = data.to_float(data.evaluation_videos("test", [0, 1])[:, :10])
    np.save(tmp_path / "context.npy", context)
    code = (
        "import numpy as np, model, predict, train, keras\n"
        "assert keras.backend.backend() == 'jax'\n"
        f"context = np.load({str(tmp_path / 'context.npy')!r})\n"
        "forecast = model.rollout(train.load_model(predict.SHIPPED), context, 10)\n"
        f"np.save({str(tmp_path / 'forecast.npy')!r}, forecast)\n"
    )
    result = on_jax("-c", code)
    assert result.returncode == 0, result.stderr[-3000:]
    forecast = models.rollout(train.load_model(predict.SHIPPED), context, 10)
    np.testing.assert_allclose(np.load(tmp_path / "forecast.npy"), forecast, atol=2e-3)
