"""A Hugging Face checkpoint without torch: its folder, its configuration and its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, ScorerUnavailableError
from rerank_core.local.templates import is_decoder, renders_pairs
from rerank_core.model_facts import ModelFacts, find_model_facts

__all__ = [
    "PROBE_SECONDS",
    "Checkpoint",
    "fetch_checkpoint",
    "find_local_facts",
    "is_hub_id",
    "is_hub_out_of_reach",
    "unavailable",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""
_DEFAULT_LENGTH = 512
_POSITIONS_AFTER_PADDING = frozenset({"camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Model types whose position ids begin after the padding id, so that as many positions are never used."""
_GENERIC_CLASS = "TokenizersBackend"
"""The tokenizer class that transformers 5 saves for model types without one of their own; has no token types."""
_SHOWN = 6
"""Names of weights in an error."""
_KINDS = {
    "SentenceTransformer": "an embedding model: use it as a first stage",
    "SparseEncoder": "a SPLADE model, which makes sparse vectors: use it as a first stage",
    "ColBERT": "a ColBERT checkpoint, for late interaction, which no scorer here reads yet",
    "text-to-text": "a text-to-text model such as monoT5, whose score is the probability of a word: give a model "
    "with a trained classifier",
    "causal": "a language model, whose score is the logit of a word: use 'cross-encoder:'",
    "masked": "a masked language model, from which rerankers are trained: give one of those",
}
_ENDINGS = {"Model": "SentenceTransformer", "ForConditionalGeneration": "text-to-text", "ForCausalLM": "causal"}
_MODULES = {
    "SpladePooling": "SparseEncoder",
    "MultiVectorMask": "ColBERT",
    "Pooling": "SentenceTransformer",
}
"""Modules of sentence-transformers that rerankers do not have."""
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


def find_local_facts(model: str) -> ModelFacts:
    """Return what is known of a model by its hub id; by its original name or its class where it is a folder."""
    folder = Path(model).expanduser()
    if not (model and folder.is_dir()):
        return find_model_facts(model) or ModelFacts()
    config = Checkpoint(folder).config
    names = [str(config.get("_name_or_path") or ""), *(config.get("architectures") or [])]
    return next((facts for name in names if (facts := find_model_facts(name)) is not None), ModelFacts())


def fetch_checkpoint(model: str, *, revision: str | None, offline: bool) -> Path:
    """Return a model's folder, with all but its weights fetched from the hub where it is a hub id.

    Args:
        model: a folder or a hub id; without an owner, sentence-transformers' own.
        revision: branch, tag or commit on the hub.
        offline: never ask the hub; use what its cache on this machine has.

    Raises:
        ScorerUnavailableError: the hub does not have it or cannot be reached.
    """
    if not is_hub_id(model):
        return Path(model).expanduser()
    hub = require("huggingface_hub", extra="onnx", purpose=f"fetching {model!r} from the hub")
    try:
        return Path(
            hub.snapshot_download(
                model if "/" in model else f"cross-encoder/{model}",
                revision=revision,
                allow_patterns=["*.json", "*.jinja", "artifact.metadata"],
                local_files_only=offline,
            )
        )
    except Exception as exc:
        raise unavailable(model) from exc


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

    @property
    def architecture(self) -> str:
        """The class that the checkpoint was saved from, such as ``"BertForSequenceClassification"``."""
        return str((self.config.get("architectures") or ["a model of no known class"])[0])

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

    def find_template(self, given: str | None, name: str, facts: ModelFacts) -> str | None:
        """Return the prompt to use for a pair; None for plain pairs, or for the prompt in the checkpoint's files.

        Args:
            given: by an option, which counts most.
            name: a folder or a hub id; what is known of exactly this name comes before what the files say.
            facts: what is known of the model, which comes after its files.

        Raises:
            ConfigurationError: the model reads pairs by a prompt, and there is none.
        """
        if self.folder == Path(name).expanduser():  # a local folder is known by its files alone
            name = str(self.config.get("_name_or_path") or "")
        exact = find_model_facts(name, exact=True)
        if given is not None:
            return given
        if exact is not None and exact.template is not None:
            return exact.template
        if not is_decoder(self.config) or renders_pairs(self.chat_template):
            return None
        saved = self._json("config_sentence_transformers.json").get("model_type") == "CrossEncoder"
        if saved and not (self.chat_template and facts.template):
            return None  # it was trained without a prompt, or with one that the library can judge
        if facts.template is None:
            raise ConfigurationError(
                f"{self.architecture} reads pairs by a prompt, without which scores are nearly random, and its "
                "files have none: give template='… {query} … {document} …' as its model card says"
            )
        return facts.template

    @property
    def chat_template(self) -> str:
        """The checkpoint's own chat template; "" where it has none."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        return str(self._tokenizer_config.get("chat_template") or "")

    def weights_folder(self) -> Path:
        """Return the folder of the weights, for which sentence-transformers may have made one."""
        modules = self._list("modules.json")
        return self.folder / (modules[0].get("path", "") if modules else "")

    def describe(self) -> str:
        """Return what a checkpoint without a trained classifier looks like, and what to do with it."""
        architecture = self.architecture
        kind = self._library_kind()
        if (self.folder / "artifact.metadata").is_file() or "ColBERT" in architecture:
            kind = "ColBERT"
        if not kind and architecture.endswith("ForMaskedLM"):
            kind = "SparseEncoder" if "splade" in str(self.folder).lower() else "masked"
        for ending, found in _ENDINGS.items():
            kind = kind or (found if architecture.endswith(ending) else "")
        return _KINDS.get(kind, f"{architecture}: use 'cross-encoder:' if that can run it")

    def is_of_another_kind(self) -> bool:
        """Tell whether sentence-transformers' files say that this is no reranker, such as an embedding model."""
        return self._library_kind() != ""

    def check_classifier(self) -> None:
        """Check that the configuration is a trained classifier's.

        Raises:
            ConfigurationError: it is not; says what the checkpoint looks like.
        """
        is_classifier = self.architecture.endswith("ForSequenceClassification") or not self.config.get(
            "architectures"
        )
        if self._library_kind() or not is_classifier:
            raise ConfigurationError(
                f"{self.architecture} has no trained classifier: it looks like {self.describe()}"
            )

    def untrained(self, missing: Sequence[str]) -> ConfigurationError:
        """Return the error for a model some of whose weights are in no file."""
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return ConfigurationError(
            f"the files hold no weights for {', '.join(missing[:_SHOWN])}{more}, so scores would be random: it "
            f"looks like {self.describe()}"
        )

    def _library_kind(self) -> str:
        """Return the class of sentence-transformers that saved a checkpoint; "" for rerankers and other files."""
        stated = self._json("config_sentence_transformers.json").get("model_type")
        modules = [module.get("type", "").rpartition(".")[2] for module in self._list("modules.json")]
        if stated == "CrossEncoder" or not modules or "LogitScore" in modules:
            return ""
        return next((kind for module, kind in _MODULES.items() if module in modules), "") or (
            "ColBERT" if stated in ("ColBERT", "MultiVectorEncoder") else "SentenceTransformer"
        )

    def _list(self, name: str) -> list[dict[str, Any]]:
        content: Any = self._json(name)
        return content if isinstance(content, list) else []

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ConfigurationError(f"{path} is no JSON: {exc}") from exc
        return content
