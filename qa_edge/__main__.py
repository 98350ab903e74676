"""`python -m qa_edge` is `qa-edge`."""

from qa_edge.cli import main

if __name__ == "__main__":
    main()
