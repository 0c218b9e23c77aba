"""Measure what the documentation quotes, for docs/benchmarks.json and docs/benchmarks.md.

    bench_all.py [PART …] [--cranfield FOLDER] [--folder FOLDER] [--with "--rounds 1"]

Without parts all of them run, one after the other. What a part found replaces what is there of that part; the
others stay. Parts that need Cranfield are left out without it, and those that need a GPU where there is none. The
quotes in README and documentation are brought up to date, too.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import figures

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A benchmark, as it is run for the documentation.

    Attributes:
        title: heading on the page.
        arguments: after the script's name; CRANFIELD and BENCH stand for the folders.
        minutes: about how long it takes on two cores.
        needs_gpu: it is left out where there is none.
    """

    title: str
    arguments: str = ""
    minutes: float = 1
    needs_gpu: bool = False


_KEPT = "--folder BENCH"
_RIVALS = "--folder BENCH --rivals-venv BENCH"
PARTS = {
    "import_time": Part("Import", minutes=0.2),
    "overhead": Part("What a call costs beside the model", minutes=0.2),
    "embedded_speed": Part("The embedded model", minutes=2),
    "providers": Part("Services, against their own SDKs", minutes=3),
    "evaluation": Part("Quality", "CRANFIELD", minutes=5),
    "stored": Part("Stored vectors", "CRANFIELD", minutes=20),
    "policies": Part("Policies", "CRANFIELD", minutes=15),
    "llm": Part("Language models as judges: ways to ask", "CRANFIELD", minutes=5),
    "local_speed": Part("Speed of local models", _RIVALS, minutes=25),
    "local_precision": Part("Precision of local models", _RIVALS, minutes=15),
    "local_concurrency": Part("Many callers at once", _KEPT, minutes=4),
    "local_memory": Part("Memory and cold start", _KEPT, minutes=15),
    "local_shapes": Part("Larger models", _KEPT, minutes=15),
    "embedded_first": Part("The embedded model, against its first version", _KEPT, minutes=4),
    "gpu_speed": Part("On a GPU", minutes=10, needs_gpu=True),
}


def measure(name: str, folders: dict[str, str], further: str) -> dict[str, Any] | None:
    """Run a part; return what it found with the command, or None where it failed."""
    arguments = shlex.split(f"{PARTS[name].arguments} {further}")
    command = [sys.executable, str(HERE / f"{name}.py"), *(folders.get(each, each) for each in arguments)]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "figures.json")
        run = subprocess.run([*command, "--json", str(file)])
        if run.returncode != 0 or not file.exists():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    shown = shlex.join(["python", f"tests/benchmarks/{name}.py", *arguments])
    return {"title": PARTS[name].title, "command": shown, "date": date.today().isoformat(), **found}


def why_not(name: str, folders: dict[str, str]) -> str | None:
    """Return why a part cannot run here; None where it can."""
    for folder in ("CRANFIELD", "BENCH"):
        if folder in PARTS[name].arguments.split() and folder not in folders:
            return f"it needs the folder {folder}"
    if PARTS[name].needs_gpu:
        import torch

        return None if torch.cuda.is_available() else "there is no GPU"
    return None


def main() -> int:
    """Run the parts, and keep what each found as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cranfield", help="the Cranfield collection, a folder in BEIR layout")
    parser.add_argument("--folder", default=".venv-bench", help="for models, texts and other rerankers")
    parser.add_argument("--with", dest="further", default="", help="further arguments of each part's script")
    parser.add_argument("--list", action="store_true", help="only say what would run, and for how long")
    asked = parser.parse_args()
    folders = {"BENCH": str(Path(asked.folder).resolve())}
    if asked.cranfield:
        folders["CRANFIELD"] = str(Path(asked.cranfield).resolve())
    failed = []
    for name in asked.parts or PARTS:
        reason = why_not(name, folders)
        print(f"{name}: {f'left out: {reason}' if reason else f'about {PARTS[name].minutes} minutes'}", flush=True)
        if reason or asked.list:
            continue
        found = measure(name, folders, asked.further)
        if found is None:
            failed.append(name)
        else:
            keep(name, found)
    if failed:
        print(f"failed: {', '.join(failed)}; what was known of them is kept")
    return 1 if failed else 0


def keep(name: str, found: dict[str, Any]) -> None:
    """Put a part's figures into the file, in the order of the parts, and write what follows from it."""
    known = figures.read_parts()
    pending = {key: each for key, each in known.get(name, {}).get("figures", {}).items() if each["value"] is None}
    known[name] = found | {"figures": pending | found["figures"]}
    ordered = {each: known[each] for each in PARTS if each in known}
    figures.FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        figures.main()
    except KeyError as exc:
        print(f"the documentation quotes more than is measured yet: {exc.args[0]}")


if __name__ == "__main__":
    sys.exit(main())
