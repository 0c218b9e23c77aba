"""A Hugging Face checkpoint without torch: its folder, its configuration and its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.model_facts import ModelFacts, find_model_facts

_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""
_DEFAULT_LENGTH = 512
_POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Model types whose position ids begin after the padding id, so that as many positions are never used."""
_LEARNED_POSITIONS = _POSITIONS_AFTER_PADDING | {"albert", "bert", "distilbert", "electra"}
"""Model types that have no position beyond those that they were trained with."""
_GENERIC_CLASS = "TokenizersBackend"
"""The tokenizer class that transformers 5 saves for model types without one of their own; has no token types."""
_DECODERS = re.compile(
    "bloom|cohere|deepseek|exaone|falcon|gemma|glm|gpt|granite|internlm|llama|minicpm|ministral|mistral|mixtral|"
    "mpt$|nemotron|olmo|opt|phi|qwen|smollm|stablelm|starcoder"
)
"""How model types begin whose attention looks back only, and which read a pair by a prompt."""
_SHOWN = 6
"""Names of weights in an error."""
_EMBEDDING = "an embedding model: use it as a first stage"
_SPLADE = "a SPLADE model, which makes sparse vectors: use it as a first stage"
_COLBERT = "a ColBERT checkpoint, for late interaction: use 'late:'"
_ARCHITECTURES = {
    "Model": _EMBEDDING,
    "ForConditionalGeneration": "a text-to-text model such as monoT5, whose score is the probability of a word: "
    "give a model with a trained classifier",
    "ForCausalLM": "a language model, whose score is the logit of a word: use 'cross-encoder:'",
    "ForMaskedLM": "a masked language model, from which rerankers are trained: give one of those",
}
"""Classes that are no rerankers, by how their names end."""


def find_local_facts(model: str) -> ModelFacts:
    """Return what is known of a model by its hub id; by its original name or its class where it is a folder."""
    folder = Path(model).expanduser()
    if not (model and folder.is_dir()):
        return find_model_facts(model) or ModelFacts()
    config = Checkpoint(folder).config
    names = [str(config.get("_name_or_path") or ""), *(config.get("architectures") or [])]
    return next((facts for name in names if (facts := find_model_facts(name)) is not None), ModelFacts())


class Checkpoint:
    """The files beside a model's weights; ``config`` is that of ``config.json``, empty where there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = self.read_json("config.json")
        self._tokenizer_config: dict[str, Any] = self.read_json("tokenizer_config.json")

    @property
    def architecture(self) -> str:
        """The class that the checkpoint was saved from, such as ``"BertForSequenceClassification"``."""
        return str((self.config.get("architectures") or ["a model of no known class"])[0])

    @property
    def is_decoder(self) -> bool:
        """Whether it is a language model, which reads a pair by a prompt."""
        return _DECODERS.match(self.config.get("model_type", "")) is not None

    def max_length(self) -> int:
        """Return how many tokens the model reads: what its tokenizer and its positions allow, else 512."""
        limits = (self._tokenizer_config.get("model_max_length"), self._positions())
        known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
        return min(known, default=_DEFAULT_LENGTH)

    def check_length(self, max_length: int | None) -> None:
        """Check that the model can read so many tokens, which would only show in the first long text."""
        positions = self._positions()
        is_learned = self.config.get("model_type") in _LEARNED_POSITIONS
        if max_length is not None and positions is not None and is_learned and max_length > positions:
            raise ConfigurationError(
                f"max_length is {max_length}, and the model has positions for {positions} tokens: give at most "
                "that many, or leave it out"
            )

    def _positions(self) -> int | None:
        positions: int | None = self.config.get("max_position_embeddings")
        if positions is not None and self.config.get("model_type") in _POSITIONS_AFTER_PADDING:
            positions -= self.config.get("pad_token_id", 1) + 1
        return positions

    def tokenizer(self) -> Any:
        """Return the tokenizer, without padding."""
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
        return tokenizer

    def pad_id(self, tokenizer: Any) -> int:
        """Return the padding id; models that number positions from it need the right one."""
        known = self.special_id(tokenizer, "pad_token")
        return int(known if known is not None else self.config.get("pad_token_id") or 0)

    def special_id(self, tokenizer: Any, *names: str) -> int | None:
        """Return the first of these special tokens that the tokenizer has, such as ``"mask_token"``."""
        for name in names:
            token = self._tokenizer_config.get(name)
            found = tokenizer.token_to_id(token.get("content") if isinstance(token, dict) else token or "")
            if found is not None:
                return int(found)
        return None

    def has_token_types(self) -> bool:
        """Tell whether the model takes the types of its tokens, 0 in the query and 1 in the text."""
        names = self._tokenizer_config.get("model_input_names")
        if names is None:
            return self._tokenizer_config.get("tokenizer_class") != _GENERIC_CLASS
        return "token_type_ids" in names

    def find_template(self, given: str | None, name: str, facts: ModelFacts) -> str | None:
        """Return the prompt to use for a pair; None for plain pairs, or for the prompt in the checkpoint's files.

        The option ``given`` counts most, then what is known of exactly this name, then the files, then ``facts``.
        """
        if given is not None:
            return given
        if self.folder == Path(name).expanduser():  # a local folder is known by its files alone
            name = str(self.config.get("_name_or_path") or "")
        exact = find_model_facts(name, exact=True)
        if exact is not None and exact.template is not None:
            return exact.template
        if not self.is_decoder or all(
            re.search(rf"""["']{role}["']""", self.chat_template) for role in ("query", "document")
        ):
            return None
        saved = self.read_json("config_sentence_transformers.json").get("model_type") == "CrossEncoder"
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

    def describe(self) -> str:
        """Return what a checkpoint without a trained classifier looks like, and what to do with it."""
        if kind := self.other_kind():
            return kind
        endings = (kind for ending, kind in _ARCHITECTURES.items() if self.architecture.endswith(ending))
        return next(endings, f"{self.architecture}: use 'cross-encoder:' if that can run it")

    def other_kind(self) -> str:
        """Return what else than a reranker ColBERT's or sentence-transformers' files call this; "" for nothing."""
        if self.is_late():
            return _COLBERT
        modules = dict(self.modules())
        stated = self.read_json("config_sentence_transformers.json").get("model_type")
        if stated == "CrossEncoder" or not modules or "LogitScore" in modules:
            return ""
        return _SPLADE if "SpladePooling" in modules else _EMBEDDING

    def is_late(self) -> bool:
        """Tell whether this is a ColBERT checkpoint, in Stanford's, PyLate's or sentence-transformers' layout."""
        saved = self.late_settings()
        return (
            saved.get("model_type") in ("ColBERT", "MultiVectorEncoder")
            or "query_prefix" in saved
            or "ColBERT" in self.architecture
            or (self.folder / "artifact.metadata").is_file()
            or "MultiVectorMask" in dict(self.modules())
        )

    def is_stanford(self) -> bool:
        """Tell whether this is in the layout of ColBERT's authors, with the projection among the weights."""
        return "HF_ColBERT" in self.architecture and not self.modules()

    def late_settings(self) -> dict[str, Any]:
        """Return what PyLate and sentence-transformers save of a whole model, or PyLate's ONNX export does."""
        return dict(self.read_json("config_sentence_transformers.json") or self.read_json("onnx_config.json"))

    def modules(self) -> list[tuple[str, str]]:
        """Return the classes of sentence-transformers' modules, and their folders."""
        listed = self.read_json("modules.json", list)
        return [(module.get("type", "").rpartition(".")[2], module.get("path", "")) for module in listed]

    def check_classifier(self) -> None:
        """Check that the configuration is a trained classifier's."""
        is_classifier = self.architecture.endswith("ForSequenceClassification")
        if self.other_kind() or (self.config.get("architectures") and not is_classifier):
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

    def read_json(self, name: str, kind: type = dict) -> Any:
        """Return a file's content, an empty one where the file is missing."""
        path = self.folder / name
        if not path.is_file():
            return kind()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ConfigurationError(f"{path} is no JSON: {exc}") from exc
        if not isinstance(content, kind):
            raise ConfigurationError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}")
        return content
