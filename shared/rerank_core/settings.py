"""The options that both adapters have, as fields of a pydantic model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from rerank_core._support.checks import check_fraction, check_seconds
from rerank_core.errors import ConfigurationError
from rerank_core.ranking_options import RankingOptions
from rerank_core.registry import find_factory, load_scorer
from rerank_core.reranker import OnError, Reranker
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.serialization import dump_reranker, restore_reranker

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RerankSettings"]

_TOP_N = 5
_SELECTION = ("score_threshold", "adaptive_ratio", "min_keep", "top_n")
_SCORER = ("model", "api_key", "base_url", "timeout", "on_error", "retrieval_weight", "model_options")
_SCORERS_OWN = "give it to the scorer, as model_options={{{!r}: …}}"
_EQUIVALENTS = {
    **dict.fromkeys(("top_k", "k"), "give top_n"),
    **dict.fromkeys(("model_name", "model_id"), 'give model, such as "cross-encoder:BAAI/bge-reranker-v2-m3"'),
    **{f"{name}_api_key": "give api_key" for name in ("cohere", "jina", "voyage", "voyageai", "mxbai", "nvidia")},
    **{
        name: _SCORERS_OWN.format(name)
        for name in ("device", "instruction", "max_length", "max_retries", "truncation", "trust_remote_code")
    },
    "backend": 'give model "onnx:…" for ONNX Runtime and OpenVINO, "cross-encoder:…" for torch',
    "cache_folder": "set the environment variable HF_HOME",
    "cross_encoder_kwargs": "give device, dtype and attention as model_options",
    "llm": "give reranker=Reranker(LLMScorer(llm))",
    "model_kwargs": "give device, dtype and attention of torch as model_options",
    "prefix_metadata": "give score_key",
    "rank_fields": "give metadata_fields",
    "similarity_cutoff": "give score_threshold, of relevance in [0, 1]",
}
"""What to give instead of options of the rerankers that this one replaces."""


def _restore(value: Any) -> Any:
    if isinstance(value, Scorer):
        return Reranker(value, selection=Selection(top_n=_TOP_N))
    if isinstance(value, dict):
        return restore_reranker(value)
    if value is None or isinstance(value, Reranker):
        return value
    hint = ", or its name as model=" if isinstance(value, str) else ""
    raise ConfigurationError(
        f"reranker is a {type(value).__name__}: give a Reranker, a scorer or a policy{hint}; CompressorScorer and "
        "PostprocessorScorer make scorers of other rerankers"
    )


def _hide(key: Any) -> Any:
    return SecretStr(key) if isinstance(key, str) else key


class RerankSettings(RankingOptions):
    """Options of a reranker inside a framework; an unknown option is an error.

    The scorer is made at once, so a wrong name or a missing key raises here; weights are loaded and connections
    opened by the first call. A changed option applies from the next call on. Copies share the scorer or the
    ``reranker``. Pickles and dumps never hold a key, except that a pickle holds other frameworks' objects as they
    are; what is made from one reads the environment. A dump holds the ``reranker`` if that is made of scorers with
    names, in any policies; what a dump cannot hold is named in it (``not_serialized``), and loading it raises
    until that is given again.

    Raises:
        pydantic.ValidationError: (also ValueError) an option is unknown or out of its range.
        MissingExtraError: the model needs a package that is not installed.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        validate_assignment=True,
    )

    model: str = "embedded"
    """The scorer's name, ``"provider"`` or ``"provider:model"``; see :func:`rerank_core.load_scorer`."""
    top_n: int | None = _TOP_N
    """How many documents survive at most, at least 1; None for all."""
    score_threshold: float | None = None
    """Keep documents of at least this relevance score, in [0, 1]."""
    adaptive_ratio: float | None = None
    """Keep documents that score at least this ratio of the best score, in [0, 1]."""
    min_keep: int = 0
    """How many documents survive the thresholds at least."""
    api_key: Annotated[SecretStr | str | SkipJsonSchema[Callable[[], Any]] | None, AfterValidator(_hide)] = Field(
        default=None, exclude=True
    )
    """The provider's key, or a function that returns it for each request; by default read from its environment
    variable. Never dumped or pickled."""
    base_url: str | None = None
    """Address of the service, where it is not the provider's usual one."""
    timeout: float | None = None
    """Seconds that a whole call may take, above 0; None for no limit."""
    on_error: OnError = "raise"
    """``"passthrough"`` returns the first stage's order, unscored, when the scorer fails."""
    retrieval_weight: float = 0.0
    """How much the first stage's opinion counts for the order, in [0, 1]; see :class:`rerank_core.Reranker`.
    Scores and thresholds stay the relevance; the first stage's score is kept, as metadata ``retrieval_score``."""
    model_options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the scorer, such as ``{"max_length": 256}``."""
    return_passage: bool = False
    """Return only the passage that a document's score is about, where the scorer names one."""
    reranker: SkipJsonSchema[Annotated[InstanceOf[Reranker] | None, BeforeValidator(_restore)]] = Field(
        default=None, exclude=True
    )
    """A ready reranker, scorer or policy, instead of the options that would make one. A reranker's selection
    applies, except for the options that are given here."""

    _made: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Make the scorer and check the options."""
        super().model_post_init(context)
        self.selection()
        self.get_reranker()

    @model_validator(mode="wrap")
    @classmethod
    def _hide_input(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        """Remove the given values from ``ValidationError.errors()`` too: one of them may be a key."""
        try:
            return handler(data)
        except ValidationError as exc:
            errors = [
                InitErrorDetails(
                    type=PydanticCustomError(error["type"], error["msg"], error.get("ctx")),
                    loc=error["loc"],
                    input=None,
                )
                for error in exc.errors(include_input=False)
            ]
            raise ValidationError.from_exception_data(exc.title, errors, hide_input=True) from None

    @field_validator(*_SELECTION, "timeout", "diversity", "retrieval_weight")
    @classmethod
    def _check_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Check a number where it is given or assigned, not only where it is used."""
        name = str(info.field_name)
        if name in _SELECTION:
            Selection(**{name: value})
        elif name != "timeout":
            check_fraction(name, value)
        elif value is not None:
            check_seconds(name, value)
        return value

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        """Check the provider's name; the model is checked by its scorer."""
        find_factory(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        """Name ours in place of other rerankers' options, and refuse a dump without what it could not hold."""
        if not isinstance(data, dict):
            return data
        for name in data:
            if name in _EQUIVALENTS and name not in cls.model_fields:
                raise ConfigurationError(f"there is no option {name!r}: {_EQUIVALENTS[name]}")
        data = dict(data)
        lost = data.pop("not_serialized", {})
        missing = [f"{name} ({why})" for name, why in lost.items() if data.get(name) is None]
        if missing:
            raise ConfigurationError(f"the dump has no {' and no '.join(missing)}: give it again")
        return data

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        missing = {name: "a function" for name in ("text_fn", "vector_fn") if getattr(self, name) is not None}
        if self.reranker is not None:
            # An option that was not given leaves the reranker's own selection alone, also after loading.
            data = {name: data[name] for name in data if name not in set(_SELECTION) - self.model_fields_set}
            try:
                data["reranker"] = dump_reranker(self.reranker)
            except ConfigurationError as exc:
                missing["reranker"] = str(exc)
        if missing:
            data["not_serialized"] = missing
        return {name: value for name, value in data.items() if _is_wanted(name, info)}

    def _check_reranker_alone(self) -> None:
        fields = type(self).model_fields
        also = [
            name for name in _SCORER if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]
        if also:
            raise ConfigurationError(f"reranker= was given, which brings its own {', '.join(also)}: leave one out")

    def get_reranker(self) -> Reranker:
        """Return the reranker that these options describe, the same one until an option changes."""
        if self.reranker is not None:
            self._check_reranker_alone()
            return self.reranker
        wanted = [getattr(self, name) for name in _SCORER[:-1]] + [dict(self.model_options)]
        made = self._made
        if made is None or made[0] != wanted:
            options = dict(self.model_options)
            for name in ("api_key", "base_url"):
                if name in options:
                    raise ConfigurationError(f"model_options holds {name!r}: give {name}= instead")
                if (given := getattr(self, name)) is not None:
                    options[name] = given
            scorer = load_scorer(self.model, **options)
            call = {name: getattr(self, name) for name in ("timeout", "on_error", "retrieval_weight")}
            made = self._made = (wanted, Reranker(scorer, **call))
        return made[1]

    def selection(self) -> Selection:
        """Return the selection: these options, and those of ``reranker`` where an option was not given here."""
        if self.reranker is None:
            return Selection(**{name: getattr(self, name) for name in _SELECTION})
        given = {name: getattr(self, name) for name in _SELECTION if name in self.model_fields_set}
        return replace(self.reranker.selection, **given)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Copying a scorer would drop its key, so copies share it.
        memo = {} if memo is None else memo
        memo.update({id(shared): shared for shared in (self._made, self.reranker)})
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        # Not super(): LlamaIndex's takes what it cannot pickle out of this very object.
        state: dict[Any, Any] = BaseModel.__getstate__(self)
        private = {**state["__pydantic_private__"], "_made": None}
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}, "__pydantic_private__": private}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = type(self).model_fields.items()
        defaults = {name: field.get_default(call_default_factory=True) for name, field in fields}
        BaseModel.__setstate__(self, {**state, "__dict__": {**defaults, **state["__dict__"]}})


def _is_wanted(name: str, info: SerializationInfo) -> bool:
    """Tell whether a dump was asked to hold a field."""
    return (info.include is None or name in info.include) and (info.exclude is None or name not in info.exclude)
