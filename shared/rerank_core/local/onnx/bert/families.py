"""The BERT family: which checkpoints the graph writer reproduces exactly, and how their configurations differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rerank_core.errors import ConfigurationError

__all__ = ["BertShape", "HiddenActivation", "LayerNames", "read_shape", "supports"]

HiddenActivation = Literal["gelu", "relu", "tanh"]
_Head = tuple[tuple[str, HiddenActivation | None], ...]


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


@dataclass(frozen=True)
class BertShape:
    """What a configuration says about the arithmetic.

    Attributes:
        layers: how many.
        heads: how many per layer.
        hidden: width of a token.
        names: of the layers' weights.
        prefix: of all weights but the head's.
        epsilon: of the normalisations.
        head: the classifier's layers and their activations, in order; empty for a model without a classifier.
        counted: positions are counted over the tokens that are not padding, starting after ``pad_id``.
        token_types: there is an input of token types to look up.
        pad_id: the padding's token.
    """

    layers: int
    heads: int
    hidden: int
    names: LayerNames = field(default_factory=LayerNames)
    prefix: str = ""
    epsilon: float = 1e-12
    head: _Head = ()
    counted: bool = False
    token_types: bool = False
    pad_id: int = 0


@dataclass(frozen=True)
class _Family:
    """How a family differs from BERT: its class, its weights' names, its head and its configuration's keys."""

    architecture: str
    prefix: str
    head: _Head
    counted: bool = False
    names: LayerNames = field(default_factory=LayerNames)
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    hidden: str = "hidden_size"
    activation: str = "hidden_act"
    epsilon: str = "layer_norm_eps"
    token_types: bool = True


_DENSE: _Head = (("classifier.dense", "tanh"), ("classifier.out_proj", None))
_FAMILIES = {
    "bert": _Family(
        "BertForSequenceClassification", "bert.", (("bert.pooler.dense", "tanh"), ("classifier", None))
    ),
    "roberta": _Family("RobertaForSequenceClassification", "roberta.", _DENSE, counted=True),
    "xlm-roberta": _Family("XLMRobertaForSequenceClassification", "roberta.", _DENSE, counted=True),
    "camembert": _Family("CamembertForSequenceClassification", "roberta.", _DENSE, counted=True),
    "electra": _Family(
        "ElectraForSequenceClassification",
        "electra.",
        (("classifier.dense", "gelu"), ("classifier.out_proj", None)),
    ),
    "distilbert": _Family(
        "DistilBertForSequenceClassification",
        "distilbert.",
        (("pre_classifier", "relu"), ("classifier", None)),
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
        layers="n_layers",
        heads="n_heads",
        hidden="dim",
        activation="activation",
        epsilon="",  # fixed
        token_types=False,
    ),
}
_OTHER_ARITHMETIC = ("is_decoder", "add_cross_attention", "quantization_config", "pruned_heads")


def supports(config: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint is of a family, and has a head, that the graph writer reproduces exactly."""
    family = _FAMILIES.get(config.get("model_type", ""))
    if family is None or config.get("architectures") != [family.architecture]:
        return False
    gelu = config.get(family.activation, "gelu") == "gelu"
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return gelu and absolute and not any(config.get(name) for name in _OTHER_ARITHMETIC)


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """Return what ``config.json`` says about the arithmetic.

    Raises:
        ConfigurationError: the graph writer does not support the model, or a number is missing.
    """
    if not supports(config):
        raise ConfigurationError(
            f"the graph writer does not support {config.get('architectures')}: export it to ONNX"
        )
    family = _FAMILIES[config["model_type"]]
    try:
        return BertShape(
            layers=int(config[family.layers]),
            heads=int(config[family.heads]),
            hidden=int(config[family.hidden]),
            names=family.names,
            prefix=family.prefix,
            epsilon=float(config.get(family.epsilon, 1e-12)),
            head=family.head,
            counted=family.counted,
            token_types=family.token_types and int(config.get("type_vocab_size", 2)) > 1,
            pad_id=int(config.get("pad_token_id") or 0),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(f"config.json lacks a number that the model needs: {exc!r}") from exc
