"""No key and no text where it could be read: repr, logs, errors, pickles, dumps, tracebacks."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from support.loopback import FAULTS, Loopback
from support.providers import KEY, MODELS, scorer_of

from rerank_core import ConfigurationError, Reranker, RerankError, ScorerError, load_scorer
from rerank_core.remote import sending
from rerank_core.serialization import dump_reranker

SECRET_TEXT = "Xanthippe owes 4711 drachmas"
SECRET_QUERY = "who owes Socrates"
PIECES = (KEY, KEY[4:16], SECRET_TEXT, SECRET_QUERY)


def assert_silent(*texts: object) -> None:
    """Fail where a key, a query or a document shows."""
    for text in texts:
        for piece in PIECES:
            assert piece not in str(text), f"{piece!r} shows"


def shown_by(error: BaseException) -> Iterator[str]:
    """Return everything that an error and what led to it show, the locals of our own frames too."""
    seen: BaseException | None = error
    while seen is not None:
        yield repr(seen)
        yield "".join(traceback.format_exception_only(seen))
        summary = traceback.TracebackException.from_exception(seen, capture_locals=True, lookup_lines=False)
        for frame in summary.stack:
            ours = "rerank_core/" in frame.filename or frame.filename == "<string>"
            if ours and frame.locals:
                # Callers handed query and texts to these frames; a key they must not show.
                yield (
                    " ".join(str(value) for value in frame.locals.values())
                    .replace(SECRET_TEXT, "")
                    .replace(SECRET_QUERY, "")
                )
        seen = seen.__cause__ or seen.__context__


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once."""
    monkeypatch.setattr(sending, "_backoff", lambda attempt: 0.0)


@pytest.mark.parametrize("provider", MODELS)
def test_a_scorer_shows_no_key(loopback: Loopback, provider: str) -> None:
    """Printed, pickled, as a dictionary, and what hangs on it."""
    loopback.plan()
    scorer: Any = scorer_of(provider, loopback)
    Reranker(scorer).rerank("leak", ["a leak"])
    kept = {name: value for name, value in vars(scorer).items() if name != "_session"}
    assert_silent(
        repr(scorer), str(scorer), repr(Reranker(scorer)), repr(kept), repr(dataclasses.asdict(scorer.options))
    )
    assert KEY.encode() not in pickle.dumps(scorer.__reduce__())


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina", "tei"])
def test_no_error_and_no_log_line_shows_a_key_or_a_text(
    loopback: Loopback, provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong, and though the service repeats the key and the text in its own message."""
    caplog.set_level(logging.DEBUG, logger="rerank_core")
    reranker = Reranker(scorer_of(provider, loopback, max_retries=1, timeout=0.3))
    passed_through = Reranker(reranker.scorer, on_error="passthrough")
    for fault in FAULTS:
        loopback.plan(always=fault, message=f"cannot rank {SECRET_TEXT!r} for {SECRET_QUERY!r} with {KEY}")
        try:
            reranker.rerank(SECRET_QUERY, [SECRET_TEXT, "another"])
        except RerankError as exc:
            assert_silent(*shown_by(exc))
    loopback.plan(always="400", message=f"bad input: {SECRET_TEXT[3:20]}…")
    ranking = passed_through.rerank(SECRET_QUERY, [SECRET_TEXT])
    assert_silent(ranking.error)
    assert_silent(*(record.getMessage() for record in caplog.records if record.name == "rerank_core"))


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
@pytest.mark.parametrize("fault", [None, "404", "index-negative"])
def test_a_key_in_the_services_request_id_is_dropped(
    loopback: Loopback, provider: str, fault: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """From errors, from their attributes and from the log, after an answer too."""
    caplog.set_level(logging.DEBUG, logger="rerank_core")
    loopback.plan(always=fault, headers={"x-request-id": KEY}, message=f"no key {KEY[:8]} {KEY[8:]}")
    try:
        Reranker(scorer_of(provider, loopback)).rerank(SECRET_QUERY, [SECRET_TEXT])
    except ScorerError as exc:
        assert_silent(exc, exc.request_id)
    assert_silent(caplog.text)


def test_voyages_sdk_logs_no_text_of_ours(loopback: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    """Although everything is logged; a level of the user's own for its logger counts, and so do other requests."""
    caplog.set_level(logging.DEBUG)
    loopback.plan()
    reranker = Reranker(scorer_of("voyage", loopback))
    reranker.rerank(SECRET_QUERY, [SECRET_TEXT])
    assert "voyage" not in {record.name for record in caplog.records}
    logging.getLogger("voyage").debug("the user's own")
    assert "voyage" in {record.name for record in caplog.records}
    caplog.clear()
    caplog.set_level(logging.DEBUG, logger="voyage")
    reranker.rerank(SECRET_QUERY, [SECRET_TEXT])
    assert "voyage" in {record.name for record in caplog.records}


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "Cookie"])
def test_headers_that_may_be_secrets_are_not_stored(loopback: Loopback, name: str) -> None:
    """Neither pickled nor dumped, and the error does not say their value; other headers are kept."""
    secret = Reranker(scorer_of("jina", loopback, headers={name: KEY}))
    for store in (pickle.dumps, dump_reranker):
        with pytest.raises(ConfigurationError, match=f"headers= holds '{name}'") as caught:
            store(secret)
        assert_silent(caught.value)
    plain = Reranker(scorer_of("jina", loopback, headers={"x-team": "search"}))
    assert dump_reranker(plain)["scorer"]["headers"] == {"x-team": "search"}


def test_a_message_that_quotes_nothing_is_passed_on(loopback: Loopback) -> None:
    """Because it is often the only useful thing that a provider says."""
    loopback.plan(always="404", message="model 'rerank-v9' not found")
    with pytest.raises(RerankError, match="model 'rerank-v9' not found"):
        Reranker(scorer_of("cohere", loopback)).rerank(SECRET_QUERY, [SECRET_TEXT])


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY)])
def test_bad_options_show_no_key(key: str | SecretStr) -> None:
    """Neither in the message nor in a traceback with locals."""
    with pytest.raises(ConfigurationError) as caught:
        load_scorer("cohere:rerank-v3.5", api_key=key, timeout=-1)
    frames = list(shown_by(caught.value))
    assert_silent(*frames)
