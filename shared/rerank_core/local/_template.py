"""How a tokenizer puts two sequences together: found by asking it, for making its pairs from ids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby, product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]

__all__ = ["PairTemplate", "kept"]

_PROBES = ("", "a", "tell me more", "and so on, and so on, and so on")
_ROOMS = (0, 1, 2, 5, 6, 100)
"""Tokens of both sequences together to which the probes are cut; odd and even, and more than they have."""


def kept(query: int, text: int, room: int) -> tuple[int, int]:
    """Return how many tokens of a query and of a text are left of as many, where the longer one is cut first.

    That is what the tokenizers library means by ``longest_first``: only the longer one is cut while the other has
    at most half of the room; else both get half of it, and the longer one, or the text, the odd token.

    >>> kept(10, 500, 100), kept(500, 10, 100), kept(80, 70, 99), kept(70, 70, 99), kept(30, 40, 100)
    ((10, 90), (90, 10), (50, 49), (49, 50), (30, 40))
    """
    if query + text <= room:
        return query, text
    shorter = min(query, text, room // 2)
    return (shorter, room - shorter) if query <= text else (room - shorter, shorter)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What stands around two sequences, and which tokens are of type 0.

    Attributes:
        before: ids in front of the first sequence.
        between: ids between the two.
        after: ids behind the second one.
        second: how many of the ids between, counted from their end, have the second sequence's type 1; None where
            all tokens of a pair have type 0.
        right: whether the end of a sequence is cut off, not its beginning.
    """

    before: Ids
    between: Ids
    after: Ids
    second: int | None
    right: bool

    @property
    def special(self) -> int:
        """Tokens of a pair that belong to neither sequence."""
        return len(self.before) + len(self.between) + len(self.after)

    def head(self, query: Ids, count: int) -> Ids:
        """Return the ids of a pair up to its second sequence, of which ``count`` are the query's."""
        import numpy as np

        return np.concatenate((self.before, self.cut(query, count), self.between))

    def cut(self, ids: Ids, count: int) -> Ids:
        """Return as many of a sequence's ids as are kept."""
        return ids[:count] if self.right else ids[len(ids) - count :]

    def first(self, head: int, tokens: int) -> int:
        """Return how many tokens have type 0, of a pair with so many up to its second sequence and in all."""
        return tokens if self.second is None else head - self.second

    @classmethod
    def of(cls, tokenizer: Any, *, token_types: bool) -> PairTemplate | None:
        """Return a tokenizer's template; None where its pairs are made in another way.

        The tokenizer's truncation and padding are off afterwards; the side that it cuts is kept in the template.

        Args:
            tokenizer: a ``tokenizers.Tokenizer``.
            token_types: whether the types of tokens matter; else all count as type 0.
        """
        right = (tokenizer.truncation or {}).get("direction", "right") == "right"
        tokenizer.no_truncation()
        tokenizer.no_padding()
        template = cls._read(tokenizer, token_types=token_types, right=right)
        return template if template is not None and template._is_true(tokenizer, token_types=token_types) else None

    @classmethod
    def _read(cls, tokenizer: Any, *, token_types: bool, right: bool) -> PairTemplate | None:
        import numpy as np

        pair = tokenizer.encode(_PROBES[-1], _PROBES[-2])
        runs = [(of, len(list(run))) for of, run in groupby(pair.sequence_ids)]
        if [of for of, _ in runs if of is not None] != [0, 1]:
            return None
        ends = list(accumulate(length for _, length in runs))
        (start, stop), (begin, end) = (
            (stop - length, stop) for (of, length), stop in zip(runs, ends, strict=True) if of is not None
        )
        ids = np.array(pair.ids, dtype=np.int32)
        second_types = pair.type_ids[stop:begin].count(1) if token_types and any(pair.type_ids) else None
        return cls(ids[:start], ids[stop:begin], ids[end:], second_types, right)

    def _is_true(self, tokenizer: Any, *, token_types: bool) -> bool:
        """Compare with what the tokenizer makes of pairs, cut and whole."""
        import numpy as np

        alone = {
            text: np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)
            for text in _PROBES
        }
        direction = "right" if self.right else "left"
        try:
            for room in _ROOMS:
                tokenizer.enable_truncation(room + self.special, strategy="longest_first", direction=direction)
                for query, text in product(_PROBES, _PROBES):
                    own = tokenizer.encode(query, text)
                    first, second = kept(len(alone[query]), len(alone[text]), room)
                    head, tail = self.head(alone[query], first), self.cut(alone[text], second)
                    ids = [*head, *tail, *self.after]
                    zeros = self.first(len(head), len(ids))
                    types = [0] * zeros + [1] * (len(ids) - zeros)
                    if own.ids != ids or (token_types and own.type_ids != types):
                        return False
        finally:
            tokenizer.no_truncation()
        return True
