"""Cut a long text into windows: after sentences, else after lines and clauses, else after words. Pure.

No library for sentences is used: those that are good need a model or data to download, or change the text, and a
window needs exact positions in the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rerank_core.types import Passage

_CLOSERS = r"""[\])}"'”’»」』）】》]*"""
# Every alternative matches wherever it begins, so that the time is linear in the length of the text.
_SENTENCE = re.compile(rf"(?P<full>[。！？｡।॥۔]+{_CLOSERS}\s*)|(?P<stop>[.!?…؟]+)(?:{_CLOSERS}\s*)|\n\s*")
_LINE = r"\n\s*"
_CLAUSE = r"[,;:.!?…、，；：）)\]}—]\s+|[、，；：—。！？]\s*"
_WORD = r"\s+"
_LAST_WORD = re.compile(r"[^\s([{\"'“‘«]*\Z")
_WORD_CHARS = 24
_ITEM = re.compile(r"[-*+•‣–#>|~`=]|\(?\w{1,3}[.)]\s")

_ABBREVIATION_LIST = """
al approx apr aug bzw ca cf ch co corp dec dept dr ed eds eg e.g esp etc evtl feb fig figs gen ggf gov hon ie i.e
inc incl jan jr jul jun lt ltd messrs mr mrs ms mt nos nov nr oct op p pp prof ref rev sec sep sept sgt sr st str
u.a u.s usw vgl viz vol vols vs z.b
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())


def cut_windows(
    text: str, token_ends: Sequence[int], *, size: int, overlap: int, max_windows: int
) -> tuple[list[Passage], bool]:
    """Return windows that cover a text, without blanks at their ends, and whether the text goes on after them.

    Each holds as many whole sentences as fit. A sentence that does not fit is cut at lines, then clauses, words
    and tokens. A window begins with the last sentences of the one before it, as many as fit into ``overlap``
    tokens, which are fewer than ``size``. The last window is extended backwards to its full size.

    >>> text = "One two. Three four. Five six."
    >>> ends = [3, 7, 8, 14, 19, 20, 25, 29, 30]
    >>> [text[start:end] for start, end in cut_windows(text, ends, size=6, overlap=3, max_windows=9)[0]]
    ['One two. Three four.', 'Three four. Five six.']
    """
    text = text.rstrip()
    bounds = [0, *piece_ends(text, token_ends, size)]
    counts = [bisect_right(token_ends, bound) for bound in bounds]
    last = len(bounds) - 1
    passages: list[Passage] = []
    first = 0
    while len(passages) < max_windows:
        # At least one piece, because a piece that is larger than a window cannot be cut.
        stop = max(first + 1, bisect_right(counts, counts[first] + size) - 1)
        if stop == last:
            first = min(first, bisect_left(counts, counts[last] - size))
        window = text[bounds[first] : bounds[stop]]
        if stripped := window.strip():
            start = bounds[first] + len(window) - len(window.lstrip())
            passages.append(Passage(start, start + len(stripped)))
        if stop == last:
            return passages, False
        shared = max(counts[stop] - overlap, counts[stop + 1] - size)
        first = min(stop, bisect_left(counts, shared, lo=first + 1))
    return passages, True


def sentence_ends(text: str) -> Iterator[int]:
    """Yield where sentences end, after the blanks behind them; the end of the text is left out.

    A sentence also ends before a paragraph, an item of a list, a heading or an indented line. It does not end
    before a line that goes on in lower case, nor after the dot of an abbreviation or an initial.

    >>> text = "Dr. Smith met J. Doe. They talked, e.g. about 3.5 things! 好的。再见。"
    >>> [text[start:end] for start, end in zip([0, *sentence_ends(text)], [*sentence_ends(text), len(text)])]
    ['Dr. Smith met J. Doe. ', 'They talked, e.g. about 3.5 things! ', '好的。', '再见。']
    """
    for match in _SENTENCE.finditer(text):
        if match.end() < len(text) and _ends_sentence(text, match):
            yield match.end()


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match["full"]:
        return True
    blanks = match[0][len(match[0].rstrip()) :]
    following = text[match.end()]
    if "\n" in blanks and _ends_line(text, match.end(), blanks, following):
        return True
    stop = match["stop"]
    if not stop or not blanks:
        return False
    if stop != ".":
        return stop[-1] in "!?؟" or not following.islower()
    return not following.islower() and not _is_abbreviated(text, match.start())


def _ends_line(text: str, start: int, blanks: str, following: str) -> bool:
    indented = blanks[blanks.rfind("\n") + 1 :] != ""
    return blanks.count("\n") > 1 or indented or not following.islower() or bool(_ITEM.match(text, start))


def _is_abbreviated(text: str, dot: int) -> bool:
    """Return whether a dot belongs to an abbreviation, an initial or the number of an item."""
    found = _LAST_WORD.search(text[max(0, dot - _WORD_CHARS) : dot])
    word = found[0] if found else ""
    if word.isdigit():
        before = dot - len(word)
        return before == 0 or text[before - 1] == "\n"
    if len(word) == 1:
        return word.isupper()
    return word.lower() in _ABBREVIATIONS


def _match_ends(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    return (match.end() for match in pattern.finditer(text))


_LEVELS: tuple[Callable[[str], Iterator[int]], ...] = (
    sentence_ends,
    *(partial(_match_ends, re.compile(pattern)) for pattern in (_LINE, _CLAUSE, _WORD)),
)


def piece_ends(text: str, token_ends: Sequence[int], size: int) -> list[int]:
    """Return where the pieces of a text end: sentences, or parts of those of more than ``size`` tokens.

    Only a single character of more tokens makes a larger piece.

    >>> piece_ends("One two. Three four five six.", [3, 7, 8, 14, 19, 24, 28, 29], size=4)
    [9, 15, 20, 25, 29]
    """
    return list(_cut(text, (0, len(text)), token_ends, size, 0)) if text else []


def _cut(text: str, span: tuple[int, int], token_ends: Sequence[int], size: int, level: int) -> Iterator[int]:
    """Yield where a span's pieces end: it is cut at this level, and what is still too long at the next."""
    start, stop = span
    if level == len(_LEVELS):
        yield from _cut_word(text, span, token_ends, size)
        return
    cuts = (start + cut for cut in _LEVELS[level](text[start:stop]))
    for end in (*(cut for cut in cuts if cut < stop), stop):
        if bisect_right(token_ends, end) - bisect_right(token_ends, start) > size:
            yield from _cut(text, (start, end), token_ends, size, level + 1)
        else:
            yield end
        start = end


def _cut_word(text: str, span: tuple[int, int], token_ends: Sequence[int], size: int) -> Iterator[int]:
    """Yield where to cut within a word: after tokens, but never between characters that belong together."""
    start, stop = span
    while (first := bisect_right(token_ends, start)) + size < bisect_right(token_ends, stop):
        cut = token_ends[first + size - 1]
        while cut > start + 1 and cut < stop and _is_joined(text, cut):
            cut -= 1
        if _is_joined(text, cut):
            cut = next((after for after in range(start + 1, stop) if not _is_joined(text, after)), stop)
        yield cut
        start = cut
    if start < stop:
        yield stop


def _is_joined(text: str, position: int) -> bool:
    """Return whether the character at a position is joined to the one before it."""
    if position >= len(text):
        return False
    char = text[position]
    return char == "\u200d" or text[position - 1] == "\u200d" or unicodedata.category(char) in ("Mn", "Me", "Mc")
