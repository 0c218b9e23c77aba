"""ConfiguredScorer: a model and a frozen options object describe a scorer completely."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from rerank_core import ConfigurationError, Scored, load_scorer
from rerank_core.scorer import ConfiguredScorer, ScorerOptions


@dataclass(frozen=True, kw_only=True)
class GuessOptions(ScorerOptions):
    """The options of a Guess."""

    seed: int = 0
    timeout: float = 30.0
    api_key: SecretStr | None = None

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigurationError(f"timeout is {self.timeout}: give seconds above 0")


class Guess(ConfiguredScorer):
    """Scores every text with its seed."""

    provider = "guess"
    Options = GuessOptions
    options: GuessOptions
    options_without_effect_on_scores = frozenset({"timeout"})

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self.connection = object()

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the seed for each text."""
        return Scored([float(self.options.seed)] * len(texts))


KEY = SecretStr("sesame")


def test_the_options_are_an_object_and_the_name_says_the_model() -> None:
    """As given, the rest by default."""
    scorer = Guess("wild", seed=7)
    assert (scorer.name, scorer.model, scorer.options) == ("guess:wild", "wild", GuessOptions(seed=7))
    assert Guess().name == "guess"
    assert repr(scorer) == "<Guess guess:wild GuessOptions(seed=7, timeout=30.0, api_key=None)>"


def test_an_unknown_option_is_named_with_those_that_there_are() -> None:
    """The error names the scorer too, though no registry was asked."""
    with pytest.raises(ConfigurationError) as caught:
        Guess("wild", sede=7)
    assert str(caught.value) == "guess:wild: takes no option 'sede': it takes api_key, seed, timeout"


def test_an_option_out_of_range_names_the_scorer() -> None:
    """The options object does not know its scorer; the constructor does."""
    with pytest.raises(ConfigurationError, match="^guess:wild: timeout is 0: give seconds above 0$"):
        Guess("wild", timeout=0)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_keeps_the_key_and_shares_no_connection(copied: Any) -> None:
    """It is equal to the original, and built anew."""
    scorer = Guess("wild", seed=7, api_key=KEY)
    twin = copied(scorer)
    assert twin == scorer
    assert hash(twin) == hash(scorer)
    assert twin.options.api_key == KEY
    assert twin.connection is not scorer.connection


def test_a_pickle_drops_the_key() -> None:
    """The other process reads its own from the environment."""
    scorer = Guess("wild", seed=7, api_key=KEY)
    data = pickle.dumps(scorer)
    twin = pickle.loads(data)
    assert b"sesame" not in data
    assert (twin.name, twin.options) == ("guess:wild", GuessOptions(seed=7))
    assert twin != scorer


def test_some_options_can_be_changed() -> None:
    """In a copy, which keeps the rest; the original stays as it was."""
    scorer = Guess("wild", seed=7, api_key=KEY)
    changed = scorer.with_options(seed=8)
    assert (changed.model, changed.options) == ("wild", GuessOptions(seed=8, api_key=KEY))
    assert scorer.options.seed == 7
    with pytest.raises(ConfigurationError, match="takes no option 'sede'"):
        scorer.with_options(sede=8)


def test_scorers_with_other_options_are_not_equal() -> None:
    """Neither are those of another model or of another class."""

    class Other(Guess):
        pass

    assert Guess("wild", seed=1) == Guess("wild", seed=1)
    assert len({Guess("wild", seed=1), Guess("wild", seed=2), Guess("mild", seed=1), Other("wild", seed=1)}) == 4


def test_the_cache_key_knows_what_changes_scores() -> None:
    """The model and the seed do; the key and the timeout do not."""
    known = Guess("wild", seed=7).cache_key()
    assert Guess("wild", seed=7, timeout=1.0, api_key=KEY).cache_key() == known
    assert len({known, Guess("wild", seed=8).cache_key(), Guess("mild", seed=7).cache_key()}) == 3


def test_a_callers_dictionary_may_change_afterwards() -> None:
    """Else a cache would give one scorer's scores for another's, when both were made from one dictionary."""
    body = {"limits": [1]}
    scorer = load_scorer("jina:jina-reranker-m0", api_key=KEY, body=body)
    known = scorer.cache_key()
    body["limits"].append(2)
    body["more"] = [3]
    assert scorer.cache_key() == known
    assert scorer.cache_key() != load_scorer("jina:jina-reranker-m0", api_key=KEY, body=body).cache_key()


def test_an_option_that_means_nothing_in_another_process_has_no_cache_key() -> None:
    """The error names the scorer, the option and the way out."""
    with pytest.raises(
        ConfigurationError, match=r"^guess:wild: cannot be cached: its option 'seed' is a function"
    ):
        Guess("wild", seed=lambda: 1).cache_key()
