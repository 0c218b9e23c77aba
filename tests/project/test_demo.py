"""The demo runs as a person would run it, offline, and shows better passages than the first stage's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "notebooks" / "demo.py"


def test_the_demo_shows_both_frameworks_in_an_80_column_terminal() -> None:
    """Exit status 0, three questions in each framework, and the documentation that answers them comes up."""
    environment = {"COLUMNS": "80", "PATH": "/nowhere", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, env=environment, timeout=100)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    first, second = run.stdout.split("LlamaIndex:")
    assert "LangChain: RerankRetriever" in first
    for part in (first, second):
        assert part.count("50 candidates in") == 3
        assert "subprocess.run" in part
        assert "difflib.Differ" in part
