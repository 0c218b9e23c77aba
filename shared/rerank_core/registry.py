"""From a name such as ``"cross-encoder:BAAI/bge-reranker-v2-m3"`` to a scorer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache, partial
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.pricing import PRICES
from rerank_core.scorer import Scorer, check_option_names

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "as_scorer", "find_factory", "known_providers", "load_scorer"]

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "bedrock": "rerank_core.remote.bedrock:BedrockScorer",
        "cohere": "rerank_core.remote.cohere:CohereScorer",
        "cross-encoder": "rerank_core.local.torch.scorer:CrossEncoderScorer",
        "embedded": "rerank_core.local.embedded.scorer:EmbeddedScorer",
        "late": "rerank_core.local.late.scorer:ColbertScorer",
        "llm": "rerank_core.remote.chat:ChatScorer",
        "oci": "rerank_core.remote.oci:OciScorer",
        "onnx": "rerank_core.local.onnx.scorer:OnnxScorer",
        "voyage": "rerank_core.remote.voyage:VoyageScorer",
    }
)
"""The classes of this package's scorers, by provider; ``rerank_core.remote.endpoints`` lists further providers."""

_ENDPOINTS = "rerank_core.remote.endpoints:ENDPOINTS"
_ENDPOINT_SCORER = "rerank_core.remote.http:HttpScorer"

ENTRY_POINT_GROUP = "rerank_core.scorers"
"""Entry-point group of scorer factories: the name is the provider, the value ``factory(model, **options)``."""


def load_scorer(name: str, **options: Any) -> Scorer:
    """Return the scorer called ``"provider"`` or ``"provider:model"``.

    The provider is one of this package's own, or of an installed package that names it in the entry-point group
    ``rerank_core.scorers``. Weights and connections are loaded by the first call, or by ``Reranker.warm_up()``.

    Args:
        name: the provider, and after the first colon the model, a local folder or an address.
        options: passed on to the scorer; each scorer's class documents its own.

    Raises:
        ConfigurationError: an unknown provider or option; names those that there are.
        MissingExtraError: the scorer needs a package that is not installed.

    >>> load_scorer("embedded", max_length=128).name
    'embedded'
    """
    factory = find_factory(name)
    if isinstance(options.get("api_key"), str):
        from pydantic import SecretStr  # takes long to import, and most scorers have no key

        # From here on no frame of a traceback shows it.
        options["api_key"] = SecretStr(options["api_key"])
    with name_scorer(name.strip()):
        check_option_names(factory, options)
        return factory(name.strip().partition(":")[2], **options)


def as_scorer(scorer: Scorer | str) -> Scorer:
    """Return the scorer, loaded first where only its name was given.

    Raises:
        ConfigurationError: neither a scorer nor a name, or an unknown name.
        MissingExtraError: the scorer needs a package that is not installed.
    """
    made: object = load_scorer(scorer) if isinstance(scorer, str) else scorer
    if not isinstance(made, Scorer):
        raise ConfigurationError(f"scorer is a {type(made).__name__}: give a Scorer or a scorer's name")
    return made


def known_providers() -> list[str]:
    """Return the names that may stand before the colon: built-in providers, and those of installed packages."""
    return sorted({*BUILT_IN, *resolve_name(_ENDPOINTS), *_entry_points(tuple(sys.path))})


def find_factory(name: str) -> Callable[..., Scorer]:
    """Return the class or function that makes the scorer of this name."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"the scorer's name is {name!r}: give 'provider' or 'provider:model'")
    provider = name.strip().partition(":")[0]
    if provider in BUILT_IN:
        built_in: Callable[..., Scorer] = resolve_name(BUILT_IN[provider])
        return built_in
    if provider in resolve_name(_ENDPOINTS):
        return partial(resolve_name(_ENDPOINT_SCORER), endpoint=provider)
    if provider not in _entry_points(tuple(sys.path)):
        _entry_points.cache_clear()  # it may have been installed since, as in a notebook
    points = _entry_points(tuple(sys.path))
    if provider not in points:
        raise _unknown(provider)
    factory: Callable[..., Scorer] = points[provider].load()
    return factory


def _unknown(name: str) -> ConfigurationError:
    """Return an error that names what was probably meant: a model without its provider, or a misspelt provider."""
    meant = sorted(known for known in PRICES if known.partition(":")[2] == name)
    if not meant and "/" in name:
        meant = [f"cross-encoder:{name}", f"onnx:{name}"]
    providers = known_providers()
    meant = meant or get_close_matches(name, providers, n=1)
    hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant else ""
    return ConfigurationError(f"no scorer is called {name!r}: {hint}known are {', '.join(providers)}")


@lru_cache(maxsize=1)
def _entry_points(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    # Reversed, so that the first on the path counts. Kept, because all installed packages are read: some 10 ms.
    return {point.name: point for point in reversed(list(entry_points(group=ENTRY_POINT_GROUP)))}
