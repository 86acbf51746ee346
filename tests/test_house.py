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


def tree_of(name):
    return ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))


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
    assert imported(tree_of(name)) <= MAY_IMPORT[name]
    assert name != "predict" or "extras.runs" in imported(tree_of(name))  # the rule sees them


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_only_a_script_that_is_run_starts_the_libraries_quietly(name):
    """It comes before all other imports, and changes what a caller would notice."""
    tree = tree_of(name)
    if name not in RUN:
        assert "extras.start" not in imported(tree)
        return
    _, first, *others = tree.body  # after the docstring
    assert ast.unparse(first.test) == "__name__ == '__main__'"
    assert imported(first) == {"extras.start"}
    assert ("load_keras()" in ast.unparse(first)) == (name != "prepare")  # which needs none
    assert not any("extras.start" in imported(statement) for statement in others)


def python(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )


IMPORT_ALL = "import " + ", ".join(name for name in MAY_IMPORT if name != "extras.start")
STATE = """
import os, signal, sys, keras, numpy
keras.config.set_dtype_policy("mixed_float16")
keras.config.set_floatx("float64")
keras.config.set_image_data_format("channels_first")
signal.signal(signal.SIGINT, lambda *_: None)

def state():
    return {
        "Keras": (keras.config.dtype_policy().name, keras.config.floatx()),
        "data format": keras.config.image_data_format(),
        "distribution": keras.distribution.distribution(),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "descriptors": [os.fstat(number).st_ino for number in range(3)],
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "random numbers": str(numpy.random.get_state()),
    }

before = state()
{IMPORT_ALL}
for name, value in state().items():
    assert value == before[name], (name, before[name], value)
print("the same", flush=True)
"""


def test_importing_changes_nothing_that_a_caller_sees(tmp_path):
    before = {path for path in ROOT.rglob("*") if ".git" not in path.parts}
    result = python(STATE.replace("{IMPORT_ALL}", IMPORT_ALL), tmp_path)
    assert result.returncode == 0 and result.stdout == "the same\n", result.stderr
    assert not any(tmp_path.iterdir())
    after = {path for path in ROOT.rglob("*") if ".git" not in path.parts}
    assert {path for path in after - before if "__pycache__" not in path.parts} == set()


def test_what_an_import_raises_can_be_caught(tmp_path):
    code = f"""
import sys
sys.modules["keras"] = None  # as if it were not installed
for name in {[name for name in MAY_IMPORT if name != "extras.start"]}:
    try:
        __import__(name)
    except ImportError as error:
        assert "keras" in str(error), error
print("all caught")
"""
    result = python(code, tmp_path)
    assert result.returncode == 0 and result.stdout == "all caught\n", result.stderr
