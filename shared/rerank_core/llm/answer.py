"""What a language model answered, checked like any service's answer. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_core.errors import InvalidResponseError
from rerank_core.llm.prompt import Mode

Judged = list[tuple[int, float]]
"""Positions of documents in the question, best first, with their relevance in [0, 1]."""

_Row = tuple["int | None", "float | None"]
"""An id and a grade in [0, 1]; None for what is none."""

_REFUSALS = ("content_filter", "refusal", "safety", "SAFETY")
_MAX_GRADE = 10
_MAX_DIGIT = 9
_MAX_CHARS = 50_000
_MAX_FAILURES = 50  # brackets that begin no JSON: of a nest of many each would be read to its end
_MIN_DIGIT_SHARE = 0.5
_OPENING = re.compile(r"[{\[]")
_LINE = re.compile(
    r"^[ \t*#-]{0,8}(?:\[|(?:document|doc|passage|id)\b[ \t:#\[(]{0,4})(\d{1,9})[\])*:]{0,4}"
    r"(?:[ \t,;:=|>–]|-(?!\d)){1,8}(?:(?:relevance|grade|score)\b[ \t:=*]{0,4})?"
    r"(\d{1,9}(?:\.\d{1,9})?)(?:[ \t]?/[ \t]?10)?(?:[ \t.*]{0,8}|[ \t]{1,8}[(–-].*)$",
    re.IGNORECASE | re.MULTILINE,
)
"""Such as ``Doc: 3, Relevance: 9`` and ``[3] 9/10``; a line without a word or a bracket may count places."""
_IDS = ("id", "document", "doc")
_GRADES = ("grade", "relevance", "score")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a language model said, and what it reports of tokens and cost (US dollars).

    Attributes:
        data: as parsed data, None where there is only text.
        finish: why it stopped, as the service says it.
        logprobs: of the most likely first tokens, by token.
    """

    text: str = ""
    data: object = None
    finish: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None

    @property
    def refused(self) -> str:
        """Why it did not answer, such as ``"content_filter"``; empty where it did."""
        return self.finish if self.finish in _REFUSALS else ""


def read_answer(reply: Reply, mode: Mode, count: int) -> Judged:
    """Return what an answer says of ``count`` documents, best first: each document at most once, perhaps none.

    Ids are whole numbers from 1 to ``count``; of an id that comes twice the first one counts, and rows with
    another id or with a grade outside 0 to 10 are left out. In an answer that counts from 0 no id can be trusted.
    """
    rows: dict[int, float] = {}
    numbered_from_0 = False
    for number, grade in _find_rows(reply, mode):
        numbered_from_0 |= number == 0
        if number is not None and 1 <= number <= count and grade is not None:
            rows.setdefault(number - 1, grade)
    if numbered_from_0 and count - 1 not in rows:
        return []
    if mode == "order":
        return [(position, place_to_score(place, count)) for place, position in enumerate(rows)]
    return sort_judged(rows.items())


def sort_judged(judged: Iterable[tuple[int, float]]) -> Judged:
    """Return judged documents best first; equal ones keep their order."""
    return sorted(judged, key=lambda row: -row[1])


def complete(judged: Judged, positions: Iterable[int]) -> Judged:
    """Return the judged documents, and after them the missing ones in their order, with the lowest score there."""
    lowest = min((score for _, score in judged), default=0.0)
    known = {position for position, _ in judged}
    return [*judged, *((position, lowest) for position in positions if position not in known)]


def merge_samples(samples: Sequence[Judged]) -> Judged:
    """Return the mean of several answers about the same documents; equal means by their mean place."""
    scores: dict[int, list[float]] = {}
    places: dict[int, list[int]] = {}
    for judged in samples:
        for place, (position, score) in enumerate(judged):
            scores.setdefault(position, []).append(score)
            places.setdefault(position, []).append(place)
    means = {position: math.fsum(values) / len(values) for position, values in scores.items()}
    order = sorted(means, key=lambda at: (-means[at], sum(places[at]) / len(places[at])))
    return [(position, means[position]) for position in order]


def expect_grade(logprobs: Mapping[str, float]) -> float:
    """Return the expected grade of one document, in [0, 1], from the probabilities of the digits."""
    digits: dict[int, float] = {}
    for token, logprob in logprobs.items():
        if token.strip().isdecimal() and token.strip().isascii() and len(token.strip()) == 1:
            digits[int(token)] = digits.get(int(token), 0.0) + math.exp(min(0.0, logprob))
    total = sum(digits.values())
    if not total >= _MIN_DIGIT_SHARE:
        why = "its first token is no digit" if logprobs else "it reports no log-probabilities"
        raise InvalidResponseError(f"gave no grade, {why}: use mode='grades'")
    return min(1.0, sum(digit * share for digit, share in digits.items()) / (total * _MAX_DIGIT))


def place_to_score(place: int, count: int) -> float:
    """Return the score of a place among so many, counted from 0."""
    return 1.0 - (place + 0.5) / count


def _find_rows(reply: Reply, mode: Mode) -> list[_Row]:
    """Return the rows of the parsed data, else of every JSON value in the text, else of its lines."""
    text = reply.text[-_MAX_CHARS:].rpartition("</think>")[2]  # after the reasoning
    values = [reply.data] if reply.data is not None else _find_values(text)
    rows = [_read_row(row, mode) for value in values for row in _rows_of(value, mode)]
    if mode == "grades" and not any(number is not None for number, _ in rows):
        rows = [_read_row(row, mode) for row in _LINE.findall(text)]
    return rows


def _find_values(text: str) -> Iterator[object]:
    """Yield the JSON values in a text; of a list that was cut off, its whole elements."""
    at, failures, decoder = 0, 0, json.JSONDecoder()
    while failures < _MAX_FAILURES and (opening := _OPENING.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            at = opening.end()
            failures += 1
        else:
            yield value


def _rows_of(value: object, mode: Mode) -> Sequence[object]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return ()
    if mode == "grades" and _pick(value, _IDS) is not None:
        return (value,)
    inner = value.get(mode)
    if not isinstance(inner, (list, dict)):
        inner = next((part for part in value.values() if isinstance(part, list)), value)
    return list(inner.items()) if isinstance(inner, dict) else inner


def _read_row(row: object, mode: Mode) -> _Row:
    if mode == "order":
        return _whole(_pick(row, _IDS) if isinstance(row, dict) else row), 0.0
    if isinstance(row, dict):
        return _whole(_pick(row, _IDS)), _grade(_pick(row, _GRADES))
    if isinstance(row, (list, tuple)) and len(row) == 2:
        return _whole(row[0]), _grade(row[1])
    return None, None


def _pick(row: dict[str, Any], names: Sequence[str]) -> object:
    return next((row[name] for name in names if name in row), None)


def _whole(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _grade(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_GRADE:
        return None
    return value / _MAX_GRADE
