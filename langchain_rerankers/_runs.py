"""The compressor's own run in the caller's traces.

It is a chain run, not a retriever run: who collects what retriever runs found would count the documents twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)

__all__ = ["Run", "arun", "config_of", "run"]


class Run:
    """What a run shows.

    Attributes:
        name: the run's name, where the caller's config has none.
        query: the query.
        documents: the documents that came in.
        metadata: returns the options of the call.
        outputs: what the call sets before it ends.
    """

    def __init__(
        self, name: str, query: str, documents: Sequence[Document], metadata: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.name = name
        self.query = query
        self.documents = documents
        self.metadata = metadata
        self.outputs: dict[str, Any] = {}

    def start(self, manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig) -> Any:
        """Return the started run, which the async manager's caller awaits."""
        manager.add_metadata(dict(self.metadata()), inherit=False)
        inputs = {"query": self.query, "documents": list(self.documents)}
        name = config.get("run_name") or self.name
        return manager.on_chain_start(None, inputs, config.get("run_id"), name=name)


def config_of(callbacks: Callbacks) -> RunnableConfig:
    """Return the config of a call that was given callbacks; without any, those around it count."""
    return {"callbacks": callbacks} if callbacks is not None else {}


@contextmanager
def run(shown: Run, config: RunnableConfig) -> Iterator[None]:
    """Hold a run around a call; nothing where nobody listens."""
    manager = get_callback_manager_for_config(ensure_config(config))
    if not manager.handlers:
        yield
        return
    started = shown.start(manager, config)
    try:
        yield
    except BaseException as exc:  # a cancelled run ends too
        started.on_chain_error(exc)
        raise
    started.on_chain_end(shown.outputs)


@asynccontextmanager
async def arun(shown: Run, config: RunnableConfig) -> AsyncIterator[None]:
    """Hold a run around a call, as :func:`run` does."""
    manager = get_async_callback_manager_for_config(ensure_config(config))
    if not manager.handlers:
        yield
        return
    started = await shown.start(manager, config)
    try:
        yield
    except BaseException as exc:
        await started.on_chain_error(exc)
        raise
    await started.on_chain_end(shown.outputs)
