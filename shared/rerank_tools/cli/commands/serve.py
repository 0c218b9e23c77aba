"""``rerank-bridge serve``: a model behind the formats of Cohere, Jina AI and TEI, for development and tests."""

from __future__ import annotations

from typing import Annotated

import typer

from rerank_tools.cli import options
from rerank_tools.cli.output import note

__all__ = ["serve"]


def serve(
    *,
    model: options.Model = "embedded",
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; by default, this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 for any free one.")] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="What the header Host may be; * for any. Once for each."),
    ] = None,
    timeout: options.Timeout = None,
    max_connections: Annotated[int, typer.Option("--max-connections", min=1, help="Connections at once.")] = 128,
    max_documents: Annotated[int, typer.Option("--max-documents", min=1, help="Documents per request.")] = 1000,
) -> None:
    """Serve a model as Cohere's /v2/rerank, Jina's /v1/rerank and TEI's /rerank; for development and tests.

    Requests on connections beyond the limit are answered 503. Keys, quotas and slow headers are a gateway's
    business.

    [bold]Example[/]

    rerank-bridge serve --model embedded --port 8000
    """
    from rerank_core._support.extras import require
    from rerank_tools.serve import LOCAL_HOSTS, create_app

    note("for development and tests: it asks nobody for a key")
    uvicorn = require("uvicorn", extra="serve", purpose="rerank-bridge serve")
    uvicorn.run(
        create_app(
            options.make_reranker(model, timeout=timeout),
            max_documents=max_documents,
            allowed_hosts=allowed_host or LOCAL_HOSTS,
        ),
        host=host,
        port=port,
        limit_concurrency=max_connections + 1,  # uvicorn refuses from this number on
        timeout_keep_alive=5,
        timeout_graceful_shutdown=30,
        server_header=False,
        access_log=False,
    )
