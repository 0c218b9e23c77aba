"""A circuit breaker: what fails again and again is left alone for a while, then tried by one call."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from rerank_core._support.checks import checked_count, checked_seconds

__all__ = ["Breaker", "Circuit"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a failing scorer is skipped, and for how long.

    Attributes:
        failures: failures in a row after which it is skipped; at least 1.
        reset_seconds: seconds until one call may try it again; above 0. If that call succeeds, the scorer is back;
            if it fails, as many seconds begin anew.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    failures: int = 5
    reset_seconds: float = 30.0

    def __post_init__(self) -> None:
        checked_count("failures", self.failures, least=1)
        checked_seconds("reset_seconds", self.reset_seconds)


class Circuit:
    """One scorer's breaker at work: closed (calls go through), open (skipped), half open (one call tries).

    Used on the background loop only.
    """

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._failures = 0
        self._closed_for = 0.0  # no call before this time; a call that tries moves it on, so that it stays alone

    @property
    def open(self) -> bool:
        """Whether the scorer has failed too often, and has not answered since."""
        return self._failures >= self._breaker.failures

    def wait(self) -> float:
        """Return the seconds until a call may try, 0.0 where one may now."""
        return max(0.0, self._closed_for - monotonic()) if self.open else 0.0

    def begin(self) -> None:
        """A call goes through; where the circuit is open, no other one may for a while."""
        if self.open:
            self._closed_for = monotonic() + self._breaker.reset_seconds

    def succeeded(self) -> None:
        """The scorer answered: close."""
        self._failures = 0

    def failed(self) -> None:
        """The scorer failed once more."""
        was_open = self.open
        self._failures += 1
        if self.open and not was_open:
            self._closed_for = monotonic() + self._breaker.reset_seconds

    def undecided(self) -> None:
        """The call ended without telling: let another one try."""
        if self.open:
            self._closed_for = 0.0
