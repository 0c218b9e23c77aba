"""Copies of nodes with more metadata, or with a passage as their text. Pure; no given node is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import BaseNode, ImageNode, IndexNode, MetadataMode, TextNode

from rerank_core import Passage, RankedDocument

_RESOURCES = ("image_resource", "audio_resource", "video_resource")


def is_blank(text: str) -> bool:
    """Tell whether a model would have nothing to read."""
    return not text or text.isspace()


def is_multimodal(node: BaseNode) -> bool:
    """Tell whether a node stands for an image, audio, a video or another object, whatever text it has."""
    return isinstance(node, (ImageNode, IndexNode)) or any(
        getattr(node, name, None) is not None for name in _RESOURCES
    )


def add_metadata(node: BaseNode, metadata: Mapping[str, Any]) -> BaseNode:
    """Return a copy with metadata added, which neither the LLM nor the embedding model reads."""
    return node.model_copy(
        update={
            "metadata": {**node.metadata, **metadata},
            "excluded_llm_metadata_keys": _append(node.excluded_llm_metadata_keys, metadata),
            "excluded_embed_metadata_keys": _append(node.excluded_embed_metadata_keys, metadata),
        }
    )


def _append(keys: list[str], more: Mapping[str, Any]) -> list[str]:
    return [*keys, *(key for key in more if key not in keys)]


def find_own_passage(node: BaseNode, ranked: RankedDocument[Any]) -> Passage | None:
    """Return the passage as a span of the node's own text, without the metadata that the model read before it.

    None if there is no passage, or if ``text_fn`` gave the model another text.
    """
    own = node.get_content(MetadataMode.NONE)
    if ranked.passage is None or not ranked.text.endswith(own):
        return None
    before = len(ranked.text) - len(own)
    start, end = (max(0, position - before) for position in ranked.passage)
    return Passage(start, end) if start < end else None


def replace_text(node: BaseNode, text: str, own: Passage | None) -> BaseNode:
    """Return a copy whose text is a passage; its place in the source document follows where it is known."""
    copied = node.model_copy()
    copied.set_content(text)
    if isinstance(copied, TextNode):
        known = own is not None and isinstance(node, TextNode) and node.start_char_idx is not None
        first = copied.start_char_idx or 0
        copied.start_char_idx = first + own.start if known and own is not None else None
        copied.end_char_idx = first + own.end if known and own is not None else None
    return copied
