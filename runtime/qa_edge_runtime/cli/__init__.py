"""`python -m qa_edge_runtime`: the commands where only the runtime is installed, each parsed in a file of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from qa_edge_runtime.cli import answer, bench, info, verify
from qa_edge_runtime.entries import printable
from qa_edge_runtime.errors import QaEdgeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :return: the exit code: 0, or 1 after an error that was said in one line; wrong usage exits with 2.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller, as `<&-` does
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # An answer may hold characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except QaEdgeError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n")
        return 1
    except OSError as error:
        # The interpreter must not try to write again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that has left, as head does, needs no message
            sys.stderr.write(f"error: cannot write the result: {error.strerror or error}\n")
        return 1
    except MemoryError:
        sys.stderr.write("error: out of memory; take a smaller text or bundle, or a machine with more\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qa_edge_runtime", description="Answers questions out of a text.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (answer, bench, info, verify):
        module.add_parser(commands)
    return parser
