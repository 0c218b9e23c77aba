"""What all tests share: no network, deterministic limits, and checkpoints that are built once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# Read when the hub's client is imported: a test that would fetch something fails at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"
# Read when torch is imported: its threads wait without spinning, on cores that other test processes need.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from support.colbert import Layout, build_colbert
from support.loopback import Loopback, running
from support.models import Shape, build_checkpoint, export_onnx

# Cores are shared with whatever else runs, so an example may take any time.
settings.register_profile("rerank-bridge", deadline=None, max_examples=60)
settings.load_profile("rerank-bridge")


collect_ignore = ["benchmarks"]
"""Scripts without tests, which would be imported, and read whole corpora, in search of examples."""
if find_spec("langchain_aws") is None:
    collect_ignore.append("peers")  # make peers installs them

COMPAT = {
    "test_langchain_chains",
    "test_langchain_compressor",
    "test_langchain_retriever",
    "test_llamaindex_engines",
    "test_llamaindex_events",
    "test_llamaindex_nodes",
    "test_llamaindex_options",
    "test_llamaindex_retriever",
    "test_llamaindex_without_text",
    "test_parity",
    "test_provider_adapters",
    "test_provider_contracts",
}
"""Modules that ``make compat`` runs: what touches a framework or an SDK, without torch."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make compat`` runs with the lowest and with the newest versions."""
    for item in items:
        if item.path.stem in COMPAT:
            item.add_marker(pytest.mark.compat)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Hear Ctrl-C, here and in every process that a test starts: a shell's background jobs do not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests export and round out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Return to the system what a module's models took: glibc keeps it, and a run would grow to gigabytes."""
    yield
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Shape], Path]:
    """Return a function that builds the random-weight checkpoint of a shape, with ``model.onnx``, once."""
    built: dict[Shape, Path] = {}

    def build(shape: Shape) -> Path:
        if shape not in built:
            folder = build_checkpoint(tmp_path_factory.mktemp(shape), shape)
            export_onnx(folder, folder / "model.onnx")
            built[shape] = folder
        return built[shape]

    return build


@pytest.fixture(scope="session")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], Path]:
    """Return a function that builds the ColBERT checkpoint of a layout once."""
    return cache(lambda layout: build_colbert(tmp_path_factory.mktemp(layout), layout))


@pytest.fixture(scope="session")
def loopback() -> Iterator[Loopback]:
    """Return the service that plays every provider; it runs in a process of its own."""
    with running() as service:
        yield service


@pytest.fixture(autouse=True, scope="session")
def no_proxy_and_no_key() -> None:
    """Forget what the environment says about services: they are played on this machine."""
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "_api_key", "_api_key_path", "_api_url")):
            del os.environ[name]
