"""``rerank-bridge models``: what is known about each model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rerank_core.pricing import PRICES_AS_OF
from rerank_tools.cli import _options as options
from rerank_tools.cli._output import Output, write_json, write_table
from rerank_tools.known_models import KnownModel, known_models

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["models"]


def models(*, output: options.OutputOption = Output.TABLE) -> None:
    """Show each known model: context, price, scale, instructions, and whether its key is in the environment.

    [bold]Example[/]

    rerank-bridge models -o jsonl | jq -r 'select(.has_key) | .name'
    """
    known = known_models()
    if output is Output.TABLE:
        write_table(_table(known))
    else:
        write_json([_fields(model) for model in known], lines=output is Output.JSONL)


def _fields(model: KnownModel) -> dict[str, Any]:
    return {**asdict(model), "has_key": model.has_key, "prices_as_of": PRICES_AS_OF.isoformat()}


def _table(known: list[KnownModel]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        caption=Text(
            f"US dollars by the price lists of {PRICES_AS_OF}: /1k of 1,000 searches, /1M of a million tokens. "
            "– stands for not known, or depends on the model."
        ),
        caption_justify="left",
    )
    table.add_column("model", overflow="fold")
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True)
    table.add_column("scale", no_wrap=True)
    table.add_column("instr.", no_wrap=True)
    table.add_column("key", no_wrap=True)
    for model in known:
        table.add_row(
            Text(model.name),
            f"{model.context:,}" if model.context else "–",
            _price(model),
            {"probability": "prob.", None: "–"}.get(model.scale, model.scale),
            "–" if model.instructions is None else ("yes" if model.instructions else "no"),
            _key(model),
        )
    return table


def _price(model: KnownModel) -> str:
    if model.local:
        return "free"
    if model.price is None:
        return "–"
    if model.price.per_1m_tokens is not None:
        return f"{model.price.per_1m_tokens:.2f}/1M"
    return f"{model.price.per_1k_search_units:.2f}/1k"


def _key(model: KnownModel) -> str:
    if model.has_key:
        return "set"
    if not model.key_variables:
        return "none needed"
    return "missing" if model.key_required else "optional"
