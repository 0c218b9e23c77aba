"""Scripts in a process of their own, for what would take the test run with it if it went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap


def run_script(source: str, *arguments: str, timeout: float = 60, env: dict[str, str] | None = None) -> str:
    """Run a Python script and return what it printed.

    A script that takes longer than ``timeout`` seconds is killed with all processes that it forked.

    Raises:
        AssertionError: it took too long, or its exit status is not 0.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"the script hung for {timeout} s:\n{output}\n{errors}") from None
    assert process.returncode == 0, f"exit status {process.returncode}:\n{output}\n{errors}"
    return output
