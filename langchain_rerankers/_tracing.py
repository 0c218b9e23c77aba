"""The compressor's run in the caller's traces.

Traced as a chain, not as a retriever, so that tools which collect retriever output do not count documents twice.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    patch_config,
    var_child_runnable_config,
)


@dataclass
class Run:
    """Inputs and outputs of a run; ``outputs`` are set by the call before it ends."""

    name: str
    query: str
    documents: Sequence[Document]
    metadata: Callable[[], Mapping[str, Any]]
    outputs: dict[str, Any] = field(default_factory=dict)

    def start(self, manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig) -> Any:
        """Return the started run; with an async manager, an awaitable of it."""
        manager.add_metadata(dict(self.metadata()), inherit=False)
        inputs = {"query": self.query, "documents": list(self.documents)}
        name = config.get("run_name") or self.name
        return manager.on_chain_start(None, inputs, config.get("run_id"), name=name)


def make_config(callbacks: Callbacks) -> RunnableConfig:
    """Return a config with these callbacks; without any, those of the runnable around the call apply."""
    return {"callbacks": callbacks} if callbacks is not None else {}


@contextmanager
def _as_parent(started: Any, config: RunnableConfig) -> Iterator[None]:
    """Make runs that begin inside children of this one; the context reaches the background event loop too."""
    token = var_child_runnable_config.set(patch_config(ensure_config(config), callbacks=started.get_child()))
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


@contextmanager
def trace_run(run: Run, config: RunnableConfig) -> Iterator[None]:
    """Open a run around a call, if there are callback handlers."""
    manager = get_callback_manager_for_config(ensure_config(config))
    if not manager.handlers:
        yield
        return
    started = run.start(manager, config)
    try:
        with _as_parent(started, config), _use_span(started):
            yield
    except BaseException as exc:  # a cancelled run ends too
        started.on_chain_error(exc)
        raise
    started.on_chain_end(run.outputs)


@asynccontextmanager
async def atrace_run(run: Run, config: RunnableConfig) -> AsyncIterator[None]:
    """Open a run around a call, as :func:`trace_run` does."""
    manager = get_async_callback_manager_for_config(ensure_config(config))
    if not manager.handlers:
        yield
        return
    started = await run.start(manager, config)
    try:
        with _as_parent(started, config), _use_span(started):
            yield
    except BaseException as exc:
        await started.on_chain_error(exc)
        raise
    await started.on_chain_end(run.outputs)


def _use_span(started: Any) -> AbstractContextManager[Any]:
    """Make a run's span, which OpenInference's instrumentor opened, the current one, so that ours is its child."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    for handler in started.handlers if trace is not None else ():
        if type(handler).__module__.startswith("openinference."):
            span = handler.get_span(started.run_id)
            if span is not None:
                use: AbstractContextManager[Any] = trace.use_span(
                    span, end_on_exit=False, record_exception=False, set_status_on_exception=False
                )
                return use
    return nullcontext()
