"""Encoders of single texts, what they encoded lately, and the jobs that encode texts or find them stored."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_core.errors import InvalidResponseError, ScorerUnavailableError
from rerank_core.local.engine import ModelJob
from rerank_core.local.late.token_records import RecordProduct, name_records, pack_record, pool_tokens
from rerank_core.local.runtimes import ModelSession
from rerank_core.local.tokens import encode, padded, token_ends
from rerank_core.vectors import VectorFile, record_key

if TYPE_CHECKING:
    from rerank_core.local.torch.multi_vector import MultiVectorSession

T = TypeVar("T")

_RECORDS_PER_WRITE = 32
"""What a killed process loses at most."""
_QUERY = -1
"""The position of the query among the texts of a :class:`StoringJob`."""


@dataclass(frozen=True)
class TextForm:
    """How texts of one kind are read. Its ``repr`` is part of the keys of stored records.

    Attributes:
        prompt: what is written before a text.
        limit: tokens that are read, those of the prompt and special ones included.
        filled: tokens that shorter texts are filled up to with ``fill_id``, mostly the mask; they count, too.
        attends: whether the model attends to what fills a text up.
        skipped: ids of tokens that are not compared.
        margin: tokens at either end that are not compared.
    """

    prompt: str
    limit: int
    filled: int = 0
    fill_id: int = 0
    attends: bool = False
    skipped: tuple[int, ...] = ()
    margin: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A tokenised text: the model attends to the first so many ``attended``, and those ``kept`` are compared."""

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

    The first output of its session is (texts, tokens, width).
    """

    name: str
    """Of the weights and everything else that a text's vectors depend on."""

    def __init__(
        self,
        session: ModelSession | MultiVectorSession,
        tokenizer: Any,
        query: TextForm,
        document: TextForm,
        options: Any,
        *,
        pad_id: int = 0,
    ) -> None:
        self._session = session
        self._inputs = session.inputs
        self._tokenizer = tokenizer
        self._query = query
        self._document = document
        self._options = options
        self._pad_id = pad_id
        self.arm = session.arm
        self.interrupt = session.interrupt
        self.cache = VectorCache(options.cache_bytes)

    @abstractmethod
    def finish(self, item: TokenIds, vectors: npt.NDArray[np.float32]) -> TokenVectors:
        """Return what is kept of the session's output for a text."""

    def tokenize(self, texts: Sequence[str], *, queries: bool = False) -> list[TokenIds]:
        """Return the tokens of queries or documents, cut to what the model reads."""
        form = self._query if queries else self._document
        encodings = encode(self._tokenizer, [form.prompt + text for text in texts], form.limit)
        return [_fill(encoding.ids, form) for encoding in encodings]

    def max_text_tokens(self, query: str) -> int:  # noqa: ARG002 - it is encoded apart
        """Return how many tokens of a text are read beside a query."""
        return max(0, self._document.limit - len(self.tokenize([""])[0]))

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
        return RecordProduct(self._options.threads)


def _fill(ids: list[int], form: TextForm) -> TokenIds:
    filled = ids + [form.fill_id] * (form.filled - len(ids))
    compared = slice(form.margin, len(filled) - form.margin)
    kept = np.isin(filled, form.skipped, invert=True) if form.skipped else compared
    return TokenIds(filled, len(filled) if form.attends else len(ids), kept)


class VectorCache:
    """Encoded texts by their digest; the least recently used ones go beyond a limit in bytes."""

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
        if digest in self._entries or entry.nbytes > self._limit:
            return
        self._entries[digest] = entry
        self._used += entry.nbytes
        while self._used > self._limit:
            _, oldest = self._entries.popitem(last=False)
            self._used -= oldest.nbytes


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

    def encode(self, model: TokenEncoder, start: int, stop: int) -> list[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are not in the cache, tokenised."""
        return self._encode_at(model, range(start, stop), queries=self._queries)

    def _encode_at(
        self, model: TokenEncoder, positions: Iterable[int], *, queries: bool
    ) -> list[tuple[int, TokenIds]]:
        self._cache = model.cache
        person = b"query" if queries else b"document"
        missing: dict[int, bytes] = {}
        for position in positions:
            digest = hashlib.blake2b(self._texts[position].encode(), digest_size=16, person=person).digest()
            known = model.cache.get(digest)
            if known is None:
                missing[position] = digest
            else:
                self._use(position, known)
        self._missing |= missing
        items = model.tokenize([self._texts[position] for position in missing], queries=queries)
        self.tokens += 0 if queries else sum(map(len, items))
        return list(zip(missing, items, strict=True))

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        self._cache.put(self._missing.pop(position), output)
        self._use(position, output)


class StoringJob(EncodingJob):
    """Finds or makes the records of texts, and compares a query with them, some hundred at a time.

    Without a query the records are only stored. Where the file cannot be used, everything is encoded and nothing
    stored.

    Attributes:
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
        super().__init__([*texts, query or ""], self._take)
        self.count = len(texts)
        self.scores = [0.0] * len(texts)
        self.stored = 0
        self.error: ScorerUnavailableError | None = None
        self._file = file
        self._pooling = pooling
        self._combine = combine
        self._asks = query is not None
        self._query: TokenVectors | None = None
        self._waiting = 0
        self._keys: dict[int, bytes] = {}
        self._records: dict[int, bytes | memoryview] = {}
        self._unwritten: dict[bytes, bytes] = {}

    def encode(self, model: TokenEncoder, start: int, stop: int) -> list[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are stored nowhere, tokenised, and at first the query."""
        self._model = model
        self._encoder = name_records(model.name, self._pooling)
        self._keys = {at: record_key(self._encoder, self._texts[at]) for at in range(start, stop)}
        found = self._use_file(self._file.read, list(self._keys.values())) or {}
        self._records = {at: found[key] for at, key in self._keys.items() if key in found}
        self.stored += len(self._records)
        items = self._encode_at(model, [at for at in self._keys if at not in self._records], queries=False)
        if not start and self._asks:
            items += self._encode_at(model, [_QUERY], queries=True)
        self._waiting = len(items)
        if not items:
            self._finish_piece()
        return items

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        super().accept(position, output)
        self._waiting -= 1
        if not self._waiting:
            self._finish_piece()

    def _take(self, position: int, vectors: TokenVectors) -> None:
        if not np.isfinite(vectors.mean).all():  # which it is not where one token is not
            what = "the query" if position == _QUERY else f"text {position}"
            raise InvalidResponseError(f"returned vectors that are no numbers for {what}")
        if position == _QUERY:
            self._query = vectors
            return
        tokens = pool_tokens(vectors.tokens.astype(np.float32), self._pooling)
        record = pack_record(vectors.mean, tokens)
        self._records[position] = self._unwritten[self._keys[position]] = record
        if len(self._unwritten) >= _RECORDS_PER_WRITE:
            self._write()

    def _finish_piece(self) -> None:
        self._write()
        query = self._query
        if query is not None:
            cosines, best = self._model.product.compare(query.mean, query.tokens, list(self._records.values()))
            scores = self._combine(cosines, query.weights @ best).tolist()
            for position, score in zip(self._records, scores, strict=True):
                self.scores[position] = score

    def _write(self) -> None:
        if self._unwritten:
            self._use_file(self._file.write, self._unwritten, [self._encoder])
            self._unwritten = {}

    def _use_file(self, use: Callable[..., T], *arguments: Any) -> T | None:
        if self.error is None:
            try:
                return use(*arguments)
            except ScorerUnavailableError as exc:
                self.error = exc
        return None


def compare(query: TokenVectors, document: TokenVectors) -> tuple[float, float]:
    """Return the cosine of the means, and the weighted mean of the query tokens' best matches."""
    cosine = float(query.mean @ document.mean)
    if not len(query.weights) or not len(document.tokens):
        return cosine, 0.0
    # Not the @ operator: the threads of its library spin for a while afterwards, on the cores that the next
    # batch needs, which costs more than they save.
    tokens, found = query.tokens.astype("float32"), document.tokens.astype("float32")
    return cosine, float(query.weights @ np.einsum("qd,td->qt", tokens, found).max(axis=1))


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return vectors of length 1, along the last axis; those of length 0 stay."""
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
    return unit
