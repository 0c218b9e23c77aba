"""A small rerank server over the core, for development and tests; see the README for production traffic.

It speaks the wire formats of Cohere (``/v2/rerank``) and Jina AI (``/v1/rerank``), so that their clients, in any
language, can use a local model. Requests that wait at the same time share the model's batches.
"""

from rerank_core._support.extras import check_installed

check_installed("starlette", "uvicorn", "prometheus_client", extra="serve", purpose="rerank_tools.serve")

from rerank_tools.serve.app import create_app  # noqa: E402
from rerank_tools.serve.limits import ServerLimits  # noqa: E402
from rerank_tools.serve.server import serve  # noqa: E402

__all__ = ["ServerLimits", "create_app", "serve"]
