"""How a service is reached: a key and an address."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
from pydantic import SecretStr

from rerank_core.errors import AuthenticationError, ConfigurationError, MissingKeyError


def first_variable(names: Sequence[str]) -> str | None:
    """Return the value of the first of these environment variables that is set and not blank."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def find_key(given: SecretStr | str | None, variables: Sequence[str], *, required: bool = True) -> SecretStr:
    """Return the key: the one given, else that of the first environment variable; empty for none."""
    key = check_key(given or "") or check_key(first_variable(variables) or "")
    if not key and required:
        where = f"set the environment variable {' or '.join(variables)}, or " if variables else ""
        raise MissingKeyError(f"no key: {where}give api_key=")
    return key


def check_key(key: SecretStr | str) -> SecretStr:
    """Return a key without white space around it, checked to fit into an HTTP header."""
    key = SecretStr((key if isinstance(key, str) else key.get_secret_value()).strip())
    if not key.get_secret_value().isascii() or not key.get_secret_value().isprintable():
        raise AuthenticationError("the key holds characters that no HTTP header can carry: copy it again")
    return key


async def call_for_key(function: Callable[[], Any]) -> SecretStr:
    """Return the key that a function returns, or that its awaitable gives; it may block, so a thread runs it."""
    key = await anyio.to_thread.run_sync(function, abandon_on_cancel=True)
    if inspect.isawaitable(key):
        key = await key
    if not isinstance(key, (SecretStr, str)) or not key:
        raise AuthenticationError(f"the function that api_key= names returned a {type(key).__name__}, no key")
    return check_key(key)


def join_address(base_url: str, path: str) -> str:
    """Return an endpoint's address; what the base's end and the path's beginning have in common is there once.

    >>> join_address("https://host/v1", "/v1/rerank"), join_address("https://host", "/v1/rerank")
    ('https://host/v1/rerank', 'https://host/v1/rerank')
    """
    folders = path.split("/")
    for count in range(len(folders), 1, -1):
        common = "/".join(folders[:count])
        if base_url.endswith(common):
            return base_url + path[len(common) :]
    return base_url + path


def check_address(address: object) -> str:
    """Return an http or https address without its last slash; names and logs show it, so it may hold no secret."""
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
