"""Vector files, in which documents' token vectors are kept: see :class:`VectorFile`."""

from __future__ import annotations

from rerank_core.local.late.vector_file import VectorFile, VectorFileStats

__all__ = ["VectorFile", "VectorFileStats"]
