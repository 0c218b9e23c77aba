"""Stored token vectors: what a query costs when its documents were encoded before, and what is stored of them.

stored.py CRANFIELD [--file rerank.vectors] [--synthetic 100000] [--queries 60] [--skip-rivals]

CRANFIELD is a folder in BEIR layout. A file that is given is kept, so that a second run encodes nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, machine, machine_line, median, simple_arguments, table

from rerank_core import Reranker, load_scorer
from rerank_core.local.late.encoding import name_records
from rerank_core.local.late.token_records import pack_record
from rerank_core.local.late.vector_file import record_key
from rerank_core.vectors import VectorFile
from rerank_tools.evaluation import Dataset, evaluate, load_dataset
from rerank_tools.evaluation.first_stage import retrieve

FIRST_QUERY = """
import json, sys, time
from rerank_core import Reranker, load_scorer
query, texts = json.load(sys.stdin)
reranker = Reranker(load_scorer("embedded", vectors=sys.argv[1], threads=int(sys.argv[2])))
Reranker(load_scorer("embedded", threads=int(sys.argv[2]))).warm_up()
start = time.perf_counter()
assert reranker.rerank(query, texts).usage.stored == len(texts)
print(1e3 * (time.perf_counter() - start))
"""
_TOKENS, _WIDTH = 60, 384  # of 120 tokens, half are stored


def measure(ask: Callable[[str, Sequence[str]], object], calls: Sequence[tuple[str, list[str]]]) -> list[float]:
    """Return the milliseconds of calls; the first one is made twice, and counts once."""
    ask(*calls[0])
    taken = []
    for call in calls:
        start = time.perf_counter()
        ask(*call)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def row(name: str, taken: Sequence[float]) -> list[str]:
    """Return a row of the table."""
    return [name, f"{statistics.median(taken):.1f}", f"{np.percentile(taken, 95):.1f}"]


def cross_encoder(threads: int) -> Callable[[str, Sequence[str]], object]:
    """Return ``CrossEncoder.predict`` of MiniLM-L6 shapes; its weights are random, which takes as long."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    import rerank_core.local.embedded as embedded

    torch.set_num_threads(threads)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    with tempfile.TemporaryDirectory() as folder:
        BertForSequenceClassification(BertConfig(vocab_size=30522, num_labels=1, **shape)).save_pretrained(folder)
        words = str(Path(embedded.__path__[0], "vocab.txt"))
        BertTokenizerFast(vocab_file=words, model_max_length=512).save_pretrained(folder)
        model: Any = CrossEncoder(folder, device="cpu")
    return lambda query, texts: model.predict([(query, text) for text in texts], show_progress_bar=False)


def fill_at_random(file: VectorFile, texts: Sequence[str]) -> None:
    """Store random records of 120 tokens for texts, as encoding them would."""
    generator = np.random.default_rng(0)
    encoder = name_records(load_scorer("embedded").load().name, pooling=2)
    known = [generator.standard_normal((1 + _TOKENS, _WIDTH)).astype(np.float32) for _ in range(100)]
    packed = [pack_record(vectors[0], vectors[1:]) for vectors in known]
    for start in range(0, len(texts), 32):
        some = texts[start : start + 32]
        file.write({record_key(encoder, text): packed[at] for at, text in enumerate(some)}, [encoder])


def main() -> None:
    """Print the figures."""
    parser = simple_arguments(__doc__ or "")
    parser.add_argument("cranfield", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--synthetic", type=int, default=100_000, help="documents of the large file; 0 for none")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-rivals", action="store_true", help="leave out what encodes at each query")
    asked = parser.parse_args()
    print(machine_line(machine(asked.threads)))
    with tempfile.TemporaryDirectory() as folder:
        run(asked, load_dataset(asked.cranfield), Path(folder))


def run(asked: argparse.Namespace, data: Dataset, folder: Path) -> None:
    """Fill the file, and measure."""
    figures = Figures()
    path = asked.file or folder / "rerank.vectors"
    stored = Reranker(load_scorer("embedded", vectors=path, threads=asked.threads))
    stored.warm_up()
    start = time.perf_counter()
    usage = stored.precompute(data.documents.values())
    seconds = time.perf_counter() - start
    print(f"encoded {usage.documents} in {seconds:.1f} s ({usage.documents / seconds:.1f} per second)")
    stats = VectorFile(path).stats()
    figures.add("stored.precompute", "documents encoded ahead", usage.documents / seconds, "per second", digits=1)
    figures.add("stored.bytes", "file per document", stats.bytes / stats.documents / 1e3, "kB", digits=1)
    print(f"{stats.documents} documents stored, {stats.bytes / stats.documents / 1e3:.1f} kB each")

    _, found = retrieve("bm25", data, 100)
    calls = [
        (data.queries[query], [text for key in candidates.scores if (text := data.documents[key]).strip()])
        for query, candidates in list(found.items())[: asked.queries]
    ]
    taken = measure(stored.rerank, calls)
    rows = [row("stored", taken)]
    about = "query over 100 stored documents"
    figures.add("stored.p50", f"{about}, median", statistics.median(taken), "ms", digits=1)
    figures.add("stored.p95", f"{about}, 95th percentile", float(np.percentile(taken, 95)), "ms", digits=1)
    if not asked.skip_rivals:
        encoding = Reranker(load_scorer("embedded", cache_bytes=0, threads=asked.threads))
        rivals = {
            "encoding": ("`embedded`, encoding at each query", measure(encoding.rerank, calls[:3])),
            "predict": (
                "`CrossEncoder.predict`, MiniLM-L6 shapes",
                measure(cross_encoder(asked.threads), calls[:3]),
            ),
        }
        for key, (name, slower) in rivals.items():
            rows.append(row(name, slower))
            figures.add(f"stored.{key}", f"the same query by {name}", slower, "ms", digits=0)
            ratios = [each / statistics.median(taken) for each in slower]
            figures.add(f"stored.over_{key}", f"stored vectors against {name}", ratios, "times", digits=0)
    if asked.synthetic:
        rows += measure_synthetic(folder, asked, figures)
    print(table(["100 candidates, the query's encoding included", "p50 ms", "p95 ms"], rows))

    taken = first_query(path, calls[0], asked.threads)
    figures.add("stored.first", "first query of a new process, beyond loading the model", taken, "ms", digits=0)
    print(f"first query of a new process, beyond loading the model: {median(taken)} ms")
    result = evaluate({"stored": stored}, data, measures=["nDCG@10"])
    quality = result["stored"].measures["nDCG@10"]
    interval = result["stored"].intervals["nDCG@10"]
    figures.add(
        "stored.ndcg", "nDCG@10 of stored vectors over BM25's top 100", quality, digits=3, interval=interval
    )
    print(f"nDCG@10: {quality:.4f}")
    figures.write(asked)


def measure_synthetic(folder: Path, asked: argparse.Namespace, figures: Figures) -> list[list[str]]:
    """Return the rows of a small and a large file with random vectors."""
    rows = []
    for count in (1_000, asked.synthetic):
        texts = [f"synthetic document {number}" for number in range(count)]
        file = VectorFile(folder / f"{count}.vectors")
        start = time.perf_counter()
        fill_at_random(file, texts)
        print(f"{count} random records: {time.perf_counter() - start:.1f} s, {file.stats().bytes / 1e6:.0f} MB")
        reranker = Reranker(load_scorer("embedded", vectors=file, threads=asked.threads))
        chance = random.Random(0)
        calls = [(f"question {number}", chance.sample(texts, 100)) for number in range(asked.queries)]
        taken = measure(reranker.rerank, calls)
        rows.append(row(f"stored, any 100 of {count}", taken))
        about = f"query over any 100 of {count:,} stored documents, median"
        figures.add(f"stored.of_{count}", about, statistics.median(taken), "ms", digits=1)
        file.close()
    return rows


def first_query(path: Path, call: tuple[str, list[str]], threads: int) -> list[float]:
    """Return the milliseconds of five processes' first query."""
    import json

    command = [sys.executable, "-c", FIRST_QUERY, str(path), str(threads)]
    return [
        float(subprocess.run(command, input=json.dumps(call), capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]


if __name__ == "__main__":
    main()
