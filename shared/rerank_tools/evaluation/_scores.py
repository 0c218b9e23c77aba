"""What the suggestions read off an evaluation: one reranker's scores."""

from __future__ import annotations

from rerank_tools.evaluation.results import EvaluationResult, SystemResult

from rerank_core.errors import ConfigurationError

__all__ = ["FEW_QUERIES", "chosen", "scored_queries"]

FEW_QUERIES = 30
"""Below this many queries an average over queries says little."""


def chosen(results: object, system: str | None) -> tuple[EvaluationResult, SystemResult]:
    """Return the evaluation, and the reranker of a name, or the only one.

    Raises:
        ConfigurationError: there is none of that name, or no name to choose among several.
    """
    if not isinstance(results, EvaluationResult):
        raise ConfigurationError(f"results is a {type(results).__name__}: give what evaluate returned")
    if system is not None:
        if system == results.first_stage:
            raise ConfigurationError(f"system is {system!r}, the first stage: give a reranker's name")
        return results, results[system]
    if len(results.rerankers) != 1:
        names = ", ".join(repr(one.name) for one in results.rerankers) or "none"
        raise ConfigurationError(f"the results are of {len(results.rerankers)} rerankers ({names}): give system=")
    return results, results.rerankers[0]


def scored_queries(system: SystemResult) -> dict[str, list[tuple[str, float]]]:
    """Return ids and scores of each query's candidates in the first stage's order, failed queries apart.

    Raises:
        ConfigurationError: no query was scored.
    """
    scored = {}
    for query, answer in system.queries.items():
        pairs = [
            (document, score)
            for document, score in zip(answer.candidates, answer.scores, strict=True)
            if score is not None
        ]
        if answer.error is None:
            scored[query] = pairs
    if not any(scored.values()):
        raise ConfigurationError(f"{system.name} scored no candidate of any query: evaluate it first")
    return scored
