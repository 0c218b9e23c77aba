"""The demo runs as a person would run it, offline, and shows better passages than the first stage's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "notebooks" / "demo.py"


@pytest.mark.usefixtures("one_core")
def test_the_demo_shows_both_frameworks_in_an_80_column_terminal() -> None:
    """Exit status 0, three questions in each framework, the answers come up, and then stored vectors."""
    environment = {"COLUMNS": "80", "PATH": "/nowhere", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, env=environment, timeout=100)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    first, second = run.stdout.split("LlamaIndex:")
    second, third = second.split("Stored vectors:")
    assert "LangChain: RerankRetriever" in first
    assert third.count(" ms ") == 6
    for page in re.findall(r"docs/\S+|notebooks/", third):
        assert (DEMO.parents[1] / page).exists()
    for part in (first, second):
        assert part.count("50 candidates in") == 3
        assert "subprocess.run" in part
        assert "difflib.Differ" in part
