"""Runs the notebooks of docs/notebooks and stores them with their outputs. Run: make notebooks

Progress bars and times of cells are not stored. A digest of the code tells whether the outputs belong to it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_WIDGET = "application/vnd.jupyter.widget-view+json"


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """Sha256 (hex) of the code cells in their order."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run, on one processor core and in an empty folder.

    Raises:
        CellExecutionError: a cell raises.
    """
    notebook = nbformat.read(path, 4)
    env = os.environ | {
        "VIZAPP_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(FOLDER.parents[1]),
        "COLUMNS": "120",
    }
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            store_widget_state=False,
        )
        client.execute(env=env)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
    notebook.metadata["code_digest"] = code_digest(notebook)
    return notebook


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            nbformat.write(run(path), path)
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
