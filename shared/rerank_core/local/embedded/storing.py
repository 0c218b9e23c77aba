"""The job that reads documents' token vectors from a vector file, and encodes and stores missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rerank_core.errors import ScorerUnavailableError
from rerank_core.local.embedded.encoder import Encoder, EncodingJob, TokenIds, TokenVectors, name_encoder
from rerank_core.local.late.token_records import RecordTable, pack_record, pool_tokens
from rerank_core.local.late.vector_file import VectorFile, record_key

__all__ = ["StoringJob"]

_RECORDS_PER_WRITE = 32
"""What a killed process loses at most."""


class StoringJob(EncodingJob):
    """Finds or makes the records of texts, and hands them on in pieces of some hundred.

    Where the file cannot be used, everything is encoded and nothing stored.

    Args:
        texts: none of them twice.
        file: where the records are.
        max_length: tokens of a text that are read.
        int8: whether the encoder multiplies in int8.
        pooling: how many token vectors become one.
        use: takes the model, the positions of some texts and their records, in the engine's thread; None where
            the records are only to be stored.

    Attributes:
        stored: texts whose records were there.
        error: what was wrong with the file.
    """

    def __init__(
        self,
        texts: Sequence[str],
        file: VectorFile,
        *,
        max_length: int,
        int8: bool,
        pooling: int,
        use: Callable[[Encoder, Sequence[int], RecordTable], None] | None,
    ) -> None:
        super().__init__(texts, self._take)
        self.stored = 0
        self.error: ScorerUnavailableError | None = None
        self._file = file
        self._encoder = name_encoder(max_length=max_length, int8=int8, pooling=pooling)
        self._pooling = pooling
        self._use_records = use
        self._waiting = 0
        self._keys: dict[int, bytes] = {}
        self._positions: list[int] = []
        self._unwritten: dict[bytes, bytes] = {}

    def encode(self, model: Encoder, start: int, stop: int) -> Sequence[tuple[int, TokenIds]]:
        """Return the texts ``start`` to ``stop`` that are stored nowhere, tokenised."""
        self._model = model
        self._table = model.take_table()
        self._positions = []
        self._keys = {at: record_key(self._encoder, self._texts[at]) for at in range(start, stop)}
        self._read({key: at for at, key in self._keys.items()})
        self.stored += len(self._positions)
        items = self.encode_at(model, sorted(self._keys.keys() - set(self._positions)))
        self._waiting = len(items)
        if not items:
            self._finish_piece()
        return items

    def accept(self, position: int, output: TokenVectors) -> None:
        """Take the vectors of one text."""
        super().accept(position, output)
        self._waiting -= 1
        if not self._waiting:
            self._finish_piece()

    def _take(self, position: int, vectors: TokenVectors) -> None:
        tokens = pool_tokens(vectors.tokens.astype(np.float32), self._pooling)
        record = pack_record(vectors.mean, tokens)
        self._add(position, record)
        self._unwritten[self._keys[position]] = record
        if len(self._unwritten) >= _RECORDS_PER_WRITE:
            self._write()

    def _add(self, position: int, record: bytes | memoryview) -> None:
        self._positions.append(position)
        if self._use_records is not None:
            self._table.add(record)

    def _finish_piece(self) -> None:
        self._write()
        if self._use_records is not None:
            self._use_records(self._model, self._positions, self._table)
        self._model.give_back(self._table)

    def _read(self, positions: Mapping[bytes, int]) -> None:
        if self.error is None:
            try:
                self._file.read(list(positions), lambda key, record: self._add(positions[key], record))
            except ScorerUnavailableError as exc:
                self.error = exc

    def _write(self) -> None:
        records, self._unwritten = self._unwritten, {}
        if records and self.error is None:
            try:
                self._file.write(records, [self._encoder])
            except ScorerUnavailableError as exc:
                self.error = exc
