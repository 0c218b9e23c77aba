"""Classifiers of the BERT family, written for a runtime straight from their checkpoint: no torch, no export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.errors import ConfigurationError
from rerank_core.local.runtimes.session import Session, SessionOptions, chosen_runtime

if TYPE_CHECKING:
    from rerank_core.local.onnx.bert.graph import BertShape
    from rerank_core.local.onnx.bert.int8 import Rounding

__all__ = ["bert_session", "is_known"]


@dataclass(frozen=True)
class _Family:
    """How a family differs from BERT."""

    architecture: str
    prefix: str
    head: tuple[tuple[str, Any], ...]
    counted: bool = False


_DENSE = ("classifier.dense", "tanh"), ("classifier.out_proj", None)
_ROBERTA = _Family("RobertaForSequenceClassification", "roberta.", _DENSE, counted=True)
_FAMILIES = {
    "bert": _Family(
        "BertForSequenceClassification", "bert.", (("bert.pooler.dense", "tanh"), ("classifier", None))
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, architecture="XLMRobertaForSequenceClassification"),
    "camembert": replace(_ROBERTA, architecture="CamembertForSequenceClassification"),
    "electra": _Family(
        "ElectraForSequenceClassification",
        "electra.",
        (("classifier.dense", "gelu"), ("classifier.out_proj", None)),
    ),
    "distilbert": _Family(
        "DistilBertForSequenceClassification", "distilbert.", (("pre_classifier", "relu"), ("classifier", None))
    ),
}
_DISTILBERT = "distilbert"
_OTHER_ARITHMETIC = ("is_decoder", "add_cross_attention", "quantization_config", "pruned_heads")


def is_known(config: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint is of a family, and has a head, that is reproduced here exactly."""
    family = _FAMILIES.get(config.get("model_type", ""))
    if family is None or config.get("architectures") != [family.architecture]:
        return False
    activation = config.get("activation" if config["model_type"] == _DISTILBERT else "hidden_act", "gelu")
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return activation == "gelu" and absolute and not any(config.get(name) for name in _OTHER_ARITHMETIC)


def bert_session(folder: Path, config: Mapping[str, Any], options: SessionOptions, *, scorer: str) -> Session:
    """Load a checkpoint's ``model.safetensors``, or its shards.

    Args:
        folder: the checkpoint.
        config: its ``config.json``, of which :func:`is_known` is true.
        options: the runtime, its precision and threads.
        scorer: whose model it is.

    Returns:
        A session with the inputs ``input_ids``, ``attention_mask`` and, where the model has more than one token
        type, ``token_type_ids``, and with one output, the logits: (pairs, labels).

    Raises:
        ConfigurationError: a file is missing or damaged, or does not fit its configuration; the runtime cannot run
            it in this precision.
        MissingExtraError: the runtime is not installed.
    """
    runtime = chosen_runtime(options.runtime, options.precision, scorer=scorer)
    from rerank_core.local.formats.safetensors import Weights
    from rerank_core.local.onnx.bert.graph import BertWriter
    from rerank_core.local.onnx.bert.int8 import LARGEST_INT8, kept_rounding, largest_int8

    weights = Weights(folder, scorer=scorer)
    shape = _shape(config, scorer)

    def written(rounding: Rounding | None) -> tuple[Any, Any]:
        graph = _graph(runtime, rounding, scorer)
        return graph, BertWriter(graph, shape, weights).logits()

    rounding = None
    if options.precision == "int8":
        largest = LARGEST_INT8 if runtime == "openvino" else largest_int8()
        rounding = kept_rounding(weights.files, largest, written)
    graph, logits = written(rounding)
    session: Session = graph.session(logits, options, scorer)
    weights.forget()
    return session


def _graph(runtime: str, rounding: Rounding | None, scorer: str) -> Any:
    if runtime == "openvino":
        from rerank_core.local.onnx.bert.openvino import OpenVinoGraph

        return OpenVinoGraph(scorer, rounding)
    from rerank_core.local.onnx.bert.onnxruntime import OrtGraph

    return OrtGraph(rounding)


def _shape(config: Mapping[str, Any], scorer: str) -> BertShape:
    from rerank_core.local.onnx.bert.graph import BertShape

    if not is_known(config):
        raise ConfigurationError(f"{scorer}: {config.get('architectures')} is not written here: export it to ONNX")
    family = _FAMILIES[config["model_type"]]
    small = config["model_type"] == _DISTILBERT
    try:
        return BertShape(
            names=_names(family.prefix, small=small),
            layers=int(config["n_layers" if small else "num_hidden_layers"]),
            heads=int(config["n_heads" if small else "num_attention_heads"]),
            hidden=int(config["dim" if small else "hidden_size"]),
            epsilon=1e-12 if small else float(config.get("layer_norm_eps", 1e-12)),
            head=family.head,
            counted=family.counted,
            token_types=not small and int(config.get("type_vocab_size", 2)) > 1,
            pad_id=int(config.get("pad_token_id") or 0),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(f"{scorer}: config.json lacks a number that the model needs: {exc!r}") from exc


def _names(prefix: str, *, small: bool) -> Any:
    from rerank_core.local.onnx.bert.graph import Names

    if small:
        attention = "attention."
        return Names(
            prefix=prefix,
            layer="transformer.layer",
            query=attention + "q_lin",
            key=attention + "k_lin",
            value=attention + "v_lin",
            attention_output=attention + "out_lin",
            attention_norm="sa_layer_norm",
            up="ffn.lin1",
            down="ffn.lin2",
            norm="output_layer_norm",
        )
    return Names(
        prefix=prefix,
        layer="encoder.layer",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        norm="output.LayerNorm",
    )
