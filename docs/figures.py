"""Figures that README and documentation quote, from docs/benchmarks.json, which `make bench-all` writes.

A quote stands between two comments, which name the figure and how to show it::

    a query takes <!-- figure stored.p50 -->4.8 ms<!-- / -->
    <!-- figure local_speed.our_onnx.speed range -->2.46 times (2.32–2.82)<!-- / -->
    <!-- figure stored.p50 number -->4.8<!-- / -->

`python docs/figures.py` brings the quotes and docs/benchmarks.md up to date. The documentation is not built where
a quote differs from its figure, and a test refuses measured numbers that are no quotes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FILE = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"
QUOTE = re.compile(r"<!-- figure (\S+?)(?: (\w+))? -->(.*?)<!-- / -->", re.S)
INTRODUCTION = """\
# Benchmarks

Every figure that this documentation quotes, with the command that measures it, the machine and the date. Ratios
are measured side by side, in one run, so that other load on the machine hits both alike. Ranges are the lowest and
the highest of several rounds; for quality they are 95 % confidence intervals.

`make bench-all CRANFIELD=folder` measures everything again, `make bench-all PARTS="overhead local_speed"` a part.
What is not here was not measured.
"""


def read_parts() -> dict[str, Any]:
    """Return what is known, by part."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def show(figure: dict[str, Any], form: str | None = None) -> str:
    """Return a figure as text: with its unit, with its ``range`` besides, or its ``number`` alone."""
    if figure["value"] is None:
        return "not measured yet"

    def number(value: float) -> str:
        shown = f"{value:,.{figure['digits']}f}"
        return f"{value:.0e}" if value and float(shown.replace(",", "")) == 0 else shown

    text = number(figure["value"])
    if form != "number" and figure["unit"]:
        text += f" {figure['unit']}"
    if form == "range" and "low" in figure:
        text += f" ({number(figure['low'])}–{number(figure['high'])})"
    return text


def fill(text: str, parts: dict[str, Any]) -> str:
    """Return a page with its quotes up to date; raises KeyError for a figure that was not measured."""
    known = {name: figure for part in parts.values() for name, figure in part["figures"].items()}

    def quote(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise KeyError(
                f"no benchmark measured the figure {match[1]}: docs/benchmarks.json has {sorted(known)}"
            )
        form = f" {match[2]}" if match[2] else ""
        return f"<!-- figure {match[1]}{form} -->{show(known[match[1]], match[2])}<!-- / -->"

    return QUOTE.sub(quote, text)


def render(parts: dict[str, Any]) -> str:
    """Return the page about all figures."""
    lines = [INTRODUCTION]
    for part in parts.values():
        if "machine" not in part:
            lines.append(f"## {part['title']}\n\n```sh\n{part['command']}\n```\n\nNot measured yet.\n")
            continue
        machine = part["machine"]
        versions = ", ".join(f"{name} {each}" for name, each in machine["versions"].items() if each)
        lines += [
            f"## {part['title']}\n",
            f"```sh\n{part['command']}\n```\n",
            f"{part['date']}, {machine['cpu']}, {machine['cores']} cores ({machine['flags']}), "
            f"Python {machine['python']}, {versions}. Load averages: {', '.join(map(str, machine['load']))}.\n",
            "| figure | value | name |\n|---|---:|---|",
        ]
        for name, figure in part["figures"].items():
            lines.append(f"| {figure['about']} | {show(figure, 'range')} | `{name}` |")
        lines.append("")
    if "gpu_speed" not in parts:
        lines.append("## On a GPU\n\nNot measured.\n")
    return "\n".join(lines)


def pages() -> list[Path]:
    """Return the files that may quote."""
    return [DOCS.parent / "README.md", *(path for path in sorted(DOCS.glob("*.md")) if path != PAGE)]


def main() -> None:
    """Bring quotes and page up to date."""
    parts = read_parts()
    PAGE.write_text(render(parts), encoding="utf-8")
    for path in pages():
        path.write_text(fill(path.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
