"""How the files depend on each other, and that importing them does nothing else."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import data

ROOT = Path(data.__file__).parent
CHAIN = ["data", "model", "train", "predict", "animate"]  # each may import those before it
RUN = [*(name for name in CHAIN if name != "model"), "prepare"]
METHOD, EXTRAS = (
    sorted(f"{folder}.{path.stem}" for path in (ROOT / folder).glob("*.py"))
    for folder in ("method", "extras")
)
MAY_IMPORT = {
    **{name: {*CHAIN[: CHAIN.index(name)], *METHOD, *EXTRAS} for name in CHAIN},
    **{name: set(METHOD) for name in METHOD},
    **{name: {"data", "model", *METHOD, *EXTRAS} for name in EXTRAS},
    "prepare": set(EXTRAS),
}


def imported(tree):
    """Names of the product's modules that code imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "say where from, not with dots"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & set(MAY_IMPORT)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_run_one_way(name):
    tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
    assert imported(tree) <= MAY_IMPORT[name]
    if name not in RUN:  # it changes what a caller would notice
        assert "extras.start" not in imported(tree)
        return
    # A script that is run starts the libraries quietly, before all other imports.
    _, first, *others = tree.body  # after the docstring
    assert ast.unparse(first.test) == "__name__ == '__main__'"
    assert imported(first) == {"extras.start"}
    assert ("load_keras()" in ast.unparse(first)) == (name != "prepare")  # which needs none
    assert not any("extras.start" in imported(statement) for statement in others)


STATE = """
import os, signal, sys, keras, numpy
keras.config.set_dtype_policy("mixed_float16")
keras.config.set_floatx("float64")
keras.config.set_image_data_format("channels_first")
signal.signal(signal.SIGINT, lambda *_: None)

def state():
    return [
        keras.config.dtype_policy().name, keras.config.floatx(), keras.config.image_data_format(),
        keras.distribution.distribution(),
        [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        [os.fstat(number).st_ino for number in range(3)],
        (sys.stdout, sys.stderr, sys.excepthook),
        dict(os.environ), os.listdir(), os.getcwd(), str(numpy.random.get_state()),
    ]

before = state()
import NAMES
for one, other in zip(before, state()):
    assert one == other, (one, other)
print("the same", flush=True)
"""


def test_importing_changes_nothing_that_a_caller_sees(tmp_path):
    code = STATE.replace("NAMES", ", ".join(name for name in MAY_IMPORT if name != "extras.start"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code]
    output = subprocess.check_output(line, cwd=tmp_path, env=environment, text=True)
    assert output == "the same\n"
