"""Queries and documents of the local benchmarks: real text of ragged lengths, Python's own documentation."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

from questions import ANSWERS
from stdlib_corpus import Passage, passages

QUERIES = [
    *ANSWERS,
    "How do I find what is leaking memory in Python?",
    "Send an email with an attachment through a server that wants a password",
    "Parse dates and times that come with a time zone",
    "What happens to the threads of a process when it forks?",
]
"""Twenty questions."""

_MEAN_WORDS, _SPREAD, _FEWEST, _MOST = 49, 0.85, 5, 330
_FIRST_SENTENCE = re.compile(r"(.{20,200}?[.?!])\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """The first sentence of a docstring, and what follows it.

    Attributes:
        module: top-level module that the docstring is from.
        query: the first sentence.
        text: the rest, at least 15 words.
    """

    module: str
    query: str
    text: str


def candidates(count: int = 100, queries: Sequence[str] = QUERIES) -> list[tuple[str, list[str]]]:
    """Return each query with what BM25 finds for it, so that the texts are close to each other.

    Documents are passages that follow one another, cut to lengths drawn from a log-normal distribution.
    """
    texts = documents()
    index = _index(texts)
    found, _ = index.retrieve(_tokens(list(queries)), k=count, show_progress=False, leave_progress=False)
    return [(query, [texts[i] for i in row]) for query, row in zip(queries, found, strict=True)]


def kept_candidates(folder: Path) -> list[tuple[str, list[str]]]:
    """Return :func:`candidates`, kept in the folder: collecting them takes seconds."""
    file = folder / "texts.json"
    if not file.exists():
        file.write_text(json.dumps(candidates()), encoding="utf-8")
    return [(query, texts) for query, texts in json.loads(file.read_text(encoding="utf-8"))]


def documents() -> list[str]:
    """Return all the documents, each of 5 to 330 words."""
    chance = random.Random(0)
    made: dict[str, None] = {}
    words: list[str] = []
    wanted = _draw(chance)
    module = ""
    for passage in passages():
        if passage.title.partition(".")[0] != module:
            words, module = [], passage.title.partition(".")[0]
        words += re.findall(r"\S+\s*", f"{passage.text}\n\n")
        while len(words) >= wanted:
            made["".join(words[:wanted]).strip()] = None
            words, wanted = words[wanted:], _draw(chance)
    return list(made)


def _draw(chance: random.Random) -> int:
    """Return how many words the next document has."""
    drawn = chance.lognormvariate(math.log(_MEAN_WORDS), _SPREAD)
    return min(max(round(drawn), _FEWEST), _MOST)


def pairs() -> list[Pair]:
    """Return the first sentences of docstrings, and what follows them."""
    made = []
    for passage in passages():
        match = _FIRST_SENTENCE.match(passage.text)
        if match and len(match[2].split()) >= 15:
            made.append(Pair(passage.title.partition(".")[0], " ".join(match[1].split()), match[2]))
    return made


def neighbours(pairs: Sequence[Pair], count: int) -> list[list[str]]:
    """Return for each pair the texts of other pairs that BM25 takes for its answer, best first."""
    index = _index([pair.text for pair in pairs])
    found, _ = index.retrieve(
        _tokens([pair.query for pair in pairs]), k=count + 1, show_progress=False, leave_progress=False
    )
    return [
        [pairs[i].text for i in row if pairs[i].text != pair.text][:count]
        for pair, row in zip(pairs, found, strict=True)
    ]


def ranks_of_own(pairs: Sequence[Pair], count: int) -> list[int]:
    """Return at which rank, from 1, BM25 has each pair's own text; ``count`` + 1 where it is none of the best."""
    index = _index([pair.text for pair in pairs])
    found, _ = index.retrieve(
        _tokens([pair.query for pair in pairs]), k=count, show_progress=False, leave_progress=False
    )
    return [
        next((rank for rank, i in enumerate(row, 1) if pairs[i].text == pair.text), count + 1)
        for pair, row in zip(pairs, found, strict=True)
    ]


def _index(texts: Sequence[str]) -> Any:
    import bm25s

    index = bm25s.BM25()
    index.index(_tokens(texts), show_progress=False, leave_progress=False)
    return index


def _tokens(texts: Sequence[str]) -> Any:
    import bm25s
    import Stemmer

    return bm25s.tokenize(
        list(texts), stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, leave=False
    )


__all__ = [
    "QUERIES",
    "Pair",
    "Passage",
    "candidates",
    "documents",
    "kept_candidates",
    "neighbours",
    "pairs",
    "ranks_of_own",
]
