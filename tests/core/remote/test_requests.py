"""What the scorers of services send: formats, splitting, connections, limits, instructions."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import pytest
from support.loopback import Loopback, score
from support.providers import KEY, MODELS, scorer_of
from support.scripts import run_script
from support.waiting import until

from rerank_core import (
    ConfigurationError,
    MissingExtraError,
    RequestTooLargeError,
    Reranker,
    ScorerError,
    ScorerTimeoutError,
    load_scorer,
)
from rerank_core._call import event_loop

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it"]


def sent(loopback: Loopback) -> list[dict[str, Any]]:
    """Return the bodies that the service got."""
    return [request["body"] for request in loopback.stats()["requests"]]


@pytest.mark.parametrize("provider", MODELS)
def test_50_sequential_calls_use_one_connection(loopback: Loopback, provider: str) -> None:
    """Connections are kept, Voyage AI's too, whose SDK alone would open one for each request."""
    loopback.plan(record=False)
    reranker = Reranker(scorer_of(provider, loopback))
    for _ in range(50):
        reranker.rerank(QUERY, TEXTS)
    stats = loopback.stats()
    assert (stats["connections"], stats["counts"]["requests"]) == (1, 50)


def test_cohere_is_asked_in_multiples_of_a_search_unit(loopback: Loopback) -> None:
    """2,150 documents make three requests, of 800, 800 and 550, and 22 search units."""
    loopback.plan()
    texts = [f"document {number} leak" for number in range(2150)]
    ranking = Reranker(scorer_of("cohere", loopback)).rerank(QUERY, texts)
    assert sorted(len(body["documents"]) for body in sent(loopback)) == [550, 800, 800]
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in texts])
    assert (ranking.usage.search_units, ranking.usage.requests) == (22.0, 3)


def test_voyage_is_asked_within_600_000_tokens(loopback: Loopback) -> None:
    """Long documents are split by tokens, the query counted once a document."""
    loopback.plan()
    texts = [f"{number} {'memory ' * 6000}" for number in range(60)]
    ranking = Reranker(scorer_of("voyage", loopback)).rerank(QUERY, texts)
    sizes = [sum(len(text) / 3 + len(QUERY) / 3 for text in body["documents"]) for body in sent(loopback)]
    assert len(sizes) == 2
    assert max(sizes) <= 600_000
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in texts])


def test_tei_is_asked_32_texts_at_a_time_or_as_it_was_set_up(loopback: Loopback) -> None:
    """The server's own limit, and the option for a server that takes more."""
    texts = [f"text {number}" for number in range(70)]
    loopback.plan()
    Reranker(scorer_of("tei", loopback)).rerank(QUERY, texts)
    assert sorted(len(body["texts"]) for body in sent(loopback)) == [22, 24, 24]
    loopback.plan()
    Reranker(scorer_of("tei", loopback, documents_per_request=70)).rerank(QUERY, texts)
    assert len(sent(loopback)) == 1


def test_a_listwise_model_is_never_split_silently(loopback: Loopback) -> None:
    """More texts than it takes are an error before anything is sent, unless a split was allowed."""
    loopback.plan()
    texts = [f"text {number}" for number in range(65)]
    with pytest.raises(RequestTooLargeError, match=r"64 texts.*65 texts.*allow_split"):
        Reranker(scorer_of("jina", loopback, "jina-reranker-v3")).rerank(QUERY, texts)
    assert sent(loopback) == []
    long = ["word " * 140_000]
    with pytest.raises(RequestTooLargeError, match="131072 tokens"):
        Reranker(scorer_of("jina", loopback, "jina-reranker-v3")).rerank(QUERY, long)
    allowed = Reranker(scorer_of("jina", loopback, "jina-reranker-v3", allow_split=True))
    assert len(allowed.rerank(QUERY, texts)) == 65
    assert len(sent(loopback)) == 2


@pytest.mark.parametrize("provider", ["cohere", "voyage", "tei"])
def test_no_more_requests_than_max_concurrency_are_under_way(loopback: Loopback, provider: str) -> None:
    """Requests of one call, and calls of many threads, share one limit."""
    loopback.plan(delay=0.02, record=False)
    reranker = Reranker(scorer_of(provider, loopback, max_concurrency=3, documents_per_request=2))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: reranker.rerank(QUERY, [f"text {number}" for number in range(8)]), range(4)))
    assert loopback.stats()["most_active"] == 3


@pytest.mark.parametrize(
    ("provider", "model", "query"),
    [
        ("voyage", "rerank-2.5", f"Prefer code.\n{QUERY}"),
        ("voyage", "rerank-9-unknown", f"Prefer code.\n{QUERY}"),
        ("llamacpp", "Qwen3-Reranker-0.6B-Q8_0", f"<Instruct>: Prefer code.\n<Query>: {QUERY}"),
        ("openrouter", "qwen/qwen3-reranker-8b", f"<Instruct>: Prefer code.\n<Query>: {QUERY}"),
        ("infinity", "", f"Prefer code.\n{QUERY}"),
    ],
)
def test_an_instruction_is_written_before_the_query(
    loopback: Loopback, provider: str, model: str, query: str
) -> None:
    """As the model reads it, where the service has no field for it."""
    loopback.plan()
    Reranker(scorer_of(provider, loopback, model, instruction="Prefer code.")).rerank(QUERY, TEXTS)
    assert [body["query"] for body in sent(loopback)] == [query]


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        ("contextual", "instruction"),
        ("dashscope", "instruct"),
        ("sglang", "instruct"),
        ("siliconflow", "instruction"),
        ("vllm", "instruction"),
    ],
)
def test_an_instruction_goes_into_the_services_own_field(loopback: Loopback, provider: str, key: str) -> None:
    """The server's template writes it where the model was trained to read it."""
    loopback.plan()
    Reranker(scorer_of(provider, loopback, instruction="Prefer code.")).rerank(QUERY, TEXTS)
    (body,) = sent(loopback)
    assert (body["query"], body[key]) == (QUERY, "Prefer code.")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("cohere", "rerank-v3.5"),
        ("dashscope", "gte-rerank-v2"),
        ("voyage", "rerank-2"),
        ("jina", "jina-reranker-v3"),
        ("vllm", "BAAI/bge-reranker-v2-m3"),
    ],
)
def test_an_instruction_for_a_model_that_follows_none_is_an_error(
    loopback: Loopback, provider: str, model: str
) -> None:
    """It would be read as a part of the question."""
    with pytest.raises(ConfigurationError, match="follows no instruction"):
        scorer_of(provider, loopback, model, instruction="Prefer code.")


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_an_unknown_model_works_at_an_unknown_price(loopback: Loopback, provider: str) -> None:
    """A table that is out of date stops nobody."""
    loopback.plan()
    ranking = Reranker(scorer_of(provider, loopback, "brand-new-1")).rerank(QUERY, TEXTS)
    assert (ranking.usage.cost, ranking.model) == (None, f"{provider}:brand-new-1")


def test_a_retired_model_names_its_successor(loopback: Loopback) -> None:
    """A warning, not an error: the provider has the last word."""
    with pytest.warns(FutureWarning, match="cohere:rerank-v3.5"):
        scorer_of("cohere", loopback, "rerank-english-v2.0")


def test_options_of_one_provider_are_sent(loopback: Loopback) -> None:
    """``max_tokens_per_doc`` to Cohere, ``truncation`` to Voyage AI, ``truncate`` to TEI."""
    loopback.plan()
    Reranker(scorer_of("cohere", loopback, max_tokens_per_doc=64)).rerank(QUERY, TEXTS)
    Reranker(scorer_of("voyage", loopback, truncation=False)).rerank(QUERY, TEXTS)
    Reranker(scorer_of("tei", loopback)).rerank(QUERY, TEXTS)
    cohere, voyage, tei = sent(loopback)
    assert (cohere["max_tokens_per_doc"], voyage["truncation"], tei["truncate"]) == (64, False, True)


def test_http_takes_what_differs_as_options(loopback: Loopback) -> None:
    """A server with other names for everything needs no new code."""
    loopback.plan()
    differs = {"documents": "input", "path": "/v1/reranking", "results": "data", "score": "score", "top": ""}
    scorer = load_scorer(f"http:{loopback.url('mixedbread')}", format=differs)
    assert Reranker(scorer).rerank(QUERY, TEXTS).scores == pytest.approx([score(QUERY, text) for text in TEXTS])
    assert sent(loopback) == [{"query": QUERY, "input": TEXTS}]
    with pytest.raises(ConfigurationError, match="format holds document_key: give some of results, "):
        load_scorer(f"http:{loopback.url('mixedbread')}", format={"document_key": "input"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"headers": {"X-Key": "sk-1"}}, "format holds headers: give some of results, "),
        ({"auth": "X-Key: sk-1"}, "and the key as api_key="),
        ({"auth": "{key}"}, "names no header: give 'Header: {key}'"),
        ({"documents": "query"}, "one name for two fields of the request: model, query, query, top_n"),
        ({"results": None}, r"format\['results'\] is a NoneType: give a string"),
        ({"path": "/{UNSET_VARIABLE}"}, "set the environment variable UNSET_VARIABLE"),
        (None, "format is a NoneType: give a dictionary of strings"),
    ],
)
def test_a_format_holds_names_and_no_key(given: Any, message: str) -> None:
    """It is shown, dumped and pickled."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_scorer("http:http://127.0.0.1:9", format=given)
    assert "sk-1" not in str(caught.value)


def test_a_bare_list_of_scores_cannot_say_what_it_leaves_out() -> None:
    """Or the last texts would lose what others lack."""
    with pytest.raises(ConfigurationError, match="bare lists"):
        load_scorer("http:http://127.0.0.1:9", format={"score": ""}, missing="lowest")


def test_a_servers_message_controls_no_terminal(loopback: Loopback) -> None:
    """It may reach one in a log line."""
    loopback.plan(always="400", message="bad \x1b]0;title\x07 \x9b31m input")
    with pytest.raises(ScorerError, match="bad") as caught:
        Reranker(load_scorer(f"http:{loopback.url('http')}#m")).rerank(QUERY, TEXTS)
    assert not {"\x1b", "\x07", "\x9b"} & set(str(caught.value))


def test_http_takes_logits(loopback: Loopback) -> None:
    """``score_scale="logit"`` has the sigmoid applied, once."""
    loopback.plan()
    scorer = load_scorer(f"http:{loopback.url('llamacpp')}/v1#bge", score_scale="logit")
    assert Reranker(scorer).rerank(QUERY, TEXTS).scores == pytest.approx([score(QUERY, text) for text in TEXTS])


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("provider", ["voyage", "vllm"])
def test_a_base_url_may_end_in_v1_or_not(loopback: Loopback, provider: str, suffix: str) -> None:
    """People copy it from either kind of documentation."""
    loopback.plan()
    scorer = scorer_of(provider, loopback, base_url=loopback.url(provider) + suffix)
    assert len(Reranker(scorer).rerank(QUERY, TEXTS)) == 3
    assert loopback.stats()["requests"][0]["path"] == f"/{provider}/v1/rerank"


def test_coheres_address_may_come_from_the_environment(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``CO_API_URL`` is what the SDK itself reads, and ``base_url`` wins over it."""
    loopback.plan()
    monkeypatch.setenv("CO_API_URL", loopback.url("cohere"))
    assert len(Reranker(load_scorer("cohere:rerank-v3.5", api_key=KEY)).rerank(QUERY, TEXTS)) == 3
    monkeypatch.setenv("CO_API_URL", "http://127.0.0.1:9")
    assert len(Reranker(scorer_of("cohere", loopback)).rerank(QUERY, TEXTS)) == 3


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_a_cancelled_call_sends_nothing_more(loopback: Loopback, provider: str) -> None:
    """Neither the requests that waited for their turn, nor a retry."""
    loopback.plan(delay=0.1)
    reranker = Reranker(scorer_of(provider, loopback, max_concurrency=1, documents_per_request=1))
    reranker.warm_up()

    async def cancelled() -> None:
        call = asyncio.ensure_future(reranker.arerank(QUERY, TEXTS))
        while not (await asyncio.to_thread(loopback.stats))["requests"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancelled())
    time.sleep(0.25)
    assert len(sent(loopback)) == 1
    loopback.plan()
    assert len(reranker.rerank(QUERY, TEXTS)) == 3


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
@pytest.mark.parametrize("is_connected", [False, True])
def test_no_cancelled_call_costs_a_connection(loopback: Loopback, provider: str, is_connected: bool) -> None:
    """Cancelled after any number of the loop's steps; httpcore keeps some connections for ever."""
    loopback.plan(record=False)

    async def cancel_after(steps: int) -> None:
        scorer = scorer_of(provider, loopback, max_concurrency=1, max_retries=0, timeout=5.0)
        await scorer.warm_up()
        if is_connected:
            await scorer.score(QUERY, TEXTS)
        call = asyncio.ensure_future(scorer.score(QUERY, TEXTS))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert len((await scorer.score(QUERY, TEXTS)).scores) == len(TEXTS)
        await scorer.aclose()

    async def cancel() -> None:
        for steps in range(40):
            await cancel_after(steps)

    event_loop.run(cancel())


@pytest.mark.parametrize("provider", ["bedrock", "oci"])
def test_no_thread_waits_for_an_answer_to_a_signed_request(loopback: Loopback, provider: str) -> None:
    """A thread signs a request and is free again; a call that is cancelled ends its requests."""
    loopback.plan(delay=30.0, record=False)
    reranker = Reranker(scorer_of(provider, loopback, max_concurrency=45, documents_per_request=1))

    async def busy_threads() -> int:
        return anyio.to_thread.current_default_thread_limiter().borrowed_tokens

    async def cancelled() -> int:
        call = asyncio.ensure_future(reranker.arerank(QUERY, [f"text {number}" for number in range(45)]))
        await until(lambda: loopback.stats()["most_active"] == 45, seconds=90.0)
        busy = await event_loop.arun(busy_threads())
        call.cancel()
        await asyncio.wait({call})
        await until(lambda: loopback.stats()["counts"].get("abandoned") == 45, seconds=90.0)
        return busy

    assert asyncio.run(cancelled()) == 0
    with pytest.raises(ScorerTimeoutError):
        Reranker(scorer_of(provider, loopback, timeout=0.2, max_retries=0)).rerank(QUERY, TEXTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_a_forked_child_opens_its_own_connections(loopback: Loopback, provider: str) -> None:
    """The parent's sockets would mix two processes' answers."""
    loopback.plan(record=False)
    run_script(
        """
        import os, sys
        from rerank_core import Reranker, load_scorer
        provider, model, url = sys.argv[1:]
        reranker = Reranker(load_scorer(f"{provider}:{model}", api_key="key", base_url=url))
        before = reranker.rerank("leak", ["a leak", "Paris"]).scores
        child = os.fork()
        if child == 0:
            os._exit(0 if reranker.rerank("leak", ["a leak", "Paris"]).scores == before else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert reranker.rerank("leak", ["a leak", "Paris"]).scores == before
        """,
        provider,
        MODELS[provider],
        loopback.url(provider),
        env={"NO_PROXY": "127.0.0.1"},
    )
    assert loopback.stats()["connections"] == 2


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_nothing_is_printed_when_nobody_closes(loopback: Loopback, provider: str) -> None:
    """A script may end, or drop a reranker, with connections open."""
    output = run_script(
        """
        import gc, subprocess, sys, warnings
        warnings.simplefilter("error")
        from rerank_core import Reranker, load_scorer
        provider, model, url = sys.argv[1:]
        sys.stderr = sys.stdout
        for _ in range(2):
            reranker = Reranker(load_scorer(f"{provider}:{model}", api_key="key", base_url=url))
            reranker.rerank("leak", ["a leak", "Paris"])
        gc.collect()
        """,
        provider,
        MODELS[provider],
        loopback.url(provider),
        env={"NO_PROXY": "127.0.0.1"},
    )
    assert output == ""


def test_the_event_loop_is_not_blocked_while_an_sdk_is_imported(loopback: Loopback) -> None:
    """Voyage AI's SDK takes over a second to import: other calls go on meanwhile."""
    share = run_script(
        """
        import asyncio, sys, time
        from rerank_core import Reranker, load_scorer
        from rerank_core._call import event_loop
        from rerank_core.testing import FakeScorer
        slow = Reranker(load_scorer("voyage:rerank-2.5", api_key="key", base_url=sys.argv[1]))
        async def longest_gap():
            work = asyncio.ensure_future(slow.awarm_up())
            longest, started = 0.0, time.perf_counter()
            last = started
            while not work.done():
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            return longest / (last - started)
        print(event_loop.run(longest_gap()))
        """,
        loopback.url("voyage"),
        env={"NO_PROXY": "127.0.0.1"},
    )
    assert float(share) < 0.5


def test_copies_keep_the_key_and_pickles_do_not(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle may end in a file or on a wire; the copy that comes out of it reads the environment again."""
    import copy

    loopback.plan()
    scorer = scorer_of("cohere", loopback)
    assert copy.deepcopy(scorer).options == copy.copy(scorer).options == scorer.options
    monkeypatch.setenv("COHERE_API_KEY", "another-key")
    loaded = pickle.loads(pickle.dumps(scorer))
    Reranker(loaded).rerank(QUERY, TEXTS)
    assert loopback.stats()["requests"][0]["headers"]["authorization"] == "Bearer another-key"


def test_threads_that_start_together_share_one_client(loopback: Loopback) -> None:
    """The first calls race to open it, and one wins."""
    loopback.plan(record=False)
    reranker = Reranker(scorer_of("jina", loopback, max_concurrency=1))
    barrier = threading.Barrier(8)

    def call(_: int) -> int:
        barrier.wait()
        return len(reranker.rerank(QUERY, TEXTS))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [3] * 8
    assert loopback.stats()["connections"] == 1


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_the_environments_proxy_is_used(
    loopback: Loopback, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Voyage AI's client too, whose SDK looks for none."""
    loopback.plan()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{loopback.port}")
    scorer = scorer_of(provider, loopback, base_url=f"http://rerank.invalid/{provider}")
    assert len(Reranker(scorer).rerank(QUERY, TEXTS)) == 3
    assert loopback.stats()["requests"][0]["headers"]["host"] == "rerank.invalid"


@pytest.mark.parametrize(
    ("provider", "extra"), [("cohere:rerank-v3.5", "cohere"), ("voyage:rerank-2.5", "voyage")]
)
def test_a_missing_sdk_names_the_extra(provider: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the scorer is made, not when the first question is asked."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"rerank-bridge\[{extra}\]"):
        load_scorer(provider, api_key=KEY)


def test_tokens_per_minute_hold_back_the_next(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of about 40 estimated tokens, 100 of them in any window, here of half a second."""
    monkeypatch.setattr("rerank_core.remote.sending._WINDOW_SECONDS", 0.5)
    loopback.plan()
    scorer = scorer_of("jina", loopback, tokens_per_minute=100, documents_per_request=1)
    began = time.monotonic()
    Reranker(scorer).rerank(QUERY, [f"{number}".ljust(100, "x") for number in range(5)])
    times = sorted(request["at"] - began for request in loopback.stats()["requests"])
    assert all(at >= 0.49 * (number // 2) for number, at in enumerate(times))
