"""`python -m qa_edge_runtime`: answer, bench and info where only the runtime is installed."""

from __future__ import annotations

import sys

from qa_edge_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
