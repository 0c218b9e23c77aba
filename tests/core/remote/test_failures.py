"""What happens when requests fail: retries, waits, deadlines, and what an error tells."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.loopback import Loopback, score
from support.providers import KEY, scorer_of

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    Reranker,
    Scorer,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
    load_scorer,
)
from rerank_core.policies import Cached, Fallback, Windowed
from rerank_core.remote import sending

QUERY = "find a memory leak"
TEXTS = [f"text {number} about a leak" for number in range(6)]
CLIENTS = ("cohere", "voyage", "jina")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait some milliseconds between attempts."""
    monkeypatch.setattr(sending, "_backoff", lambda attempt: 0.005)


def failure(reranker: Reranker, texts: list[str] = TEXTS) -> ScorerError:
    """Return the error of a call."""
    with pytest.raises(ScorerError) as caught:
        reranker.rerank(QUERY, texts)
    return caught.value


@pytest.mark.parametrize("provider", CLIENTS)
def test_the_error_tells_attempts_status_and_request_id(loopback: Loopback, provider: str) -> None:
    """As attributes, and in words."""
    loopback.plan(always="503")
    error = failure(Reranker(scorer_of(provider, loopback, max_retries=2)))
    assert isinstance(error, ScorerUnavailableError)
    assert (error.attempts, error.status, error.request_id) == (3, 503, "req-1")
    assert "3 attempts" in str(error)
    assert "status 503 Service Unavailable" in str(error)
    assert "request id req-1" in str(error)
    assert loopback.stats()["counts"]["requests"] == 3


@pytest.mark.parametrize("provider", CLIENTS)
def test_the_sdks_own_retries_are_off(loopback: Loopback, provider: str) -> None:
    """``max_retries=0`` sends one request."""
    loopback.plan(always="429")
    assert isinstance(failure(Reranker(scorer_of(provider, loopback, max_retries=0))), RateLimitError)
    assert loopback.stats()["counts"]["requests"] == 1


@pytest.mark.parametrize("provider", CLIENTS)
def test_partial_scores_are_kept_and_nothing_answered_is_sent_again(loopback: Loopback, provider: str) -> None:
    """One request of three fails for good: the error has the scores of the others, by the caller's positions."""
    loopback.plan(always="500", only=TEXTS[2])
    reranker = Reranker(scorer_of(provider, loopback, max_retries=2, documents_per_request=2))
    error = failure(reranker, ["", TEXTS[0], *TEXTS])
    # Position 0 is blank, and 1 repeats 2: the distinct texts are sent two a request.
    positions = [1, 2, 3, 6, 7]
    texts = ["", TEXTS[0], *TEXTS]
    assert error.partial == {position: pytest.approx(score(QUERY, texts[position])) for position in positions}
    assert loopback.stats()["counts"] == {"requests": 5, "answered": 2, "500": 3, "documents": 4}
    assert error.usage is not None
    assert (error.usage.requests, error.usage.retries, error.usage.documents) == (5, 2, 4)
    assert reranker.total_usage.requests == 5


def test_partial_logits_become_probabilities(loopback: Loopback) -> None:
    """The caller sees one scale, in errors too."""
    loopback.plan(always="500", only=TEXTS[2])
    error = failure(Reranker(scorer_of("llamacpp", loopback, max_retries=0, documents_per_request=2)))
    assert error.partial[0] == pytest.approx(score(QUERY, TEXTS[0]))


def test_after_a_final_failure_nothing_new_is_begun(loopback: Loopback) -> None:
    """A refused key is refused for all: what waited is not sent."""
    loopback.plan(always="401")
    reranker = Reranker(scorer_of("jina", loopback, max_concurrency=1, documents_per_request=1))
    assert isinstance(failure(reranker), AuthenticationError)
    assert loopback.stats()["counts"]["requests"] == 1


@pytest.mark.parametrize("provider", CLIENTS)
def test_the_calls_timeout_keeps_what_arrived(loopback: Loopback, provider: str) -> None:
    """The deadline of the whole call passes while one request hangs."""
    loopback.plan(always="slow", only=TEXTS[2])
    scorer = scorer_of(provider, loopback, documents_per_request=2)
    reranker = Reranker(scorer, timeout=1.5)
    reranker.warm_up()
    started = time.perf_counter()
    error = failure(reranker)
    assert time.perf_counter() - started < 5.0
    assert isinstance(error, ScorerTimeoutError)
    assert set(error.partial) == {0, 1, 4, 5}
    assert "4 of 6 texts" in str(error)


def test_a_wait_beyond_the_deadline_is_not_begun(loopback: Loopback) -> None:
    """The error comes at once, and says why, instead of a timeout later."""
    loopback.plan(always="429-retry-after", retry_after="30")
    reranker = Reranker(scorer_of("cohere", loopback), timeout=5.0)
    started = time.perf_counter()
    error = failure(reranker)
    assert time.perf_counter() - started < 2.0
    assert isinstance(error, RateLimitError)
    assert "asks to wait 30 s" in str(error)
    assert error.attempts == 1


def test_a_service_that_asks_to_wait_an_hour_is_not_waited_for(loopback: Loopback) -> None:
    """Without any deadline too."""
    loopback.plan(always="429-retry-after", retry_after="3600")
    assert failure(Reranker(scorer_of("voyage", loopback))).attempts == 1


@pytest.mark.parametrize("provider", CLIENTS)
def test_retry_after_pauses_every_request(loopback: Loopback, provider: str) -> None:
    """Not only the one that was refused: the limit is the account's."""
    loopback.plan(faults=["429-retry-after"], retry_after="0.5")
    reranker = Reranker(scorer_of(provider, loopback, max_concurrency=1))

    async def calls() -> None:
        await asyncio.gather(*(reranker.arerank(QUERY, TEXTS) for _ in range(4)))

    asyncio.run(calls())
    first, *others = (request["at"] for request in loopback.stats()["requests"])
    assert len(others) == 4
    assert min(others) - first >= 0.45


def test_requests_per_minute_hold_back_the_next(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests in any window, here of half a second."""
    monkeypatch.setattr("rerank_core.remote.sending._WINDOW_SECONDS", 0.5)
    loopback.plan()
    reranker = Reranker(scorer_of("jina", loopback, requests_per_minute=2, documents_per_request=1))
    began = time.monotonic()
    reranker.rerank(QUERY, TEXTS[:5])
    times = sorted(request["at"] - began for request in loopback.stats()["requests"])
    assert all(at >= 0.49 * (number // 2) for number, at in enumerate(times))


@pytest.mark.parametrize("provider", CLIENTS)
def test_no_service_is_a_connection_failure(provider: str) -> None:
    """Nobody listens there."""
    models = {"cohere": "rerank-v3.5", "voyage": "rerank-2.5", "jina": "jina-reranker-v2-base-multilingual"}
    scorer = load_scorer(
        f"{provider}:{models[provider]}", api_key=KEY, base_url="http://127.0.0.1:9", max_retries=1
    )
    error = failure(Reranker(scorer))
    assert isinstance(error, ScorerUnavailableError)
    assert (error.attempts, error.status) == (2, None)


@pytest.mark.parametrize("provider", CLIENTS)
def test_passthrough_degrades_on_a_service_that_is_down(loopback: Loopback, provider: str) -> None:
    """The first stage's order, and the error beside it."""
    loopback.plan(always="529")
    scorer = scorer_of(provider, loopback, max_retries=0)
    ranking = Reranker(scorer, on_error="passthrough").rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking] == list(range(6))
    assert isinstance(ranking.error, ScorerUnavailableError)
    assert ranking.usage.requests == 1


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("cohere:rerank-v3.5", ["CO_API_KEY", "COHERE_API_KEY"]),
        ("voyage:rerank-2.5", ["VOYAGE_API_KEY_PATH", "VOYAGE_API_KEY"]),
        ("jina:jina-reranker-v3", ["JINA_API_KEY", "JINAAI_API_KEY", "JINA_AI_API_KEY"]),
        ("mixedbread:mxbai-rerank-large-v2", ["MXBAI_API_KEY"]),
        ("openrouter:cohere/rerank-v3.5", ["OPENROUTER_API_KEY"]),
        ("together:some-model", ["TOGETHER_API_KEY", "TOGETHERAI_API_KEY"]),
    ],
)
def test_no_key_is_an_error_at_once_that_names_the_variables(provider: str, variables: list[str]) -> None:
    """Not at the first call, and not the SDK's own."""
    with pytest.raises(AuthenticationError) as caught:
        load_scorer(provider)
    assert all(variable in str(caught.value) for variable in variables)


def test_the_first_variable_that_is_set_wins(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the provider's own order, and an argument before all."""
    monkeypatch.setenv("COHERE_API_KEY", "second")
    monkeypatch.setenv("CO_API_KEY", "first")
    loopback.plan()
    Reranker(scorer_of("cohere", loopback, api_key=None)).rerank(QUERY, TEXTS)
    Reranker(scorer_of("cohere", loopback, api_key=" given\n")).rerank(QUERY, TEXTS)
    keys = [request["headers"]["authorization"] for request in loopback.stats()["requests"]]
    assert keys == ["Bearer first", "Bearer given"]


def test_voyages_key_file_wins_and_a_stale_one_is_an_error(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The SDK takes a path that leads nowhere for no key, and says nothing."""
    monkeypatch.setenv("VOYAGE_API_KEY", "from-the-variable")
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(tmp_path / "gone"))
    with pytest.raises(AuthenticationError, match="VOYAGE_API_KEY_PATH names .*gone"):
        load_scorer("voyage:rerank-2.5")
    (tmp_path / "key").write_text("from-the-file\n")
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(tmp_path / "key"))
    loopback.plan()
    Reranker(scorer_of("voyage", loopback, api_key=None)).rerank(QUERY, TEXTS)
    assert loopback.stats()["requests"][0]["headers"]["authorization"] == "Bearer from-the-file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": True}, "timeout is True"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute is 1.5"),
        ({"documents_per_request": 0}, "documents_per_request is 0"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc is 0"),
        ({"prices": {"m": {"per_token": 1}}}, r"prices\['m'\]"),
        ({"prices": {"m": {"per_1m_tokens": -1}}}, "a price is -1"),
        ({"prices": {"m": {}}}, "empty"),
        ({"prices": 3}, "prices is a int"),
        ({"api_key": 3}, "api_key is a int"),
        ({"base_url": "ftp://host"}, "ftp://host"),
        ({"base_url": "http://[::1"}, "base_url is"),
        ({"base_url": 8080}, "base_url is 8080"),
        ({"instruction": " "}, "instruction is ' ': give a text"),
        ({"base_url": "http://user:secret@host"}, "api_key="),
        ({"base_url": "http://host?key=secret"}, "api_key="),
        ({"retries": 3}, "no option 'retries'"),
    ],
)
def test_an_option_out_of_range_is_an_error(options: dict[str, Any], message: str) -> None:
    """It names the option and the value, and never a secret."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_scorer("cohere:rerank-v3.5", **{"api_key": KEY, **options})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cohere", {}, "names no model"),
        ("jina", {}, "names no model"),
        ("tei", {}, "has no address"),
        ("vllm:some-model", {}, "has no address"),
        ("http:http://host", {"score_scale": "percent"}, "score_scale is 'percent'"),
        ("http:http://host", {"endpoint": "nobody"}, "endpoint is 'nobody'"),
        ("voyage:rerank-2.5", {"truncation": "yes"}, "truncation is 'yes'"),
    ],
)
def test_a_name_or_an_option_that_is_missing_is_an_error(name: str, options: dict[str, Any], message: str) -> None:
    """It shows how to write it."""
    with pytest.raises(ConfigurationError, match=message):
        load_scorer(name, **{"api_key": KEY, **options})


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    """A key pasted with a typographic dash, or two lines of it."""
    with pytest.raises(AuthenticationError, match="copy it again"):
        load_scorer("cohere:rerank-v3.5", api_key="abc\ndef")


def test_one_debug_record_a_request_and_one_warning_a_retry(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    """On the logger ``rerank_core``, without texts."""
    loopback.plan(faults=["503", "drop"])
    caplog.set_level(logging.DEBUG, logger="rerank_core")
    Reranker(scorer_of("cohere", loopback)).rerank(QUERY, TEXTS)
    records = [record for record in caplog.records if record.name == "rerank_core"]
    assert [record.levelname for record in records] == ["DEBUG", "WARNING", "DEBUG", "WARNING", "DEBUG"]
    assert "6 texts, status 503" in records[0].getMessage()
    assert "attempt 1 of 5 failed (status 503), next in" in records[1].getMessage()
    assert "6 texts, answered" in records[4].getMessage()
    assert not any("leak" in record.getMessage() for record in records)


def test_an_invalid_answer_is_not_asked_for_again(loopback: Loopback) -> None:
    """It was paid for, and a service that answers nonsense does so again."""
    loopback.plan(always="index-negative")
    error = failure(Reranker(scorer_of("jina", loopback)))
    assert isinstance(error, InvalidResponseError)
    assert (error.attempts, error.request_id) == (1, "req-1")
    assert loopback.stats()["counts"]["requests"] == 1


def test_an_error_can_be_pickled(loopback: Loopback) -> None:
    """Processes hand errors on, with what they tell."""
    loopback.plan(always="408")
    error = failure(Reranker(scorer_of("jina", loopback, max_retries=0)))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.status, copy.attempts) == (ScorerTimeoutError, str(error), 408, 1)


@pytest.mark.parametrize("provider", ["cohere", "jina", "llamacpp", "voyage"])
def test_texts_that_an_answer_leaves_out_are_an_error_or_come_last(
    loopback: Loopback, provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error unless it is chosen; an answer without any scores always."""
    loopback.plan(always="missing-result")
    assert isinstance(failure(Reranker(scorer_of(provider, loopback))), InvalidResponseError)
    lenient = Reranker(scorer_of(provider, loopback, missing="lowest"))
    ranking = lenient.rerank(QUERY, TEXTS)
    assert ranking[-1].score == 0.0
    assert len(ranking) == len(TEXTS)
    assert f"left out 1 of {len(TEXTS)} texts" in caplog.text
    loopback.plan(always="empty-results")
    assert isinstance(failure(lenient), InvalidResponseError)


@pytest.mark.parametrize("through", [lambda scorer: scorer, lambda scorer: Fallback([scorer]), Windowed])
def test_the_score_of_a_text_that_an_answer_leaves_out_is_not_remembered(
    loopback: Loopback, through: Callable[[Scorer], Scorer]
) -> None:
    """It is asked for again, and the others are not; a cache kept 0.0 for good."""
    cached = Reranker(Cached(through(scorer_of("jina", loopback, missing="lowest"))))
    loopback.plan(always="missing-result")
    left_out = cached.rerank(QUERY, TEXTS)[-1]
    loopback.plan()
    expected = Reranker(scorer_of("jina", loopback)).rerank(QUERY, TEXTS).scores
    loopback.plan()  # forgets that request
    assert cached.rerank(QUERY, TEXTS).scores == expected
    assert loopback.stats()["requests"][0]["body"]["documents"] == [left_out.document]
    assert cached.rerank(QUERY, TEXTS).usage.cached == len(TEXTS)
