"""``python -m rerank_tools.cli`` is ``rerank-bridge``."""

import sys

from rerank_tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
