"""The values: immutable, small, picklable, and a ranking that is a sequence."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from rerank_core import RankedDocument, Ranking, Scored, ScorerError, Usage


def ranked(index: int, rank: int, score: float | None = 0.5) -> RankedDocument[str]:
    """Return a ranked document whose text tells its index."""
    return RankedDocument(f"document {index}", f"text {index}", index, rank, score)


@pytest.fixture
def ranking() -> Ranking[str]:
    """Return two survivors of three documents."""
    documents = (ranked(2, 1, 0.9), ranked(0, 2, 0.25))
    return Ranking("which?", "fake", documents, (0.25, 0.0, 0.9), Usage(requests=1, documents=3))


def test_a_ranking_is_a_sequence_of_its_documents(ranking: Ranking[str]) -> None:
    """Length, index, iteration, membership, search and reversal, as of a tuple."""
    assert isinstance(ranking, Sequence)
    assert len(ranking) == 2
    assert ranking[0] is ranking.documents[0]
    assert ranking[-1] is ranking.documents[1]
    assert list(ranking) == list(ranking.documents)
    assert ranking.documents[1] in ranking
    assert ranking.index(ranking.documents[1]) == 1
    assert ranking.count(ranking.documents[0]) == 1
    assert list(reversed(ranking)) == list(ranking.documents)[::-1]
    first, *rest = ranking
    assert (first, rest) == (ranking.documents[0], [ranking.documents[1]])


def test_a_slice_is_a_tuple_of_documents(ranking: Ranking[str]) -> None:
    """A part of a ranking is no ranking: its scores would not fit."""
    assert ranking[:1] == ranking.documents[:1]
    assert ranking[::-1] == ranking.documents[::-1]
    assert type(ranking[1:]) is tuple
    assert ranking[5:] == ()


def test_an_index_beyond_the_end_is_an_index_error(ranking: Ranking[str]) -> None:
    """As of any sequence."""
    with pytest.raises(IndexError):
        ranking[2]


def test_an_empty_ranking_is_falsy() -> None:
    """So that ``if ranking`` asks whether anything survived."""
    assert not Ranking("which?", "fake")
    assert list(Ranking("which?", "fake")) == []


def test_the_repr_of_a_ranking_is_one_line(ranking: Ranking[str]) -> None:
    """It tells query, model, how many survived and the best score, but no document."""
    assert repr(ranking) == "<Ranking query='which?', model='fake', 2 of 3 documents, best=0.900>"


def test_the_repr_of_a_long_query_is_cut() -> None:
    """However long the query, and whatever line breaks are in it."""
    text = repr(Ranking("one\ntwo " * 100, "fake"))
    assert "\n" not in text
    assert "…" in text
    assert len(text) < 120


def test_the_repr_of_a_passthrough_names_the_error() -> None:
    """By its type alone; nothing was scored, so there is no best score."""
    ranking = Ranking("which?", "fake", (ranked(0, 1, None),), (None,), error=ScorerError("secret"))
    assert repr(ranking) == "<Ranking query='which?', model='fake', 1 of 1 documents, error=ScorerError>"


@pytest.mark.parametrize(
    ("value", "name"),
    [(Usage(), "tokens"), (Scored(()), "scores"), (ranked(0, 1), "score"), (Ranking("q", "m"), "documents")],
)
def test_values_are_frozen_and_slotted(value: Any, name: str) -> None:
    """No field can be set, and there is no dictionary to put others in."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
    assert not hasattr(value, "__dict__")


def test_values_survive_copies_and_pickling(ranking: Ranking[str]) -> None:
    """A cache or another process gets an equal one."""
    assert pickle.loads(pickle.dumps(ranking)) == ranking
    assert copy.deepcopy(ranking) == ranking
    assert hash(copy.copy(ranking)) == hash(ranking)


def test_usages_add_up() -> None:
    """Field by field, so that ``sum`` works with an empty one to begin with."""
    one = Usage(requests=1, documents=10, tokens=100, seconds=0.5)
    assert one + Usage(requests=2, documents=3, tokens=4, seconds=0.25) == Usage(3, 13, 104, 0.75)
    assert sum([one, one], Usage()) == Usage(2, 20, 200, 1.0)


def test_a_usage_adds_to_usages_alone() -> None:
    """A number is no usage."""
    with pytest.raises(TypeError, match="unsupported operand"):
        Usage() + 1  # type: ignore[operator]
