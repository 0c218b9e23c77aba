"""Stored token vectors: what a query costs when its documents were encoded before, and what is stored of them.

stored.py CRANFIELD [--only encode query …] [--folder FOLDER] [--synthetic 100000] [--queries 60]

CRANFIELD is a folder in BEIR layout. Vector files in a folder that is given are kept, so that a second run encodes
nothing again. The parts:

encode     documents encoded and stored per second
query      size and latency of 100 stored candidates, beside encoding at each query and CrossEncoder.predict
quality    nDCG@10 with each pooling and without a file
first      the first query of a new process
synthetic  many documents: time to fill, size, latency
kills      twenty kills while precomputing
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Call, Figures, arguments, kept, machine, machine_line, median, table

from rerank_core import Reranker, load_scorer
from rerank_core.local.late.token_records import name_records, pack_record
from rerank_core.vectors import VectorFile, record_key
from rerank_tools.evaluation import Dataset, evaluate, load_dataset
from rerank_tools.evaluation.first_stage import retrieve

FIRST_QUERY = """
import json, sys, time
from rerank_core import Reranker, load_scorer
query, texts = json.load(sys.stdin)
reranker = Reranker(load_scorer("embedded", vectors=sys.argv[1], threads=int(sys.argv[2])))
reranker.warm_up()  # loads the model and encodes a query; the file is not opened
start = time.perf_counter()
assert reranker.rerank(query, texts).usage.stored == len(texts)
print(1e3 * (time.perf_counter() - start))
"""
PRECOMPUTE = """
import json, sys
from rerank_core import Reranker, load_scorer
reranker = Reranker(load_scorer("embedded", vectors=sys.argv[1], tokens_per_batch=128))
texts = json.load(sys.stdin)
reranker.warm_up()
print("begins", flush=True)
print(reranker.precompute(texts).stored)
"""
KILLS = 20
_SAMPLE = 100
_runs = count(1)
_TOKENS, _WIDTH = 60, 384  # of 120 tokens, half are stored


class Bench:
    """What the parts share."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.threads: int = asked.threads
        self.queries: int = asked.queries
        self.synthetic: int = asked.synthetic
        self.folder = folder
        self.figures = Figures()
        self.data: Dataset = load_dataset(asked.cranfield)
        self.texts = [text for text in self.data.documents.values() if text.strip()]
        _, found = retrieve("bm25", self.data, 100)
        self.calls: list[Call] = [
            (
                self.data.queries[query],
                [text for key in found[query].candidates if (text := self.data.documents[key]).strip()],
            )
            for query in list(found)[: self.queries]
        ]

    def load(self, path: Path | VectorFile | None = None, **options: Any) -> Reranker:
        """Return a reranker, with the model loaded."""
        reranker = Reranker(load_scorer("embedded", vectors=path, threads=self.threads, **options))
        reranker.warm_up()
        return reranker

    def filled(self, pooling: int = 2) -> tuple[Reranker, Path]:
        """Return a reranker with all documents stored, and its file; a text is encoded once for all poolings."""
        path = self.folder / f"pooling{pooling}.vectors"
        reranker = self.load(path, pooling=pooling, cache_bytes=2**30)
        reranker.precompute(self.texts)
        return reranker, path


def encode(bench: Bench) -> None:
    """Encode some documents into an empty file."""
    with tempfile.TemporaryDirectory() as folder:
        reranker = bench.load(Path(folder, "sample.vectors"), cache_bytes=0)
        start = time.perf_counter()
        reranker.precompute(bench.texts[:_SAMPLE])
        speed = _SAMPLE / (time.perf_counter() - start)
        reranker.close()
    print(f"{speed:.1f} documents encoded and stored per second")
    bench.figures.add("stored.precompute", "documents encoded ahead", speed, "per second", digits=1)


def query(bench: Bench) -> None:
    """Ask about 100 stored candidates, and the same by what reads all of them at each query."""
    figures, rows, medians = bench.figures, [], {}
    for factor in (1, 2, 3):
        stored, path = bench.filled(factor)
        stats = VectorFile(path).stats()
        size = stats.bytes / stats.documents / 1e3
        taken = measure(stored.rerank, bench.calls)
        medians[factor] = statistics.median(taken)
        name = f"stored, pooling={factor}"
        rows.append(row(f"{name}, {size:.1f} kB per document", taken))
        figures.add(f"stored.bytes_{factor}", f"{name}: file per document", size, "kB", digits=1)
        key = "" if factor == 2 else f"_{factor}"  # the default
        figures.add(f"stored.p50{key}", f"{name}: query over 100 documents", medians[factor], "ms", digits=1)
        late = float(np.percentile(taken, 95))
        figures.add(f"stored.p95{key}", f"{name}: the same, 95th percentile", late, "ms", digits=1)
    rivals = {
        "encoding": ("`embedded`, encoding at each query", bench.load(cache_bytes=0).rerank),
        "colbert": ("LlamaIndex's ColbertRerank on MiniLM-L6 shapes", encode_one_by_one(bench.threads)),
        "predict": ("`CrossEncoder.predict` on MiniLM-L6 shapes", cross_encoder(bench.threads)),
    }
    for key, (name, ask) in rivals.items():
        slower = measure(ask, bench.calls[:3])
        rows.append(row(name, slower))
        figures.add(f"stored.{key}", f"the same query by {name}", slower, "ms", digits=0)
        ratios = [each / medians[2] for each in slower]
        figures.add(f"stored.over_{key}", f"stored vectors against {name}", ratios, "times", digits=0)
    show_latency(rows)


def quality(bench: Bench) -> None:
    """Compare the poolings with what is not stored."""
    rerankers = {"no file": bench.load(cache_bytes=2**30)}
    rerankers |= {f"pooling={factor}": bench.filled(factor)[0] for factor in (1, 2, 3)}
    result = evaluate(rerankers, bench.data, measures=["nDCG@10"])
    rows = []
    for name in rerankers:
        found, interval = result[name].measures["nDCG@10"], result[name].intervals["nDCG@10"]
        rows.append([name, f"{found:.4f}"])
        key = "stored.ndcg_plain" if name == "no file" else f"stored.ndcg_{name[-1]}"
        about = f"nDCG@10 over BM25's top 100, {name}"
        bench.figures.add(key, about, found, digits=4, interval=interval)
    print(table(["", "nDCG@10"], rows))


def first(bench: Bench) -> None:
    """Ask in five new processes, whose model is loaded."""
    _, path = bench.filled()
    command = [sys.executable, "-c", FIRST_QUERY, str(path), str(bench.threads)]
    call = json.dumps(bench.calls[0])
    taken = [
        float(subprocess.run(command, input=call, capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    about = "first query of a new process, beyond loading the model"
    bench.figures.add("stored.first", about, taken, "ms", digits=0)
    print(f"{about}: {median(taken)} ms")


def synthetic(bench: Bench) -> None:
    """Store random vectors of a few and of many documents, and ask about any 100 of them."""
    rows = []
    name = name_records(load_scorer("embedded").load().name, pooling=2)
    for many in (1_000, bench.synthetic):
        texts = [f"synthetic document {number}" for number in range(many)]
        file = VectorFile(bench.folder / f"{many}.vectors")
        start = time.perf_counter()
        fill_at_random(file, name, texts)
        seconds, size = time.perf_counter() - start, file.stats().bytes / 1e6
        print(f"{many:,} records written: {seconds:.1f} s, {size:,.0f} MB")
        reranker = bench.load(file)
        chance = random.Random(0)
        calls = [(f"question {number}", chance.sample(texts, 100)) for number in range(bench.queries)]
        taken = measure(reranker.rerank, calls)
        rows.append(row(f"stored, any 100 of {many:,}", taken))
        about = f"{many:,} documents stored"
        figures = bench.figures
        figures.add(f"stored.of_{many}", f"{about}: query over any 100", statistics.median(taken), "ms", digits=1)
        figures.add(f"stored.size_of_{many}", f"{about}: size of the file", size, "MB", digits=0)
        figures.add(f"stored.fill_of_{many}", f"{about}: writing the records", seconds, "s", digits=1)
        file.close()
        file.path.unlink()
    show_latency(rows)


def kills(bench: Bench) -> None:
    """Kill processes that fill a file, at any moment, and look what is there."""
    path = bench.folder / "killed.vectors"
    texts = [f"document {number} about the number {7 * number}" for number in range(3_000)]
    chance, stored = random.Random(0), 0
    file = VectorFile(path)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PRECOMPUTE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(texts))
        process.stdin.close()
        assert process.stdout.readline() == "begins\n"
        enough = stored + chance.randrange(100)
        while file.stats().documents < enough:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        assert file.stats().documents >= stored, "something that was stored is gone"
        stored = file.stats().documents
    file.close()
    usage = bench.load(path).precompute(texts)
    assert (usage.documents, usage.stored) == (len(texts) - stored, stored), "something was encoded twice"
    path.unlink()
    print(f"{KILLS} kills: {stored} of {len(texts)} documents stored by then, all whole, none encoded twice")


PARTS = {part.__name__: part for part in (encode, query, quality, first, synthetic, kills)}


def measure(ask: Callable[[str, Sequence[str]], object], calls: Sequence[Call]) -> list[float]:
    """Return the milliseconds of calls; a first one does not count."""
    new = " " * next(_runs)  # the model remembers the vectors of queries that it has read
    ask("a query that warms up", calls[0][1])
    taken = []
    for query, texts in calls:
        start = time.perf_counter()
        ask(query + new, texts)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def row(name: str, taken: Sequence[float]) -> list[str]:
    """Return a row of the table of latencies."""
    return [name, f"{statistics.median(taken):.1f}", f"{np.percentile(taken, 95):.1f}"]


def show_latency(rows: Sequence[Sequence[str]]) -> None:
    """Print a table of latencies."""
    print(table(["100 candidates, the query's encoding included", "p50 ms", "p95 ms"], rows))


def fill_at_random(file: VectorFile, name: str, texts: Sequence[str]) -> None:
    """Store random records of 120 tokens for texts, as encoding them would."""
    generator = np.random.default_rng(0)
    known = [generator.standard_normal((1 + _TOKENS, _WIDTH)).astype(np.float32) for _ in range(100)]
    packed = [pack_record(vectors[0], vectors[1:]) for vectors in known]
    for start in range(0, len(texts), 32):
        some = texts[start : start + 32]
        file.write({record_key(name, text): packed[at] for at, text in enumerate(some)}, [name])


def save_minilm(folder: str, kind: str) -> None:
    """Write a model of MiniLM-L6 shapes; its weights are random, which takes as long."""
    import transformers

    import rerank_core.local.embedded as embedded

    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = transformers.BertConfig(vocab_size=30522, num_labels=1, **shape)
    getattr(transformers, kind)(config).save_pretrained(folder)
    words = str(Path(embedded.__path__[0], "vocab.txt"))
    transformers.BertTokenizerFast(vocab_file=words, model_max_length=512).save_pretrained(folder)


def cross_encoder(threads: int) -> Callable[[str, Sequence[str]], object]:
    """Return ``CrossEncoder.predict``."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_minilm(folder, "BertForSequenceClassification")
        model: Any = CrossEncoder(folder, device="cpu")
    return lambda query, texts: model.predict([(query, text) for text in texts], show_progress_bar=False)


def encode_one_by_one(threads: int) -> Callable[[str, Sequence[str]], object]:
    """Return the steps of LlamaIndex's ``ColbertRerank``: each document is encoded for each query, one by one."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_minilm(folder, "BertModel")
        model: Any = AutoModel.from_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def score(query: str, texts: Sequence[str]) -> list[float]:
        asked = model(**tokenizer(query, return_tensors="pt")).last_hidden_state
        scores = []
        for text in texts:
            read = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
            found = model(**read).last_hidden_state
            cosines = torch.nn.functional.cosine_similarity(asked.unsqueeze(2), found.unsqueeze(1), dim=-1)
            scores.append(float(cosines.max(dim=2).values.mean()))
        return scores

    return score


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("cranfield", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--synthetic", type=int, default=100_000, help="documents of the large file")
    parser.add_argument("--queries", type=int, default=60)
    asked = parser.parse_args()
    print(machine_line(machine(asked.threads)))
    with kept(asked) as folder:
        bench = Bench(asked, folder)
        for name in asked.only:
            PARTS[name](bench)
    bench.figures.write(asked)


if __name__ == "__main__":
    main()
