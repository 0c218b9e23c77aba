"""The models that are known, from the scorers' own tables and the price list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rerank_core.model_facts import MODELS, ModelFacts
from rerank_core.pricing import PRICES, Price
from rerank_core.registry import known_providers
from rerank_core.scorer import Scale

if TYPE_CHECKING:
    from rerank_core.remote.service import Service

__all__ = ["KnownModel", "known_models"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known about a model, or about all models of a kind of server.

    Attributes:
        name: what :func:`rerank_core.load_scorer` takes; in angle brackets what has to be filled in.
        provider: what stands before the colon.
        context: tokens of query and document together that the model reads (of the document alone for Cohere,
            of either for the embedded model); None where that is not known.
        price: by the list; None for no known price, such as that of one's own server.
        local: it runs in this process.
        scale: of what it returns, which becomes a score in [0, 1]; None where that depends on the model.
        instructions: whether it follows an instruction; None where that depends on the model.
        listwise: whether a score depends on the other documents of the request.
        temperature: by which a logit is divided before the sigmoid.
        caution: what to know about its scores; None for nothing.
        key_variables: environment variables that may hold its key; empty where none is needed.
        key_required: whether there must be a key.
        has_key: whether one of the variables is set.
    """

    name: str
    provider: str
    context: int | None = None
    price: Price | None = None
    local: bool = False
    scale: Scale | None = "probability"
    instructions: bool | None = False
    listwise: bool = False
    temperature: float = 1.0
    caution: str | None = None
    key_variables: tuple[str, ...] = ()
    key_required: bool = False

    @property
    def has_key(self) -> bool:
        """Whether a key is in the environment; never the key."""
        return any(os.environ.get(name, "").strip() for name in self.key_variables)


def known_models() -> list[KnownModel]:
    """Return the known models, local ones first, then by provider; retired ones are left out."""
    from rerank_core.local.embedded.scorer import EmbeddedOptions
    from rerank_core.remote.bedrock import SERVICE as BEDROCK
    from rerank_core.remote.cohere import SERVICE as COHERE
    from rerank_core.remote.endpoints import ENDPOINTS
    from rerank_core.remote.oci import SERVICE as OCI
    from rerank_core.remote.voyage import SERVICE as VOYAGE

    local = [
        KnownModel("embedded", "embedded", EmbeddedOptions.max_length, local=True, scale="logit"),
        KnownModel("cross-encoder:<folder or hub id>", "cross-encoder", local=True, scale=None, instructions=None),
        KnownModel("late:<folder or hub id>", "late", local=True, scale="cosine"),
        KnownModel("onnx:<folder or hub id>", "onnx", local=True, scale=None, instructions=None),
    ]
    local += [
        _describe(
            f"cross-encoder:<owner>/{model}", facts, "logit", facts.limits.pair or facts.limits.tokens, local=True
        )
        for model, facts in MODELS.items()
        if facts.unsupported is None and "-" in model  # without one it is a class, not a name
    ]
    remote = [
        model for service in (BEDROCK, COHERE, OCI, VOYAGE, *ENDPOINTS.values()) for model in _of_service(service)
    ]
    listed = {model.provider for model in (*local, *remote)}
    others = sorted(set(known_providers()) - listed)
    unknown = [KnownModel(f"{name}:<model>", name, scale=None, instructions=None) for name in others]
    return [*local, *sorted(remote, key=lambda model: model.provider), *unknown]


def _of_service(service: Service) -> Iterator[KnownModel]:
    key: dict[str, Any] = {"key_variables": tuple(service.key_variables), "key_required": service.key_required}
    scale: Scale = getattr(service, "scale", "probability")  # an SDK's service has no scale of its own
    hosted = service.base_url is not None or service.key_required or bool(service.models)
    if not hosted or not service.models:
        name = f"{service.provider}:{'<model>' if hosted else '<address>'}"
        yield KnownModel(name, service.provider, scale=scale, instructions=None, **key)
        return
    for model, facts in service.models.items():
        if facts.successor is None:
            name, limits = f"{service.provider}:{model}", facts.limits.within(service.limits)
            context = limits.pair or limits.document
            yield _describe(name, facts, scale, context, price=PRICES.get(name), **key)


def _describe(name: str, facts: ModelFacts, scale: Scale, context: int | None, **more: Any) -> KnownModel:
    return KnownModel(
        name,
        name.partition(":")[0],
        context,
        scale=facts.scale or scale,
        instructions=facts.instructions is not None,
        listwise=facts.listwise,
        temperature=facts.temperature,
        caution=facts.caution,
        **more,
    )
