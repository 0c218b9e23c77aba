"""The notebooks: complete as they are stored, and running from a fresh kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_a_fresh_kernel(path: Path) -> None:
    """Its cells run offline and without a key, from top to bottom, and have as many outputs as are stored."""
    code = (
        "import sys, nbformat\n"
        "from nbclient import NotebookClient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "NotebookClient(notebook, timeout=90, kernel_name='python3', coalesce_streams=True).execute()\n"
        "outputs = [cell.get('outputs', []) for cell in notebook.cells]\n"
        "print([sum(output.get('name') != 'stderr' for output in each) for each in outputs])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, path.name]
    keyless = {name: value for name, value in os.environ.items() if not name.endswith("API_KEY")}
    run = subprocess.run(command, cwd=FOLDER, env=keyless, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    stored = nbformat.read(path, as_version=4)
    assert run.stdout.strip() == str([len(cell.get("outputs", [])) for cell in stored.cells])
