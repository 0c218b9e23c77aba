"""Print the fault table: scorer × fault → outcome; exits with 1 where one is not as documented."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["NO_PROXY"] = "127.0.0.1"

from support.faults import FaultTable, expected_outcomes
from support.loopback import FAULTS, running
from support.providers import MODELS

from rerank_core.remote import sending


def main() -> int:
    """Print the outcome where one request meets a fault, and where all do; scorers that agree share a row."""
    sending._backoff = lambda attempt: 0.005
    logging.getLogger("rerank_core").setLevel(logging.ERROR)
    surprises = 0
    with running() as loopback:
        table = FaultTable(loopback)
        print(f"{'fault':22}{'first request only':24}{'every request':26}scorers")
        for fault in FAULTS:
            rows: dict[tuple[str, str], list[str]] = {}
            for provider in MODELS:
                outcome = table.outcomes(provider, fault)
                surprises += outcome != expected_outcomes(provider, fault)
                rows.setdefault(outcome, []).append(provider)
            for (once, always), providers in rows.items():
                who = f"all {len(MODELS)}" if len(providers) == len(MODELS) else ", ".join(providers)
                print(f"{fault:22}{once:24}{always:26}{who}", flush=True)
        table.close()
    print(f"{len(FAULTS)} faults × {len(MODELS)} scorers × 2: {surprises} not as documented")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
