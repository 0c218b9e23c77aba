"""What a forked child does first."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["in_forked_children"]


def in_forked_children(act: Callable[[], object]) -> None:
    """Call ``act`` in every child that this process forks from now on; nothing where processes are not forked."""
    register = getattr(os, "register_at_fork", None)  # Windows has none
    if register is not None:
        register(after_in_child=act)
