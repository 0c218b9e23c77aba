"""List prices of hosted models, with their date, and what a call costs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from rerank_core._support.checks import check_amount
from rerank_core.errors import ConfigurationError

__all__ = ["PRICES", "PRICES_AS_OF", "Price", "price_of"]


@dataclass(frozen=True, slots=True)
class Price:
    """A price in US dollars. A model is billed by search units or by tokens.

    Attributes:
        per_1k_search_units: for 1,000 search units, ≥ 0.
        per_1m_tokens: for a million tokens that the model reads, ≥ 0.
        per_1m_output_tokens: for a million tokens that a language model writes, ≥ 0.

    Raises:
        ConfigurationError: a price is negative or no number, or there is none.
    """

    per_1k_search_units: float | None = None
    per_1m_tokens: float | None = None
    per_1m_output_tokens: float | None = None

    def __post_init__(self) -> None:
        for value in (self.per_1k_search_units, self.per_1m_tokens, self.per_1m_output_tokens):
            if value is not None:
                check_amount("a price", value, unit="US dollars")
        if self.per_1k_search_units is None and self.per_1m_tokens is None:
            raise ConfigurationError("a price is empty: give per_1k_search_units or per_1m_tokens")

    def cost(self, *, search_units: float = 0.0, tokens: int = 0, output_tokens: int = 0) -> float:
        """Return the cost in US dollars."""
        by_units = (self.per_1k_search_units or 0.0) * search_units / 1e3
        by_output = (self.per_1m_output_tokens or 0.0) * output_tokens / 1e6
        return by_units + (self.per_1m_tokens or 0.0) * tokens / 1e6 + by_output


PRICES_AS_OF = datetime.date(2026, 11, 1)
"""The day on which :data:`PRICES` was read from the providers' price pages. The option ``prices`` overrides it."""

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "azure:cohere-rerank-v4.0-fast": Price(per_1k_search_units=2.00),
        "azure:cohere-rerank-v4.0-pro": Price(per_1k_search_units=2.50),
        "azure:cohere-rerank-v5-fast": Price(per_1m_tokens=0.02),
        "azure:cohere-rerank-v5-pro": Price(per_1m_tokens=0.05),
        "bedrock:amazon.rerank-v1:0": Price(per_1k_search_units=1.00),
        "bedrock:cohere.rerank-v3-5:0": Price(per_1k_search_units=2.00),
        "cohere:rerank-english-v3.0": Price(per_1k_search_units=2.00),
        "cohere:rerank-multilingual-v3.0": Price(per_1k_search_units=2.00),
        "cohere:rerank-v3.5": Price(per_1k_search_units=2.00),
        "cohere:rerank-v4.0-fast": Price(per_1k_search_units=2.00),
        "cohere:rerank-v4.0-pro": Price(per_1k_search_units=2.50),
        "cohere:rerank-v5.0-fast": Price(per_1m_tokens=0.02),
        "cohere:rerank-v5.0-pro": Price(per_1m_tokens=0.05),
        "dashscope:gte-rerank-v2": Price(per_1m_tokens=0.115),
        "dashscope:qwen3-rerank": Price(per_1m_tokens=0.069),
        "fireworks:accounts/fireworks/models/qwen3-reranker-8b": Price(per_1m_tokens=0.20),
        "jina:jina-reranker-m0": Price(per_1m_tokens=0.05),
        "jina:jina-reranker-v2-base-multilingual": Price(per_1m_tokens=0.05),
        "jina:jina-reranker-v3": Price(per_1m_tokens=0.05),
        "jina:jina-reranker-v3.5": Price(per_1m_tokens=0.05),
        "mixedbread:mxbai-rerank-base-v1": Price(per_1m_tokens=0.15),
        "mixedbread:mxbai-rerank-base-v2": Price(per_1m_tokens=0.15),
        "mixedbread:mxbai-rerank-large-v1": Price(per_1m_tokens=0.15),
        "mixedbread:mxbai-rerank-large-v2": Price(per_1m_tokens=0.15),
        "novita:baai/bge-reranker-v2-m3": Price(per_1m_tokens=0.01),
        "vertex:semantic-ranker-default-004": Price(per_1k_search_units=1.00),
        "vertex:semantic-ranker-fast-004": Price(per_1k_search_units=1.00),
        "voyage:rerank-2": Price(per_1m_tokens=0.05),
        "voyage:rerank-2-lite": Price(per_1m_tokens=0.02),
        "voyage:rerank-2.5": Price(per_1m_tokens=0.05),
        "voyage:rerank-2.5-lite": Price(per_1m_tokens=0.02),
        "voyage:rerank-3": Price(per_1m_tokens=0.05),
        "voyage:rerank-3-lite": Price(per_1m_tokens=0.02),
        "zeroentropy:zerank-1": Price(per_1m_tokens=0.025),
        "zeroentropy:zerank-1-small": Price(per_1m_tokens=0.025),
        "zeroentropy:zerank-2": Price(per_1m_tokens=0.025),
    }
)
"""List prices by the scorer's name. Of a model that is not listed the cost is unknown (None)."""


def price_of(scorer: str, model: str, overrides: Mapping[str, Price | Mapping[str, Any]]) -> Price | None:
    """Return the price of a scorer: the override for its model or its name, else the list price, else None.

    Overrides are prices, or dictionaries of their fields, by either of the two.

    Raises:
        ConfigurationError: an override is not a price.

    >>> price_of("cohere:rerank-v3.5", "rerank-v3.5", {"rerank-v3.5": {"per_1k_search_units": 1.5}})
    Price(per_1k_search_units=1.5, per_1m_tokens=None, per_1m_output_tokens=None)
    """
    if not isinstance(overrides, Mapping):
        raise ConfigurationError(
            f"prices is a {type(overrides).__name__}: give a dictionary from models to prices"
        )
    given = {name: _price(name, value) for name, value in overrides.items()}
    return given.get(scorer) or given.get(model) or PRICES.get(scorer)


def _price(name: str, value: Price | Mapping[str, Any]) -> Price:
    if isinstance(value, Price):
        return value
    known = [field.name for field in fields(Price)]
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ConfigurationError(f"prices[{name!r}] is not a price: give a dictionary of {' or '.join(known)}")
    return Price(**value)
