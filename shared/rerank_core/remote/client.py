"""What every client of a service needs: a key, an address, and what an exception of httpx means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from rerank_core.errors import AuthenticationError, ConfigurationError
from rerank_core.remote.response import RequestFailure

__all__ = ["check_address", "failure_of", "find_key", "first_variable"]


def first_variable(names: Sequence[str]) -> str | None:
    """Return the value of the first of these environment variables that is set and not blank."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def find_key(given: SecretStr | str | None, variables: Sequence[str], *, required: bool = True) -> SecretStr:
    """Return the key: the one given, else the first environment variable that is set; empty for none.

    Raises:
        AuthenticationError: there is none and one is required (names the variables), or it cannot be sent.
    """
    key = given if isinstance(given, SecretStr) else SecretStr(given or "")
    key = SecretStr(key.get_secret_value().strip()) or SecretStr(first_variable(variables) or "")
    if not key and required:
        raise AuthenticationError(
            f"no key: set the environment variable {' or '.join(variables)}, or give api_key="
        )
    if not key.get_secret_value().isascii() or not key.get_secret_value().isprintable():
        raise AuthenticationError("the key holds characters that no HTTP header can carry: copy it again")
    return key


def check_address(address: object) -> str:
    """Return an address without its last slash.

    Raises:
        ConfigurationError: it is no http or https address, or holds a password, a query or a fragment, which
            would show in names and logs.
    """
    text = address if isinstance(address, str) else ""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url holds a user, a password, a query or a fragment: give the bare address, "
            "and the key as api_key="
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"base_url is {address!r}: give an address such as 'http://127.0.0.1:8080'")
    return text.rstrip("/")


def failure_of(error: Exception) -> RequestFailure:
    """Return what an exception of httpx, or of a client on top of it, means; its message stays out."""
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return RequestFailure("timeout", message="no answer in time")
    if isinstance(error, httpx.DecodingError):
        return RequestFailure("invalid", message="the reply's content encoding is broken")
    if isinstance(error, (httpx.TransportError, OSError)):
        return RequestFailure("connection", message=f"no connection, or it broke ({type(error).__name__})")
    return RequestFailure("invalid", message=f"the client raised {type(error).__name__} at {_place(error)}")


def _place(error: Exception) -> str:
    """Return the file and line that raised: enough to look it up, without what the message may quote."""
    traceback = error.__traceback__
    if traceback is None:
        return "an unknown place"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
