"""Draw docs/before_after.svg: passages of Python's documentation before and after reranking, by our own plot.

Run it by ``python docs/picture.py`` (extras ``embedded``, ``langchain``, ``llamaindex`` and ``notebook``, bm25s).
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from demo import CANDIDATES, FirstStage
from stdlib_corpus import passages

from rerank_core import Reranker
from rerank_tools.plots import plot_rank_movement

HERE = Path(__file__).parent
QUESTION = "Run a command and capture what it prints, but give up after ten seconds"
SHOWN = 6


def main() -> None:
    """Search by words, rerank, and draw."""
    found = [passage for passage, _ in FirstStage(passages()).search(QUESTION, CANDIDATES)]
    ranking = Reranker("embedded").rerank(QUESTION, found, text_fn=lambda passage: passage.text)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "before_after", "font.family": "sans-serif"}):
        axes = plot_rank_movement({"reranked": ranking}, top=SHOWN, label_fn=lambda row: row.document.title)
        axes.set_title("")
        axes.set_title(f"“{QUESTION}”", loc="center", fontsize="medium")
        file = HERE / "before_after.svg"
        axes.figure.savefig(file, bbox_inches="tight", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
