"""Loading a ``CrossEncoder``, and refusing one that would score at random."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Formatter
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.cpu import usable_threads

_CPU_TOKENS = 1024
_ACCELERATOR_TOKENS = 8192
_CUDA_TOKENS = 65_536
_LEAST_CUDA_TOKENS = 2048
_MEMORY_SHARE = 0.4
_LIVE = 2
"""How often the widths of a layer's activations are alive at once, residuals and attention included."""
_ROLES = {"query": "query", "document": "document", "instruction": "system"}


def set_threads(threads: int | None) -> None:
    """Set the cores that torch uses in this process; None keeps what it has, within the container's quota."""
    torch = require("torch", extra="local", purpose="a model on torch")
    usable = usable_threads(threads or torch.get_num_threads())
    if usable != torch.get_num_threads():
        torch.set_num_threads(usable)


def choose_tokens_per_batch(model: Any) -> int:
    """Return how many padded tokens per batch suit the device that a ``CrossEncoder`` is on.

    On a CPU 1,024, which fit its caches. On CUDA 65,536, which keep it busy, or fewer where a layer's activations
    would take more than two fifths of the free memory. 8,192 elsewhere.
    """
    kind = model.device.type
    if kind != "cuda":
        return _CPU_TOKENS if kind == "cpu" else _ACCELERATOR_TOKENS
    import torch

    free, _ = torch.cuda.mem_get_info(model.device)
    return _tokens_within(free, model.config, model.dtype.itemsize)


def _tokens_within(free: int, config: Any, itemsize: int) -> int:
    """Return how many tokens' activations fit in a share of the free bytes, within the limits for CUDA.

    >>> from types import SimpleNamespace
    >>> large = SimpleNamespace(hidden_size=1024, intermediate_size=4096)
    >>> _tokens_within(80 * 2**30, large, 2), _tokens_within(4 * 2**30, large, 4), _tokens_within(0, large, 4)
    (65536, 10485, 2048)
    """
    hidden = getattr(config, "hidden_size", 1024)
    width = 8 * hidden + 3 * getattr(config, "intermediate_size", 4 * hidden)
    fitting = int(free * _MEMORY_SHARE) // (width * itemsize * _LIVE)
    return max(_LEAST_CUDA_TOKENS, min(_CUDA_TOKENS, fitting))


def check_trained(model: Any, checkpoint: Checkpoint) -> None:
    """Check that all weights of a ``CrossEncoder`` come from its files.

    For a checkpoint without a trained classifier, transformers makes one up at random, and only logs it.
    """
    subfolder = next((folder for _, folder in checkpoint.modules()), "")  # sentence-transformers may have made one
    missing = _missing_weights(model.transformers_model, checkpoint.folder / subfolder)
    if missing:
        raise checkpoint.untrained(missing)
    if kind := checkpoint.other_kind():
        raise ConfigurationError(f"the model is no reranker: it looks like {kind}")


def use_template(model: Any, answers: tuple[str, str | None]) -> None:
    """Check that a ``CrossEncoder`` reads by the template that it was given; set the words that make its score."""
    if not model.supports("message"):
        raise ConfigurationError(
            "the model was saved to read plain pairs, without a template: leave out template="
        )
    if not hasattr(model[-1], "true_token_id"):  # a classifier's score is no word's
        return
    ids = [None if word is None else model.tokenizer.convert_tokens_to_ids(word) for word in answers]
    unknown = (None, model.tokenizer.unk_token_id)
    if any(word is not None and token in unknown for word, token in zip(answers, ids, strict=True)):
        raise ConfigurationError(
            f"the model has no single token for each of {answers}, which would make its score"
        )
    model[-1].true_token_id, model[-1].false_token_id = ids


def to_chat_template(template: str, instruction: str) -> str:
    """Return a template as sentence-transformers takes it: a chat template of query, document and system roles."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if literal else "")
        if name is not None:
            default = f" | default({json.dumps(instruction, ensure_ascii=False)}, true)" * (name == "instruction")
            role = f'messages | selectattr("role", "eq", "{_ROLES[name]}") | map(attribute="content") | first'
            parts.append(f"{{{{ {role}{default} }}}}")
    return "".join(parts)


def _missing_weights(network: Any, folder: Path) -> list[str]:
    """Return the names of a transformer's weights that its files do not hold.

    transformers tells them when it loads weights, so it is given hollow ones of the names and shapes in the files,
    which takes neither time nor memory.
    """
    weights = _hollow_weights(folder, network.dtype)
    if not weights or getattr(network.config, "quantization_config", None):
        return []  # the files hold other tensors than the model, such as an adapter's
    with quiet_transformers():
        _, loading = type(network).from_pretrained(
            None,
            config=network.config,
            state_dict=weights,
            dtype=network.dtype,
            output_loading_info=True,
        )
    return sorted(loading["missing_keys"])


def _hollow_weights(folder: Path, dtype: Any) -> Mapping[str, Any]:
    """Return tensors by the names and of the shapes of a checkpoint's, which share one number each."""
    torch = require("torch", extra="local", purpose="reading a checkpoint")
    shapes: dict[str, Any] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with require("safetensors", extra="local", purpose="reading a checkpoint").safe_open(path, "pt") as file:
            shapes.update({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
    if not shapes:
        for path in sorted(folder.glob("pytorch_model*.bin")):
            tensors = torch.load(path, map_location="meta", weights_only=True)
            shapes.update({name: tensor.shape for name, tensor in tensors.items()})
    return {name: torch.zeros((), dtype=dtype).expand(tuple(shape)) for name, shape in shapes.items()}


@contextmanager
def keep_class_unpatched() -> Iterator[None]:
    """Undo and refuse what a model's remote code replaces in the ``CrossEncoder`` class, which is all models'.

    Such a model, as zerank-1 is, does not score by its network alone, which is what runs here.
    """
    kind = require("sentence_transformers", extra="local", purpose="a cross-encoder on torch").CrossEncoder
    before, imported = dict(vars(kind)), set(sys.modules)
    try:
        yield
    finally:
        changed = sorted(name for name, value in vars(kind).items() if value is not before.get(name))
        for name in changed:
            if name in before:
                setattr(kind, name, before[name])
            else:
                delattr(kind, name)
    if changed:
        for name in set(sys.modules) - imported:
            if name.startswith("transformers_modules"):
                del sys.modules[name]  # so that it is noticed the next time, too
        raise ConfigurationError(
            f"the model's own code replaces CrossEncoder.{', '.join(changed)} for all models of the process, "
            "which was undone: use a model without such code, or its vendor's service"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and reports off the terminal."""
    logging: Any = require("transformers", extra="local", purpose="loading a model").utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
