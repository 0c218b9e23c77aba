"""Print the quality of the embedded scorer over BM25's top 100, beside BM25 alone.

Usage: embedded_quality.py FOLDER, a collection in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), which
is read in place. Collections marked evaluation-only are never tuned on.
"""

from __future__ import annotations

import sys

from rich.console import Console

from rerank_core import ConfigurationError, load_scorer
from rerank_core.evaluation import evaluate

# Room for the vectors of the whole collection, since most documents are candidates of several queries.
CACHE_BYTES = 2**30


def main() -> None:
    """Evaluate, and print the table."""
    if len(sys.argv) != 2:
        sys.exit("usage: embedded_quality.py FOLDER")
    scorer = load_scorer("embedded", cache_bytes=CACHE_BYTES)
    try:
        result = evaluate({"embedded": scorer}, sys.argv[1], progress=sys.stderr.isatty())
    except ConfigurationError as exc:
        sys.exit(str(exc))
    Console(soft_wrap=True).print(result.to_table())


if __name__ == "__main__":
    main()
