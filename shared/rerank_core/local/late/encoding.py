"""Encoders of single texts, what they encoded lately, and the jobs that encode texts or find them stored."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rerank_core.errors import InvalidResponseError, ScorerUnavailableError
from rerank_core.local.engine import ModelJob
from rerank_core.local.late.token_records import RECORD_FORMAT, RecordProduct, pack_record, pool_tokens
from rerank_core.local.late.vector_file import VectorFile, record_key
from rerank_core.local.runtimes.session import ModelSession
from rerank_core.local.tokens import padded, token_ends

if TYPE_CHECKING:
    from rerank_core.local.torch.multi_vector import MultiVectorSession

_RECORDS_PER_WRITE = 32
"""What a killed process loses at most."""

_QUERY = -1
"""The position of the query among a job's texts."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A tokenised text.

    Attributes:
        ids: of its tokens.
        attended: how many of them the model attends to, from the first on.
        kept: the tokens whose vectors are compared.
    """

    ids: Sequence[int]
    attended: int
    kept: npt.NDArray[np.bool_] | slice

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A text as the encoder sees it.

    Attributes:
        tokens: (tokens, width), L2-normalised.
        mean: (width,), L2-normalised mean of the vectors.
        weights: (tokens,), of sum 1: what each token of a query counts.
    """

    tokens: npt.NDArray[np.floating[Any]]
    mean: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.tokens.nbytes + self.mean.nbytes + self.weights.nbytes


class TokenEncoder(ABC):
    """A model that encodes texts token by token, and its cache; used in the engine's thread only.

    Args:
        session: runs the model; its first output is (texts, tokens, width).
        tokenizer: of the tokenizers library.
        threads: cores to use for comparing; None for all physical ones.
        cache_bytes: see :class:`VectorCache`.
        pad_id: fills up shorter texts.
    """

    def __init__(
        self,
        session: ModelSession | MultiVectorSession,
        tokenizer: Any,
        *,
        threads: int | None,
        cache_bytes: int,
        pad_id: int = 0,
    ) -> None:
        self._session = session
        self._inputs = session.inputs
        self._tokenizer = tokenizer
        self._threads = threads
        self._pad_id = pad_id
        self.arm = session.arm
        self.interrupt = session.interrupt
        self.cache = VectorCache(cache_bytes)

    @property
    @abstractmethod
    def name(self) -> str:
        """What names the weights and everything else that a text's vectors depend on."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str], *, queries: bool = False) -> Sequence[TokenIds]:
        """Return the tokens of queries or documents, cut to what the model reads."""

    @abstractmethod
    def finish(self, item: TokenIds, vectors: npt.NDArray[np.float32]) -> TokenVectors:
        """Return what is kept of the session's output for a text."""

    @abstractmethod
    def max_text_tokens(self, query: str) -> int:
        """Return how many tokens of a text are read beside a query."""

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, as many as ``limit``."""
        return token_ends(self._tokenizer, texts, limit)

    def forward(self, items: Sequence[TokenIds], /) -> Sequence[TokenVectors]:
        """Return the vectors of texts."""
        ids = padded([item.ids for item in items], self._pad_id)
        attended = np.fromiter((item.attended for item in items), np.int64, len(items))[:, None]
        mask = (np.arange(ids.shape[1]) < attended).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden, *_) = self._session.run({name: feed[name] for name in feed.keys() & self._inputs})
        return [self.finish(item, vectors[: len(item)]) for item, vectors in zip(items, hidden, strict=True)]

    @cached_property
    def product(self) -> RecordProduct:
        """What compares a query with stored records."""
        return RecordProduct(self._threads)


class EncodingJob(ModelJob[TokenIds, TokenVectors]):
    """Encodes texts, or finds them in the cache, and hands each one's vectors to ``use`` with its position."""

    def __init__(
        self, texts: Sequence[str], use: Callable[[int, TokenVectors], None], *, queries: bool = False
    ) -> None:
        self.count = len(texts)
        self.tokens = 0
        self._texts = texts
        self._use = use
        self._queries = queries
        self._missing: dict[int, bytes] = {}

    def encode(self, model: TokenEncoder, start: int, stop: int) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are not in the cache, tokenised."""
        return self.encode_at(model, range(start, stop))

    def encode_at(self, model: TokenEncoder, positions: Iterable[int]) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts at these positions that are not in the cache, tokenised."""
        self._cache = model.cache
        person = b"query" if self._queries else b"document"
        missing: dict[int, bytes] = {}
        for position in positions:
            digest = hashlib.blake2b(self._texts[position].encode(), digest_size=16, person=person).digest()
            known = model.cache.get(digest)
            if known is None:
                missing[position] = digest
            else:
                self._use(position, known)
        self._missing |= missing
        items = model.tokenize([self._texts[position] for position in missing], queries=self._queries)
        self.tokens += sum(map(len, items))
        return list(zip(missing, items, strict=True))

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        self._cache.put(self._missing.pop(position), output)
        self._use(position, output)


class StoringJob(EncodingJob):
    """Finds or makes the records of texts, and compares a query with them, some hundred at a time.

    Where the file cannot be used, everything is encoded and nothing stored.

    Args:
        texts: none of them twice.
        file: where the records are.
        pooling: how many token vectors become one.
        query: what to compare with; None where the records are only to be stored.
        combine: makes scores, see :meth:`rerank_core.local.late.scorer.LateScorer.combine`.

    Attributes:
        scores: one per text.
        stored: texts whose records were there.
        error: what was wrong with the file.
    """

    def __init__(
        self,
        texts: Sequence[str],
        file: VectorFile,
        *,
        pooling: int,
        query: str | None = None,
        combine: Callable[[Any, Any], Any],
    ) -> None:
        super().__init__(texts, self._take)
        self.scores = [0.0] * len(texts)
        self.stored = 0
        self.error: ScorerUnavailableError | None = None
        self._file = file
        self._pooling = pooling
        self._combine = combine
        self._query: list[TokenVectors] = []
        self._asking = EncodingJob([] if query is None else [query], self._take_query, queries=True)
        self._waiting = 0
        self._keys: dict[int, bytes] = {}
        self._records: dict[int, bytes | memoryview] = {}
        self._unwritten: dict[bytes, bytes] = {}

    def encode(self, model: TokenEncoder, start: int, stop: int) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are stored nowhere, tokenised, and at first the query."""
        self._model = model
        self._encoder = name_records(model.name, self._pooling)
        self._keys = {at: record_key(self._encoder, self._texts[at]) for at in range(start, stop)}
        self._records = self._read()
        self.stored += len(self._records)
        items = list(self.encode_at(model, [at for at in range(start, stop) if at not in self._records]))
        if not start:
            items += [(_QUERY, item) for _, item in self._asking.encode(model, 0, self._asking.count)]
        self._waiting = len(items)
        if not items:
            self._finish_piece()
        return items

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        if position == _QUERY:
            self._asking.accept(0, output)
        else:
            super().accept(position, output)
        self._waiting -= 1
        if not self._waiting:
            self._finish_piece()

    def _take_query(self, _: int, vectors: TokenVectors) -> None:
        _check_finite(vectors, "the query")
        self._query.append(vectors)

    def _take(self, position: int, vectors: TokenVectors) -> None:
        _check_finite(vectors, f"text {position}")
        tokens = pool_tokens(vectors.tokens.astype(np.float32), self._pooling)
        record = pack_record(vectors.mean, tokens)
        self._records[position] = self._unwritten[self._keys[position]] = record
        if len(self._unwritten) >= _RECORDS_PER_WRITE:
            self._write()

    def _finish_piece(self) -> None:
        self._write()
        for query in self._query:
            cosines, best = self._model.product.compare(query.mean, query.tokens, list(self._records.values()))
            scores = self._combine(cosines, query.weights @ best).tolist()
            for position, score in zip(self._records, scores, strict=True):
                self.scores[position] = score

    def _read(self) -> dict[int, bytes | memoryview]:
        if self.error is None:
            try:
                found = self._file.read(list(self._keys.values()))
                return {at: found[key] for at, key in self._keys.items() if key in found}
            except ScorerUnavailableError as exc:
                self.error = exc
        return {}

    def _write(self) -> None:
        records, self._unwritten = self._unwritten, {}
        if records and self.error is None:
            try:
                self._file.write(records, [self._encoder])
            except ScorerUnavailableError as exc:
                self.error = exc


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


def name_records(encoder: str, pooling: int) -> str:
    """Return what the records of an encoder are known by: all that one depends on besides its text."""
    return f"{encoder}, {RECORD_FORMAT}, pooling {pooling}"


def _check_finite(vectors: TokenVectors, what: str) -> None:
    if not np.isfinite(vectors.mean).all():  # which it is not where one token is not
        raise InvalidResponseError(f"returned vectors that are no numbers for {what}")


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return vectors of length 1, along the last axis; those of length 0 stay."""
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
    return unit
