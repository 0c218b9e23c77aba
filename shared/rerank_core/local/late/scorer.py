"""What late-interaction scorers share: query and documents encoded apart, compared by token, kept in a file."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import check_installed
from rerank_core._support.files import digest
from rerank_core.errors import name_scorer
from rerank_core.local.scorer import LocalOptions, LocalScorer
from rerank_core.scorer import ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    from rerank_core.local.engine import Engine
    from rerank_core.local.late.encoding import StoringJob, TokenEncoder, TokenVectors
    from rerank_core.local.late.vector_file import VectorFile

__all__ = ["LateOptions", "LateScorer"]

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True, kw_only=True)
class LateOptions(LocalOptions):
    """The options of every late-interaction scorer, besides those of every local model.

    Attributes:
        cache_bytes: memory in bytes for the token vectors of recently scored documents, at least 0; a document
            of 100 words takes about 100 kB of 384 numbers per token. With its vectors there, a document costs a
            new query next to nothing.
        vectors: a :class:`rerank_core.vectors.VectorFile`, or the path of one, in which documents' token vectors
            are stored, pooled and in int8. A document is encoded once, when it is first scored or by
            ``Reranker.precompute``. Scores differ a little from those without ``vectors``.
        pooling: how many similar token vectors of a document become one in the file, 1, 2 or 3: 2 halves the
            file. Above 1 it needs scipy (extra ``vectors``).

    Raises:
        ConfigurationError: an option is out of its range.
    """

    cache_bytes: int = 64 * 2**20
    vectors: VectorFile | str | os.PathLike[str] | None = None
    pooling: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("cache_bytes", self.cache_bytes, least=0)
        check_choice("pooling", self.pooling, (1, 2, 3))


class LateScorer(LocalScorer):
    """A scorer that encodes query and documents apart and compares their tokens, as ColBERT does.

    Raises:
        ConfigurationError: an option is unknown or out of its range.
        MissingExtraError: scipy is not installed, and vectors are to be pooled.
    """

    Options: ClassVar[type[ScorerOptions]] = LateOptions
    options: LateOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LocalScorer.options_without_effect_on_scores, "cache_bytes", "pooling", "vectors"}
    )

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        with name_scorer(self.name):
            self._vectors = self._find_vectors()
        self._plain = None if self._vectors is None else self.with_options(vectors=None, pooling=2)
        self._has_warned = False
        self.stores_vectors = self._vectors is not None

    @abstractmethod
    def load(self) -> TokenEncoder:
        """Load the model; runs in the engine's thread."""

    @abstractmethod
    def combine(self, cosine: Any, best: Any) -> Any:
        """Return scores, numbers or arrays as these are.

        Args:
            cosine: of the means of query and document.
            best: the weighted mean of the query tokens' best matches.
        """

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

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, on the scorer's scale."""
        # Imported by the methods because it needs numpy, which importing this module must not.
        from rerank_core.local.late.encoding import EncodingJob

        if self._vectors is not None:
            return await self._score_stored(self._vectors, query, texts)
        encoded: list[TokenVectors] = []
        await self.engine.run(EncodingJob([query], lambda _, vectors: encoded.append(vectors), queries=True))
        scores = [0.0] * len(texts)

        def compare(position: int, document: TokenVectors) -> None:
            scores[position] = self.combine(*_compare(encoded[0], document))

        job = EncodingJob(texts, compare)
        await self.engine.run(job)
        return Scored(scores, Usage(requests=1, tokens=job.tokens))

    async def _score_stored(self, file: VectorFile, query: str, texts: Sequence[str]) -> Scored:
        job = await self._run_stored(file, texts, query)
        if job.error is not None and not self._has_warned:
            self._has_warned = True
            _logger.warning("%s; documents are encoded for each query meanwhile", job.error)
        return Scored(job.scores, Usage(requests=1, tokens=job.tokens, stored=job.stored))

    async def precompute(self, texts: Sequence[str]) -> Usage:
        """Encode and store the texts that the vector file does not have."""
        if self._vectors is None:
            return await super().precompute(texts)
        job = await self._run_stored(self._vectors, texts)
        if job.error is not None:
            raise job.error
        return Usage(requests=1, documents=len(texts) - job.stored, tokens=job.tokens, stored=job.stored)

    async def _run_stored(self, file: VectorFile, texts: Sequence[str], query: str | None = None) -> StoringJob:
        from rerank_core.local.late.encoding import StoringJob

        job = StoringJob(texts, file, pooling=self.options.pooling, query=query, combine=self.combine)
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


def _compare(query: TokenVectors, document: TokenVectors) -> tuple[float, float]:
    """Return the cosine of the means, and the weighted mean of the query tokens' best matches."""
    import numpy as np

    cosine = float(query.mean @ document.mean)
    if not len(query.weights) or not len(document.tokens):
        return cosine, 0.0
    # Not the @ operator: the threads of its library spin for a while afterwards, on the cores that the next
    # batch needs, which costs more than they save.
    tokens, found = query.tokens.astype("float32"), document.tokens.astype("float32")
    return cosine, float(query.weights @ np.einsum("qd,td->qt", tokens, found).max(axis=1))
