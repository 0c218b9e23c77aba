"""One subject of the local benchmarks in a process of its own: JSON lines in, JSON lines out.

Started by :mod:`_bench` with the interpreter that has the subject's packages; needs nothing but these and numpy.
What is asked: ``load`` (a subject), then ``score`` (calls of one query and its texts), any number of times.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

Scores = Sequence[float]
Score = Callable[[str, Sequence[str]], Scores]

MAX_LENGTH = 512


def memory(name: str) -> float:
    """Return a line of this process's status in MB: ``VmRSS`` is now, ``VmHWM`` the most so far."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 * 1024 if sys.platform == "darwin" else 1024)


def sigmoid(logits: Any) -> list[float]:
    """Return probabilities."""
    return [1 / (1 + math.exp(-float(logit))) for logit in logits]


def sentence_transformers(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """Its ``CrossEncoder.predict`` as it comes, with one of its backends."""
    import torch

    torch.set_num_threads(threads)
    from sentence_transformers import CrossEncoder

    backend, model_kwargs = subject.get("backend", "torch"), {}
    if backend == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model_kwargs = {"provider": "CPUExecutionProvider", "session_options": options}
        model_kwargs["file_name"] = "onnx/model.onnx"
        if subject.get("int8"):
            folder, model_kwargs["file_name"] = _quantized(folder, dict(model_kwargs))
    elif backend == "openvino":
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        folder = _view(folder, "st-openvino")  # it writes its own files into the folder
        model_kwargs = {"ov_config": config}
    model = CrossEncoder(
        str(folder), backend=backend, max_length=MAX_LENGTH, model_kwargs=model_kwargs, device="cpu"
    )
    return lambda query, texts: model.predict([(query, text) for text in texts], show_progress_bar=False)


def _quantized(folder: Path, model_kwargs: dict[str, Any]) -> tuple[Path, str]:
    """Quantise with sentence-transformers' own function for this CPU."""
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    copy = _view(folder, "st-onnx")
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    kind = "arm64" if os.uname().machine in ("arm64", "aarch64") else "avx2"
    if "avx512_vnni" in flags or "avx_vnni" in flags:
        kind = "avx512_vnni"
    name = f"onnx/model_qint8_{kind}.onnx"
    quint8 = f"onnx/model_quint8_{kind}.onnx"
    if not any((copy / each).exists() for each in (name, quint8)):
        model = CrossEncoder(str(copy), backend="onnx", max_length=MAX_LENGTH, model_kwargs=model_kwargs)
        export_dynamic_quantized_onnx_model(model, kind, str(copy))
    return copy, next(each for each in (name, quint8) if (copy / each).exists())


def _view(folder: Path, name: str) -> Path:
    """Return a folder of links to a model's files, for a package that writes beside them."""
    copy = folder.parent / f"{folder.name}-{name}"
    if not copy.exists():
        shutil.copytree(
            folder, copy, copy_function=lambda source, target: os.symlink(Path(source).resolve(), target)
        )
    return copy


def rerankers(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """Its ``TransformerRanker``, 16 texts a batch."""
    import torch

    torch.set_num_threads(threads)
    from rerankers import Reranker

    ranker = Reranker(str(folder), model_type="cross-encoder", device="cpu", dtype="float32", verbose=0)
    if ranker is None:
        raise RuntimeError("rerankers did not load the model")

    def score(query: str, texts: Sequence[str]) -> Scores:
        results = ranker.rank(query=query, docs=list(texts), doc_ids=list(range(len(texts)))).results
        found = {result.document.doc_id: result.score for result in results}
        return sigmoid(found[position] for position in range(len(texts)))

    return score


def fastembed(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """Its ``TextCrossEncoder`` with a custom model, 64 texts a batch."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        "local/model", sources=ModelSource(hf="local/model"), model_file="onnx/model.onnx"
    )
    encoder = TextCrossEncoder("local/model", specific_model_path=str(folder), threads=threads)
    return lambda query, texts: sigmoid(list(encoder.rerank(query, texts)))


def flashrank(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """Its ``Ranker``, which takes all texts as one batch; its session replaced by one of as many threads."""
    import onnxruntime
    from flashrank import Config, Ranker, RerankRequest

    Config.model_file_map[folder.name] = "onnx/model.onnx"
    ranker = Ranker(model_name=folder.name, cache_dir=str(folder.parent), max_length=MAX_LENGTH, log_level="ERROR")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    ranker.session = onnxruntime.InferenceSession(
        str(folder / "onnx" / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def score(query: str, texts: Sequence[str]) -> Scores:
        passages = [{"id": position, "text": text} for position, text in enumerate(texts)]
        found = {
            each["id"]: each["score"] for each in ranker.rerank(RerankRequest(query=query, passages=passages))
        }
        return [float(found[position]) for position in range(len(texts))]

    return score


def plain_loop(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """What one writes by hand: sorted by tokens, 512 padded tokens a batch, ONNX Runtime."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = str(folder / "onnx" / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    pad_id = json.loads((folder / "config.json").read_text(encoding="utf-8"))["pad_token_id"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    budget = 512

    def score(query: str, texts: Sequence[str]) -> Scores:
        encodings = tokenizer.encode_batch_fast([(query, text) for text in texts])
        order = sorted(range(len(texts)), key=lambda position: -len(encodings[position].ids))
        logits = np.empty(len(texts))
        start = 0
        while start < len(order):
            longest = len(encodings[order[start]].ids)
            batch = order[start : start + max(1, budget // longest)]
            feed = {
                "input_ids": np.full((len(batch), longest), pad_id),
                "attention_mask": np.zeros((len(batch), longest), np.int64),
                "token_type_ids": np.zeros((len(batch), longest), np.int64),
            }
            for row, position in enumerate(batch):
                encoding = encodings[position]
                feed["input_ids"][row, : len(encoding.ids)] = encoding.ids
                feed["attention_mask"][row, : len(encoding.ids)] = 1
                feed["token_type_ids"][row, : len(encoding.ids)] = encoding.type_ids
            (found,) = session.run(None, {name: feed[name] for name in names})
            logits[batch] = found[:, 0]
            start += len(batch)
        return sigmoid(logits)

    return score


class Products:
    """The model's matrix products alone, over as many tokens as there are, on ONNX Runtime.

    The dense layers' products are run, 512 tokens at a time; attention's are counted at the same rate. A subject
    that leaves out work, such as the last layer's for all tokens but [CLS], can come below this floor.
    """

    def __init__(self, subject: dict[str, Any], folder: Path, threads: int) -> None:
        import numpy as np
        import onnx
        import onnxruntime
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._layers, self._width = config["num_hidden_layers"], config["hidden_size"]
        width, inner = self._width, config["intermediate_size"]
        rng = np.random.default_rng(0)
        shapes = {"a": (width, 3 * width), "b": (width, width), "c": (width, inner), "d": (inner, width)}
        weights = [
            onnx.numpy_helper.from_array(rng.normal(0, 0.02, shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ]
        made = [("x", "a", "qkv"), ("x", "b", "own"), ("own", "c", "wide"), ("wide", "d", "out")]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", [left, right], [out]) for left, right, out in made],
            "layer",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, width])],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("qkv", "out")],
            weights,
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._dense = 2 * sum(rows * columns for rows, columns in shapes.values())  # operations a token and layer
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH)
        self._x = rng.normal(size=(512, width)).astype(np.float32)

    def prepare(self, query: str, texts: Sequence[str]) -> list[int]:
        """Return the pairs' lengths in tokens."""
        return [len(each.ids) for each in self._tokenizer.encode_batch_fast([(query, text) for text in texts])]

    def run(self, lengths: Sequence[int]) -> float:
        """Run the dense products; return what the whole is to them, attention's products included."""
        left = sum(lengths)
        while left > 0:
            for _ in range(self._layers):
                self._session.run(None, {"x": self._x[: min(left, 512)]})
            left -= 512
        attention = sum(4 * length * length * self._width for length in lengths)
        return 1 + attention / (self._dense * sum(lengths))


def ours(subject: dict[str, Any], folder: Path, threads: int) -> Score:
    """A scorer of this project behind its ``Reranker``, called from sync code."""
    from rerank_core import Reranker, load_scorer

    options = dict(subject.get("options", {}))
    if subject.get("threads", True):
        options["threads"] = threads
    reranker = Reranker(load_scorer(subject["scorer"].format(folder=folder), **options))

    def score(query: str, texts: Sequence[str]) -> Scores:
        ranking = reranker.rerank(query, texts)
        scores = [math.nan] * len(texts)
        for each in ranking:
            scores[each.index] = math.nan if each.score is None else each.score
        return scores

    return score


KINDS: dict[str, Callable[[dict[str, Any], Path, int], Score]] = {
    "sentence-transformers": sentence_transformers,
    "rerankers": rerankers,
    "fastembed": fastembed,
    "flashrank": flashrank,
    "plain-loop": plain_loop,
    "ours": ours,
}


class Served:
    """What the parent asked for."""

    def __init__(self) -> None:
        self._score: Score | None = None
        self._products: Products | None = None

    def load(self, subject: dict[str, Any], folder: str, threads: int) -> dict[str, Any]:
        """Import the packages, load the model, and warm it up on two pairs."""
        before, start = memory("VmRSS"), time.perf_counter()
        if subject["kind"] == "products":
            self._products = Products(subject, Path(folder), threads)
        else:
            self._score = KINDS[subject["kind"]](subject, Path(folder), threads)
            self._score("How do I copy a file?", ["shutil.copy copies a file.", "Sockets connect programs. " * 8])
        return {"seconds": time.perf_counter() - start, "bare_mb": before, "loaded_mb": memory("VmRSS")}

    def score(self, calls: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Any]:
        """Score each call; wall and CPU time are of the calls alone."""
        wall = cpu = 0.0
        scores: list[list[float]] = []
        for query, texts in calls:
            prepared = self._products.prepare(query, texts) if self._products else []
            start, start_cpu = time.perf_counter(), time.process_time()
            if self._products:
                factor = self._products.run(prepared)
            else:
                factor, found = 1.0, self._score(query, texts)  # type: ignore[misc]
                scores.append([float(each) for each in found])
            wall += (time.perf_counter() - start) * factor
            cpu += (time.process_time() - start_cpu) * factor
        return {"scores": scores, "wall": wall, "cpu": cpu, "peak_mb": memory("VmHWM")}

    def many(self, query: str, texts: Sequence[str], count: int, words: int) -> dict[str, Any]:
        """Score so many different texts as one call; all but each twentieth are cut to so many words."""
        made = [
            f"{text if number % 20 == 0 else ' '.join(text.split()[:words])} {number}"
            for number, text in zip(range(count), itertools.cycle(texts), strict=False)
        ]
        before, start = memory("VmRSS"), time.perf_counter()
        scores = self._score(query, made)  # type: ignore[misc]
        seconds = time.perf_counter() - start
        return {"scored": len(scores), "wall": seconds, "before_mb": before, "peak_mb": memory("VmHWM")}


@contextlib.contextmanager
def private_stdout() -> Iterator[TextIO]:
    """Keep standard output for answers: what packages print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        yield answers


def main() -> None:
    """Answer until standard input ends."""
    sys.path.pop(0)  # this folder's modules are no packages of the subject
    served = Served()
    with private_stdout() as answers:
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                answer = getattr(served, asked.pop("do"))(**asked)
            except Exception as exc:
                answer = {"error": f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
