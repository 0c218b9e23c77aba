"""A Hugging Face checkpoint without torch: its folder, its configuration and its tokenizer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, ScorerUnavailableError

__all__ = ["PROBE_SECONDS", "Checkpoint", "is_hub_id", "is_hub_out_of_reach", "unavailable"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""
_DEFAULT_LENGTH = 512
_POSITIONS_AFTER_PADDING = frozenset({"camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Model types whose position ids begin after the padding id, so that as many positions are never used."""
_GENERIC_CLASS = "TokenizersBackend"
"""The tokenizer class that transformers 5 saves for model types without one of their own; has no token types."""
PROBE_SECONDS = 10.0
"""How long the hub may take for one request."""


def is_hub_id(model: str) -> bool:
    """Tell a hub id, ``"name"`` or ``"owner/name"``, from a path; a folder that exists is never a hub id."""
    return _HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def is_hub_out_of_reach(model: str, *, revision: str | None) -> bool:
    """Tell whether the hub cannot be reached, by one request; its own client retries for a minute."""
    purpose = f"fetching {model!r} from the hub"
    hub = require("huggingface_hub", extra="onnx", purpose=purpose)
    errors = require("huggingface_hub.errors", extra="onnx", purpose=purpose)
    try:
        hub.HfApi().model_info(model, revision=revision, timeout=PROBE_SECONDS)
    except errors.HfHubHTTPError:
        return False
    except Exception:
        return True
    return False


def unavailable(model: str) -> ScorerUnavailableError:
    """Return the error for a hub model that is neither on the hub nor on this machine."""
    return ScorerUnavailableError(
        "could not be fetched from the hub (the cause is above), nor was it in the local cache: check the name "
        f"and the network, or run 'hf download {model} --local-dir FOLDER' where there is one, and give "
        "the folder instead of the hub id"
    )


class Checkpoint:
    """The files beside a model's weights.

    Attributes:
        folder: where they are.
        config: ``config.json``, empty where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._json("config.json")
        self._tokenizer_config = self._json("tokenizer_config.json")

    def max_length(self) -> int:
        """Return how many tokens the model reads: what its tokenizer and its positions allow, else 512."""
        stated = self._tokenizer_config.get("model_max_length")
        positions = self.config.get("max_position_embeddings")
        if positions is not None and self.config.get("model_type") in _POSITIONS_AFTER_PADDING:
            positions -= self.config.get("pad_token_id", 1) + 1
        limits = [int(limit) for limit in (stated, positions) if limit is not None and 0 < limit < _NO_LIMIT]
        return min(limits, default=_DEFAULT_LENGTH)

    def tokenizer(self, max_length: int) -> Any:
        """Return the tokenizer, set to truncate the longer of query and text first, as in training.

        Raises:
            ConfigurationError: the folder has no ``tokenizer.json``, or one that cannot be read.
        """
        tokenizers = require("tokenizers", extra="onnx", purpose="reading tokenizer.json")
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigurationError(
                f"{self.folder} has no tokenizer.json: save the tokenizer there with "
                "AutoTokenizer.from_pretrained(…).save_pretrained(…), which writes one"
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:
            raise ConfigurationError(f"{path} is no tokenizer: {exc}") from exc
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, strategy="longest_first")
        return tokenizer

    def pad_id(self, tokenizer: Any) -> int:
        """Return the padding id; models that number positions from it need the right one."""
        token = self._tokenizer_config.get("pad_token")
        if isinstance(token, dict):
            token = token.get("content")
        known = None if token is None else tokenizer.token_to_id(token)
        return int(known if known is not None else self.config.get("pad_token_id") or 0)

    def has_token_types(self) -> bool:
        """Tell whether the model takes the types of its tokens, 0 in the query and 1 in the text."""
        names = self._tokenizer_config.get("model_input_names")
        if names is None:
            return self._tokenizer_config.get("tokenizer_class") != _GENERIC_CLASS
        return "token_type_ids" in names

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ConfigurationError(f"{path} is no JSON: {exc}") from exc
        return content
