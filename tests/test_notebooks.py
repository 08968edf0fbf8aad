"""The notebooks of docs/ run offline, and what is stored in them belongs to their code."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.import_graph import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from notebooks import NOTEBOOKS, code_digest, run

MOST_BYTES = 1_200_000


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: NotebookNode) -> list[list[tuple[str, list[str]]]]:
    """What each code cell shows: the type of each output, and its forms; without what libraries write to the error stream."""
    return [
        [
            (output.output_type, sorted(output.get("data", {})))
            for output in cell.outputs
            if output.output_type != "stream"
        ]
        for cell in code_cells(notebook)
    ]


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_look", "folder_of_photos", "your_own_network"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_outputs_are_small_and_those_of_the_stored_code(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert notebook.metadata["code_digest"] == code_digest(notebook), "edited since it was run: make notebooks"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "/home/" not in text
    assert "/tmp/" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_that_is_no_plain_text_or_list_is_stored_as_html(path: Path) -> None:
    shown = [output for cell in code_cells(nbformat.read(path, 4)) for output in cell.outputs]
    assert {output.output_type for output in shown} == {"execute_result"}  # no warnings, errors or progress
    plain = [output for output in shown if "text/html" not in output.data]
    assert len(shown) - len(plain) >= 5
    for output in plain:
        assert isinstance(ast.literal_eval(output.data["text/plain"]), str | list)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_what_is_stored(path: Path) -> None:
    again, stored = run(path), nbformat.read(path, 4)
    assert kinds(again) == kinds(stored)
    assert [cell.source for cell in again.cells] == [cell.source for cell in stored.cells]
