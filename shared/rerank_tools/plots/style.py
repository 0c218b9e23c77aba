"""What all plots share: colours that colour-blind people can tell apart, axes, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require
from rerank_core._support.tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

__all__ = ["BLUE", "GREY", "ORANGE", "add_legend", "get_axes", "make_label", "place_labels", "set_title"]

# Okabe and Ito's palette.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREY = "#8A8A8A"

_MARK = 5  # pixels around a point
_NEAR = 12  # points: a label farther off has a line to its point
_OFFSETS = (
    *((8, 0), (-8, 0), (0, 8), (0, -8), (8, 8), (8, -8), (-8, 8), (-8, -8)),
    *((side * 14, up * height) for height in (20, 34, 48, 62, 76) for up in (1, -1) for side in (1, -1)),
    *((side * 45, up * height) for height in (0, 20, 40, 60, 80) for up in (1, -1) for side in (1, -1)),
    *((x, up * height) for x in (80, -80, 0) for height in (0, 20, 40, 60, 80, 100, 120) for up in (1, -1)),
)


def get_axes(ax: Axes | None, *, size: tuple[float, float]) -> Axes:
    """Return the given Axes, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="notebook", purpose="rerank_tools.plots")
    _, new = pyplot.subplots(figsize=size, layout="constrained")
    return new  # type: ignore[no-any-return]


def make_label(text: str, max_chars: int) -> str:
    """Return a text as a short label; a dollar sign stays one instead of starting a formula."""
    return one_line(text, max_chars).replace("$", r"\$")


def add_legend(ax: Axes) -> None:
    """Add a legend to the right of the axes."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize="small", frameon=False)


def set_title(ax: Axes, title: str) -> None:
    """Set a title, in as many lines as the width of the axes asks for."""
    ax.set_title(fill(title, max(18, int(ax.bbox.width / ax.figure.dpi * 9))), fontsize="medium")


def place_labels(ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text beside each point, so that it hides no other text and no point if there is room."""
    figure: Any = ax.figure
    figure.canvas.draw()  # so that the layout is final before places are compared
    boxes = require("matplotlib.transforms", extra="notebook", purpose="rerank_tools.plots").Bbox
    marks = [ax.transData.transform(point) for point in points]
    taken = [boxes([[x - _MARK, y - _MARK], [x + _MARK, y + _MARK]]) for x, y in marks]
    for point, text in zip(points, texts, strict=True):
        tried: list[tuple[float, Any]] = []
        for offset in _OFFSETS:
            note = _annotate(ax, text, point, offset)
            box = _measure(note)
            outside = box.x0 < ax.bbox.x0 or box.x1 > ax.bbox.x1 or box.y0 < ax.bbox.y0 or box.y1 > ax.bbox.y1
            tried.append((sum(box.overlaps(other) for other in taken) + 2 * outside, note))
            if tried[-1][0] == 0:
                break
        chosen = min(tried, key=lambda pair: pair[0])[1]
        for _, note in tried:
            if note is not chosen:
                note.remove()
        taken.append(_measure(chosen))


def _measure(note: Annotation) -> Any:
    """Return the box of the text alone, without its line to the point."""
    kind: Any = require("matplotlib.text", extra="notebook", purpose="rerank_tools.plots").Text
    note.get_window_extent()  # moves the text to its place
    return kind.get_window_extent(note)


def _annotate(ax: Axes, text: str, point: tuple[float, float], offset: tuple[int, int]) -> Annotation:
    dx, dy = offset
    note = ax.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        fontsize="small",
        zorder=1.9,
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="center" if dy == 0 else "bottom" if dy > 0 else "top",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if max(abs(dx), abs(dy)) > _NEAR else None,
    )
    note.set_in_layout(False)
    return note
