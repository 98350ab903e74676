"""The program `qa-edge`, also as `python -m qa_edge`: Ctrl-C is one line and exit code 130 from the start."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave the process."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _run() -> None:
    import signal

    from qa_edge.interrupt import interrupt_outside_imports

    # Not where the caller has it ignored, as nohup and a shell's background do.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt_outside_imports)
    from qa_edge.cli import main as command_line

    try:
        command_line()
    finally:
        # While the interpreter clears up there is nothing left to save, and an exception would be shown as a trace.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
