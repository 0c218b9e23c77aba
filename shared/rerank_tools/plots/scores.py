"""How scores are spread, and where the cut fell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError
from rerank_core.types import Ranking
from rerank_tools.plots._style import BLUE, GREY, ORANGE, axes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["score_distribution"]


def score_distribution(
    rankings: Ranking[Any] | Iterable[Ranking[Any]], *, bins: int = 20, ax: Axes | None = None
) -> Axes:
    """Draw a histogram of the scores, kept documents apart from dropped ones, with a line at the cut.

    Args:
        rankings: one ranking, or those of several queries, taken together; a line is drawn where all were cut
            at the same score.
        bins: bars between 0 and 1; ≥ 1.
        ax: where to draw; by default a new figure.

    Raises:
        ConfigurationError: nothing was scored, or ``bins`` is below 1.
        MissingExtraError: matplotlib is not installed (extra ``notebook``).
    """
    several = [rankings] if isinstance(rankings, Ranking) else list(rankings)
    bins = check_count("bins", bins)
    kept: list[float] = []
    dropped: list[float] = []
    for ranking in several:
        indices = {document.index for document in ranking}
        for index, score in enumerate(ranking.scores):
            if score is not None:
                (kept if index in indices else dropped).append(score)
    if not kept and not dropped:
        raise ConfigurationError("no document has a score: give rankings that were scored")
    ax = axes(ax, size=(6, 3.2))
    ax.hist(
        [kept, dropped],
        bins=bins,
        range=(0.0, 1.0),
        stacked=True,
        color=[BLUE, "#CFCFCF"],
        edgecolor=GREY,
        label=[f"kept ({len(kept):,})", f"dropped ({len(dropped):,})"],
    )
    cuts = {ranking.cut_score for ranking in several}
    cut = cuts.pop() if len(cuts) == 1 else None
    if cut is not None:
        ax.axvline(cut, color=ORANGE, linestyle="--", label=f"cut at {cut:.3f}")
    ax.set_xlim(0, 1)
    ax.locator_params(axis="y", integer=True)
    ax.set_xlabel("relevance score (0 to 1)")
    ax.set_ylabel("documents")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize="small", frameon=False)
    queries = f"{len(several):,} queries" if len(several) > 1 else "one query"
    set_title(ax, f"Scores of {len(kept) + len(dropped):,} documents, {queries}")
    return ax
