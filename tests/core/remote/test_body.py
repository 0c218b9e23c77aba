"""Replies of any size: as large as an answer can be, compressed or not, and no larger."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from support.loopback import Loopback
from support.providers import scorer_of

from rerank_core import InvalidResponseError, Reranker, ScorerError
from rerank_core.remote.client import ReplyTooLargeError, encode_json, max_reply_bytes, read_body

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it"]
PROVIDERS = ["cohere", "jina", "tei", "voyage"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_larger_than_an_answer_can_be_is_refused(loopback: Loopback, provider: str) -> None:
    """It is not asked for again, its connection is closed, and the next call succeeds."""
    loopback.plan(padding=3_000_000)
    with Reranker(scorer_of(provider, loopback)) as reranker:
        with pytest.raises(InvalidResponseError, match="larger than an answer"):
            reranker.rerank(QUERY, TEXTS)
        assert loopback.stats()["counts"]["requests"] == 1
        loopback.plan()
        assert len(reranker.rerank(QUERY, TEXTS)) == 3
        assert loopback.stats()["connections"] == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_errors_body_of_any_size_does_not_hide_the_status(loopback: Loopback, provider: str) -> None:
    """The refusal counts, not its long explanation."""
    loopback.plan(always="404", padding=3_000_000)
    with pytest.raises(ScorerError, match="404"):
        Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_compressed_is_asked_for_and_gzip_is_understood(loopback: Loopback, provider: str) -> None:
    """Some gateways compress whatever they are asked."""
    loopback.plan(gzip=1)
    assert len(Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS)) == 3
    assert loopback.stats()["requests"][0]["headers"]["accept-encoding"] == "identity"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_compressed_bomb_is_refused(loopback: Loopback, provider: str, times: int) -> None:
    """Compressed once it is too large; twice it is not even begun."""
    loopback.plan(gzip=times, padding=30_000_000)
    with pytest.raises(InvalidResponseError, match="larger than an answer|content encoding"):
        Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_replies_that_cannot_be_read_keep_no_connection(loopback: Loopback, provider: str) -> None:
    """Neither those that are too large nor those in an encoding that was not asked for."""
    with Reranker(scorer_of(provider, loopback, max_concurrency=1, timeout=5.0, max_retries=0)) as reranker:
        for plan in ({"padding": 3_000_000}, {"gzip": 2}, {"headers": {"content-encoding": "br"}}):
            loopback.plan(**plan)
            for _ in range(3):
                with pytest.raises(InvalidResponseError):
                    reranker.rerank(QUERY, TEXTS)
        loopback.plan()
        assert len(reranker.rerank(QUERY, TEXTS)) == 3


def test_a_reply_that_repeats_every_text_escaped_is_small_enough() -> None:
    """Many servers do, and some write every letter beyond ASCII as an escape."""
    texts = ["é" * 10_000] * 10
    assert len("".join(texts)) * len("\\u00e9") < max_reply_bytes("q", texts)
    assert max_reply_bytes("q", ["x" * 10**6] * 100) == 64 * 1024 * 1024


async def test_a_body_is_decompressed_no_further_than_it_may_grow() -> None:
    """However it is cut into pieces; what is cut off or unknown is an error."""
    data = gzip.compress(b"x" * 1000)

    async def cut(size: int, end: int | None = None) -> AsyncIterator[bytes]:
        for start in range(0, len(data[:end]), size):
            yield data[:end][start : start + size]

    for size in (1, 7, len(data)):
        assert await read_body(cut(size), "gzip", 1000) == b"x" * 1000
    with pytest.raises(ReplyTooLargeError):
        await read_body(cut(100), "gzip", 999)
    with pytest.raises(httpx.DecodingError):
        await read_body(cut(100, end=-4), "GZIP", 1000)
    for encoding in ("br", "gzip, gzip"):
        with pytest.raises(httpx.DecodingError):
            await read_body(cut(100), encoding, 1000)


def test_a_request_is_written_as_compact_utf_8() -> None:
    """As httpx writes it."""
    assert (
        encode_json({"query": "é", "documents": ["a", "\n"]}) == '{"query":"é","documents":["a","\\n"]}'.encode()
    )
