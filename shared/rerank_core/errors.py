"""The exceptions of rerank_core, one tree.

::

    RerankError
    ├── ConfigurationError        (also ValueError)    an option or an input is not usable
    ├── MissingExtraError         (also ImportError)   an optional dependency is not installed
    └── ScorerError                                    a scorer could not score
        ├── AuthenticationError                        the key was refused
        │   └── MissingKeyError   (also ValueError)    there is no key
        ├── RateLimitError                             too many requests
        ├── RequestTooLargeError                       more than the scorer takes in one request
        ├── ScorerUnavailableError                     the service or the model cannot be reached
        ├── ScorerTimeoutError    (also TimeoutError)  a deadline passed
        └── InvalidResponseError                       an answer that cannot be trusted

Each message names the scorer, the value or status, and the fix. None holds a secret or a document's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rerank_core.usage import Usage

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "InvalidResponseError",
    "MissingExtraError",
    "MissingKeyError",
    "RateLimitError",
    "RequestTooLargeError",
    "RerankError",
    "ScorerError",
    "ScorerTimeoutError",
    "ScorerUnavailableError",
    "name_scorer",
]


class RerankError(Exception):
    """Base of every exception that this package raises on purpose.

    Attributes:
        scorer: name of the scorer that failed, which begins the message; None where no scorer is to blame.
    """

    scorer: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.scorer is None else f"{self.scorer}: {message}"


class ConfigurationError(RerankError, ValueError):
    """An option or an input is not usable: the message names it, its limits and the fix.

    Whatever takes options raises it for values beyond the ranges that are stated there.
    """


class MissingExtraError(RerankError, ImportError):
    """An optional dependency is not installed: the message names the extra that brings it."""


class ScorerError(RerankError):
    """A scorer could not score; ``on_error="passthrough"`` degrades on these and on nothing else.

    Attributes:
        partial: relevance scores in [0, 1] that did arrive, by position in the caller's input. Where a scorer
            was called without a Reranker: by position in the scorer's input, on its scale.
        attempts: how many times the failed request was sent, 0 if it was not.
        status: the last HTTP status, None where no answer came.
        request_id: the service's own identifier of the failed request, to quote to its support.
        usage: what the call consumed before it failed.
    """

    partial: Mapping[int, float] = MappingProxyType({})
    attempts: int = 0
    status: int | None = None
    request_id: str | None = None
    usage: Usage | None = None


class AuthenticationError(ScorerError):
    """There is no usable key, or the service refused it."""


class MissingKeyError(AuthenticationError, ValueError):
    """No key was given, and none is in the environment: the message names the variables."""


class RateLimitError(ScorerError):
    """The service refused the request because too many were sent."""


class RequestTooLargeError(ScorerError):
    """The request holds more than the scorer takes, and splitting it would change the scores."""


class ScorerUnavailableError(ScorerError):
    """The service or the model's files cannot be reached."""


class ScorerTimeoutError(ScorerError, TimeoutError):
    """The deadline of a request or of the whole call passed."""


class InvalidResponseError(ScorerError):
    """The scorer's answer is incomplete, out of range or not numbers, so no ranking is built from it."""


class name_scorer:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Put a scorer's name into the errors raised inside the block; one that has a name keeps it.

    >>> with name_scorer("cohere:rerank-v3.5"):
    ...     raise ConfigurationError("timeout is 0: give seconds above 0")
    Traceback (most recent call last):
        ...
    rerank_core.errors.ConfigurationError: cohere:rerank-v3.5: timeout is 0: give seconds above 0
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, RerankError) and exc.scorer is None:
            exc.scorer = self._name
