"""How a ColBERT checkpoint reads queries and documents, by its files: markers, lengths, expansion, skiplist."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint

_MODULES = ("Transformer", "Dense", "MultiVectorMask", "Normalize")
"""Those of the library that ColBERT checkpoints have; the last one makes vectors of length 1."""
_FILLED = 32
"""Tokens that ColBERT fills queries up to."""


@dataclass(frozen=True)
class TextForm:
    """How texts of one kind are read.

    Attributes:
        prompt: what is written before a text.
        limit: tokens that are read, those of the prompt and special ones included.
        filled: tokens that shorter texts are filled up to with ``fill_id``, mostly the mask; they count, too.
        fill_id: see ``filled``.
        attends: whether the model attends to what fills a text up.
        skipped: tokens that are not compared.
    """

    prompt: str
    limit: int
    filled: int = 0
    fill_id: int = 0
    attends: bool = False
    skipped: tuple[int, ...] = ()


def read_forms(checkpoint: Checkpoint, tokenizer: Any, max_length: int | None) -> tuple[TextForm, TextForm]:
    """Return how a checkpoint reads queries, and how documents; what its files do not say is ColBERT's default.

    Stanford's layout has a file ``artifact.metadata``, PyLate's has settings of the whole model, and that of
    sentence-transformers has settings of each module.

    Args:
        checkpoint: the files.
        tokenizer: the checkpoint's, which is told the markers here.
        max_length: tokens of a document that are read; None for the checkpoint's own limit.

    Raises:
        ConfigurationError: this is no ColBERT checkpoint, or reads texts in another way.
    """
    if not checkpoint.is_late():
        raise ConfigurationError(f"the model is not for late interaction: it looks like {checkpoint.describe()}")
    modules = dict(checkpoint.modules())
    whole = _stanford(checkpoint) if checkpoint.is_stanford() else checkpoint.late_settings()
    if modules.keys() - set(_MODULES) or (_is_native(whole) and "Normalize" not in modules):
        raise ConfigurationError(f"the model's modules are {', '.join(modules)}: known are {', '.join(_MODULES)}")
    first = next(iter(modules.values()), "")
    settings = _as_modules(whole) | checkpoint.read_json(str(PurePosixPath(first, "sentence_bert_config.json")))
    if settings.get("do_lower_case") or whole.get("do_lower_case"):
        normalizers: Any = require("tokenizers.normalizers", extra="onnx", purpose="reading texts")
        known = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *known])
    longest = int(settings.get("max_seq_length") or checkpoint.max_length())
    query, document = (
        TextForm(_prompt(whole, kind, tokenizer), int(settings.get(f"{kind}_length") or longest))
        for kind in ("query", "document")
    )
    expansion = settings.get("query_expansion")
    if expansion is not None:
        token, filled = expansion.get("token"), int(expansion["length"])
        if token is not None:
            fill_id = tokenizer.token_to_id(token)
        else:  # an ONNX export of PyLate's has the number, and no file with the token's name
            fill_id = checkpoint.special_id(tokenizer, "mask_token", "eos_token") or whole.get("mask_token_id")
        if fill_id is None:
            raise ConfigurationError("queries are filled up with a token that tokenizer.json does not have")
        limit = filled if expansion["strategy"] == "fixed" else max(filled, query.limit)
        query = replace(query, limit=limit, filled=filled, fill_id=fill_id, attends=bool(expansion.get("attend")))
    words = whole.get("skiplist_words")
    if _is_native(whole):
        mask = checkpoint.read_json(f"{modules.get('MultiVectorMask')}/config.json")
        words = mask.get("skiplist_words") or ()
        if mask.get("keep_only_token_ids") or mask.get("skiplist_tasks", ["document"]) != ["document"]:
            raise ConfigurationError("the model leaves out other tokens than those of its skiplist in documents")
    words = string.punctuation if words is None else words
    skipped = {tokenizer.token_to_id(word) for word in words} - {None}
    return query, replace(document, limit=max_length or document.limit, skipped=tuple(sorted(skipped)))


def _stanford(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what Stanford's file says, by PyLate's names."""
    metadata = checkpoint.read_json("artifact.metadata")
    return {
        "query_prefix": (metadata.get("query_token_id") or "[unused0]") + " ",
        "document_prefix": (metadata.get("doc_token_id") or "[unused1]") + " ",
        "query_length": metadata.get("query_maxlen"),
        "document_length": metadata.get("doc_maxlen"),
        "attend_to_expansion_tokens": metadata.get("attend_to_mask_tokens"),
        "skiplist_words": string.punctuation if metadata.get("mask_punctuation", True) else "",
    }


def _is_native(whole: Mapping[str, Any]) -> bool:
    """Tell whether sentence-transformers saved the model, without PyLate."""
    return whole.get("model_type") == "MultiVectorEncoder"


def _as_modules(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return PyLate's settings of a model as sentence-transformers' of its first module."""
    settings = {name: whole[name] for name in ("query_length", "document_length") if whole.get(name) is not None}
    if "query_expansion" in whole:
        return {**settings, "query_expansion": whole["query_expansion"]}
    if _is_native(whole) or whole.get("do_query_expansion") is False:
        return settings
    attend = whole.get("attend_to_expansion_tokens", whole.get("attend_to_mask_tokens"))
    length = settings.pop("query_length", None) or _FILLED
    return {**settings, "query_expansion": {"strategy": "fixed", "attend": attend, "length": length}}


def _prompt(whole: Mapping[str, Any], kind: str, tokenizer: Any) -> str:
    """Return what is written before texts; a marker in it becomes one token, as it was in training."""
    prefix = whole.get(f"{kind}_prefix") or ""
    for marker in (prefix, *prefix.split()[:1]):
        if prefix.strip() and tokenizer.token_to_id(marker) is not None:
            if tokenizer.encode(marker, add_special_tokens=False).tokens != [marker]:
                tokens: Any = require("tokenizers", extra="onnx", purpose="reading texts")
                tokenizer.add_special_tokens([tokens.AddedToken(marker, normalized=False, special=True)])
            break
    prompt = (whole.get("prompts") or {}).get(kind) or ""
    return prefix + str(prompt).removeprefix(prefix)
