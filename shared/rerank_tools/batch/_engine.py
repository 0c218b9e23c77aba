"""Where a job runs."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal

from rerank_core._support.extras import check_installed
from rerank_tools.batch.options import BatchOptions

__all__ = ["chosen_engine"]

_logger = logging.getLogger("rerank_core")


def chosen_engine(options: BatchOptions) -> Literal["process", "ray"]:
    """Return where a job runs: on Ray where that is asked for, or would help and is installed.

    Raises:
        MissingExtraError: ``engine="ray"`` without Ray installed.
    """
    if options.engine == "ray":
        check_installed("ray", "pyarrow", extra="ray", purpose='engine="ray"')
        return "ray"
    if options.engine == "process" or options.workers == 1:
        return "process"
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        _logger.warning(
            "workers=%d needs Ray, which is not installed: one process runs instead "
            '(pip install "rerank-bridge[ray]")',
            options.workers,
        )
        return "process"
    return "ray"
