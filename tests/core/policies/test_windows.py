"""Where long texts are cut, and what the windows of one hold."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.policies.windows import cut_windows, piece_ends, sentence_ends
from rerank_core.reading import WindowRequest, estimate_token_ends

ODD = st.text(
    st.sampled_from("aAbB9 .!?…。！,;:\n\t-—'\"”」()é日本語🐍\u0301\u200d\u00a0"), min_size=1, max_size=120
)
TEXTS = st.one_of(ODD, st.text(min_size=1, max_size=60)).filter(lambda text: not text.isspace())


def split(text: str) -> list[str]:
    """Return the sentences of a text."""
    cuts = [0, *sentence_ends(text), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


def word_ends(text: str) -> list[int]:
    """Return where the words of a text end, as a tokenizer that knows them all says."""
    return [match.end() for match in re.finditer(r"\S+", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One. ", "Two! ", "Three? ", "Four… ", "Five"]),
        ("Mr. Fox, Dr. Hare et al. met. They", ["Mr. Fox, Dr. Hare et al. met. ", "They"]),
        ("See e.g. Fig. 3 or pp. 4. Then", ["See e.g. Fig. 3 or pp. 4. ", "Then"]),
        ("J. R. R. Tolkien wrote. He", ["J. R. R. Tolkien wrote. ", "He"]),
        ("It is 3.14, or v1.2.3 of x.y. Next", ["It is 3.14, or v1.2.3 of x.y. ", "Next"]),
        ('"Go!" she said. (He went.) Away', ['"Go!" ', "she said. ", "(He went.) ", "Away"]),
        ("wait... and go. Stop", ["wait... and go. ", "Stop"]),
        ("你好。「再见！」他说？走。", ["你好。", "「再见！」", "他说？", "走。"]),
        ("यह है। वह था।", ["यह है। ", "वह था।"]),
        ("A title\n\na paragraph\nof two lines", ["A title\n\n", "a paragraph\nof two lines"]),
        (
            "Needed:\n- tea\n- a cup\n1. Boil\n2. Pour",
            ["Needed:\n", "- tea\n", "- a cup\n", "1. Boil\n", "2. Pour"],
        ),
        ("def f():\n    return 1\n\nf()", ["def f():\n    ", "return 1\n\n", "f()"]),
        ("no end", ["no end"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_a_reader_says(text: str, expected: list[str]) -> None:
    """After stops of many scripts and at paragraphs and items, not after abbreviations, initials and numbers."""
    assert split(text) == expected


@given(text=TEXTS, size=st.integers(1, 30))
def test_pieces_cover_the_text_and_fit(text: str, size: int) -> None:
    """They follow each other to the end; only what belongs together may exceed the size."""
    ends = estimate_token_ends(text, 10_000)
    bounds = [0, *piece_ends(text, ends, size)]
    assert bounds[-1] == len(text)
    assert all(start < end for start, end in pairwise(bounds))
    for start, end in pairwise(bounds):
        if bisect_right(ends, end) - bisect_right(ends, start) > size:
            assert size == 1 or any(char in "\u0301\u200d" or ord(char) > 127 for char in text[start:end])


@given(text=TEXTS, size=st.integers(4, 40), share=st.floats(0, 0.9))
def test_windows_cover_a_text_in_order_within_their_bounds(text: str, size: int, share: float) -> None:
    """Every character but blanks is in one; they advance at both ends, and share no more than they may."""
    ends = estimate_token_ends(text, 10_000)
    overlap = int(share * size)
    found, is_cut = cut_windows(text, ends, size=size, overlap=overlap, max_windows=1000)
    assert not is_cut
    covered: set[int] = set()
    for start, end in found:
        assert text[start:end] == text[start:end].strip() != ""
        covered.update(range(start, end))
    assert all(text[position].isspace() for position in range(len(text)) if position not in covered)
    assert all(one.end < next_.end for one, next_ in pairwise(found))
    for one, next_ in pairwise(found[:-1]):
        assert one.start < next_.start
        assert bisect_right(ends, one.end) - bisect_right(ends, next_.start) <= overlap + 1


@given(
    words=st.lists(
        st.sampled_from(["tea", "Tea", "leaks.", "Why?", "so,", "on\n", "of"]), min_size=1, max_size=200
    )
)
def test_windows_of_words_are_full_and_never_too_large(words: list[str]) -> None:
    """No window has more tokens than its size, and none could have taken its neighbour's first sentence too."""
    text = " ".join(words)
    ends = word_ends(text)
    found = cut_windows(text, ends, size=20, overlap=5, max_windows=1000)[0]
    counts = [bisect_right(ends, end) - bisect_right(ends, start) for start, end in found]
    assert max(counts) <= 20
    if len(found) > 1:
        assert min(counts[:-1]) > 5
        assert counts[-1] > 20 - 20 // 2


@given(text=ODD, max_windows=st.integers(1, 3))
def test_no_more_windows_than_wanted(text: str, max_windows: int) -> None:
    """And it is said where the text goes on."""
    text += "x"
    ends = estimate_token_ends(text, 10_000)
    every = cut_windows(text, ends, size=8, overlap=2, max_windows=1000)[0]
    some, is_cut = cut_windows(text, ends, size=8, overlap=2, max_windows=max_windows)
    assert len(some) == min(max_windows, len(every))
    assert is_cut == (max_windows < len(every))


def test_characters_that_belong_together_stay_together() -> None:
    """Accents and joined emoji are not torn from what they belong to."""
    text = "e\u0301" * 50 + "👩\u200d💻" * 20
    found, _ = cut_windows(text, estimate_token_ends(text, 10_000), size=7, overlap=0, max_windows=1000)
    for start, end in found:
        assert text[start] not in "\u0301\u200d💻"
        assert text[end - 1] != "\u200d"


@pytest.mark.parametrize(
    "text", ["." * 100_000, ")" * 100_000, ". " * 30_000, "\n " * 30_000 + "x", "a" * 100_000]
)
def test_a_hostile_text_takes_no_longer_than_another(text: str) -> None:
    """Time grows with the length, not with its square."""
    began = time.perf_counter()
    cut_windows(text, estimate_token_ends(text, 10**6), size=500, overlap=100, max_windows=32)
    assert time.perf_counter() - began < 3.0


def test_a_character_of_more_tokens_than_fit_is_a_piece() -> None:
    """Byte-level tokenizers make several of one, and accents are part of what they sit on."""
    assert piece_ends("ab🐍c", [1, 2, 3, 3, 3, 3, 4], size=3) == [3, 4]
    assert piece_ends("ab🐍", [1, 2, 3, 3, 3, 3], size=3) == [3]
    text = "a" + "\u0301" * 40 + "b"
    assert piece_ends(text, range(1, 43), size=5) == [41, 42]


def test_how_much_of_a_text_is_looked_at() -> None:
    """What a scorer reads, at most what the user wants, and 512 tokens where neither is known."""
    assert WindowRequest(None, 2).window_tokens(100) == 100
    assert WindowRequest(40, 2).window_tokens(100) == 40
    assert WindowRequest(200, 2).window_tokens(100) == 100
    assert (WindowRequest(200, 2).window_tokens(None), WindowRequest(None, 2).window_tokens(None)) == (200, 512)
    assert WindowRequest(None, 2).tokens_to_read(100) == 201
