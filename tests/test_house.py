"""How the files depend on each other, and that importing them does nothing else."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import data

ROOT = Path(data.__file__).parent
CHAIN = ["data", "model", "train", "predict", "animate"]  # each may import those before it
EXTRAS = sorted(path.stem for path in (ROOT / "extras").glob("*.py"))


def imported(path):
    """Names of the project's modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: say where from, not with dots"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    extras = {f"extras.{name}" for name in EXTRAS}
    return names & (set(CHAIN) | extras)


def test_these_are_all_files_of_the_product():
    assert sorted(path.stem for path in ROOT.glob("*.py")) == sorted(CHAIN)


@pytest.mark.parametrize("name", CHAIN)
def test_a_script_imports_no_later_one(name):
    own = imported(ROOT / f"{name}.py") & set(CHAIN)
    assert own <= set(CHAIN[: CHAIN.index(name)])
    assert name in ("data", "model") or own, "the rule should find what is imported"


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_is_handed_what_the_scripts_know(name):
    assert not imported(ROOT / "extras" / f"{name}.py") & {"train", "predict", "animate"}


def test_importing_prints_nothing_and_makes_no_file(tmp_path):
    modules = [*CHAIN, *(f"extras.{name}" for name in EXTRAS)]
    code = f"import {', '.join(modules)}\nimport signal\n"
    code += "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    before = {path for path in ROOT.rglob("*") if ".git" not in path.parts}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == ""
    assert not any(tmp_path.iterdir())
    after = {path for path in ROOT.rglob("*") if ".git" not in path.parts}
    assert {path for path in after - before if "__pycache__" not in path.parts} == set()
