"""Small ColBERT checkpoints with random weights, in each of the layouts that real ones come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from support.models import MAX_LENGTH, Shape, _config, _tokenizer, quiet

Layout = Literal["stanford", "pylate", "pylate-modernbert", "native"]
LAYOUTS: tuple[Layout, ...] = ("stanford", "pylate", "pylate-modernbert", "native")
WIDTH = 16
"""Numbers in a token's vector; hidden states have 32."""
_QUERY_LENGTH = 20
_DOCUMENT_LENGTH = 40


def build_colbert(folder: Path, layout: Layout, **settings: Any) -> Path:
    """Write a checkpoint's files; ``settings`` replace what its own file of settings says."""
    import torch

    torch.manual_seed(0)
    shape: Shape = "modernbert-1" if layout == "pylate-modernbert" else "bert-1"
    tokenizer = _marked_tokenizer(shape, layout)
    backbone = _backbone(shape, len(tokenizer))
    projection = torch.randn(WIDTH, backbone.config.hidden_size)
    with quiet():
        tokenizer.save_pretrained(folder)
        if layout == "stanford":
            _save_stanford(folder, backbone, projection, settings)
        else:
            backbone.save_pretrained(folder)
            _save_modules(folder, layout, projection, settings)
    return folder


def export_colbert(folder: Path, target: Path, *, projected: bool = True) -> Path:
    """Export a checkpoint's graph as its vendors do, with the projection and the normalisation."""
    import torch

    model = _load(folder)
    names = ["input_ids", "attention_mask"]

    class Graph(torch.nn.Module):
        """The vectors alone, of inputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.ModuleList(model)

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            """Return a vector for each token."""
            features = dict(zip(names, inputs, strict=True)) | {"modality": "text"}
            features["token_type_ids"] = torch.zeros_like(inputs[0])
            hidden = self.model[0](features)["token_embeddings"]
            if not projected:
                return hidden  # type: ignore[no-any-return]
            return torch.nn.functional.normalize(hidden @ model[1].linear.weight.T, dim=-1)

    ids = torch.full((2, 7), 5)
    with quiet():
        torch.onnx.export(
            Graph().eval(),
            (ids, torch.ones_like(ids)),
            str(target),
            input_names=names,
            output_names=["contextual"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*names, "contextual")},
            dynamo=False,
        )
    return target


def library_scores(folder: Path, query: str, texts: Sequence[str]) -> list[float]:
    """Return the mean MaxSim of sentence-transformers' ``MultiVectorEncoder``."""
    with quiet():
        model = _load(folder)
        queries, documents = model.encode_query([query]), model.encode_document(list(texts))
        model.similarity_fn_name = "meanmaxsim"
        return [float(score) for score in model.similarity(queries, documents)[0]]


def _load(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    with quiet():
        return MultiVectorEncoder(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
        ).eval()


def _marked_tokenizer(shape: Shape, layout: Layout) -> Any:
    """Return a tokenizer with markers as the layout has them: words of the vocabulary, or added ones."""
    from tokenizers import Tokenizer

    tokenizer = _tokenizer(shape)
    tokenizer.mask_token = "[MASK]"
    if layout.startswith("pylate"):
        tokenizer.add_tokens(["[Q] ", "[D] "])
        return tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    words = content["model"]["vocab"]
    for marker in ("[unused0]", "[unused1]"):
        words[marker] = len(words)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    rebuilt = Tokenizer.from_str(json.dumps(content))
    return type(tokenizer)(tokenizer_object=rebuilt, model_max_length=MAX_LENGTH, mask_token="[MASK]", **names)


def _backbone(shape: Shape, words: int) -> Any:
    from transformers import AutoModel

    return AutoModel.from_config(_config(shape, words, 1)).eval()


def _save_stanford(folder: Path, backbone: Any, projection: Any, settings: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    weights = {f"bert.{name}": value.contiguous() for name, value in backbone.state_dict().items()}
    save_file({**weights, "linear.weight": projection}, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", {**backbone.config.to_dict(), "architectures": ["HF_ColBERT"]})
    metadata = {
        "query_maxlen": _QUERY_LENGTH,
        "doc_maxlen": _DOCUMENT_LENGTH,
        "dim": WIDTH,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
    }
    _write(folder / "artifact.metadata", metadata | settings)


def _save_modules(folder: Path, layout: Layout, projection: Any, settings: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    native = layout == "native"
    dense = "sentence_transformers.base.modules.dense.Dense" if native else "pylate.models.Dense.Dense"
    modules = ["sentence_transformers.base.modules.transformer.Transformer", dense]
    first: dict[str, Any] = {"max_seq_length": _DOCUMENT_LENGTH - 1, "do_lower_case": False}
    whole: dict[str, Any] = {"similarity_fn_name": "MaxSim", "prompts": {}, "default_prompt_name": None}
    if native:
        modules += [
            "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            "sentence_transformers.base.modules.normalize.Normalize",
        ]
        expansion = {"strategy": "min", "attend": True, "token": None, "length": _QUERY_LENGTH // 2}
        first = {"document_length": _DOCUMENT_LENGTH, "query_length": _QUERY_LENGTH, "query_expansion": expansion}
        prompts = {"query": "search_query: ", "document": "search_document: "}
        whole |= {"model_type": "MultiVectorEncoder", "prompts": prompts}
    else:
        whole |= {
            "query_prefix": "[Q] ",
            "document_prefix": "[D] ",
            "query_length": _QUERY_LENGTH,
            "document_length": _DOCUMENT_LENGTH,
            "attend_to_expansion_tokens": False,
            "skiplist_words": [",", ".", "?", "!"],
        }
        if layout == "pylate-modernbert":
            whole |= {"model_type": "ColBERT", "do_query_expansion": False, "prompts": {"query": "find: "}}
    paths = ["", *(f"{number}_{kind.rpartition('.')[2]}" for number, kind in enumerate(modules[1:], 1))]
    entries = zip(modules, paths, strict=True)
    _write(
        folder / "modules.json",
        [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (kind, path) in enumerate(entries)],
    )
    _write(folder / "sentence_bert_config.json", first)
    _write(folder / "config_sentence_transformers.json", whole | settings)
    identity = {"in_features": projection.shape[1], "out_features": WIDTH, "bias": False}
    _write(
        folder / paths[1] / "config.json", {**identity, "activation_function": "torch.nn.modules.linear.Identity"}
    )
    save_file({"linear.weight": projection}, folder / paths[1] / "model.safetensors")
    if native:
        token_level = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        _write(
            folder / paths[1] / "config.json",
            json.loads((folder / paths[1] / "config.json").read_text()) | token_level,
        )
        _write(
            folder / paths[2] / "config.json",
            {"skiplist_words": ["a", "the", "not-a-token"], "skiplist_tasks": ["document"]},
        )
        _write(folder / paths[3] / "config.json", token_level)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, default=str), encoding="utf-8")
