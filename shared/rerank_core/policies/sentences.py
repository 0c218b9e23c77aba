"""Where a long text may be cut: after sentences, else after lines and clauses, else after words. Pure.

No library: those that know sentences bring a model, or data to download, or change the text, and a window needs
exact positions of the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

__all__ = ["clauses", "lines", "pieces", "sentences", "words"]

_CLOSERS = r"""[\])}"'”’»」』）】》]*"""
# Every alternative matches wherever it begins, so that a million dots take a million steps and not their square.
_SENTENCE = re.compile(rf"(?P<full>[。！？｡।॥۔]+{_CLOSERS}\s*)|(?P<stop>[.!?…؟]+)(?:{_CLOSERS}\s*)|\n\s*")
_CLAUSE = re.compile(r"[,;:.!?…、，；：）)\]}—]\s+|[、，；：—。！？]\s*")
_LINE = re.compile(r"\n\s*")
_WORD = re.compile(r"\s+")
_LAST_WORD = re.compile(r"[^\s([{\"'“‘«]*\Z")
_WORD_CHARS = 24
_ITEM = re.compile(r"[-*+•‣–#>|~`=]|\(?\w{1,3}[.)]\s")

_WRITTEN = """
al approx apr aug bzw ca cf ch co corp dec dept dr ed eds eg e.g esp etc evtl feb fig figs gen ggf gov hon ie i.e
inc incl jan jr jul jun lt ltd messrs mr mrs ms mt nos nov nr oct op p pp prof ref rev sec sep sept sgt sr st str
u.a u.s usw vgl viz vol vols vs z.b
"""
_ABBREVIATIONS = frozenset(_WRITTEN.split())


def sentences(text: str) -> Iterator[int]:
    """Yield the ends of the sentences, the blanks behind them included; the end of the text is left out.

    A paragraph, an item of a list, a heading and an indented line end what is before them; a line that goes on in
    lower case does not. A dot after an abbreviation or an initial ends nothing.

    >>> text = "Dr. Smith met J. Doe. They talked, e.g. about 3.5 things! 好的。再见。"
    >>> [text[start:end] for start, end in zip([0, *sentences(text)], [*sentences(text), len(text)])]
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
    """Tell whether a dot belongs to an abbreviation, an initial or the number of an item."""
    found = _LAST_WORD.search(text[max(0, dot - _WORD_CHARS) : dot])
    word = found[0] if found else ""
    if word.isdigit():
        before = dot - len(word)
        return before == 0 or text[before - 1] == "\n"
    if len(word) == 1:
        return word.isupper()
    return word.lower() in _ABBREVIATIONS


def lines(text: str) -> Iterator[int]:
    """Yield the ends of the lines, blanks and blank lines behind them included."""
    return (match.end() for match in _LINE.finditer(text))


def clauses(text: str) -> Iterator[int]:
    """Yield the ends of what a comma, a colon or the like ends."""
    return (match.end() for match in _CLAUSE.finditer(text))


def words(text: str) -> Iterator[int]:
    """Yield the ends of the words, the blanks behind them included."""
    return (match.end() for match in _WORD.finditer(text))


_LEVELS: tuple[Callable[[str], Iterator[int]], ...] = (sentences, lines, clauses, words)


def pieces(text: str, ends: Sequence[int], size: int) -> list[int]:
    """Return the ends of the pieces of a text, the last one its end: sentences, and parts of what is too long.

    Args:
        text: what to cut.
        ends: where its tokens end, ascending.
        size: tokens that a piece may have, at least 1; only a character of more tokens than that has more.

    >>> pieces("One two. Three four five six.", [3, 7, 8, 14, 19, 24, 28, 29], size=4)
    [9, 15, 20, 25, 29]
    """
    return list(_cut(text, (0, len(text)), ends, size, 0)) if text else []


def _cut(text: str, span: tuple[int, int], ends: Sequence[int], size: int, level: int) -> Iterator[int]:
    """Yield the ends of a span's pieces: cut at this level, and what is still too long at the next."""
    start, stop = span
    if level == len(_LEVELS):
        yield from _torn(text, span, ends, size)
        return
    cuts = (start + cut for cut in _LEVELS[level](text[start:stop]))
    for end in (*(cut for cut in cuts if cut < stop), stop):
        if bisect_right(ends, end) - bisect_right(ends, start) > size:
            yield from _cut(text, (start, end), ends, size, level + 1)
        else:
            yield end
        start = end


def _torn(text: str, span: tuple[int, int], ends: Sequence[int], size: int) -> Iterator[int]:
    """Yield cuts within a word: after tokens, and between characters that belong together never."""
    start, stop = span
    while (first := bisect_right(ends, start)) + size < bisect_right(ends, stop):
        cut = ends[first + size - 1]
        while cut > start + 1 and cut < stop and _belongs(text, cut):
            cut -= 1
        if _belongs(text, cut):
            cut = next((after for after in range(start + 1, stop) if not _belongs(text, after)), stop)
        yield cut
        start = cut
    if start < stop:
        yield stop


def _belongs(text: str, position: int) -> bool:
    """Tell whether the character at a position belongs to the one before it."""
    if position >= len(text):
        return False
    char = text[position]
    return char == "\u200d" or text[position - 1] == "\u200d" or unicodedata.category(char) in ("Mn", "Me", "Mc")
