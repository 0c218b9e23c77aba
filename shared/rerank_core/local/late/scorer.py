"""Late interaction: query and documents are encoded apart and compared token by token; and ColBERT checkpoints.

A ColBERT model's score of a text is the mean, over the query's tokens, of the cosine to the text's most similar
token, as (1 + mean) / 2. These scores lie close together and differ from model to model: for thresholds, calibrate
them (:class:`rerank_core.policies.Calibrated`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import check_installed
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.local.runtimes import Precision, Runtime, choose_runtime
from rerank_core.local.scorer import LocalOptions, LocalScorer
from rerank_core.scorer import Scale, ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage
from rerank_core.vectors import VectorFile

if TYPE_CHECKING:
    from rerank_core.local.engine import Engine
    from rerank_core.local.late.colbert import ColbertEncoder
    from rerank_core.local.late.encoding import StoringJob, TokenEncoder, TokenVectors

# What needs numpy is imported where it is used: making a scorer loads no library.

__all__ = ["ColbertOptions", "ColbertScorer", "LateOptions", "LateScorer"]

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True, kw_only=True)
class LateOptions(LocalOptions):
    """The options of every late-interaction scorer, besides those of every local model.

    Attributes:
        cache_bytes: memory in bytes for the token vectors of recently scored documents, at least 0; a document
            of 100 words takes about 100 kB of 384 numbers per token. With its vectors there, a document costs a
            new query next to nothing.
        vectors: a :class:`rerank_core.vectors.VectorFile`, or the path of one, in which documents' token vectors
            are stored, pooled and in int8; or a dictionary of its arguments, as dumps have it. A document is
            encoded once, when it is first scored or by ``Reranker.precompute``. Scores differ a little from those
            without ``vectors``.
        pooling: how many similar token vectors of a document become one in the file, 1, 2 or 3: 2 halves the
            file. Above 1 it needs scipy (extra ``vectors``).

    Raises:
        ConfigurationError: an option is out of its range.
        MissingExtraError: scipy is not installed, and vectors are to be pooled.
    """

    cache_bytes: int = 64 * 2**20
    vectors: VectorFile | str | os.PathLike[str] | Mapping[str, Any] | None = None
    pooling: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("cache_bytes", self.cache_bytes, least=0)
        check_choice("pooling", self.pooling, (1, 2, 3))
        if self.vectors is not None and self.pooling > 1:
            check_installed("scipy", extra="vectors", purpose="pooling token vectors")


class LateScorer(LocalScorer):
    """A scorer that encodes query and documents apart and compares their tokens."""

    Options: ClassVar[type[ScorerOptions]] = LateOptions
    options: LateOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LocalScorer.options_without_effect_on_scores, "cache_bytes", "pooling", "vectors"}
    )

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        with name_scorer(self.name):
            self._vectors = _open_vectors(self.options.vectors)
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

    @property
    def engine(self) -> Engine:
        """The engine, which scorers with and without vector files share."""
        if self._engine is None and self.stores_vectors:
            self._engine = self.with_options(vectors=None, pooling=2).engine
        return super().engine

    def cache_key(self) -> str:
        """Return what a cache tells the scores by: pooling changes them, the place of the file does not."""
        key = super().cache_key()
        return digest(key, f"pooling {self.options.pooling}") if self.stores_vectors else key

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, on the scorer's scale."""
        from rerank_core.local.late.encoding import EncodingJob, compare

        if self._vectors is not None:
            stored = await self._store(self._vectors, texts, query)
            if stored.error is not None and not self._has_warned:
                self._has_warned = True
                _logger.warning("%s; documents are encoded for each query meanwhile", stored.error)
            return Scored(stored.scores, Usage(requests=1, tokens=stored.tokens, stored=stored.stored))
        encoded: list[TokenVectors] = []
        await self.engine.run(EncodingJob([query], lambda _, vectors: encoded.append(vectors), queries=True))
        scores = [0.0] * len(texts)

        def use(position: int, document: TokenVectors) -> None:
            scores[position] = self.combine(*compare(encoded[0], document))

        job = EncodingJob(texts, use)
        await self.engine.run(job)
        return Scored(scores, Usage(requests=1, tokens=job.tokens))

    async def precompute(self, texts: Sequence[str]) -> Usage:
        """Encode and store the texts that the vector file does not have."""
        if self._vectors is None:
            return await super().precompute(texts)
        job = await self._store(self._vectors, texts)
        if job.error is not None:
            raise job.error
        return Usage(requests=1, documents=len(texts) - job.stored, tokens=job.tokens, stored=job.stored)

    async def _store(self, file: VectorFile, texts: Sequence[str], query: str | None = None) -> StoringJob:
        from rerank_core.local.late.encoding import StoringJob

        job = StoringJob(texts, file, pooling=self.options.pooling, query=query, combine=self.combine)
        await self.engine.run(job)
        return job

    async def warm_up(self) -> None:
        """Load the model and run it once, and store nothing."""
        from rerank_core.local.late.encoding import EncodingJob

        await self.engine.run(EncodingJob(["warm up"], lambda *_: None, queries=True))

    async def aclose(self) -> None:
        """Close the vector file, if there is one; it is opened again when needed."""
        if self._vectors is not None:
            await asyncio.to_thread(self._vectors.close)


def _open_vectors(given: VectorFile | str | os.PathLike[str] | Mapping[str, Any] | None) -> VectorFile | None:
    if given is None or isinstance(given, VectorFile):
        return given
    try:
        return VectorFile(**given) if isinstance(given, Mapping) else VectorFile(given)
    except TypeError as exc:
        raise ConfigurationError(f"vectors is {given!r}: give a VectorFile or the path of one") from exc


@dataclass(frozen=True, kw_only=True)
class ColbertOptions(LateOptions):
    """The options of :class:`ColbertScorer`, besides those of every late-interaction scorer.

    Attributes:
        max_length: tokens of a document that are read, with what the model adds to it; by default the model's own
            limit. How much of a query is read, the model says.
        runtime: without torch: ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: OpenVINO on x86 CPUs where it is
            installed.
        precision: ``"fp32"``; ``"bf16"``, on torch, or on OpenVINO and CPUs that have it; ``"int8"``, without
            torch; or ``"auto"``: fp32 if there is any, on torch what the model was saved in.
        device: has torch run the model, on ``"cpu"``, ``"cuda"``, ``"mps"``, …
        file_name: the file within the model's folder with the weights: an ONNX file, or ``model.safetensors`` to
            have the checkpoint used where there is an ONNX file too.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.
        trust_remote_code: run Python code that comes with the model, on torch.

    Raises:
        ConfigurationError: an option is out of its range, or does not go with another.
        MissingExtraError: a package is not installed that the options need.
    """

    runtime: Runtime = "auto"
    precision: Precision = "auto"
    device: str | None = None
    file_name: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_installed("onnxruntime", "tokenizers", "numpy", extra="onnx", purpose="this scorer")
        if self.device is None:
            choose_runtime(self.runtime, self.precision)
        elif self.runtime != "auto" or self.precision == "int8" or self.file_name is not None:
            raise ConfigurationError(
                f"device={self.device!r} is torch's: leave out runtime=, precision='int8' and file_name="
            )


class ColbertScorer(LateScorer):
    """A ColBERT checkpoint: colbertv2, answerai-colbert-small, GTE-ModernColBERT, mxbai-edge-colbert, …

    Markers, lengths, query expansion, skiplist and projection are those of the checkpoint's own files, in the
    layout of ColBERT's authors, of PyLate or of sentence-transformers. Where no ``device`` is given, the first of
    these runs the model:

    1. an ONNX file that includes the projection: ``model.onnx``, ``onnx/model.onnx``, ``vespa_colbert.onnx``, or
       for int8 those that :class:`rerank_core.local.onnx.scorer.OnnxScorer` lists;
    2. a checkpoint of the BERT family with ``model.safetensors``, without conversion;
    3. sentence-transformers' ``MultiVectorEncoder``, on torch (extra ``local``).

    Args:
        model: a local folder or a hub id, such as ``"answerdotai/answerai-colbert-small-v1"``, with
            ``tokenizer.json`` and ``config.json``.
        options: the fields of :class:`ColbertOptions`.

    Raises:
        ConfigurationError: an option is out of its range; on first use, the model is no ColBERT checkpoint.
        MissingExtraError: a package is not installed that the options need; on first use, that the model needs.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    provider = "late"
    Options: ClassVar[type[ScorerOptions]] = ColbertOptions
    options: ColbertOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LateScorer.options_without_effect_on_scores, "local_files_only"}
    )
    scale: Scale = "cosine"

    def load(self) -> ColbertEncoder:
        """Find the files, and load the model and its tokenizer."""
        from rerank_core.local.late.colbert import load_encoder

        return load_encoder(self.model, self.options)

    def combine(self, cosine: Any, best: Any) -> Any:  # noqa: ARG002 - the means are not compared
        """Return the mean of the best matches."""
        return best
