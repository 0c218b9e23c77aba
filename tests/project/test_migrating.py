"""The page for those who come from another reranker: it follows from its rows, and each of them works."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.postprocessor import LongContextReorder
from support.langchain_parts import Scripted
from support.llamaindex_parts import Scripted as ScriptedLLM

import langchain_rerankers
import llamaindex_rerankers

DATA = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "migrating_rows.py"))
ROWS = [(framework, row) for framework, rows in DATA["ROWS"].items() for row in rows]


class Lengths(BaseCrossEncoder):
    """A cross-encoder of somebody's own."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return the length of each text."""
        return [float(len(text)) for _, text in text_pairs]


def test_the_page_is_what_its_rows_say() -> None:
    """``python docs/migrating_rows.py`` writes it."""
    assert DATA["PAGE"].read_text(encoding="utf-8") == DATA["render"]()


def test_no_row_is_there_twice() -> None:
    """A class of a package has one."""
    names = [(row.package, row.name) for _, row in ROWS]
    assert len(set(names)) == len(names)
    assert len(names) >= 50


@pytest.mark.parametrize(("framework", "row"), ROWS, ids=[f"{row.package}-{row.name}" for _, row in ROWS])
def test_what_the_page_says_to_write_can_be_made(
    framework: str, row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key in the environment; it keeps as many documents as the page says."""
    from rerank_core.remote.bedrock import SERVICE as BEDROCK
    from rerank_core.remote.cohere import SERVICE as COHERE
    from rerank_core.remote.endpoints import ENDPOINTS
    from rerank_core.remote.oci import SERVICE as OCI
    from rerank_core.remote.voyage import SERVICE as VOYAGE

    for service in (BEDROCK, COHERE, OCI, VOYAGE, *ENDPOINTS.values()):
        for name in service.key_variables:
            if not name.endswith("_PATH"):
                monkeypatch.setenv(name, "key")
    monkeypatch.setenv("WATSONX_URL", "https://us-south.ml.cloud.ibm.com")
    monkeypatch.setenv("WATSONX_PROJECT_ID", "project")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project")
    ours = langchain_rerankers if framework == "LangChain" else llamaindex_rerankers
    names = {name: getattr(ours, name) for name in ours.__all__}
    names |= {
        "chat_model": Scripted(script=[]),
        "cross_encoder": Lengths(),
        "llm": ScriptedLLM(),
        "pipeline": DocumentCompressorPipeline(transformers=[]),
        "retriever": RunnableLambda(lambda query: [Document("text")]),
        "theirs": DocumentCompressorPipeline(transformers=[])
        if framework == "LangChain"
        else LongContextReorder(),
        "token": lambda: "token",
    }
    made = eval(row.code, names)
    if hasattr(made, "selection") and row.top_n != "":
        assert made.selection().top_n == row.top_n
