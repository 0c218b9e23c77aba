"""Print nDCG@10, MRR and MAP of the embedded scorer over BM25's top 100, beside BM25 alone.

Usage: embedded_quality.py FOLDER, a collection in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), which
is read in place. Collections marked evaluation-only are never tuned on.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import bm25s
import ir_measures
import Stemmer
from ir_measures import AP, MRR, Qrel, ScoredDoc, nDCG

from rerank_core import Reranker, load_scorer

MEASURES = [nDCG @ 10, MRR, AP @ 100]
TOP_K = 100
CACHE_BYTES = 2**30


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Rank every query's candidates, and print both rankings' measures."""
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else Path()
    if not (folder / "corpus.jsonl").is_file():
        sys.exit(f"no collection at {folder}: give a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    corpus = {
        row["_id"]: f"{row.get('title', '')}\n{row['text']}".strip() for row in rows(folder / "corpus.jsonl")
    }
    queries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl")}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        qrels = [
            Qrel(row["query-id"], row["corpus-id"], int(row["score"]))
            for row in csv.DictReader(file, delimiter="\t")
        ]
    ids = list(corpus)
    stem = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(list(corpus.values()), **stem), show_progress=False)
    found, scores = index.retrieve(bm25s.tokenize(list(queries.values()), **stem), k=TOP_K, show_progress=False)
    candidates = [[ids[position] for position in row] for row in found]
    first = [
        ScoredDoc(query, document, float(score))
        for query, documents, row in zip(queries, candidates, scores, strict=True)
        for document, score in zip(documents, row, strict=True)
    ]
    start = time.perf_counter()
    # Room for the vectors of the whole collection, since most documents are candidates of several queries.
    rankings = Reranker(load_scorer("embedded", cache_bytes=CACHE_BYTES)).rerank_many(
        list(queries.values()), candidates, text_fn=corpus.__getitem__, progress=sys.stderr.isatty()
    )
    seconds = time.perf_counter() - start
    second = [
        ScoredDoc(query, ranked.document, ranked.score or 0.0)
        for query, ranking in zip(queries, rankings, strict=True)
        for ranked in ranking
    ]
    print(f"{folder.name}: {len(queries)} queries over BM25's top {TOP_K}, reranked in {seconds:.0f} s")
    for name, run in (("BM25", first), ("embedded", second)):
        values = ir_measures.calc_aggregate(MEASURES, qrels, run)
        print(f"{name:9}" + "  ".join(f"{measure} {values[measure]:.3f}" for measure in MEASURES))


if __name__ == "__main__":
    main()
