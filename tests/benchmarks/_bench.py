"""What the benchmarks share: subjects in processes of their own, tables, the machine, figures to quote."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Call = tuple[str, list[str]]

_HERE = Path(__file__).parent
_PINS = _HERE.parents[1] / ".ci" / "constraints.txt"
RIVALS = {"rivals": _HERE / "rivals.txt", "rivals-onnx": _HERE / "rivals_onnx.txt"}
"""Environments for packages that do not get on with ours, or with each other."""


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    Attributes:
        name: what the table calls it.
        asked: what the worker is told: ``kind`` and its options.
        environment: one of :data:`RIVALS`, or empty for the one that runs the benchmark.
        fresh: its process ends after each round, since it holds on to gigabytes.
    """

    name: str
    asked: dict[str, Any]
    environment: str = ""
    fresh: bool = False


@dataclass
class Worker:
    """A subject's process."""

    subject: Subject
    python: str
    folder: Path
    threads: int
    paths: Sequence[Path] = ()
    loaded: dict[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> str | None:
        """Start the process and load the model; return the reason where that fails."""
        limit = str(self.threads)
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": limit,
            "OPENBLAS_NUM_THREADS": limit,
            "TOKENIZERS_PARALLELISM": "true",
            "RAYON_NUM_THREADS": limit,
            "ORT_DISABLE_TELEMETRY": "1",
        }
        if self.paths:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, self.paths))
        self._process = subprocess.Popen(
            [self.python, str(_HERE / "_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        asked = {"subject": self.subject.asked, "folder": str(self.folder), "threads": self.threads}
        self.loaded = self._ask({"do": "load", **asked})
        error = self.loaded.get("error")
        if error:
            self.stop()
        return error

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def score(self, calls: Sequence[Call]) -> dict[str, Any]:
        """Score calls of one query each; raises RuntimeError where the subject fails."""
        answer = self._ask({"do": "score", "calls": list(calls)})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def score_many(self, call: Call, count: int, words: int) -> dict[str, Any]:
        """Score a number of texts made of a call's in the process itself, as one call; raises RuntimeError."""
        answer = self._ask({"do": "many", "query": call[0], "texts": call[1], "count": count, "words": words})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"its process ended with code {self._process.wait()}"}
        line = self._process.stdout.readline()
        if not line:
            return {"error": f"its process ended with code {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None


@dataclass
class Figures:
    """What a benchmark found, for ``--json FILE``, from which the documentation quotes."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        about: str,
        values: float | Sequence[float],
        unit: str = "",
        *,
        digits: int = 2,
        interval: tuple[float, float] | None = None,
    ) -> None:
        """Keep a number and its interval, or the median of several numbers and their range, rounded."""
        several = list(values) if isinstance(values, Sequence) else [values]
        figure = {"about": about, "value": round(statistics.median(several), digits), "unit": unit}
        if interval is None and len(several) > 1:
            interval = min(several), max(several)
        if interval is not None:
            figure |= {"low": round(interval[0], digits), "high": round(interval[1], digits)}
        self.found[name] = figure | {"digits": digits}

    def write(self, asked: argparse.Namespace) -> None:
        """Write what was found where that is asked for, with the machine."""
        if asked.json:
            found = {"machine": machine(getattr(asked, "threads", 0)), "figures": self.found}
            asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def figure_key(name: str) -> str:
    """Return a name as it stands in a figure's.

    >>> figure_key("ours: onnx: onnxruntime int8")
    'ours_onnx_onnxruntime_int8'
    """
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))


def simple_arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with what every local benchmark takes."""
    parser = simple_arguments(description)
    parser.add_argument("--folder", type=Path, help="where models and texts are kept; a temporary one by default")
    parser.add_argument("--threads", type=int, default=2)
    return parser


@contextlib.contextmanager
def kept(asked: argparse.Namespace) -> Iterator[Path]:
    """Give the folder for models and texts."""
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = (asked.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def interpreter(environment: str, rivals: Path | None) -> str | None:
    """Return the interpreter of an environment, made on first use; None where no folder for it was given."""
    if not environment:
        return sys.executable
    if rivals is None:
        return None
    python = rivals / environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = rivals / environment / "installed.txt"
    wanted = RIVALS[environment].read_text(encoding="utf-8")
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print(f"installing {RIVALS[environment].name} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(rivals / environment)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(_PINS)]
        subprocess.run([*command, "--requirement", str(RIVALS[environment])], check=True)
        # The registry's torchvision wants torch with CUDA; beside one without, transformers loads no model.
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
        done.write_text(wanted, encoding="utf-8")
    return str(python)


def start_all(
    subjects: Sequence[Subject], folder: Path, threads: int, rivals: Path | None = None
) -> dict[str, Worker]:
    """Start the subjects that can run; print a line for each of those that cannot."""
    workers = {}
    for subject in subjects:
        try:
            python = interpreter(subject.environment, rivals)
        except subprocess.CalledProcessError as exc:
            print(f"left out: {subject.name}: installing its packages failed ({exc.returncode})")
            continue
        if python is None:
            print(f"left out: {subject.name}: give --rivals-venv for its packages")
            continue
        worker = Worker(subject, python, folder, threads)
        error = worker.start()
        if error:
            print(f"left out: {subject.name}: {error}", flush=True)
        else:
            workers[subject.name] = worker
    return workers


def median(values: Sequence[float]) -> str:
    """Return a median with its range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text: the first column on the left, the others on the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    model, flags = platform.processor() or platform.machine(), ""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
                flags = " ".join(each for each in known if each in value.split())
    packages = ("torch", "transformers", "sentence-transformers", "tokenizers", "onnxruntime", "openvino")
    return {
        "cpu": model,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load": [round(each, 1) for each in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def machine_line(found: dict[str, Any]) -> str:
    """Return the machine as one line."""
    versions = ", ".join(f"{name} {each}" for name, each in found["versions"].items() if each)
    return (
        f"{found['cpu']} ({found['flags']}), {found['cores']} cores, {found['threads']} threads each, "
        f"load average {found['load']}; Python {found['python']}, {versions}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
