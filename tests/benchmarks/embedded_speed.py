"""Print the embedded scorer's first query from a cold process, and the same documents again from its cache.

The documents are 100 passages of about 100 words from Python's own documentation, or with a path argument from
a corpus.jsonl in BEIR layout.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, simple_arguments
from stdlib_corpus import passages

COLD = """
import json, sys, time
documents = json.load(sys.stdin)
start = time.perf_counter()
from rerank_core import Reranker
reranker = Reranker("embedded")
ranking = reranker.rerank("How do I find what is leaking memory?", documents)
first = time.perf_counter() - start
again = []
for query in ("Copy a file", "Parse arguments", "Compare two texts", "Send an email", "Sort a list"):
    start = time.perf_counter()
    reranker.rerank(query, documents)
    again.append(time.perf_counter() - start)
start = time.perf_counter()
fresh = reranker.rerank("How do I find what is leaking memory?", [text[::-1] for text in documents])
print(json.dumps([first, ranking.usage.tokens, time.perf_counter() - start, fresh.usage.tokens, again]))
"""
WORDS, DOCUMENTS, RUNS = 100, 100, 5


def documents(corpus: Path | None) -> list[str]:
    """Return 100 texts of 100 words."""
    if corpus is not None:
        lines = corpus.read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = [passage.text for passage in passages()]
    long_enough = [text.split() for text in texts if len(text.split()) >= WORDS]
    return [" ".join(words[:WORDS]) for words in long_enough[:DOCUMENTS]]


def main() -> None:
    """Print medians of fresh processes; the goals are 2.5 s cold, and 20 times faster from the cache."""
    parser, figures = simple_arguments(__doc__ or ""), Figures()
    parser.add_argument("corpus", type=Path, nargs="?", help="a corpus.jsonl in BEIR layout")
    asked = parser.parse_args()
    texts = json.dumps(documents(asked.corpus))
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", COLD], input=texts, capture_output=True, text=True).stdout
        )
        for _ in range(RUNS)
    ]
    first = [run[0] for run in runs]
    ratios = [run[2] / run[3] * run[1] / statistics.median(run[4]) for run in runs]
    print(
        f"embedded, {DOCUMENTS} documents of {WORDS} words ({runs[0][1]} tokens), {RUNS} cold processes: "
        f"first query median {statistics.median(first):.2f} s ({min(first):.2f} to {max(first):.2f}) "
        "with import and load"
    )
    again = statistics.median(statistics.median(run[4]) for run in runs)
    print(
        f"again from the cache: median {1000 * again:.1f} ms, "
        f"{statistics.median(ratios):.0f} times faster than encoding as many tokens in the same process "
        f"({min(ratios):.0f} to {max(ratios):.0f})"
    )
    figures.add(
        "embedded_speed.first", "import, load and first query of 100 documents, cold process", first, "s", digits=1
    )
    cached = [1000 * statistics.median(run[4]) for run in runs]
    figures.add("embedded_speed.again", "another query over the same 100 documents", cached, "ms", digits=1)
    figures.add("embedded_speed.ratio", "the same, against encoding them", ratios, "times", digits=0)
    figures.write(asked)


if __name__ == "__main__":
    main()
