"""Pairs: the same ones that the tokenizer makes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.models import QUERY, TEXTS
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from rerank_core.local.tokens import Pair, PairTokenizer

PAD = 7


def word_pieces() -> Tokenizer:
    """Return a tokenizer as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tokenizer


def unigram() -> Tokenizer:
    """Return a tokenizer as XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    _train(tokenizer, trainer)
    tokenizer.post_processor = template(tokenizer, "<s> $A </s> </s> $B </s>")
    return tokenizer


def bytes_bpe() -> Tokenizer:
    """Return a tokenizer as RoBERTa's, of bytes, with a mask token that takes the blank before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _train(tokenizer, trainer)
    ends = (("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return tokenizer


def causal() -> Tokenizer:
    """Return a tokenizer as a causal model's: nothing stands around a sequence."""
    tokenizer = bytes_bpe()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def swapped() -> Tokenizer:
    """Return a tokenizer that puts the second sequence first."""
    tokenizer = word_pieces()
    tokenizer.post_processor = template(tokenizer, "[CLS] $B:1 [SEP] $A [SEP]")
    return tokenizer


def odd_types() -> Tokenizer:
    """Return a tokenizer whose last token has the first sequence's type."""
    tokenizer = word_pieces()
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP] $B:1 [SEP]:0")
    return tokenizer


def deberta() -> Tokenizer:
    """Return a tokenizer as DeBERTa-v2's: a unigram model between BERT's special tokens."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    _train(tokenizer, trainer)
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tokenizer


def modernbert() -> Tokenizer:
    """Return a tokenizer as ModernBERT's: pieces of bytes between BERT's special tokens, all of type 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _train(tokenizer, trainer)
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP] $B [SEP]")
    return tokenizer


def bare() -> Tokenizer:
    """Return a tokenizer without a post-processor."""
    tokenizer = bytes_bpe()
    tokenizer.post_processor = None
    return tokenizer


def in_sequence() -> Tokenizer:
    """Return a tokenizer with two post-processors, as Llama's."""
    tokenizer = bytes_bpe()
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), template(tokenizer, "<s> $A <s>:1 $B:1")]
    )
    return tokenizer


def template(tokenizer: Tokenizer, pair: str) -> Any:
    """Return what puts sequences together so."""
    names = {part.split(":")[0] for part in pair.split() if not part.startswith("$")}
    return processors.TemplateProcessing(
        single="$A", pair=pair, special_tokens=[(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    )


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    tokenizer.train_from_iterator([QUERY, *TEXTS], trainer)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    kind.__name__: kind
    for kind in (
        word_pieces,
        unigram,
        bytes_bpe,
        deberta,
        modernbert,
        causal,
        bare,
        in_sequence,
        swapped,
        odd_types,
    )
}


def copied(tokenizer: Tokenizer) -> Tokenizer:
    """Return another one that is the same; training twice does not always give the same."""
    return Tokenizer.from_str(tokenizer.to_str())


TOKENIZERS = {name: (one, copied(one)) for name, make in KINDS.items() for one in [make()]}
"""Two of each: one to be asked, and one that is taken over."""

pieces = st.sampled_from(
    [
        "memory",
        "[SEP]",
        "</s>",
        "<mask>",
        "[CLS]",
        " ",
        "  ",
        "\n",
        "日本",
        "é",
        "e\u0301",
        "🙂",
        "ﬁ",
        "x" * 30,
        ".",
    ]
)
texts = st.one_of(
    st.text(max_size=20),
    st.lists(pieces, max_size=40).map("".join),
    st.lists(pieces, max_size=40).map(" ".join),
    st.tuples(pieces, st.integers(0, 200)).map(lambda drawn: " ".join([drawn[0]] * drawn[1])),
)


def own(tokenizer: Tokenizer, limit: int, side: str, query: str, text: str) -> Any:
    """Return the tokenizer's own encoding of a pair."""
    tokenizer.enable_truncation(limit, strategy="longest_first", direction=side)
    return tokenizer.encode(query, text)


def taken(tokenizer: Tokenizer, limit: int, side: str = "right", *, token_types: bool = True) -> PairTokenizer:
    """Return what makes pairs of a tokenizer."""
    return PairTokenizer(tokenizer, max_length=limit, pad_id=PAD, token_types=token_types, side=side)


def types(pair: Pair) -> list[int]:
    """Return a pair's token types, as it describes them."""
    return [0] * len(pair) if pair.types is None else pair.types.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(deadline=None, max_examples=12)
@given(query=texts, documents=st.lists(texts, min_size=1, max_size=4), limit=st.integers(4, 70))
@example(query="memory " * 40, documents=["memory " * 39, "memory " * 41, "memory " * 400], limit=33)
@example(query="", documents=["", "a" + " " * 2000 + "b", "\n".join(["word"] * 300)], limit=16)
def test_pairs_are_the_tokenizers_own(kind: str, side: str, query: str, documents: list[str], limit: int) -> None:
    """Ids and types, whatever is read, of either side, cut or not."""
    asked, tokenizer = TOKENIZERS[kind]
    pairs = taken(tokenizer, limit, side).pairs(query, documents)
    expected = [own(asked, limit, side, query, text) for text in documents]
    assert [pair.ids.tolist() for pair in pairs] == [encoding.ids for encoding in expected]
    assert [types(pair) for pair in pairs] == [encoding.type_ids for encoding in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_without_token_types_have_type_0(kind: str) -> None:
    """For models that know only one type; the ids are the same."""
    asked, tokenizer = TOKENIZERS[kind]
    pairs = taken(tokenizer, 12, token_types=False).pairs(QUERY, TEXTS)
    assert [pair.ids.tolist() for pair in pairs] == [own(asked, 12, "right", QUERY, text).ids for text in TEXTS]
    assert {kind for pair in pairs for kind in types(pair)} == {0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [3, 4, 12, 30])
def test_room_is_what_is_read_of_a_text(kind: str, limit: int) -> None:
    """Beside any query, also one that is cut."""
    asked, tokenizer = TOKENIZERS[kind]
    pairs = taken(tokenizer, limit)
    if limit < asked.num_special_tokens_to_add(is_pair=True):
        pytest.skip("no pair is so short")
    for query in ("", "memory", "memory " * 10, "memory " * 100):
        encoding = own(asked, limit, "right", query, "memory " * 200)
        # The odd token is the query's where that is longer than the text.
        assert encoding.sequence_ids.count(1) - pairs.max_text_tokens(query) in {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_ends_are_where_tokens_end(kind: str) -> None:
    """In characters, of the first tokens; pairs are the same afterwards."""
    asked, tokenizer = TOKENIZERS[kind]
    pairs = taken(tokenizer, 20)
    before = [pair.ids.tolist() for pair in pairs.pairs(QUERY, TEXTS)]
    asked.no_truncation()
    for text, ends in zip(TEXTS, pairs.token_ends(TEXTS, 9), strict=True):
        expected = [end for _, end in asked.encode(text, add_special_tokens=False).offsets][:9]
        assert list(ends) == [max(expected[: index + 1]) for index in range(len(expected))]
    assert [pair.ids.tolist() for pair in pairs.pairs(QUERY, TEXTS)] == before


def test_a_long_text_is_read_only_as_far_as_needed() -> None:
    """A novel costs no more than its first pages."""
    asked, tokenizer = TOKENIZERS["word_pieces"]
    pairs = taken(tokenizer, 64)
    read: list[int] = []
    encode_batch = pairs._encode_batch

    def counting(texts: Sequence[str], **options: Any) -> Any:
        read.append(sum(map(len, texts)))
        return encode_batch(texts, **options)

    pairs._encode_batch = counting
    novel, blanks = "memory leak " * 20_000, " " * 3000 + "memory leak " * 20_000
    made = pairs.pairs(QUERY, [novel, blanks])
    assert sum(read) < 30_000
    # Of which the tokenizer itself may read a part, too, to get the same.
    assert [pair.ids.tolist() for pair in made] == [
        own(asked, 64, "right", QUERY, text[:10_000]).ids for text in (novel, blanks)
    ]


@pytest.mark.parametrize("kind", ["word_pieces", "unigram", "odd_types"])
@pytest.mark.parametrize("token_types", [True, False])
def test_arrays_are_the_pairs_side_by_side(kind: str, token_types: bool) -> None:
    """Filled up with the padding id; a small batch after a large one has nothing left of it."""
    pairs = taken(TOKENIZERS[kind][1], 40, token_types=token_types)
    made = pairs.pairs(QUERY, TEXTS)
    for batch in (made, made[2:3], made[:5], [*made, *made]):
        arrays = pairs.arrays(batch)
        longest = max(map(len, batch))
        for row, pair in enumerate(batch):
            blank = [0] * (longest - len(pair))
            assert arrays["input_ids"][row].tolist() == pair.ids.tolist() + [PAD] * len(blank)
            assert arrays["attention_mask"][row].tolist() == [1] * len(pair) + blank
            assert arrays["token_type_ids"][row].tolist() == types(pair) + blank
        assert {array.shape for array in arrays.values()} == {(len(batch), longest)}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}
        assert all(array.flags.c_contiguous for array in arrays.values())
