"""``rerank-bridge models``: the known models."""

from __future__ import annotations

from dataclasses import asdict

from rerank_core._support.tables import Column, Table
from rerank_core.pricing import PRICES_AS_OF
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, write_json, write_table
from rerank_tools.known_models import KnownModel, known_models

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
        facts = {"prices_as_of": PRICES_AS_OF.isoformat()}
        rows = [{**asdict(model), "has_key": model.has_key, **facts} for model in known]
        write_json(rows, lines=output is Output.JSONL)


def _table(known: list[KnownModel]) -> Table:
    columns = [
        Column("model"),
        Column("context", align="right"),
        Column("price", align="right"),
        *(Column(name) for name in ("scale", "instr.", "key")),
    ]
    rows = [
        (
            model.name,
            f"{model.context:,}" if model.context else "–",
            _price(model),
            {"probability": "prob.", None: "–"}.get(model.scale, model.scale),
            {None: "–", True: "yes", False: "no"}[model.instructions],
            _key(model),
        )
        for model in known
    ]
    note = f"US dollars by the price lists of {PRICES_AS_OF}: per 1,000 searches (/1k) or a million tokens (/1M)."
    return Table("", columns, rows, note=f"{note} – means not known, or depends on the model.")


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
