"""What is known of rerank models, by name, wherever they run: scale, instructions, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from rerank_core.types import Scale

__all__ = ["MODELS", "Limits", "ModelFacts", "find_model_facts", "look_up"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model or a service takes in one request; None where there is no limit, or none known.

    Attributes:
        documents: documents in a request, at least 1.
        multiple: a request that is not the last holds a multiple of this many documents, where it can.
        tokens: tokens in a request, the query counted once per document.
        pair: tokens of the query and one document together that the model reads.
        document: tokens of one document that the model reads.
    """

    documents: int = 1000
    multiple: int = 1
    tokens: int | None = None
    pair: int | None = None
    document: int | None = None

    def tokens_read(self, query: int, document: int) -> int:
        """Return how many tokens of a query and a document, of these lengths, the model reads."""
        if self.document is not None:
            document = min(document, self.document)
        return query + document if self.pair is None else min(query + document, self.pair)

    def within(self, other: Limits) -> Limits:
        """Return the limits that keep both.

        >>> Limits(documents=64, tokens=131_072).within(Limits(documents=32, pair=512))
        Limits(documents=32, multiple=1, tokens=131072, pair=512, document=None)
        """
        return Limits(
            min(self.documents, other.documents),
            max(self.multiple, other.multiple),
            _least(self.tokens, other.tokens),
            _least(self.pair, other.pair),
            _least(self.document, other.document),
        )


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model; the defaults hold for a model that is not known.

    Attributes:
        limits: what it takes in one request.
        instructions: template that puts an instruction before the query, with ``{instruction}`` and ``{query}``;
            None for a model that follows no instruction.
        listwise: whether a score depends on the other texts of the request.
        scale: of its scores, None where the runtime or the server decides.
        successor: the model to use instead of this one, which was retired.
        template: prompt of a language model, with ``{query}``, ``{document}`` and, where it follows one,
            ``{instruction}``; for local models whose files have no prompt.
        instruction: what stands in the template where no instruction is given.
        answers: the words whose logits make the score, yes minus no; None in place of no for yes alone.
        temperature: by which a logit is divided before the sigmoid.
        unsupported: why ``cross-encoder:`` refuses the model, and what to use instead.
        caution: what to know about its scores; logged once when it is loaded.
    """

    limits: Limits = field(default_factory=Limits)
    instructions: str | None = None
    listwise: bool = False
    scale: Scale | None = None
    successor: str | None = None
    template: str | None = None
    instruction: str = "Given a web search query, retrieve relevant passages that answer the query"
    answers: tuple[str, str | None] = ("yes", "no")
    temperature: float = 1.0
    unsupported: str | None = None
    caution: str | None = None

    def cut_at(self, document: int | None) -> ModelFacts:
        """Return the facts where no more than this many tokens of a document are read; None changes nothing."""
        return self if document is None else replace(self, limits=replace(self.limits, document=document))


_QWEN3 = ModelFacts(
    instructions="<Instruct>: {instruction}\n<Query>: {query}",
    template=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
)
_BGE_GEMMA = ModelFacts(
    template=(
        "<bos>A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains "
        "an answer to the query by providing a prediction of either 'Yes' or 'No'."
    ),
    answers=("Yes", None),
)
_NEMOTRON = ModelFacts(template="question:{query} \n \n passage:{document}")
_EARLY_EXIT = ModelFacts(
    unsupported="its own code picks layers and compresses tokens, which CrossEncoder does not: use another "
    "model of its family, such as bge-reranker-v2-m3"
)
_TEXT_ONLY = "it reads texts and images, and gets texts only here"
_OLD_CODE = (
    "its own code does not run with transformers 5: use 'onnx:' with the same name, whose repository has the files"
)
_OTHER_SCORES = (
    "its scores changed with transformers 5 (known from 0.73 to 0.20 for one pair): compare them with yours"
)
_ZERANK_1 = ModelFacts(
    unsupported="its own code replaces CrossEncoder.predict for all models of the process: use zerank-2, or "
    "ZeroEntropy's service"
)
_JINA_V3 = ModelFacts(
    Limits(documents=64, tokens=131_072),
    listwise=True,
    scale="cosine",
    unsupported="its own code ranks all texts together: use the service 'jina:'",
)

MODELS: Mapping[str, ModelFacts] = MappingProxyType(
    {
        "bge-reranker-base": ModelFacts(),
        "bge-reranker-large": ModelFacts(),
        "bge-reranker-v2-gemma": _BGE_GEMMA,
        "bge-reranker-v2-m3": ModelFacts(),
        "bge-reranker-v2-minicpm-layerwise": _EARLY_EXIT,
        "bge-reranker-v2.5-gemma2-lightweight": _EARLY_EXIT,
        "ctxl-rerank-v2*": ModelFacts(
            instructions="{query} {instruction}",
            caution="its logits are not centred (right answers at −2.3): a threshold of 0.5 keeps nothing; set "
            "thresholds from your own data, or temperature=",
        ),
        "gte-multilingual-reranker-base": ModelFacts(unsupported=_OLD_CODE),
        "japanese-reranker-large-v1": ModelFacts(caution=_OTHER_SCORES),
        "jina-reranker-m0": ModelFacts(Limits(pair=10_240), caution=_TEXT_ONLY),
        "jina-reranker-v1*": ModelFacts(unsupported=_OLD_CODE),
        "jina-reranker-v2-base-multilingual": ModelFacts(Limits(pair=1024), unsupported=_OLD_CODE),
        "jina-reranker-v3*": _JINA_V3,
        "jinaforranking": _JINA_V3,
        "llama-nemotron-rerank-1b-v2": _NEMOTRON,
        "llama-nemotron-rerank-vl*": ModelFacts(caution=_TEXT_ONLY),
        "polish-reranker*": ModelFacts(caution=_OTHER_SCORES),
        "qwen3-reranker*": _QWEN3,
        "qwen3-vl-reranker*": ModelFacts(caution=_TEXT_ONLY),
        "zerank-1": _ZERANK_1,
        "zerank-1-small": _ZERANK_1,
        "zerank-2": ModelFacts(temperature=5.0),
    }
)
"""Facts by model, or by its class: see :func:`look_up` for the keys."""


def find_model_facts(model: str, *, exact: bool = False) -> ModelFacts | None:
    """Return what is known of a model, None for nothing; see :func:`look_up`."""
    return look_up(MODELS, model, exact=exact)


def look_up(table: Mapping[str, T], model: str, *, exact: bool = False) -> T | None:
    """Return a model's entry in a table: that of its exact name, else of the longest prefix, else None.

    Args:
        table: its keys are the last part of a model's name, in lower case; a key that ends in ``*`` is a prefix.
        model: such as ``"Qwen/Qwen3-Reranker-0.6B"``; the part after the last slash counts, in any case.
        exact: leave prefixes out.

    >>> look_up({"jina-reranker-v3*": "cosine"}, "jinaai/jina-reranker-v3.5")
    'cosine'
    """
    name = model.rpartition("/")[2].lower()
    if name in table or exact:
        return table.get(name)
    prefixes = [key for key in table if key.endswith("*") and name.startswith(key[:-1])]
    return table[max(prefixes, key=len)] if prefixes else None
