"""An evaluation as a table for terminals, notebooks, documents and programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require

if TYPE_CHECKING:
    from rerank_tools.evaluation.results import EvaluationResult, SystemResult
    from rich.table import Table

__all__ = ["as_dict", "html", "json_text", "markdown", "table"]

_LEVEL = 0.05

_CELL = "padding:0.3em 0.8em;text-align:right;white-space:nowrap"


def table(result: EvaluationResult) -> Table:
    """Return a table of rich, within 80 columns for the default measures."""
    kind = require("rich.table", extra="eval", purpose="to_table").Table
    text = require("rich.text", extra="eval", purpose="to_table").Text
    built: Table = kind(
        title=text(_title(result)),
        caption=text(_caption(result)),
        caption_justify="left",
        box=require("rich.box", extra="eval", purpose="to_table").SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    built.add_column("system", overflow="fold", min_width=8)
    for heading in [*result.measures, "p50\np95", "cost"]:
        built.add_column(heading, justify="right", no_wrap=True)
    for system in result.systems:
        cells = [f"{_mean(system, measure)}\n{_interval(system, measure)}" for measure in result.measures]
        p50, p95, cost = _costs(system)
        built.add_row(text(system.name), *map(text, [*cells, f"{p50}\n{p95}", cost]))
    return built


def markdown(result: EvaluationResult) -> str:
    """Return a Markdown table, a caption below."""
    headings = _headings(result)
    lines = [f"| {' | '.join(headings)} |", "|".join(["", "---", *["---:"] * (len(headings) - 1), ""])]
    for system in result.systems:
        name = system.name.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {' | '.join([name, *_cells(result, system)])} |")
    return "\n".join([*lines, "", _caption(result), ""])


def html(result: EvaluationResult) -> str:
    """Return an HTML table in the colours of the page around it, every name escaped."""
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(heading)}</th>' for heading in _headings(result))
    rows = []
    for system in result.systems:
        cells = "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in _cells(result, system))
        name = f'<th scope="row" style="{_CELL};text-align:left">{escape(system.name)}</th>'
        rows.append(f"<tr>{name}{cells}</tr>")
    caption = f'<caption style="text-align:left">{escape(_title(result))}</caption>'
    return (
        f'<table style="border-collapse:collapse">{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><p>{escape(_caption(result))}</p>"
    )


def as_dict(result: EvaluationResult) -> dict[str, Any]:
    """Return plain values; rankings have a file format of their own (``save_runs``)."""
    return {
        "dataset": result.dataset,
        "queries": len(result.qrels),
        "first_stage": result.first_stage,
        "top_k": result.top_k,
        "test": result.test,
        "resumed": result.resumed,
        "measures": list(result.measures),
        "systems": [
            {
                "name": system.name,
                "models": sorted({answer.model for answer in system.queries.values()}),
                "measures": dict(system.measures),
                "intervals": dict(system.intervals),
                "p_values": dict(system.p_values),
                "latency_p50": system.latency_p50,
                "latency_p95": system.latency_p95,
                "usage": asdict(system.usage),
                "failures": system.failures,
                "per_query": {measure: dict(values) for measure, values in system.per_query.items()},
            }
            for system in result.systems
        ],
    }


def json_text(result: EvaluationResult) -> str:
    """Return the same as JSON."""
    return json.dumps(as_dict(result), indent=2, ensure_ascii=False)


def _headings(result: EvaluationResult) -> list[str]:
    return ["system", *result.measures, "p50", "p95", "cost"]


def _title(result: EvaluationResult) -> str:
    return f"{result.dataset}: {len(result.qrels)} queries, {result.first_stage}'s top {result.top_k}"


def _caption(result: EvaluationResult) -> str:
    parts = ["Ranges: 95 % bootstrap intervals of the means." if len(result.qrels) > 1 else ""]
    if len(result.systems) > 1:
        parts.append(f"* differs from {result.first_stage}, p < {_LEVEL} ({result.test}).")
    parts.append("p50, p95: time a query takes, reranking alone.")
    failed = sum(len(system.failures) for system in result.systems)
    if failed:
        parts.append(f"{failed} calls failed and kept the first stage's order.")
    return " ".join(part for part in parts if part)


def _cells(result: EvaluationResult, system: SystemResult) -> list[str]:
    quality = []
    for measure in result.measures:
        interval = _interval(system, measure)
        quality.append(f"{_mean(system, measure)} ({interval})" if interval else _mean(system, measure))
    return [*quality, *_costs(system)]


def _mean(system: SystemResult, measure: str) -> str:
    p_value = system.p_values.get(measure)
    return f"{system.measures[measure]:.3f}{'*' if p_value is not None and p_value < _LEVEL else ''}"


def _interval(system: SystemResult, measure: str) -> str:
    interval = system.intervals[measure]
    return "" if interval is None else f"{_short(interval[0])}–{_short(interval[1])}"


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if 0.0 <= value < 1.0 else f"{value:.2f}"


def _costs(system: SystemResult) -> list[str]:
    cost = system.usage.cost
    return [
        _seconds(system.latency_p50),
        _seconds(system.latency_p95),
        "unknown" if cost is None else f"${cost:.4f}" if cost else "$0",
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1.0:
        return f"{value:.2f} s"
    return f"{value * 1000.0:.0f} ms" if value >= 0.01 else f"{value * 1000.0:.1f} ms"
