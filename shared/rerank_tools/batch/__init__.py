"""Many rows offline: a file job that resumes, and Ray Data for more than one process.

:func:`rerank_file` reranks a Parquet or JSONL file, in this process or on Ray; :func:`plan_file` says what that
would cost at most; :func:`rerank_dataset` adds the same columns to a Ray dataset.
"""

from rerank_tools.batch.dataset import rerank_dataset
from rerank_tools.batch.job import plan_file, rerank_file
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.report import BatchPlan, BatchReport, Progress

__all__ = [
    "BatchOptions",
    "BatchPlan",
    "BatchReport",
    "Progress",
    "plan_file",
    "rerank_dataset",
    "rerank_file",
]
