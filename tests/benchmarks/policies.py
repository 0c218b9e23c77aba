"""Print quality, time and model work of the policies over BM25's top 100, as a Markdown table.

policies.py FOLDER: a collection in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), which is read
in place. Collections marked evaluation-only are never tuned on: every option here is a default or a round number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, simple_arguments

from rerank_core import ConfigurationError, Reranker, Scored, Scorer, fusion, load_scorer
from rerank_core.policies import Cached, Cascade
from rerank_tools.evaluation import Dataset, SystemResult, evaluate, load_dataset

KEEP = 30
LIGHT_TOKENS = 64
WEIGHT = 0.15
MEASURE = "nDCG@10"


class Fused(Scorer):
    """Fuses a scorer's ranking with the order of the texts, which is the first stage's.

    Args:
        scorer: the scorer.
    """

    name = "fused"
    listwise = True

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the fused scores."""
        ranking = await Reranker(self.scorer).arerank(query, texts)
        fused = fusion.fuse(ranking, [-float(rank) for rank in range(len(texts))])
        return Scored([score or 0.0 for score in fused.scores], ranking.usage)


def embedded(number: int, *, max_length: int = 256) -> Scorer:
    """Return an embedded scorer with an engine of its own, so that no system finds another's token vectors."""
    return load_scorer("embedded", max_length=max_length, cache_bytes=2**30 + number)


def main() -> None:
    """Evaluate each policy, then the cache when it knows every pair."""
    parser, figures = simple_arguments(__doc__ or ""), Figures()
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        data = load_dataset(asked.folder)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    alone = embedded(0)
    cached = Cached(alone)
    cascade = Cascade([embedded(1, max_length=LIGHT_TOKENS), embedded(2)], keep=[KEEP])
    print(
        f"{data.name}: {len(data.judged)} queries over BM25's top 100, one at a time. Each ranking starts without"
    )
    print("token vectors and keeps those of the documents that it has met (cache_bytes).\n")
    print(f"| ranking | {MEASURE} | p50 | p95 | texts scored per query | tokens read per query |")
    print("|---|---:|---:|---:|---:|---:|")
    show(data, "embedded", "embedded", alone, figures)
    show(data, "fused", "BM25 + embedded, fused", Fused(embedded(3)), figures)
    weighted = Reranker(embedded(4), retrieval_weight=WEIGHT)
    show(data, "weighted", f"embedded, retrieval_weight={WEIGHT}", weighted, figures)
    light = f"cascade: embedded with {LIGHT_TOKENS} tokens, {KEEP} to embedded"
    show(data, "cascade", light, cascade, figures)
    evaluate({"first run": cached}, data)
    show(data, "cached", "cached: second run", cached, figures)
    figures.write(asked)


def show(data: Dataset, key: str, name: str, scorer: Scorer | Reranker, figures: Figures) -> None:
    """Evaluate one system and print its row, the first one's below that of the first stage."""
    result = evaluate({name: scorer}, data, measures=[MEASURE], progress=sys.stderr.isatty())
    for one in result.rerankers if figures.found else result.systems:
        print(row(one), flush=True)
        which = key if one.name == name else "bm25"
        quality, interval = one.measures[MEASURE], one.intervals[MEASURE]
        figures.add(f"policies.{which}.ndcg", f"{MEASURE} of {one.name}", quality, digits=3, interval=interval)
        for part, seconds in (("p50", one.latency_p50), ("p95", one.latency_p95)):
            figures.add(
                f"policies.{which}.{part}", f"{part} of {one.name}", 1000 * (seconds or 0.0), "ms", digits=1
            )
        scored = one.usage.documents / len(one.queries)
        figures.add(f"policies.{which}.texts", f"texts scored per query by {one.name}", scored, digits=0)


def row(system: SystemResult) -> str:
    """Return a system's row."""
    interval = system.intervals[MEASURE] or (0.0, 0.0)
    queries = len(system.queries)
    cells = [
        system.name,
        f"{system.measures[MEASURE]:.3f} ({interval[0]:.3f}–{interval[1]:.3f})",
        f"{1000 * (system.latency_p50 or 0.0):.1f} ms",
        f"{1000 * (system.latency_p95 or 0.0):.1f} ms",
        f"{system.usage.documents / queries:.1f}",
        f"{system.usage.tokens / queries:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
