"""Execute the notebooks, and write them with their outputs beside the files they come from.

    python notebooks/build.py          takes about ten minutes on two CPU cores

The .py files are the ones to edit and to review: notebooks in jupytext's percent format.
"""

from pathlib import Path

import jupytext
import nbclient
import nbformat

FOLDER = Path(__file__).resolve().parent
SOURCES = [FOLDER / "next_frame_prediction.py", FOLDER / "prediccion_de_fotogramas.py"]


def execute(source, folder=FOLDER):
    """Execute a notebook.

    Args:
        source: a .py file in percent format.
        folder: the working folder.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: an exception in a cell.
    """
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random ones would make every build look like a change
    # Progress bars write a line again and again: only what is left of it is kept.
    client = nbclient.NotebookClient(
        notebook,
        timeout=1200,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in code_cells(notebook):
        # TensorFlow's start-up notes are of this machine alone.
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            output.get("data", {}).pop("image/jpeg", None)  # it stands there as a PNG, too
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def main():
    for source in SOURCES:
        notebook = execute(source)
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        print(source.with_suffix(".ipynb").relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()
