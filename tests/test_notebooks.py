"""The notebooks run, their outputs are those of their code, and both languages keep in step."""

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import jupytext
import nbformat
import pytest

import data
import train

ROOT = Path(data.__file__).parent
sys.path.insert(0, str(ROOT / "notebooks"))

import build

ENGLISH, SPANISH = build.SOURCES
both = pytest.mark.parametrize("source", build.SOURCES, ids=lambda source: source.stem)


# The Spanish one is the same code; that it ran is seen in the saved notebook.
def test_runs_from_top_to_bottom(tmp_path, monkeypatch):
    for folder in ("extras", "method"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for path in (*ROOT.glob("*.py"), ROOT / "assets", ROOT / "benchmarks"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("QUICK", "1")
    build.execute(ENGLISH, tmp_path / "notebooks")  # an exception in a cell fails the test
    # The GIF to hand in: 10 + 10 frames of the real videos and of two models' forecasts.
    frames, height, width, _ = imageio.imread(tmp_path / "outputs" / "my-forecast.gif").shape
    assert frames == 20 and width > 3 * 256 and height > 2 * 256


@both
def test_saved_notebook_is_its_source_executed(source):
    path = source.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    saved, written = (
        [(cell.cell_type, cell.source) for cell in each.cells]
        for each in (notebook, jupytext.read(source))
    )
    assert saved == written, "run: python notebooks/build.py"
    cells = build.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert path.stat().st_size < 2e6
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= 20
    for output in outputs:
        assert output.output_type != "error"
        text = str([output.get("text", ""), *output.get("data", {}).values()])
        text = re.sub(r"[\w+/=\\]{200,}", "", text)  # pictures
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
            numbers = [re.sub(r"(?<=\d)[\s,](?=\d{3}\b)", "", c.source) for c in (ours, theirs)]
            numbers = [sorted(re.findall(r"\d+(?:\.\d+)?", text)) for text in numbers]
            assert numbers[0] == numbers[1], theirs.source


@both
def test_quoted_lines_are_the_projects(source):
    """What the prose shows as essential lines is still there, word for word."""
    files = [*ROOT.glob("*.py"), *(ROOT / "method").glob("*.py")]
    project = "\n".join(path.read_text(encoding="utf-8") for path in files)
    prose = "\n".join(c.source for c in jupytext.read(source).cells if c.cell_type == "markdown")
    quoted = "".join(re.findall(r"```python\n(.*?)```", prose, re.DOTALL)).splitlines()
    assert len(quoted) >= 18
    for line in quoted:
        assert line.split("  #")[0].strip() in project, line


@both
def test_hyperparameters_can_be_changed_as_it_says(source):
    text = "\n".join(cell.source for cell in jupytext.read(source).cells)
    lines = re.findall(r"^# (config = .*?)(?:  #|$)", text, re.MULTILINE)
    lines += re.findall(r"`(config\s=.*?)`", text, re.DOTALL)  # in exercises
    assert len(lines) == 4
    for line in lines:
        names = {"config": train.PRESETS["tiny"], "replace": replace}
        exec(" ".join(line.split()), names)  # noqa: S102  our own
        assert names["config"] != train.PRESETS["tiny"]


@pytest.mark.parametrize("place", [".", "notebooks/project"])
def test_first_cell_finds_the_projects_files(tmp_path, place):
    """In `notebooks`, and beside an unpacked copy of the project's folder."""
    here, project = tmp_path / "notebooks", tmp_path / place
    here.mkdir()
    code = build.code_cells(jupytext.read(ENGLISH))[0].source
    command = [sys.executable, "-X", "utf8", "-c", f"{code}\nprint(os.getcwd(), sys.path[0])"]

    def run_it():
        return subprocess.run(command, check=False, cwd=here, encoding="utf-8", capture_output=True)

    (line,) = run_it().stderr.splitlines()
    assert "unzip" in line  # it says what is missing
    (project / "method").mkdir(parents=True)
    (project / "method" / "motion.py").touch()
    result = run_it()
    assert result.stdout.split() == [str(project.resolve())] * 2, result.stderr
