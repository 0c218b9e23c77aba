"""What all plots share: colours that colour-blind people tell apart, axes, and labels that keep apart."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rerank_core._html import plain
from rerank_core._optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLUE", "GREY", "ORANGE", "axes", "label", "place_labels", "set_title"]

# Okabe and Ito's palette.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8A8A8A"

_PLACES = ((8, 6), (8, -6), (-8, 6), (-8, -6), (0, 14), (0, -14), (8, 28), (8, -28), (-8, 28), (-8, -28), (0, 44))


def axes(ax: Axes | None, *, size: tuple[float, float]) -> Axes:
    """Return the given Axes, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="notebook", purpose="rerank_core.plots")
    _, new = pyplot.subplots(figsize=size, layout="constrained")
    return new  # type: ignore[no-any-return]


def label(text: str, limit: int) -> str:
    """Return a text as a short label; a dollar sign stays one instead of starting a formula."""
    return plain(text, limit).replace("$", r"\$")


def set_title(ax: Axes, title: str) -> None:
    """Set a title, in as many lines as the width of the axes asks for."""
    ax.set_title(fill(title, max(18, int(ax.bbox.width / ax.figure.dpi * 9))), fontsize="medium")


def place_labels(ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text beside each point, where it hides no other text and no point, as far as there is room."""
    figure: Any = ax.figure
    figure.canvas.draw()  # so that the layout is final before places are compared
    marks = [ax.transData.transform(point) for point in points]
    taken: list[Any] = []
    for point, text in zip(points, texts, strict=True):
        best: tuple[float, Any, tuple[int, int]] | None = None
        for dx, dy in _PLACES:
            note = ax.annotate(
                text,
                point,
                (dx, dy),
                textcoords="offset points",
                fontsize="small",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="center" if abs(dy) < 14 and dx else "bottom" if dy > 0 else "top",
            )
            box = note.get_window_extent()
            clashes = sum(box.overlaps(other) for other in taken) + sum(bool(box.contains(x, y)) for x, y in marks)
            inside = (
                ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1
            )
            note.remove()
            badness = clashes + (0 if inside else 0.5)
            if best is None or badness < best[0]:
                best = (badness, box, (dx, dy))
            if badness == 0:
                break
        if best is not None:
            dx, dy = best[2]
            taken.append(best[1])
            note = ax.annotate(
                text,
                point,
                (dx, dy),
                textcoords="offset points",
                fontsize="small",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="center" if abs(dy) < 14 and dx else "bottom" if dy > 0 else "top",
            )
            note.set_in_layout(False)
