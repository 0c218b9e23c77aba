"""The one interface that a scorer implements, and what a cache tells scorers apart by."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.types import Scale, Scored

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ConfiguredScorer", "Scale", "Scorer", "ScorerOptions", "check_option_names"]


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
    """

    name: str
    scale: Scale = "probability"
    listwise: bool = False

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that change no score (a timeout, say), so that a cache need not tell them apart."""

    @abstractmethod
    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, in the order of the texts, higher is more relevant."""

    async def warm_up(self) -> None:  # noqa: B027 - optional
        """Load what the first call would load; nothing to do for most scorers."""

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Release connections and the like; the scorer may be used again, and then opens new ones."""

    def cache_key(self) -> str:
        """Return what a cache tells this scorer's scores from others' by: equal keys, equal scores.

        By default a digest of the class, the name and the options, which are the constructor's parameters, read
        from the attributes of the same names; without ``api_key`` and ``options_without_effect_on_scores``.
        Override it where options are kept otherwise or cannot be compared across processes.

        Raises:
            ConfigurationError: an option cannot be read, or means nothing in another process.
        """
        return self.fingerprint_options(self.read_options())

    def read_options(self, **kept_elsewhere: Any) -> dict[str, Any]:
        """Return the options that change scores, by the names of the constructor's parameters.

        Args:
            kept_elsewhere: values of parameters that no attribute of the same name holds.

        Raises:
            ConfigurationError: an option cannot be read.
        """
        options: dict[str, Any] = {}
        for parameter in inspect.signature(type(self)).parameters.values():
            name = parameter.name
            if name == _SECRET or name in self.options_without_effect_on_scores:
                continue
            if name in kept_elsewhere:
                options[name] = kept_elsewhere[name]
            elif parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or not hasattr(self, name):
                raise _cannot_be_cached(self, name, "cannot be read from an attribute of the same name")
            else:
                options[name] = getattr(self, name)
        return options

    def fingerprint_options(self, options: Mapping[str, Any]) -> str:
        """Return a digest of this scorer's class, its name and these options, the same in every process.

        Raises:
            ConfigurationError: an option's value means nothing in another process.
        """
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        canonical = [_canonical(self, name, value) for name, value in sorted(options.items())]
        written = repr([kind, self.name, *canonical])
        return blake2b(written.encode(errors="surrogatepass"), digest_size=16).hexdigest()


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
            self.options = self.Options(**options)

    def cache_key(self) -> str:
        """Return a digest of the class, the name and the options that change scores."""
        left_out = {_SECRET, *self.options_without_effect_on_scores}
        options = {name: value for name, value in self._options_by_name().items() if name not in left_out}
        return self.fingerprint_options({"model": self.model, **options})

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with some options changed.

        Raises:
            ConfigurationError: an option is unknown or out of its range.
        """
        return type(self)(self.model, **{**self._options_by_name(), **changes})

    def _options_by_name(self) -> dict[str, Any]:
        return {field.name: getattr(self.options, field.name) for field in fields(self.options)}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.model, self.options) == (other.model, other.options)

    def __hash__(self) -> int:
        return hash((type(self), self.model))

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: value for name, value in self._options_by_name().items() if name != _SECRET}
        return partial(type(self), self.model, **options), ()

    def __copy__(self) -> Self:
        return type(self)(self.model, **self._options_by_name())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'name', '')}>"  # a traceback may show one that is half made


def check_option_names(factory: Callable[..., Scorer], options: Iterable[str]) -> None:
    """Check that a scorer's class or factory takes options of these names.

    Raises:
        ConfigurationError: it does not; names those that it takes.
    """
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
        raise ConfigurationError(
            f"takes no option {', '.join(map(repr, unknown))}: it takes {', '.join(sorted(known)) or 'none'}"
        )


_SECRET = "api_key"  # noqa: S105 - the option's name


def _canonical(scorer: Scorer, name: str, value: object) -> object:
    """Return a value as nested tuples of strings, equal for equal values and for no others."""

    def inner(part: object) -> object:
        return _canonical(scorer, name, part)

    kind = type(value).__qualname__
    if value is None or isinstance(value, (bool, int, float, str, bytes, PurePath, Enum)):
        return name, kind, str(value) if isinstance(value, (PurePath, Enum)) else repr(value)
    if isinstance(value, Scorer):
        return name, kind, value.cache_key()
    if isinstance(value, Mapping):
        return name, kind, sorted(repr((inner(key), inner(part))) for key, part in value.items())
    if isinstance(value, Set):
        return name, kind, sorted(repr(inner(part)) for part in value)
    if isinstance(value, Sequence):
        return name, kind, [inner(part) for part in value]
    if isinstance(value, BaseException):
        return name, kind, [inner(part) for part in value.args]
    if is_dataclass(value) and not isinstance(value, type):
        return name, kind, [(field.name, inner(getattr(value, field.name))) for field in fields(value)]
    qualified = getattr(value, "__qualname__", "<locals>")
    bound = not isinstance(getattr(value, "__self__", None), (ModuleType, type(None)))
    if bound or "<lambda>" in qualified or "<locals>" in qualified:
        raise _cannot_be_cached(scorer, name, f"is a {kind}, which means nothing in another process")
    return name, kind, f"{getattr(value, '__module__', '')}.{qualified}"


def _cannot_be_cached(scorer: Scorer, name: str, why: str) -> ConfigurationError:
    error = ConfigurationError(
        f"cannot be cached: its option {name!r} {why}; let {type(scorer).__name__} define cache_key()"
    )
    error.scorer = scorer.name
    return error
