"""Running the application."""

from __future__ import annotations

import uvicorn
from pydantic import SecretStr

from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError
from rerank_core.reranker import Reranker
from rerank_tools.serve.app import create_app
from rerank_tools.serve.limits import ServerLimits

__all__ = ["serve"]

_HIGHEST_PORT = 65_535
_BACKLOG = 2048


def serve(
    reranker: Reranker,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServerLimits = ServerLimits(),  # noqa: B008 - frozen
    token: str | SecretStr | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted; for development and tests.

    Args:
        reranker: what ranks.
        host: by default only this machine can reach it.
        port: 0 to 65535; 0 for any free one, which the log names.
        limits: what the server takes.
        token: as for :func:`create_app`.

    Raises:
        ConfigurationError: the port is out of its range.
        SystemExit: the port is taken, or the model cannot be loaded.
    """
    if checked_count("port", port, least=0) > _HIGHEST_PORT:
        raise ConfigurationError(f"port is {port}: give 0 to {_HIGHEST_PORT}")
    uvicorn.run(
        create_app(reranker, limits=limits, token=token),
        host=host,
        port=port,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=limits.shutdown_seconds,
        server_header=False,
        access_log=False,
    )
