"""Keys and addresses of services: where they come from, and that neither shows a secret."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr

from rerank_core.errors import AuthenticationError, ConfigurationError

__all__ = ["checked_address", "find_key"]


def find_key(
    given: SecretStr | str | None, variables: Sequence[str], *, scorer: str, required: bool = True
) -> SecretStr:
    """Return the key: the one given, else the first of the environment variables that is set; empty for none.

    Raises:
        AuthenticationError: there is none and one is required; names the variables.
        ConfigurationError: the one given is neither a string nor a SecretStr.
    """
    if given is not None and not isinstance(given, (SecretStr, str)):
        raise ConfigurationError(f"api_key is a {type(given).__name__}: give a string or a pydantic.SecretStr")
    key = given if isinstance(given, SecretStr) else SecretStr(given or "")
    sources = (key, *(SecretStr(os.environ.get(name, "")) for name in variables))
    stripped = (SecretStr(source.get_secret_value().strip()) for source in sources)
    found = next((source for source in stripped if source), SecretStr(""))
    if not found and required:
        raise AuthenticationError(
            f"{scorer} has no key: set the environment variable {' or '.join(variables)}, or give api_key="
        )
    if not found.get_secret_value().isascii() or not found.get_secret_value().isprintable():
        raise AuthenticationError(
            f"{scorer}: the key holds characters that no HTTP header can carry: copy it again"
        )
    return found


def checked_address(address: str, *, scorer: str) -> str:
    """Return an address without its last slash.

    Raises:
        ConfigurationError: it is no http or https address, or holds a password, a query or a fragment, which
            would show in names and logs.
    """
    try:
        parts = urlsplit(address if isinstance(address, str) else "")
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{scorer}: base_url holds a user, a password, a query or a fragment: give the bare address, "
            "and the key as api_key="
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(
            f"{scorer}: base_url is {address!r}: give an address such as 'http://127.0.0.1:8080'"
        )
    return address.rstrip("/")
