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

from benchmarks._bench import machine, machine_line, table

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


def measure(ask: Callable[[str, Sequence[str]], object], calls: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Return p50 and p95 in milliseconds; the first call does not count."""
    ask(*calls[0])
    taken = []
    for call in calls:
        start = time.perf_counter()
        ask(*call)
        taken.append(1e3 * (time.perf_counter() - start))
    return [f"{statistics.median(taken):.1f}", f"{np.percentile(taken, 95):.1f}"]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    path = asked.file or folder / "rerank.vectors"
    stored = Reranker(load_scorer("embedded", vectors=path, threads=asked.threads))
    stored.warm_up()
    start = time.perf_counter()
    usage = stored.precompute(data.documents.values())
    seconds = time.perf_counter() - start
    print(f"encoded {usage.documents} in {seconds:.1f} s ({usage.documents / seconds:.1f} per second)")
    stats = VectorFile(path).stats()
    print(f"{stats.documents} documents stored, {stats.bytes / stats.documents / 1e3:.1f} kB each")

    _, found = retrieve("bm25", data, 100)
    calls = [
        (data.queries[query], [text for key in candidates.scores if (text := data.documents[key]).strip()])
        for query, candidates in list(found.items())[: asked.queries]
    ]
    rows = [["stored", *measure(stored.rerank, calls)]]
    if not asked.skip_rivals:
        encoding = Reranker(load_scorer("embedded", cache_bytes=0, threads=asked.threads))
        rows.append(["embedded, encoding at each query", *measure(encoding.rerank, calls[:3])])
        rows.append(["CrossEncoder.predict, MiniLM-L6 shapes", *measure(cross_encoder(asked.threads), calls[:3])])
    if asked.synthetic:
        rows += measure_synthetic(folder, asked)
    print(table(["100 candidates, the query's encoding included", "p50 ms", "p95 ms"], rows))

    print("first query of a new process, beyond loading the model:", first_query(path, calls[0], asked.threads))
    result = evaluate({"stored": stored}, data, measures=["nDCG@10"])
    print(f"nDCG@10: {result['stored'].measures['nDCG@10']:.4f}")


def measure_synthetic(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
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
        rows.append([f"stored, any 100 of {count}", *measure(reranker.rerank, calls)])
        file.close()
    return rows


def first_query(path: Path, call: tuple[str, list[str]], threads: int) -> str:
    """Return the milliseconds of five processes' first query."""
    import json

    command = [sys.executable, "-c", FIRST_QUERY, str(path), str(threads)]
    taken = [
        float(subprocess.run(command, input=json.dumps(call), capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    return f"{statistics.median(taken):.0f} ms ({min(taken):.0f}–{max(taken):.0f})"


if __name__ == "__main__":
    main()
