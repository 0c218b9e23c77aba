"""The pure parts of the provider scorers: splitting, replies, errors, waits, limits."""

from __future__ import annotations

import asyncio
import datetime
import json
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from rerank_core import InvalidResponseError, RateLimitError, ScorerUnavailableError, Usage
from rerank_core.model_facts import Limits, find_model_facts
from rerank_core.reading import estimate_tokens, least_tokens
from rerank_core.registry import known_providers
from rerank_core.remote import sending
from rerank_core.remote.endpoints import ENDPOINTS
from rerank_core.remote.failure import RequestFailure, read_retry_after
from rerank_core.remote.response import (
    HttpReply,
    ParsedReply,
    ResponseFormat,
    read_reply,
    scores_by_index,
)
from rerank_core.remote.sending import RateLimiter, _Window
from rerank_core.remote.service import RemoteOptions
from rerank_core.remote.splitting import count_search_units, split

lengths = st.lists(st.integers(1, 5000), max_size=300)
limits = st.builds(
    Limits,
    documents=st.integers(1, 120),
    multiple=st.sampled_from([1, 10, 100]),
    tokens=st.none() | st.integers(1, 20_000),
    pair=st.none() | st.integers(100, 4000),
)


@given(query=st.integers(0, 300), documents=lengths, limit=limits)
@example(query=300, documents=[], limit=Limits(tokens=1))
def test_a_split_keeps_the_order_and_the_limits(query: int, documents: list[int], limit: Limits) -> None:
    """Every document in one request, none too large unless one document alone is."""
    ranges = split(query, documents, limit)
    assert [position for part in ranges for position in part] == list(range(len(documents)))
    for part in ranges:
        assert 1 <= len(part) <= limit.documents
        tokens = sum(query + documents[position] for position in part)
        assert limit.tokens is None or tokens <= limit.tokens or len(part) == 1


@pytest.mark.parametrize(
    ("documents", "sizes"),
    [(0, []), (100, [100]), (1000, [1000]), (1001, [600, 401]), (1500, [800, 700]), (2001, [700, 700, 601])],
)
def test_requests_are_of_about_equal_size_in_multiples(documents: int, sizes: list[int]) -> None:
    """As few as there may be; the last one alone is no multiple of 100."""
    parts = split(10, [50] * documents, Limits(documents=1000, multiple=100))
    assert [len(part) for part in parts] == sizes


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abc", 1), ("a" * 300, 100), ("日本語", 3), ("\ud800", 1)])
def test_tokens_are_estimated_from_bytes(text: str, tokens: int) -> None:
    """A third of the bytes of UTF-8, never none."""
    assert estimate_tokens(text) == tokens


def test_the_least_number_of_tokens_is_the_number_of_words() -> None:
    """What a text certainly makes, however it is cut."""
    assert least_tokens("two  words\n") == 2


@pytest.mark.parametrize(
    "rows",
    [[(0, 0.1)], [(0, 0.1), (0, 0.2)], [(0, 0.1), (2, 0.2)], [(0, 0.1), (-1, 0.2)], [(0, 0.1), ("1", 0.2)],
     [(0, 0.1), (True, 0.2)], [(0, 0.1), (1.0, 0.2)], [], [(0, 0.1), (1, 0.2), (1, 0.2)]],
)  # fmt: skip
def test_scores_are_matched_by_index_or_not_at_all(rows: list[tuple[object, object]]) -> None:
    """Complete, unique, in range, and whole numbers."""
    with pytest.raises(InvalidResponseError):
        scores_by_index(rows, expected=2)


def test_scores_return_to_the_order_of_the_request() -> None:
    """However the answer was sorted."""
    assert scores_by_index([(2, 0.9), (0, 0.5), (1, 0.1)], expected=3) == [0.5, 0.1, 0.9]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds, a date; nonsense is no wait."""
    assert read_retry_after(headers) == seconds


def test_retry_after_may_be_a_date_to_come() -> None:
    """RFC 9110 allows it, and gateways send it."""
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)
    assert read_retry_after({"retry-after": format_datetime(moment, usegmt=True)}) == pytest.approx(30, abs=2)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["results", "index", "relevance_score", "usage"]), inner, max_size=3)
        ),
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([200, 204, 400, 500]),
)
def test_no_reply_breaks_the_reader(body: bytes, status: int) -> None:
    """Whatever a service sends is an answer to check, or a failure."""
    outcome = read_reply(HttpReply(status, {}, body), ResponseFormat())
    assert isinstance(outcome, (ParsedReply, RequestFailure))


def test_a_deeply_nested_reply_is_invalid() -> None:
    """A hostile reply does not overflow the stack."""
    outcome = read_reply(HttpReply(200, {}, b"[" * 200_000), ResponseFormat())
    assert isinstance(outcome, RequestFailure)


def test_a_request_id_that_could_be_anything_else_is_left_out() -> None:
    """It goes into logs: no line break, no essay."""
    for value in ("a b", "x" * 200, "a\nb"):
        assert (
            read_reply(HttpReply(200, {"x-request-id": value}, b'{"results": []}'), ResponseFormat()).request_id
            is None
        )


@pytest.mark.parametrize(
    ("message", "private", "kept"),
    [
        ("no such model", ["some text"], True),
        ("bad input: some text", ["some text"], False),
        ("bad input: …document number 4…", ["a document number 4711"], False),
        ("bad a", ["a"], False),
        ("bad", ["x" * 2_000_000], False),
    ],
)
def test_a_message_that_quotes_is_dropped(message: str, private: list[str], kept: bool) -> None:
    """Whole texts, pieces of twelve characters, and what would take long to compare."""
    failure = RequestFailure("status", 400, message).without_quotes("", private)
    assert failure.message == (message if kept else "")


def test_a_key_shows_in_no_message_and_no_request_id() -> None:
    """Neither whole nor in pieces, whatever a service puts between them."""
    for said in ("sk-live-abcdefghijkl", "fghijk", "key s k l i v e", "SK_LIVE.ABC"):
        failure = RequestFailure("status", 401, said, request_id=said).without_quotes("sk-live-abcdefghijkl", [])
        assert (failure.message, failure.request_id) == ("", None)
    kept = RequestFailure("status", 401, "no such key", request_id="req-1")
    assert kept.without_quotes("sk-live-abcdefghijkl", ["a text"]) == kept


@pytest.mark.parametrize("asked", [None, 0.0])
async def test_a_service_that_asks_for_no_wait_gets_the_usual_one(
    asked: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its jitter, so that clients do not all come back at once."""
    waited: list[int] = []
    monkeypatch.setattr(sending, "_backoff", lambda state: waited.append(state.attempt_number) or 0.0)
    options = RemoteOptions(max_retries=2)
    scorer: Any = SimpleNamespace(name="s", options=options, fetch_key=fetch_key)
    session = sending.ClientSession(asyncio.get_running_loop(), scorer, RateLimiter(options))

    async def refuse(_: object) -> RequestFailure:
        return RequestFailure("status", 429, retry_after=asked)

    error, _ = await session.send(scorer, refuse, tokens=0, private=list, begin_retry=lambda: True)
    assert isinstance(error, RateLimitError)
    assert waited == [1, 2, 3]


async def fetch_key() -> SecretStr:
    """Return a key."""
    return SecretStr("key")


def test_waits_grow_with_jitter() -> None:
    """From half a second to 20 at most."""
    states: list[Any] = [SimpleNamespace(attempt_number=attempt) for attempt in (1, 3, 9, 5000)]
    waits = [sending._backoff(state) for state in states for _ in range(50)]
    assert len(set(waits)) == 200
    assert all(max(waits[at : at + 50]) <= most for at, most in ((0, 0.5), (50, 2.0), (100, 20.0)))
    assert max(waits) > 5


def test_errors_say_what_to_do() -> None:
    """The class by status, and the fix in words; an unknown status is named by its number."""
    limited = RequestFailure("status", 429, retry_after=90.0).to_error(attempts=1)
    assert isinstance(limited, RateLimitError)
    assert str(limited) == (
        "failed (status 429 Too Many Requests, 1 attempt, it asks to wait 90 s); set requests_per_minute, "
        "tokens_per_minute or max_concurrency to what your plan allows"
    )
    overloaded = RequestFailure("status", 529).to_error(attempts=2)
    assert isinstance(overloaded, ScorerUnavailableError)
    assert "(status 529, 2 attempts)" in str(overloaded)


def test_a_window_says_when_more_fits() -> None:
    """At most the limit in any 60 seconds; more than the limit fits when nothing else is there."""
    window = _Window(100)
    assert window.delay(0.0, 60) == 0.0
    window.spend(0.0, 60)
    window.spend(10.0, 30)
    assert window.delay(20.0, 10) == 0.0
    assert window.delay(20.0, 11) == 40.0
    assert window.delay(20.0, 90) == 50.0
    assert window.delay(20.0, 5000) == 50.0
    assert window.delay(61.0, 70) == 0.0
    assert _Window(None).delay(0.0, 10**9) == 0.0


async def test_a_cancelled_wait_gives_its_slot_back() -> None:
    """Whoever waited in vain holds up nobody."""
    limiter = RateLimiter(RemoteOptions(max_concurrency=1))
    limiter.pause(10.0)
    with anyio.move_on_after(0.01):
        async with limiter.slot(1):
            raise AssertionError("it was let through")
    limiter._paused_until = 0.0
    with anyio.fail_after(1.0):
        async with limiter.slot(1):
            pass


def test_every_endpoint_is_known_by_its_name() -> None:
    """A server is one row: nothing else makes it known."""
    assert set(ENDPOINTS) <= set(known_providers())
    assert all(row.provider == name for name, row in ENDPOINTS.items())


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        ("jina-reranker-v3", {"listwise": True, "scale": "cosine"}),
        ("jinaai/jina-reranker-v3.5", {"listwise": True, "scale": "cosine"}),
        ("Qwen3-Reranker-0.6B-Q8_0.gguf", {"instructions": "<Instruct>: {instruction}\n<Query>: {query}"}),
        ("BAAI/bge-reranker-v2-m3", {"instructions": None, "scale": None}),
    ],
)
def test_a_model_is_known_by_its_name_or_a_prefix(model: str, facts: dict[str, Any]) -> None:
    """Of whatever owner, and in any case."""
    found = find_model_facts(model)
    assert found is not None
    assert {name: getattr(found, name) for name in facts} == facts


def test_what_is_not_known_has_no_facts() -> None:
    """A prefix counts only where it may."""
    assert find_model_facts("my/own-reranker") is None
    assert find_model_facts("jina-reranker-v3.5", exact=True) is None
    assert find_model_facts("jina-reranker-m0", exact=True) is not None


@given(limits, limits)
def test_two_limits_together_keep_both(one: Limits, other: Limits) -> None:
    """Of a model and of the service that runs it."""
    both = one.within(other)
    for name in ("documents", "tokens", "pair"):
        values = [getattr(limit, name) for limit in (one, other, both)]
        assert values[2] == min((value for value in values[:2] if value is not None), default=None)


def test_search_units_count_long_documents_several_times() -> None:
    """One for each 500 tokens with the query, 100 documents a unit."""
    assert [count_search_units([tokens] * 100) for tokens in (1, 500, 501)] == [1, 1, 2]
    assert count_search_units([]) == 0


@given(st.lists(st.booleans(), min_size=1, max_size=5))
def test_an_unknown_cost_makes_the_sum_unknown(known: list[bool]) -> None:
    """A total that leaves something out would be wrong."""
    parts = [Usage(requests=1, cost=0.5 if priced else None) for priced in known]
    total = sum(parts, Usage())
    assert total.cost == (0.5 * len(parts) if all(known) else None)
    assert total.requests == len(parts)
