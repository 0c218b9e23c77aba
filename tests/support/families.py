"""One small checkpoint with random weights for each family of models, laid out as its real repositories are.

A family is either scored as sentence-transformers (or the model's own code) scores it with the same prompt, or is
refused. ``tests/core/local/test_families.py`` asserts that, ``tests/benchmarks/models.py`` prints it as a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.causal import CAUSAL_LENGTH, build_causal, byte_tokenizer
from support.models import QUERY, TEXTS, Shape, build_checkpoint, quiet

Scores = list[float]
SHORT = tuple(text for text in TEXTS if len(text) < 200)
"""Texts that every family reads whole."""

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": CAUSAL_LENGTH,
    "initializer_range": 0.3,
}
_QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n<Query>: {query}\n"
    "<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_GEMMA = (
    "<bos>A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains an "
    "answer to the query by providing a prediction of either 'Yes' or 'No'."
)


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: of a known member.
        build: writes its files into a folder.
        reference: returns the scores that are right, in [0, 1]; None for a family that is refused.
        refused: by runtime, a part of the error that says why.
        scale: of the model's own scores.
        template: whether pairs are filled into a prompt.
        texts: what is scored.
    """

    name: str
    build: Callable[[Path], object]
    reference: Callable[[Path, Sequence[str]], Scores] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    scale: str = "logit"
    template: bool = False
    texts: Sequence[str] = TEXTS


def library_scores(folder: Path, texts: Sequence[str], **options: Any) -> Scores:
    """Return the probabilities that sentence-transformers predicts for plain pairs."""
    return _predict(folder, [(QUERY, text) for text in texts], **options)


def _predict(folder: Path, pairs: list[tuple[str, str]], *, temperature: float = 1.0, **options: Any) -> Scores:
    import torch
    from sentence_transformers import CrossEncoder

    with quiet():
        model = CrossEncoder(str(folder), device="cpu", **options)
        logits = model.predict(
            pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False
        ).double()
    if logits.ndim > 1:
        logits = logits[:, 1] - logits[:, 0]
    return [float(score) for score in torch.sigmoid(logits / temperature)]


def _split_prompt(folder: Path, texts: Sequence[str]) -> Scores:
    """Score pairs of which the first has the prompt up to the document, as the conversions' model cards do."""
    before, after = _QWEN3.split("<Document>: {document}")
    return _predict(folder, [(before.format(query=QUERY), f"<Document>: {text}{after}") for text in texts])


def _gemma_answers(folder: Path, texts: Sequence[str]) -> Scores:
    """Score by the logit of the word Yes behind the prompt, one text at a time, with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(folder).eval(),
            AutoTokenizer.from_pretrained(folder),
        )
    scores = []
    for text in texts:
        ids = tokenizer(_GEMMA.format(query=QUERY, document=text), add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            logits = model(input_ids=ids["input_ids"]).logits[0, -1].double()
        scores.append(float(torch.sigmoid(logits[tokenizer.convert_tokens_to_ids("Yes")])))
    return scores


def _classifier(shape: Shape) -> Callable[[Path], object]:
    return lambda folder: build_checkpoint(folder, shape)


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    with quiet():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _change_json(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def _qwen3_classifier(folder: Path) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(None)
    config = Qwen3Config(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **_SIZES)
    _save(folder, Qwen3ForSequenceClassification(config), tokenizer)
    _change_json(folder / "config.json", _name_or_path="someone/Qwen3-Reranker-0.6B-seq-cls")


def _unknown_decoder(folder: Path) -> None:
    _qwen3_classifier(folder)
    _change_json(folder / "config.json", _name_or_path="someone/own-reranker")


def _gemma(folder: Path) -> None:
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(None)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.add_tokens(["Yes", "No"])
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_SIZES,
    )
    _save(folder, GemmaForCausalLM(config), tokenizer)
    _change_json(folder / "config.json", _name_or_path="BAAI/bge-reranker-v2-gemma")


def _zerank(folder: Path) -> None:
    build_causal(folder)
    (logit_score,) = (path for path in folder.glob("*/config.json"))
    content = json.loads(logit_score.read_text())
    content["false_token_id"] = None
    logit_score.write_text(json.dumps(content))
    _change_json(folder / "config.json", _name_or_path="zeroentropy/zerank-2")


def _jina_v3(folder: Path) -> None:
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = byte_tokenizer(None)
    _save(folder, Qwen3Model(Qwen3Config(vocab_size=len(tokenizer), **_SIZES)), tokenizer)
    _change_json(folder / "config.json", architectures=["JinaForRanking"])


def _t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = byte_tokenizer(None)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes)
    _save(folder, T5ForConditionalGeneration(config), tokenizer)


def _bare(folder: Path, kind: str) -> None:
    """Save a BERT under another class than a classifier's."""
    import transformers

    build_checkpoint(folder)
    with quiet():
        getattr(transformers, kind).from_pretrained(folder).save_pretrained(folder)


def _write_modules(folder: Path, model_type: str, *kinds: str) -> None:
    modules = [
        {"idx": index, "name": str(index), "path": "" if not index else f"{index}_{kind}", "type": f"any.{kind}"}
        for index, kind in enumerate(("Transformer", *kinds))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    _change_json(folder / "config_sentence_transformers.json", model_type=model_type)


def _embedding(folder: Path) -> None:
    _bare(folder, "AutoModel")
    _write_modules(folder, "SentenceTransformer", "Pooling", "Normalize")


def _decoder_embedding(folder: Path) -> None:
    build_causal(folder)
    _write_modules(folder, "SentenceTransformer", "Pooling", "Normalize")


def _colbert(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    _bare(folder, "AutoModel")
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(
        {**weights, "linear.weight": torch.randn(8, 32)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    _change_json(folder / "config.json", architectures=["HF_ColBERT"])
    (folder / "artifact.metadata").write_text("{}")


def _pylate(folder: Path) -> None:
    _bare(folder, "AutoModel")
    _write_modules(folder, "ColBERT", "Dense")


def _splade(folder: Path) -> None:
    _bare(folder, "AutoModelForMaskedLM")
    _write_modules(folder, "SparseEncoder", "SpladePooling")


_EMBEDDING = "looks like an embedding model: use it as a first stage"
_COLBERT = "looks like a ColBERT checkpoint"
_SPLADE = "looks like a SPLADE model"
_T5 = "looks like a text-to-text model such as monoT5"
_ANSWERS = "looks like a language model, whose score is the logit of a word: use 'cross-encoder:'"


def _both(reason: str) -> dict[str, str]:
    return {"cross-encoder": reason, "onnx": reason}


FAMILIES = (
    Family("ms-marco-MiniLM-L6-v2 (BERT)", _classifier("bert-1"), library_scores),
    Family("monoBERT (BERT, two labels)", _classifier("bert-2"), library_scores),
    Family("bge-reranker-v2-m3 (XLM-R)", _classifier("xlmr-1"), library_scores),
    Family("RoBERTa", _classifier("roberta-1"), library_scores),
    Family("mxbai-rerank-base-v1 (DeBERTa-v2)", _classifier("deberta-1"), library_scores),
    Family("gte-reranker-modernbert-base (ModernBERT)", _classifier("modernbert-1"), library_scores),
    Family("Qwen3-Reranker (yes and no)", build_causal, library_scores, {"onnx": _ANSWERS}, template=True),
    Family("Qwen3-Reranker as classifier", _qwen3_classifier, _split_prompt, template=True, texts=SHORT),
    Family("unknown decoder classifier", _unknown_decoder, None, _both("reads pairs by a prompt, without which")),
    Family("bge-reranker-v2-gemma", _gemma, _gemma_answers, {"onnx": _ANSWERS}, template=True, texts=SHORT),
    Family(
        "zerank-2 (yes, temperature 5)",
        _zerank,
        lambda folder, texts: library_scores(folder, texts, temperature=5.0),
        {"onnx": _ANSWERS},
        template=True,
    ),
    Family(
        "jina-reranker-v3 (listwise)",
        _jina_v3,
        None,
        {
            "cross-encoder": "its own code ranks all texts together: use the service 'jina:'",
            "onnx": "JinaForRanking has no trained classifier",
        },
        scale="cosine",
    ),
    Family("monoT5", _t5, None, _both(_T5)),
    Family("colbertv2 (ColBERT, with projection)", _colbert, None, _both(_COLBERT)),
    Family("GTE-ModernColBERT (PyLate)", _pylate, None, _both(_COLBERT)),
    Family("SPLADE", _splade, None, _both(_SPLADE)),
    Family("all-MiniLM-L6-v2 (embedding)", _embedding, None, _both(_EMBEDDING)),
    Family("Qwen3-Embedding (decoder, embedding)", _decoder_embedding, None, _both(_EMBEDDING)),
)
