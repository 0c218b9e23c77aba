"""``python -m rerank_core.cli`` is ``rerank-bridge``."""

import sys

from rerank_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
