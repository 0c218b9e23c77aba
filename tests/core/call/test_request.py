"""Texts: checked, cleaned, blanks and repetitions set apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import ConfigurationError, Selection
from rerank_core._call.request import Request, check_query, read_texts

ANY_TEXT = st.text(st.characters(codec=None), max_size=20)
FEW_TEXTS = st.lists(st.sampled_from(["", " ", "\n\t", "a", "b", "a ", "c"]), max_size=20)


@given(ANY_TEXT)
def test_cleaned_texts_can_be_encoded(text: str) -> None:
    """Whatever a string holds, UTF-8 carries what is left, and nothing but lone surrogates changes."""
    (cleaned,) = read_texts([text], None)
    assert len(cleaned.encode()) >= len(text)
    assert all(new == old or "\ud800" <= old <= "\udfff" for new, old in zip(cleaned, text, strict=True))


def test_lone_surrogates_become_replacement_characters() -> None:
    """In texts and in the query; NULs and real characters beyond the first plane stay."""
    assert read_texts(["a\ud800b\udfffc", "\x00 🐍"], None) == ["a\ufffdb\ufffdc", "\x00 🐍"]
    assert check_query("who\udc80?") == "who\ufffd?"


@pytest.mark.parametrize("query", ["", " ", "\n\t\u3000"])
def test_a_blank_query_is_refused(query: str) -> None:
    """Nothing can be relevant to nothing."""
    with pytest.raises(ConfigurationError, match="the query is empty"):
        check_query(query)


@pytest.mark.parametrize("query", [None, 3, b"query", ["query"]])
def test_a_query_that_is_no_string_is_refused(query: Any) -> None:
    """The error names its type."""
    with pytest.raises(ConfigurationError, match=f"the query is a {type(query).__name__}"):
        check_query(query)


def test_text_fn_reads_each_document() -> None:
    """Documents may be anything that the function takes, blank texts included."""
    assert read_texts([{"text": "a"}, {"text": ""}], lambda document: document["text"]) == ["a", ""]


@pytest.mark.parametrize("text_fn", [None, str])
def test_none_among_the_documents_is_refused(text_fn: Any) -> None:
    """The error names the position, and text_fn never sees it."""
    with pytest.raises(ConfigurationError, match=r"documents\[1\] is None"):
        read_texts(["a", None], text_fn)


def test_a_document_that_is_no_string_is_refused() -> None:
    """The error names position and type, and says that text_fn would help."""
    with pytest.raises(ConfigurationError, match=r"documents\[1\] is a dict, not a string: pass text_fn="):
        read_texts(["a", {"text": "b"}], None)


@pytest.mark.parametrize("text", [None, b"bytes", 3])
def test_text_fn_must_return_strings(text: Any) -> None:
    """The error names position and type."""
    with pytest.raises(ConfigurationError, match=rf"text_fn returned a {type(text).__name__} for documents\[0\]"):
        read_texts(["a"], lambda _: text)


def test_an_exception_of_text_fn_is_the_callers() -> None:
    """It is raised as it is: the function belongs to the caller."""
    with pytest.raises(KeyError, match="text"):
        read_texts([{}], lambda document: document["text"])


@given(FEW_TEXTS)
def test_distinct_texts_are_neither_blank_nor_repeated(texts: list[str]) -> None:
    """What is sent is each text with something in it, once, in order of first appearance."""
    distinct = Request.of("q", texts, None, Selection()).distinct
    assert distinct == list(dict.fromkeys(text for text in texts if text.strip()))


@given(FEW_TEXTS)
def test_values_go_back_to_where_their_texts_were(texts: list[str]) -> None:
    """Each input text gets the value of its distinct one, and blanks get theirs."""
    found = Request.of("q", texts, None, Selection())
    spread = found.spread([f"value of {text}" for text in found.distinct], blank="blank")
    assert spread == [f"value of {text}" if text.strip() else "blank" for text in texts]
