"""The notebooks: complete as they are stored, and running from a fresh kernel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_clean(path: Path) -> None:
    """Run from top to bottom, no error, no folder of a machine; opens with what the reader will see."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert not re.search(r"/(home|root|tmp|Users|work)/", path.read_text(encoding="utf-8"))
    assert "**What you will see:**" in notebook.cells[0].source


@pytest.mark.usefixtures("one_core")
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_a_fresh_kernel(path: Path) -> None:
    """Its cells run offline and without a key, from top to bottom, and have as many outputs as are stored."""
    stored, notebook = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=90, kernel_name="python3", coalesce_streams=True)
    client.execute(cwd=str(FOLDER))
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    shown = [sum(output.get("name") != "stderr" for output in each) for each in outputs]
    assert shown == [len(cell.get("outputs", [])) for cell in stored.cells]
