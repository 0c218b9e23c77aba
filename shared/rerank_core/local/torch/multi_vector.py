"""sentence-transformers' ``MultiVectorEncoder`` as a session, which takes token ids and returns token vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.torch.loading import choose_tokens_per_batch, quiet_transformers, set_threads

_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}
_PURPOSE = "a ColBERT checkpoint on torch"


class MultiVectorSession:
    """A ``MultiVectorEncoder`` on one device, and how many padded tokens per batch suit that."""

    def __init__(self, name: str, options: Any, *, offline: bool) -> None:
        library = require("sentence_transformers", extra="local", purpose=_PURPOSE)
        set_threads(options.threads)
        try:
            with quiet_transformers():
                self._model = library.MultiVectorEncoder(
                    name,
                    device=options.device,
                    revision=options.revision,
                    local_files_only=offline,
                    trust_remote_code=options.trust_remote_code,
                    model_kwargs={"dtype": _DTYPES[options.precision]},
                ).eval()
        except Exception as exc:
            raise ConfigurationError(
                f"cannot be loaded as a MultiVectorEncoder ({type(exc).__name__}, see the cause, "
                f"device={options.device!r}): give a hub id, or a folder that holds a ColBERT checkpoint"
            ) from exc
        types = "token_type_ids" in self._model.tokenizer.model_input_names
        self.inputs = {"input_ids", "attention_mask", *(["token_type_ids"] if types else [])}
        self.tokens_per_batch = choose_tokens_per_batch(self._model[0].model)

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """Return the vectors of all tokens, (texts, tokens, width)."""
        import torch

        with torch.inference_mode():
            features = {name: torch.tensor(array, device=self._model.device) for name, array in feed.items()}
            return [self._model({**features, "modality": "text"})["token_embeddings"].float().cpu().numpy()]

    def encode(self, text: str, *, queries: bool) -> Any:
        """Return the vectors of one text that are compared, read in the library's own way."""
        encode = self._model.encode_query if queries else self._model.encode_document
        with quiet_transformers():  # the text may be longer than a query is read
            return encode([text], convert_to_numpy=True, show_progress_bar=False)[0]

    def arm(self) -> None:
        """Do nothing: what runs cannot be ended."""

    def interrupt(self) -> None:
        """Do nothing: what runs cannot be ended."""
