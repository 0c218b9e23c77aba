"""Prompts of rerankers that are language models: query and document filled into a template."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from string import Formatter
from typing import TYPE_CHECKING, Any

from rerank_core.errors import ConfigurationError
from rerank_core.local.tokens import CHARACTERS_PER_TOKEN, Pair, PairTokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["TemplateTokenizer", "check_template", "is_decoder", "renders_pairs", "to_chat_template"]

_FIELDS = ("instruction", "query", "document")
_ROLES = {"query": "query", "document": "document", "instruction": "system"}
_DECODERS = re.compile(
    "bloom|cohere|deepseek|exaone|falcon|gemma|glm|gpt|granite|internlm|llama|minicpm|ministral|mistral|mixtral|"
    "mpt$|nemotron|olmo|opt|phi|qwen|smollm|stablelm|starcoder"
)
"""How model types begin whose attention looks back only, and which read a pair by a prompt."""


def check_template(template: str) -> None:
    """Check that a template has places for query and document, and no others but the instruction's.

    Raises:
        ConfigurationError: it has not.
    """
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError:
        names = []
    if not {"query", "document"} <= set(names) or not set(names) <= set(_FIELDS) or len(names) != len(set(names)):
        raise ConfigurationError(
            "template needs {query} and {document} once each, may have {instruction}, and its own braces doubled"
        )


def is_decoder(config: dict[str, Any]) -> bool:
    """Tell whether a model's configuration is a language model's, which reads a pair by a prompt."""
    return _DECODERS.match(config.get("model_type", "")) is not None


def renders_pairs(chat_template: str) -> bool:
    """Tell whether a checkpoint's chat template has places for a query and a document, as rerankers' have."""
    return all(re.search(rf"""["']{role}["']""", chat_template) for role in ("query", "document"))


def to_chat_template(template: str, instruction: str) -> str:
    """Return a template as sentence-transformers takes it: a chat template of query, document and system roles."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if literal else "")
        if name is not None:
            default = f" | default({json.dumps(instruction, ensure_ascii=False)}, true)" * (name == "instruction")
            role = f'messages | selectattr("role", "eq", "{_ROLES[name]}") | map(attribute="content") | first'
            parts.append(f"{{{{ {role}{default} }}}}")
    return "".join(parts)


class TemplateTokenizer(PairTokenizer):
    """Makes a prompt of each pair; a long text is cut so that the end of the prompt stays.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, used by nobody else from now on.
        template: see :func:`check_template`.
        instruction: what stands in its place.
        max_length: tokens of a prompt that are read, at least 1.
        pad_id: fills up shorter prompts.
    """

    def __init__(self, tokenizer: Any, template: str, instruction: str, *, max_length: int, pad_id: int) -> None:
        super().__init__(tokenizer, max_length=max_length, pad_id=pad_id, token_types=False)
        self._template = template
        self._instruction = instruction

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the prompts of a query with each of the texts, in order."""
        before, after = self._around(query)
        most = self._max_length * CHARACTERS_PER_TOKEN
        pairs = []
        for text, encoding in zip(
            texts, self._encode([before + text[:most] + after for text in texts]), strict=True
        ):
            end = len(before) + len(text[:most])
            if len(text) > most and len(encoding.ids) <= self._max_length:
                (encoding,) = self._encode([before + text + after])
                end = len(before) + len(text)
            pairs.append(Pair(self._fit(encoding, end)))
        return pairs

    def max_text_tokens(self, query: str) -> int:
        """Return how many tokens of a text are read beside a query."""
        alone = "".join(self._around(query))
        return max(0, self._max_length - len(self._tokenizer.encode(alone, add_special_tokens=False)))

    def _encode(self, prompts: Sequence[str]) -> Sequence[Any]:
        encodings: Sequence[Any] = self._tokenizer.encode_batch(prompts, add_special_tokens=False)
        return encodings

    def _fit(self, encoding: Any, end: int) -> npt.NDArray[np.int32]:
        """Return the ids of a prompt whose document ends at a position, and is cut if the prompt is too long."""
        import numpy as np

        ids = np.array(encoding.ids, dtype=np.int32)
        if len(ids) <= self._max_length:
            return ids
        tail = min(sum(start >= end for start, _ in encoding.offsets), self._max_length)
        return np.concatenate((ids[: self._max_length - tail], ids[len(ids) - tail :]))

    def _around(self, query: str) -> tuple[str, str]:
        """Return the prompt before and after the document."""
        filled = {"query": query, "instruction": self._instruction}
        sides, side = ["", ""], 0
        for literal, name, _, _ in Formatter().parse(self._template):
            sides[side] += literal
            if name == "document":
                side = 1
            elif name is not None:
                sides[side] += filled[name]
        return sides[0], sides[1]
