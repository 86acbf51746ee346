"""The notebooks run, their outputs are those of their code, and both languages keep in step."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

import data

ROOT = Path(data.__file__).parent
sys.path.insert(0, str(ROOT / "notebooks"))

import build

ENGLISH, SPANISH = build.SOURCES
both = pytest.mark.parametrize("source", build.SOURCES, ids=lambda source: source.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the notebooks need, since they write to the folder they run in."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "extras", folder / "extras")
    (folder / "assets").symlink_to(ROOT / "assets")
    (folder / "notebooks").mkdir()
    return folder


# The second one is the same code; that it ran is seen in the committed notebook, too.
@pytest.mark.parametrize("source", [ENGLISH, pytest.param(SPANISH, marks=pytest.mark.slow)])
def test_runs_from_top_to_bottom(source, checkout, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    notebook = build.execute(source, checkout / "notebooks")  # an exception fails the test
    assert all(cell.execution_count for cell in code_cells(notebook))
    html = [o.data["text/html"] for c in code_cells(notebook) for o in c.outputs
            if "text/html" in o.get("data", {})]  # fmt: skip
    assert sum(text.count("data:image/gif;base64,") for text in html) == 1 + 3
    # As a reader of the repository gets them: an error output is not raised everywhere.
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.output_type == "error"]


@both
def test_committed_notebook_is_its_source_executed(source):
    path = source.with_suffix(".ipynb")
    notebook, written = nbformat.read(path, as_version=4), jupytext.read(source)
    nbformat.validate(notebook)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in written.cells
    ], "run: python notebooks/build.py"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert path.stat().st_size < 3e6
    assert sum(bool(cell.outputs) for cell in cells) >= 18
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        texts = [output.get("text", ""), *map(str, output.get("data", {}).values())]
        for text in texts:
            text = re.sub(r"[\w+/=\n]{200,}", "", text)  # pictures
            assert not re.search(r"(?:^|[\s'\"=(])(?:/\w+/|[A-Z]:\\)", text), text


class Comparable(ast.NodeTransformer):
    """Takes the strings out of code: they may be translated, as comments may."""

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node


def test_both_languages_have_the_same_cells():
    english, spanish = jupytext.read(ENGLISH), jupytext.read(SPANISH)
    assert [c.cell_type for c in english.cells] == [c.cell_type for c in spanish.cells]
    for ours, theirs in zip(english.cells, spanish.cells):
        if ours.cell_type == "code":
            trees = [ast.dump(Comparable().visit(ast.parse(c.source))) for c in (ours, theirs)]
            assert trees[0] == trees[1], theirs.source
        else:
            # Neither has a heading, an exercise, a piece of code or a formula more.
            marks = re.compile(r"^(#+ |\d\. |\$\$|```)", re.MULTILINE)
            assert marks.findall(ours.source) == marks.findall(theirs.source), theirs.source


@both
def test_quoted_lines_are_the_projects(source):
    """What the prose shows as essential lines is still there, word for word."""
    files = [*ROOT.glob("*.py"), *(ROOT / "extras").glob("*.py")]
    project = "\n".join(path.read_text(encoding="utf-8") for path in files)
    prose = "\n".join(c.source for c in jupytext.read(source).cells if c.cell_type == "markdown")
    quoted = "".join(re.findall(r"```python\n(.*?)```", prose, re.DOTALL)).splitlines()
    assert len(quoted) >= 20
    for line in quoted:
        assert line.split("  #")[0].strip() in project, line


@pytest.mark.parametrize("below", [".", "notebooks", "elsewhere/notebooks"])
@both
def test_first_cell_finds_the_projects_files(source, tmp_path, below):
    """In the project's folder, in `notebooks`, and beside an unpacked copy of the folder."""
    project = tmp_path / ("elsewhere/notebooks/project" if "elsewhere" in below else ".")
    (project / "extras").mkdir(parents=True)
    (project / "extras" / "motion.py").touch()
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    cell = code_cells(jupytext.read(source))[0].source + "\nprint(os.getcwd(), sys.path[0])"
    result = run_python(cell, tmp_path / below)
    assert result.stdout.split() == [str(project.resolve())] * 2, result.stderr


@both
def test_first_cell_says_in_one_line_what_is_missing(source, tmp_path):
    result = run_python(code_cells(jupytext.read(source))[0].source, tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "unzip" in result.stderr


def run_python(code, folder):
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=folder,
        env=environment,
        encoding="utf-8",
        capture_output=True,
    )
