"""The BERT family: which checkpoints the graph writer reproduces exactly, and how their configurations differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rerank_core.errors import ConfigurationError


@dataclass(frozen=True)
class LayerNames:
    """What a family calls the weights of a layer, without ``.weight`` and ``.bias``; the defaults are BERT's."""

    layer: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """What a family and a configuration say about the arithmetic.

    The head is the classifier's layers in order, each with its activation, ``"gelu"``, ``"relu"``, ``"tanh"`` or
    None; it is empty for a model without a classifier.
    """

    layers: int = 0
    heads: int = 0
    hidden: int = 0
    names: LayerNames = LayerNames()
    prefix: str = ""  # of all weights but the head's
    epsilon: float = 1e-12
    head: tuple[tuple[str, str | None], ...] = ()
    counted: bool = False  # positions count the tokens that are not padding, from the one after pad_id on
    token_types: bool = False
    pad_id: int = 0


_BERT = BertShape(prefix="bert.", head=(("bert.pooler.dense", "tanh"), ("classifier", None)))
_ROBERTA = BertShape(
    prefix="roberta.", head=(("classifier.dense", "tanh"), ("classifier.out_proj", None)), counted=True
)
_ELECTRA = BertShape(prefix="electra.", head=(("classifier.dense", "gelu"), ("classifier.out_proj", None)))
_DISTILBERT = BertShape(
    prefix="distilbert.",
    head=(("pre_classifier", "relu"), ("classifier", None)),
    names=LayerNames(
        layer="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        norm="output_layer_norm",
    ),
)
_FAMILIES = {
    "bert": ("BertForSequenceClassification", _BERT),
    "roberta": ("RobertaForSequenceClassification", _ROBERTA),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", _ROBERTA),
    "camembert": ("CamembertForSequenceClassification", _ROBERTA),
    "electra": ("ElectraForSequenceClassification", _ELECTRA),
    "distilbert": ("DistilBertForSequenceClassification", _DISTILBERT),
}
_OTHER_ARITHMETIC = ("is_decoder", "add_cross_attention", "quantization_config", "pruned_heads")


def supports(config: Mapping[str, Any]) -> bool:
    """Tell whether the graph writer reproduces a checkpoint exactly: its family, and its head if it has one."""
    return _find_family(config) is not None


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """Return what ``config.json`` says about the arithmetic."""
    family = _find_family(config)
    if family is None:
        raise ConfigurationError(
            f"the graph writer does not support {config.get('architectures')}: export it to ONNX"
        )
    try:
        if config.get("model_type") == "distilbert":
            layers, heads, hidden = (int(config[name]) for name in ("n_layers", "n_heads", "dim"))
            return replace(family, layers=layers, heads=heads, hidden=hidden)
        return replace(
            family,
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config["hidden_size"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            token_types=int(config.get("type_vocab_size", 2)) > 1,
            pad_id=int(config.get("pad_token_id") or 0),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(f"config.json lacks a number that the model needs: {exc!r}") from exc


def _find_family(config: Mapping[str, Any]) -> BertShape | None:
    """Return the family whose arithmetic is a checkpoint's in every point; without a head if it has none."""
    classifier, family = _FAMILIES.get(str(config.get("model_type")), ("", _BERT))
    gelu = config.get("activation" if family is _DISTILBERT else "hidden_act", "gelu") == "gelu"
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    same = gelu and absolute and not any(config.get(name) for name in _OTHER_ARITHMETIC)
    architectures = config.get("architectures")
    if same and architectures in ([classifier.replace("ForSequenceClassification", "Model")], ["HF_ColBERT"]):
        return replace(family, head=())
    return family if same and architectures == [classifier] else None
