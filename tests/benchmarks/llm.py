"""Compare the ways to rank more documents than one question holds, with a scripted oracle as the language model.

llm.py FOLDER: a collection in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), which is read in
place. The oracle grades by the judgements, with a random grade for one document in ten; it reads BM25's top 100.
Figures compare strategies, not models: a real model errs more, and elsewhere.
"""

from __future__ import annotations

import json
import random
import re
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, figure_key, simple_arguments

from rerank_core import ConfigurationError, Scorer
from rerank_core.llm.answer import Reply
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import JudgeScorer
from rerank_core.policies import Cascade
from rerank_tools.evaluation import Dataset, SystemResult, evaluate, load_dataset

MEASURE = "nDCG@10"
NOISE = 0.1
SYSTEMS: dict[str, dict[str, Any]] = {
    "one question": {"window": 100, "max_input_tokens": 1_000_000},
    "pivot": {},
    "sliding": {"strategy": "sliding"},
    "pivot, order": {"mode": "order"},
    "sliding, order": {"mode": "order", "strategy": "sliding"},
    "one question, order": {"mode": "order", "window": 100, "max_input_tokens": 1_000_000},
    "pivot, depth 50": {"depth": 50},
    "pivot, 3 samples": {"samples": 3},
}
_QUERY = re.compile(r"<query>\n(.*?)\n</query>", re.DOTALL)
_DOCUMENT = re.compile(r'<document id="\d+">\n(.*?)\n</document>', re.DOTALL)


class Oracle(JudgeScorer):
    """Grades by the judgements of a collection: 9 for the most relevant, 1 for the others, and noise."""

    provider = "oracle"

    def __init__(self, judged: Mapping[tuple[str, str], float] = {}, **options: Any) -> None:
        self.judged = judged
        self.asked = 0
        super().__init__("", **options)

    async def ask(self, question: Question) -> Reply:
        """Answer as a good language model would."""
        self.asked += 1
        prompt = question.messages[-1][1]
        [query, *_] = _QUERY.findall(prompt)
        chance = random.Random(zlib.crc32(f"{self.asked} {prompt}".encode()))
        rows = []
        for number, text in enumerate(_DOCUMENT.findall(prompt), 1):
            grade = round(1 + 8 * self.judged.get((query, text), 0.0))
            rows.append((number, chance.randrange(11) if chance.random() < NOISE else grade))
        rows.sort(key=lambda row: -row[1])
        if question.schema is not None and question.schema["title"] == "order":
            return Reply(text=json.dumps({"order": [number for number, _ in rows]}))
        return Reply(text=json.dumps({"grades": [{"id": number, "grade": grade} for number, grade in rows]}))


def read_judgements(data: Dataset) -> dict[tuple[str, str], float]:
    """Return the share of the highest judgement, by query and text, as they are sent."""
    best = max(grade for judged in data.qrels.values() for grade in judged.values())
    return {
        (data.queries[query], data.documents[document]): max(0.0, grade / best)
        for query, judged in data.qrels.items()
        for document, grade in judged.items()
        if query in data.queries and document in data.documents
    }


def main() -> None:
    """Evaluate each strategy."""
    parser, figures = simple_arguments(__doc__ or ""), Figures()
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        data = load_dataset(asked.folder)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    judged = read_judgements(data)
    print(f"{data.name}: {len(data.judged)} queries over BM25's top 100, oracle with {NOISE:.0%} noise.\n")
    print(f"| ranking | {MEASURE} | calls | input tokens | output tokens |")
    print("|---|---:|---:|---:|---:|")
    for name, options in SYSTEMS.items():
        show(data, name, Oracle(judged, max_tokens_per_doc=100_000, **options), figures)
    cascade = Cascade(["embedded", Oracle(judged, max_tokens_per_doc=100_000)], keep=[20])
    show(data, "embedded, its best 20 to one question", cascade, figures)
    figures.write(asked)


def show(data: Dataset, name: str, scorer: Scorer, figures: Figures) -> None:
    """Evaluate one system and print its row, the first one's below that of the first stage."""
    result = evaluate({name: scorer}, data, measures=[MEASURE], progress=sys.stderr.isatty())
    for one in result.rerankers if figures.found else result.systems:
        print(row(one), flush=True)
        key = figure_key(one.name)
        quality, interval = one.measures[MEASURE], one.intervals[MEASURE]
        about = f"{MEASURE} of an oracle that errs once in ten: {one.name}"
        figures.add(f"llm.{key}.ndcg", about, quality, digits=3, interval=interval)
        asked_tokens = one.usage.tokens / len(one.queries)
        figures.add(f"llm.{key}.tokens", f"input tokens per query: {one.name}", asked_tokens, digits=0)


def row(system: SystemResult) -> str:
    """Return a system's row, with means over the queries."""
    queries, usage = len(system.queries), system.usage
    figures = (usage.requests, usage.tokens, usage.output_tokens)
    cells = [system.name, f"{system.measures[MEASURE]:.3f}", *(f"{figure / queries:,.0f}" for figure in figures)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
