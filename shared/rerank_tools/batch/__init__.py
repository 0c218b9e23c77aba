"""Reranking many rows offline: files, with runs that can be interrupted, and Ray datasets.

:func:`rerank_file` reranks a Parquet or JSON-lines file, in this process or on Ray; :func:`plan_file` tells what
that would cost at most; :func:`rerank_dataset` adds the same columns to a Ray dataset; :func:`precompute_dataset`
encodes the texts of one into a vector file.
"""

from rerank_tools.batch.job import BatchPlan, BatchReport, plan_file, rerank_file
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.ray.dataset import precompute_dataset, rerank_dataset
from rerank_tools.batch.runner import Progress

__all__ = [
    "BatchOptions",
    "BatchPlan",
    "BatchReport",
    "Progress",
    "plan_file",
    "precompute_dataset",
    "rerank_dataset",
    "rerank_file",
]
