"""Random-weight checkpoints built from a config: real files of real shapes, small, and without a download."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

Shape = Literal["bert-1", "bert-2", "xlmr-1", "roberta-1", "deberta-1", "deberta-2", "modernbert-1"]
"""BERT with one label, BERT with two (monoBERT style), and others, the number of labels behind the dash."""

SHAPES: tuple[Shape, ...] = ("bert-1", "bert-2", "xlmr-1")
FAMILIES: tuple[Shape, ...] = (*SHAPES, "roberta-1", "deberta-1", "deberta-2", "modernbert-1")
MAX_LENGTH = 64
"""Tokens that the checkpoints read."""

QUERY = "How do I find a memory leak in Python?"
TEXTS = (
    "tracemalloc traces memory blocks allocated by Python and finds what is leaking memory.",
    "The weather in Paris is lovely this time of year.",
    "gc",
    "A list is a mutable sequence; a tuple is an immutable one. " * 12,
    "Grüße aus München: naïve café, 日本語のテキスト.",
    "Sockets connect two programs, on one machine or on two.",
    "memory " * 150,
    "a b c d e f g h i j k l m n o p",
)
"""Ragged: a word, sentences, and two texts that are longer than the checkpoints read."""

_HIDDEN = 32
_SPREAD = 2.0
"""Standard deviation of the logits over the texts above, so that a wrong score cannot pass for a right one."""


def build_checkpoint(folder: Path, shape: Shape = "bert-1", *, labels: int | None = None, seed: int = 0) -> Path:
    """Write config, weights and tokenizer of a sequence classifier as a hub repository holds them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = _tokenizer(shape)
    config = _config(shape, len(tokenizer), labels or int(shape[-1]))
    model = AutoModelForSequenceClassification.from_config(config).eval()
    _spread_logits(model, tokenizer)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def export_onnx(checkpoint: Path, target: Path, *, sigmoid: bool = False) -> Path:
    """Export a checkpoint's graph with dynamic batch and sequence axes; the sigmoid may be part of it."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager")
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")

    class Graph(torch.nn.Module):
        """The logits alone, of inputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            """Return the logits, or their sigmoid."""
            logits = self.model(**dict(zip(names, inputs, strict=True))).logits
            return torch.sigmoid(logits) if sigmoid else logits

    ids = torch.full((2, 7), 5)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    target.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        # The exporter of before torch 2.9 takes 0.3 s, its successor 6 s, for the same graph.
        torch.onnx.export(
            Graph().eval(),
            tuple(example[name] for name in names),
            str(target),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**{name: {0: "batch", 1: "sequence"} for name in names}, "logits": {0: "batch"}},
            dynamo=False,
        )
    return target


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and progress bars of building models out of the tests, which are not about them."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _config(shape: Shape, words: int, labels: int) -> Any:
    from transformers import BertConfig, DebertaV2Config, ModernBertConfig, RobertaConfig, XLMRobertaConfig

    common: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * _HIDDEN,
        "initializer_range": 0.2,
        "num_labels": labels,
    }
    if shape in ("xlmr-1", "roberta-1"):
        special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        kind = XLMRobertaConfig if shape == "xlmr-1" else RobertaConfig
        return kind(max_position_embeddings=MAX_LENGTH + 2, type_vocab_size=1, **special, **common)
    if shape in ("deberta-1", "deberta-2"):  # as mxbai's: positions are relative, in buckets
        return DebertaV2Config(
            max_position_embeddings=MAX_LENGTH,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
            position_biased_input=False,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            type_vocab_size=0 if shape == "deberta-1" else 2,
            pad_token_id=0,
            **common,
        )
    if shape == "modernbert-1":  # as gte's: two layers of three see a window only, here of 16 tokens
        return ModernBertConfig(
            max_position_embeddings=MAX_LENGTH,
            local_attention=16,
            global_attn_every_n_layers=3,
            pad_token_id=0,
            bos_token_id=2,
            cls_token_id=2,
            eos_token_id=3,
            sep_token_id=3,
            **{**common, "num_hidden_layers": 3},
        )
    return BertConfig(max_position_embeddings=MAX_LENGTH, **common)


def _tokenizer(shape: Shape) -> Any:
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    if shape in ("xlmr-1", "roberta-1"):
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
        kind, trained = PreTrainedTokenizerFast, _unigram(list(names.values()))
    else:
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        # A modernised BERT has no token types.
        kind = PreTrainedTokenizerFast if shape == "modernbert-1" else BertTokenizerFast
        trained = _word_pieces([*names.values(), "[MASK]"])
    return kind(tokenizer_object=trained, model_max_length=MAX_LENGTH, **names)


def _word_pieces(special: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator([QUERY, *TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _unigram(special: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(special), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([QUERY, *TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    return tokenizer


def _spread_logits(model: Any, tokenizer: Any) -> None:
    """Scale and shift the last layer, so that each label's logits differ from text to text, around 0."""
    import torch

    last = model.classifier.out_proj if hasattr(model.classifier, "out_proj") else model.classifier
    with torch.no_grad():
        batch = tokenizer([QUERY] * len(TEXTS), list(TEXTS), padding=True, truncation=True, return_tensors="pt")
        last.weight *= (_SPREAD / model(**batch).logits.std(dim=0)).unsqueeze(1)
        last.bias -= model(**batch).logits.mean(dim=0)
