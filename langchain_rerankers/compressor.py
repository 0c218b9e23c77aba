"""The document compressor: what a LangChain chain or retriever puts after its first stage; and its runnable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_core.runnables.utils import Input, Output
from pydantic import ConfigDict, Field, PrivateAttr, create_model
from typing_extensions import TypedDict

from langchain_rerankers._documents import copy_document
from langchain_rerankers._tracing import Run, atrace_run, make_config, trace_run
from rerank_core import ConfigurationError, RankedDocument, Ranking
from rerank_core.ranking_options import prepend_metadata
from rerank_core.settings import RerankSettings

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallOptions", "RerankCompressor", "RerankInput", "RerankRunnable"]

_SELECTION = ("top_n", "score_threshold", "adaptive_ratio", "min_keep")
_RETRIEVAL_SCORE = "retrieval_score"
_OTHER_MODELS = 8


class RerankCompressor(RerankSettings, BaseDocumentCompressor):
    """Reorders documents by relevance to the query, and keeps the best.

    Returns new plain documents with the ids and metadata of the given ones, and the relevance score in the
    metadata; the given documents are never changed. A call is a run of its own in the caller's traces. See
    :class:`rerank_core.settings.RerankSettings` for the options.

    >>> from langchain_core.documents import Document
    >>> compressor = RerankCompressor(top_n=1)
    >>> documents = [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.", id="a")]
    >>> [document.id for document in compressor.compress_documents(documents, "memory leak")]
    ['a']
    """

    score_key: str = "relevance_score"
    """Metadata key of the score, a float in [0, 1]. In a passthrough it is None and ``reranked`` is False; a score
    that was there is kept as ``retrieval_score``."""
    retrieval_score_key: str = _RETRIEVAL_SCORE
    """Metadata key of the first stage's score, for ``retrieval_weight``: higher is better, on any scale.
    A document without it counts as the one that scored lowest; where all are without, the order counts."""

    _others: dict[str, Any] = PrivateAttr(default_factory=dict)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the surviving documents, best first.

        Args:
            documents: the first stage's documents, in its order.
            query: the user's question; not blank.
            callbacks: notified of the run; by default those of the runnable around this call, if any.

        Raises:
            ConfigurationError: the query is blank.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        return self._compress(documents, query, make_config(callbacks))[1]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the surviving documents, best first, as :meth:`compress_documents` does."""
        return (await self._acompress(documents, query, make_config(callbacks)))[1]

    @overload
    def as_runnable(
        self, *, query_key: str = ..., documents_key: str = ..., output_key: None = ...
    ) -> RerankRunnable[list[Document]]: ...
    @overload
    def as_runnable(
        self, *, query_key: str = ..., documents_key: str = ..., output_key: str
    ) -> RerankRunnable[dict[str, list[Document]]]: ...
    def as_runnable(
        self, *, query_key: str = "query", documents_key: str = "documents", output_key: str | None = None
    ) -> RerankRunnable[Any]:
        """Return a runnable from ``{"query": …, "documents": […]}`` to the surviving documents.

        With ``output_key`` it is a node of a LangGraph graph, whose state may be a dictionary, a dataclass or a
        pydantic model.

        Args:
            query_key: where the input holds the query.
            documents_key: where the input holds the documents.
            output_key: return ``{output_key: documents}``; by default the documents alone.
        """
        return RerankRunnable(
            compressor=self, query_key=query_key, documents_key=documents_key, output_key=output_key
        )

    def as_indexing_step(self) -> Runnable[Sequence[Document], Sequence[Document]]:
        """Return a step for indexing chains that encodes documents, as ``precompute`` does, and passes them on."""
        return RunnablePassthrough(cast("Any", self.precompute), cast("Any", self.aprecompute))

    def with_model(self, model: str) -> Self:
        """Return a copy that asks another model; its scorer is made once and shared by all such copies.

        Key, address and ``model_options`` are not copied to a model of another provider.

        Raises:
            ConfigurationError: no such model, or this compressor has a ``reranker``, which brings its own.
            MissingExtraError: the model needs a package that is not installed.
        """
        if self.reranker is not None:
            raise ConfigurationError(f"there is a reranker=, which brings its own model: it cannot be {model!r}")
        update: dict[str, Any] = {"model": model}
        if model.partition(":")[0] != self.model.partition(":")[0]:
            update |= {"api_key": None, "base_url": None, "model_options": {}}
        other = self.model_copy(update=update)
        # get_reranker() makes it anew only if an option has changed since.
        other._made = self._others.pop(model, None)
        other.get_reranker()
        self._others[model] = other._made
        for oldest in list(self._others)[:-_OTHER_MODELS]:
            self._others.pop(oldest, None)
        return other

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_others": {}}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self._others)] = dict(self._others)
        return super().__deepcopy__(memo)

    def _compress(
        self, documents: Sequence[Document], query: str, config: RunnableConfig
    ) -> tuple[list[RankedDocument[Document]], list[Document]]:
        run = self._start_run(documents, query)
        with trace_run(run, config):
            return self._finish_run(run, self._rank(query, documents))

    async def _acompress(
        self, documents: Sequence[Document], query: str, config: RunnableConfig
    ) -> tuple[list[RankedDocument[Document]], list[Document]]:
        run = self._start_run(documents, query)
        async with atrace_run(run, config):
            return self._finish_run(run, await self._arank(query, documents))

    def _read(self, document: Document) -> str:
        return prepend_metadata(document.page_content, document.metadata, self.metadata_fields)

    def _retrieval_score(self, document: Any) -> Any:
        metadata = document.metadata if isinstance(document, Document) else document
        return metadata.get(self.retrieval_score_key) if isinstance(metadata, Mapping) else None

    def _identify(self, document: Document) -> tuple[str | None, str]:
        return document.id, document.page_content

    def _start_run(self, documents: Sequence[Document], query: str) -> Run:
        return Run(type(self).__name__, query, documents, self._describe)

    def _describe(self) -> dict[str, Any]:
        selection = self.selection()
        options = {f"rerank_{name}": getattr(selection, name) for name in _SELECTION}
        reranker = self.get_reranker()
        return {
            "rerank_model": reranker.scorer.name,
            **options,
            "rerank_retrieval_weight": reranker.retrieval_weight,
        }

    def _finish_run(
        self, run: Run, ranking: Ranking[Document]
    ) -> tuple[list[RankedDocument[Document]], list[Document]]:
        ranked = self._arrange(ranking)
        documents = [self._build(each, reranked=ranking.error is None) for each in ranked]
        run.outputs = {"documents": documents, "model": ranking.model, "usage": ranking.usage.to_dict()}
        if ranking.error is not None:
            run.outputs |= {"reranked": False, "error": f"{type(ranking.error).__name__}: {ranking.error}"}
        return ranked, documents

    def _build(self, ranked: RankedDocument[Document], *, reranked: bool) -> Document:
        metadata: dict[str, Any] = {self.score_key: ranked.score}
        earlier = ranked.retrieval_score
        if not reranked:
            metadata["reranked"] = False
            earlier = ranked.document.metadata.get(self.score_key) if earlier is None else earlier
        if earlier is not None:
            metadata[_RETRIEVAL_SCORE] = earlier
        text = None
        if self.return_passage and ranked.passage is not None:
            text = ranked.passage_text
            metadata["passage"] = list(ranked.passage)
        return copy_document(ranked.document, metadata, text=text)


class CallOptions(RunnableSerializable[Input, Output]):
    """Options of a runnable around a compressor that may be given for one call; None leaves the compressor's."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    compressor: RerankCompressor
    """The second stage."""
    top_n: int | None = Field(default=None, ge=1)
    """How many documents survive at most, at least 1."""
    score_threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    """Keep documents of at least this relevance score, in [0, 1]."""
    adaptive_ratio: float | None = Field(default=None, ge=0.0, le=1.0)
    """Keep documents that score at least this ratio of the best score, in [0, 1]."""
    min_keep: int | None = Field(default=None, ge=0)
    """How many documents survive the thresholds at least."""
    model: str | None = None
    """The model to ask, as :meth:`RerankCompressor.with_model` takes it."""

    def configurable(self, prefix: str = "rerank_") -> RunnableSerializable[Input, Output]:
        """Return this runnable with ``top_n``, the thresholds and ``model`` configurable for each call.

        Their keys have a prefix, because applications often configure their chat model as ``model``.

        >>> from langchain_core.documents import Document
        >>> rerank = RerankCompressor().as_runnable().configurable()
        >>> found = {"query": "memory leak", "documents": [Document("Paris"), Document("Fixing a memory leak.")]}
        >>> len(rerank.invoke(found, {"configurable": {"rerank_top_n": 1}}))
        1
        """
        fields = {
            name: ConfigurableField(id=f"{prefix}{name}", description=CallOptions.model_fields[name].description)
            for name in (*_SELECTION, "model")
        }
        return self.configurable_fields(**fields)

    def _apply_options(self, top_n: int | None = None) -> RerankCompressor:
        """Return the compressor with the options of this call."""
        compressor = self.compressor if self.model is None else self.compressor.with_model(self.model)
        given = {name: getattr(self, name) for name in _SELECTION if getattr(self, name) is not None}
        if top_n is not None:
            given["top_n"] = top_n
        if not given:
            return compressor
        compressor.get_reranker()  # made here, once, and not by every copy
        return compressor.model_copy(update=given)


class RerankInput(TypedDict):
    """Input of the reranking runnable, under its default keys."""

    query: str
    documents: Sequence[Document]


class RerankRunnable(CallOptions[RerankInput, Output]):
    """Reranks the documents of its input; made by :meth:`RerankCompressor.as_runnable`.

    >>> from langchain_core.documents import Document
    >>> from langchain_core.runnables import RunnablePassthrough
    >>> found = lambda query: [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.")]
    >>> chain = {"query": RunnablePassthrough(), "documents": found} | RerankCompressor(top_n=1).as_runnable()
    >>> chain.invoke("memory leak")[0].page_content
    'Fixing a memory leak.'
    """

    query_key: str = "query"
    """Where the input holds the query."""
    documents_key: str = "documents"
    """Where the input holds the documents."""
    output_key: str | None = None
    """Key of the output; None for the documents alone."""

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        """The type of the input."""
        if (self.query_key, self.documents_key) == ("query", "documents"):
            return RerankInput
        keys: dict[str, Any] = {self.query_key: (str, ...), self.documents_key: (Sequence[Document], ...)}
        return create_model("RerankInput", **keys)

    @property
    def OutputType(self) -> Any:  # noqa: N802 - LangChain's name
        """The type of the output."""
        return list[Document] if self.output_key is None else dict[str, list[Document]]

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """Return the name in traces and graphs: the compressor's, unless another was given."""
        return super().get_name(suffix, name=name or self.name or type(self.compressor).__name__)

    def invoke(
        self,
        input: RerankInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Output:
        """Return the surviving documents, best first.

        Raises:
            ConfigurationError: the input has no query or no documents, or the query is blank.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        query, documents = self._read_input(input, kwargs)
        return self._write_output(self._apply_options()._compress(documents, query, self._add_name(config))[1])

    async def ainvoke(
        self,
        input: RerankInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Output:
        """Return the surviving documents, best first, as :meth:`invoke` does."""
        query, documents = self._read_input(input, kwargs)
        _, ranked = await self._apply_options()._acompress(documents, query, self._add_name(config))
        return self._write_output(ranked)

    def _add_name(self, config: RunnableConfig | None) -> RunnableConfig:
        config = config or {}
        return config if config.get("run_name") else {**config, "run_name": self.get_name()}

    def _write_output(self, documents: list[Document]) -> Output:
        return cast("Output", documents if self.output_key is None else {self.output_key: documents})

    def _read_input(self, value: object, options: Mapping[str, Any]) -> tuple[str, list[Document]]:
        if options:
            raise TypeError(f"the reranking runnable takes no {', '.join(options)}: use configurable()")
        found = []
        for key in (self.query_key, self.documents_key):
            known: Any = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
            if known is None:
                raise ConfigurationError(
                    f"the reranking runnable found no {key!r} in its input, a {type(value).__name__}"
                    f"{' of ' + ', '.join(map(str, value)) if isinstance(value, Mapping) else ''}: "
                    "give it, or say where it is with as_runnable(query_key=…, documents_key=…)"
                )
            found.append(known)
        query, documents = found
        if not isinstance(query, str):
            raise ConfigurationError(f"{self.query_key!r} is a {type(query).__name__}: give a string")
        if isinstance(documents, (str, Mapping)) or not isinstance(documents, Iterable):
            raise ConfigurationError(f"{self.documents_key!r} is a {type(documents).__name__}: give a list")
        documents = list(documents)
        for position, document in enumerate(documents):
            if not isinstance(document, Document):
                raise ConfigurationError(
                    f"{self.documents_key}[{position}] is a {type(document).__name__}: give a Document"
                )
        return query, documents
