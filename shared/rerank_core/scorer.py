"""The one interface that a scorer implements, and what a cache tells scorers apart by."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.types import Scale, Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ConfiguredScorer", "Scale", "Scorer", "ScorerOptions", "WrappingScorer", "check_option_names"]

_SECRET = "api_key"  # noqa: S105 - the option's name
_UNREADABLE = object()


class Scorer(ABC):
    """Scores texts against a query; everything else (order, thresholds, deadlines) is the Reranker's.

    All methods run on the background event loop, whoever calls, so a client or a lock that is bound to one loop
    is safe to keep. ``score`` must not block that loop, and must stop when it is cancelled. It gets at least one
    text, none of them blank, none twice.

    Attributes:
        name: ``"provider:model"``, as :func:`rerank_core.load_scorer` takes it.
        scale: ``"probability"`` for scores in [0, 1]; ``"logit"`` for scores that the sigmoid turns into
            probabilities; ``"cosine"`` for scores in [-1, 1], which become (1 + s) / 2. The Reranker converts
            them, once.
        listwise: True where a score depends on the other texts of the request.
        ordinal: True where scores only say the order, so that no threshold means anything; the Reranker refuses
            ``score_threshold`` and ``adaptive_ratio`` then.
        stores_vectors: True where :meth:`precompute` has a vector file to fill.
    """

    name: str
    scale: Scale = "probability"
    listwise: bool = False
    ordinal: bool = False
    stores_vectors: bool = False

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that change no score (a timeout, say), so that a cache need not tell them apart."""

    @abstractmethod
    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, in the order of the texts, higher is more relevant."""

    async def warm_up(self) -> None:  # noqa: B027 - optional
        """Load what the first call would load; nothing to do for most scorers."""

    async def precompute(self, texts: Sequence[str]) -> Usage:  # noqa: ARG002
        """Encode and store texts, none of them blank, so that scoring them later only reads what is stored.

        Returns:
            The numbers of texts that were encoded (``documents``) and that had been stored before (``stored``).

        Raises:
            ConfigurationError: the scorer stores nothing.
            ScorerUnavailableError: the vector file cannot be written.
        """
        raise ConfigurationError(
            "stores no vectors: use 'embedded' or 'late:' with the option vectors=, the path of a file"
        )

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Release connections and the like; the scorer may be used again, and then opens new ones."""

    def cache_key(self) -> str:
        """Return what a cache tells this scorer's scores from others' by: equal keys, equal scores.

        By default a digest of the class, the name and the options. The options are the constructor's parameters,
        read from the attributes of the same names, without ``api_key`` and ``options_without_effect_on_scores``.
        Override it where options are kept otherwise or cannot be compared across processes.

        Raises:
            ConfigurationError: an option cannot be read, or means nothing in another process.
        """
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        left_out = {_SECRET, *self.options_without_effect_on_scores}
        with name_scorer(self.name):
            options = [
                repr((name, _canonical(name, value)))
                for name, value in sorted(self._options_by_name().items())
                if name not in left_out
            ]
        return digest(kind, self.name, *options)

    def _options_by_name(self) -> dict[str, Any]:
        return {name: getattr(self, name, _UNREADABLE) for name in inspect.signature(type(self)).parameters}


@dataclass(frozen=True, kw_only=True)
class ScorerOptions:
    """The options of a :class:`ConfiguredScorer`: subclasses add theirs and check them in ``__post_init__``."""


class ConfiguredScorer(Scorer):
    """A scorer that its model's name and a frozen options object describe completely.

    A subclass names its ``provider`` and its class of ``Options``. Copies and pickles are built anew from the
    model and the options, so they share no connection and no model state; a copy keeps ``api_key``, a pickle does
    not. Scorers are equal where class, model and options are.

    Args:
        model: what follows the colon of the scorer's name.
        options: the fields of the class's ``Options``.

    Raises:
        ConfigurationError: an option is unknown or out of its range.
    """

    provider: str
    """What stands before the colon of the scorer's name."""

    Options: ClassVar[type[ScorerOptions]] = ScorerOptions
    model: str
    options: ScorerOptions

    def __init__(self, model: str = "", **options: Any) -> None:
        self.model = model
        self.name = f"{self.provider}:{model}" if model else self.provider
        with name_scorer(self.name):
            check_option_names(type(self), options)
            self.options = self.Options(**{name: _copy(value) for name, value in options.items()})

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with some options changed.

        Raises:
            ConfigurationError: an option is unknown or out of its range.
        """
        return type(self)(**{**self._options_by_name(), **changes})

    def _options_by_name(self) -> dict[str, Any]:
        options = {field.name: getattr(self.options, field.name) for field in fields(self.options)}
        return {"model": self.model, **options}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._options_by_name() == other._options_by_name()

    def __hash__(self) -> int:
        return hash((type(self), self.model))

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: value for name, value in self._options_by_name().items() if name != _SECRET}
        return partial(type(self), **options), ()

    def __copy__(self) -> Self:
        return self.with_options()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.with_options()

    def __repr__(self) -> str:
        # A traceback may show one that is half made.
        return f"<{type(self).__name__} {getattr(self, 'name', '')} {getattr(self, 'options', '')}>"


class WrappingScorer(ConfiguredScorer):
    """A scorer over an object of another framework, which copies and pickles keep, with the keys that it holds.

    Args:
        model: the framework's object.
        options: the fields of the class's ``Options``.

    Attributes:
        wrapped: the framework's object.
    """

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset({"model"})  # subclasses describe it

    def __init__(self, model: Any, **options: Any) -> None:
        self.wrapped = model
        super().__init__(self.find_name(model), **options)

    @staticmethod
    def find_name(model: Any) -> str:
        """Return what the scorer's name calls the object: its class."""
        return type(model).__name__

    def _options_by_name(self) -> dict[str, Any]:
        return {**super()._options_by_name(), "model": self.wrapped}


def check_option_names(factory: Callable[..., Scorer], options: Iterable[str]) -> None:
    """Check that a scorer's class or factory takes options of these names."""
    kind = getattr(factory.func if isinstance(factory, partial) else factory, "Options", None)
    if is_dataclass(kind):
        known = [field.name for field in fields(kind)]
    else:
        parameters = list(inspect.signature(factory).parameters.values())[1:]  # the first is the model
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return
        known = [parameter.name for parameter in parameters]
    unknown = sorted(set(options) - set(known))
    if unknown:
        hint = "how many documents survive is top_n of the Selection; " if "top_k" in unknown else ""
        raise ConfigurationError(
            f"takes no option {', '.join(map(repr, unknown))}: {hint}it takes {', '.join(sorted(known)) or 'none'}"
        )


def _copy(value: Any) -> Any:
    """Copy dictionaries and lists, so that the caller may change its own: a cache key must not change."""
    if type(value) is dict:
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if type(value) is list else value


def _canonical(option: str, value: object) -> object:
    """Return an option's value as nested tuples and lists of strings, equal for equal values and for no others."""
    inner = partial(_canonical, option)
    kind = type(value).__qualname__
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return kind, repr(value)
    if isinstance(value, (PurePath, Enum)):
        return kind, str(value)
    if isinstance(value, Scorer):
        return kind, value.cache_key()
    if isinstance(value, Mapping):
        return kind, sorted(repr((inner(key), inner(part))) for key, part in value.items())
    if isinstance(value, Set):
        return kind, sorted(repr(inner(part)) for part in value)
    if isinstance(value, Sequence):
        return "sequence", list(map(inner, value))  # from JSON a tuple may be a list
    if is_dataclass(value) and not isinstance(value, type):
        return kind, [(field.name, inner(getattr(value, field.name))) for field in fields(value)]
    qualified = getattr(value, "__qualname__", "<locals>")
    bound = not isinstance(getattr(value, "__self__", None), (ModuleType, type(None)))
    if bound or "<lambda>" in qualified or "<locals>" in qualified:
        unreadable = value is _UNREADABLE
        why = "is in no attribute of that name" if unreadable else f"is a {kind}, which means nothing elsewhere"
        raise ConfigurationError(
            f"cannot be cached: its option {option!r} {why}; let its class define cache_key()"
        )
    return kind, f"{getattr(value, '__module__', '')}.{qualified}"
