"""A tiny CausalLM reranker with random weights: the files, the modules and the chat template of Qwen3-Reranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.models import QUERY, TEXTS, quiet

CAUSAL_LENGTH = 256
"""Tokens that the model reads, its template's included."""

_TEMPLATE = """\
<|im_start|>system
Judge whether the Document meets the requirements. Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first \
| default("Find relevant passages.", true) }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "yes", "no")


def build_causal(folder: Path, *, template: str = _TEMPLATE, seed: int = 0) -> Path:
    """Write a ``Qwen3ForCausalLM`` as sentence-transformers saves one: a Transformer, then a LogitScore."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(template)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CAUSAL_LENGTH,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    with quiet():
        Qwen3ForCausalLM(config).eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        CrossEncoder(str(folder), device="cpu").save_pretrained(str(folder))
    return folder


def byte_tokenizer(template: str | None) -> Any:
    """Return a tokenizer of bytes with Qwen's special tokens, trained on the texts of the tests."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEMPLATE, QUERY, *TEXTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CAUSAL_LENGTH,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=template,
    )
