"""Which families of models are scored as they were trained, and which are refused: one table.

Each family is built small, with random weights, in the layout of its real repositories. The difference is the
largest one, in relevance scores, to sentence-transformers' own scores with the same prompt.

    python tests/benchmarks/models.py
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.families import FAMILIES, Family
from support.models import QUERY, quiet

from rerank_core import Reranker, RerankError, load_scorer

ROW = "{:<42} {:<14} {:<11} {:<8} {}"


def outcome(family: Family, provider: str, folder: Path) -> str:
    """Return the largest difference to the reference, or why the family is refused."""
    scorer = load_scorer(f"{provider}:{folder}")
    try:
        with quiet():
            found = Reranker(scorer).rerank(QUERY, family.texts).scores
    except RerankError as exc:
        return f"refused: {str(exc).removeprefix(f'{scorer.name}: ')}"
    if family.reference is None:
        return "LOADED, although it should be refused"
    differences = (
        abs((score or 0.0) - right)
        for score, right in zip(found, family.reference(folder, family.texts), strict=True)
    )
    return f"{max(differences):.1e}"


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print(ROW.format("family", "runtime", "scale", "prompt", "largest difference, or why it is refused"))
    with tempfile.TemporaryDirectory() as parent:
        for number, family in enumerate(FAMILIES):
            folder = Path(parent, str(number))
            folder.mkdir()
            with quiet():
                family.build(folder)
            for provider in ("cross-encoder", "onnx"):
                prompt = "own" if family.template else "plain"
                print(
                    ROW.format(family.name, provider, family.scale, prompt, outcome(family, provider, folder)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
