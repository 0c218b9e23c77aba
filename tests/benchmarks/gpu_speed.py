"""Print how fast the torch path is on a GPU, beside sentence-transformers and the matrix products alone.

    python tests/benchmarks/gpu_speed.py
    python tests/benchmarks/gpu_speed.py --device cpu --pairs 50 --shapes tiny --runs 1

Models of the real classes with random weights, which say nothing about quality, on texts cut from Python's own
documentation. All contenders take turns; figures are medians. The last column is how far scores are from those of
sentence-transformers in fp32; the ceiling is the time of a model's matrix products alone, without padding, in bf16
(fp32 on a CPU). Needs no network.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import sentence_transformers
import torch
import transformers
from benchmarks._bench import Figures, figure_key, simple_arguments
from stdlib_corpus import passages
from support.models import quiet

from rerank_core import Reranker, load_scorer

ROOT = Path(__file__).parents[2]
QUERY = "How do I find what is leaking memory?"
BATCH_SIZES = (32, 128, 512)
SHAPES = {
    "minilm": ("MiniLM-L6", {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "heads": 12}),
    "xlmr": (
        "XLM-R-large",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "heads": 16},
    ),
    "tiny": ("tiny BERT", {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "heads": 4}),
}
COLUMNS = ("", "pairs/s", "x default", "x bf16 best", "of ceiling", "max score difference")


@dataclass
class Contender:
    """What is measured, and what came out."""

    name: str
    run: Callable[[Sequence[str]], Sequence[float]]
    seconds: list[float] = field(default_factory=list)
    scores: Sequence[float] = ()
    error: str = ""

    def go(self, texts: Sequence[str], *, timed: bool) -> None:
        """Run once; what fails is shown, and does not end the others."""
        if self.error:
            return
        try:
            start = time.perf_counter()
            self.scores = self.run(texts)
            if timed:
                self.seconds.append(time.perf_counter() - start)
        except Exception as exc:
            self.error = f"{type(exc).__name__}: {str(exc).splitlines()[0][:60]}"

    @property
    def median(self) -> float:
        """The median of its seconds."""
        return statistics.median(self.seconds) if self.seconds else math.inf


def build(folder: Path, shape: str) -> Path:
    """Write a sequence classifier with random weights, and a tokenizer of the usual English word pieces."""
    from tokenizers import BertWordPieceTokenizer, processors
    from transformers import AutoModelForSequenceClassification, BertConfig, BertTokenizerFast, XLMRobertaConfig

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(SHAPES[shape][1])
    sizes |= {"num_attention_heads": sizes.pop("heads"), "vocab_size": 30522, "num_labels": 1}
    words = BertWordPieceTokenizer(str(ROOT / "shared/rerank_core/local/embedded/vocab.txt"), lowercase=True)
    if shape == "xlmr":
        config: Any = XLMRobertaConfig(max_position_embeddings=514, type_vocab_size=1, pad_token_id=0, **sizes)
        words._tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] [SEP] $B [SEP]",
            special_tokens=[(name, words.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
        )
    else:
        config = BertConfig(**sizes)
    with quiet():
        AutoModelForSequenceClassification.from_config(config).eval().save_pretrained(folder)
        BertTokenizerFast(tokenizer_object=words._tokenizer, model_max_length=512).save_pretrained(folder)
    return folder


def texts_of(count: int) -> list[str]:
    """Return different pieces of the documentation, of about 100 words, some of few and some of many."""
    words = " ".join(passage.text for passage in passages()).split()
    chance = random.Random(0)
    pieces: dict[str, None] = {}
    while len(pieces) < count:
        length = min(400, max(4, int(chance.lognormvariate(4.3, 0.6))))
        start = chance.randrange(len(words) - length)
        pieces[" ".join(words[start : start + length])] = None
    return list(pieces)


def ours(folder: Path, device: str, dtype: str) -> Contender:
    """Return this package's scorer."""
    reranker = Reranker(load_scorer(f"cross-encoder:{folder}", device=device, dtype=dtype))
    return Contender(
        f"rerank-bridge {dtype}", lambda texts: [score or 0.0 for score in reranker.rerank(QUERY, texts).scores]
    )


def theirs(folder: Path, device: str, dtype: str, sizes: Sequence[int]) -> Iterator[Contender]:
    """Return ``CrossEncoder.predict``, once a batch size."""
    model = sentence_transformers.CrossEncoder(str(folder), device=device, model_kwargs={"dtype": dtype})

    def run(texts: Sequence[str], size: int) -> Sequence[float]:
        pairs = [(QUERY, text) for text in texts]
        activation = torch.nn.Sigmoid()
        found = model.predict(pairs, batch_size=size, activation_fn=activation, show_progress_bar=False)
        return [float(score) for score in found]

    for size in sizes:
        yield Contender(f"CrossEncoder {dtype}, {size} a batch", lambda texts, size=size: run(texts, size))


def ceiling(shape: str, tokens: int, device: str, *, most: int) -> Contender:
    """Return the matrix products of so many tokens through a model, and nothing else."""
    sizes = SHAPES[shape][1]
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    rows = min(tokens, most)
    narrow, wide = (torch.randn(rows, width, device=device, dtype=dtype) for width in (hidden, inner))
    weights = [(narrow, torch.randn(hidden, hidden, device=device, dtype=dtype))] * 4
    weights.append((narrow, torch.randn(hidden, inner, device=device, dtype=dtype)))
    weights.append((wide, torch.randn(inner, hidden, device=device, dtype=dtype)))

    def run(texts: Sequence[str]) -> Sequence[float]:
        with torch.inference_mode():
            done = 0
            while done < tokens:
                part = min(rows, tokens - done)
                for left, right in weights * sizes["num_hidden_layers"]:
                    left[:part] @ right
                done += part
            if device != "cpu":
                torch.cuda.synchronize()
        return ()

    return Contender(f"matrix products, {str(dtype).removeprefix('torch.')}", run)


def tokens_of(folder: Path, texts: Sequence[str]) -> int:
    """Return how many tokens the pairs are, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return sum(map(len, tokenizer([QUERY] * len(texts), list(texts), truncation=True)["input_ids"]))


def measure(folder: Path, shape: str, pairs: int, arguments: argparse.Namespace, figures: Figures) -> None:
    """Print the table of one model and one number of pairs."""
    device, texts = arguments.device, texts_of(pairs)
    tokens = tokens_of(folder, texts)
    (default,) = theirs(folder, device, "float32", [32])
    half = list(theirs(folder, device, "bfloat16", BATCH_SIZES))
    mine = [ours(folder, device, dtype) for dtype in arguments.dtypes]
    products = ceiling(shape, tokens, device, most=65_536)
    everybody = [default, *half, *mine, products]
    for timed in [False, *[True] * arguments.runs]:
        for contender in everybody:
            contender.go(texts, timed=timed)
    best = min(half, key=lambda contender: contender.median)
    print(
        f"\n{SHAPES[shape][0]}, {pairs:,} pairs, {tokens / pairs:.0f} tokens a pair, medians of {arguments.runs}"
    )
    print("{:38} {:>10} {:>10} {:>12} {:>11} {:>21}".format(*COLUMNS))
    for contender in everybody:
        if contender.error:
            print(f"{contender.name:38} {contender.error}")
            continue
        seconds = contender.median
        key = f"gpu_speed.{shape}.{pairs}.{figure_key(contender.name)}"
        about = f"{SHAPES[shape][0]}, {pairs:,} pairs on {arguments.device}, {contender.name}"
        figures.add(
            f"{key}.speed", f"{about}: against `CrossEncoder.predict` in fp32", default.median / seconds, "times"
        )
        figures.add(f"{key}.pairs", f"{about}: pairs a second", pairs / seconds, "per second", digits=0)
        apart = [abs(one - other) for one, other in zip(contender.scores, default.scores, strict=False)]
        print(
            f"{contender.name:38} {pairs / seconds:>10,.0f} {default.median / seconds:>10.2f} "
            f"{best.median / seconds:>12.2f} {products.median / seconds:>11.0%} {max(apart, default=0):>21.1e}"
        )


def main() -> None:
    """Print what it runs on, and one table a model and a number of pairs."""
    parser = simple_arguments(__doc__ or "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["minilm", "xlmr"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16"])
    parser.add_argument("--runs", type=int, default=5)
    arguments, figures = parser.parse_args(), Figures()
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    device = platform.processor() or platform.machine()
    if arguments.device != "cpu":
        device = torch.cuda.get_device_name(arguments.device)
    print(f"{device}, {os.cpu_count()} cores, torch {torch.__version__}, transformers {transformers.__version__},")
    print(f"sentence-transformers {sentence_transformers.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.shapes:
            model = build(Path(folder) / shape, shape)
            for pairs in arguments.pairs:
                measure(model, shape, pairs, arguments, figures)
    figures.write(arguments)


if __name__ == "__main__":
    main()
