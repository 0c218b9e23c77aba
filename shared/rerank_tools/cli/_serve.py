"""``rerank-bridge serve``: a model behind Cohere's and Jina's wire formats, for development and tests."""

from __future__ import annotations

from typing import Annotated

import typer

from rerank_tools.cli import _options as options
from rerank_tools.cli._output import note

__all__ = ["serve"]


def serve(
    *,
    model: options.Model = "embedded",
    host: Annotated[str, typer.Option("--host", help="Where to listen: this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 for any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="RERANK_BRIDGE_TOKEN", hidden=True, help="What requests must bring."),
    ] = None,
    timeout: options.Timeout = None,
    max_requests: Annotated[int, typer.Option("--max-requests", min=1, help="Requests that may wait.")] = 128,
    max_documents: Annotated[int, typer.Option("--max-documents", min=1, help="Documents of a request.")] = 1000,
) -> None:
    """Serve a model as Cohere's /v2/rerank and Jina's /v1/rerank; for development and tests, not for production.

    With RERANK_BRIDGE_TOKEN in the environment, requests need it as their bearer token.

    [bold]Example[/]

    rerank-bridge serve --model embedded --port 8000
    """
    from rerank_tools.serve import ServerLimits
    from rerank_tools.serve import serve as run

    reranker = options.reranker(model, timeout=timeout)
    note("for development and tests; put TEI, vLLM or Infinity in front of production traffic (see the README)")
    run(
        reranker,
        host=host,
        port=port,
        token=token,
        limits=ServerLimits(documents=max_documents, requests=max_requests),
    )
