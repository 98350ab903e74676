"""The command line: each command is parsed here in a file of its own, does one library call and prints."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from qa_edge.cli import (
    active,
    answer,
    bench,
    check,
    compare,
    distill,
    evaluate,
    experiment,
    export,
    info,
    label,
    labels,
    pack,
    prepare,
    report,
    select,
    sensitivity,
    teach,
    vectors,
    verify,
)
from qa_edge_runtime.errors import QaEdgeError
from qa_edge_runtime.files import NO_ROOM

RESUMABLE = ("prepare", "label", "teach", "distill", "select", "active", "experiment")


class Program(click.Group):
    """The group of all commands: errors become one line and an exit code, never a stack trace."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run one command and leave the process: 0, 1 after an error, 2 after wrong usage, 130 after Ctrl-C."""
        arguments = list(sys.argv[1:] if args is None else args)
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # closed by the caller, as `<&-` does
                setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the whole process
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # An answer may hold characters that the terminal's encoding lacks.
                stream.reconfigure(errors="backslashreplace")
        _quiet_libraries()
        try:
            # Without click's own handling, which ends a closed pipe and Ctrl-C otherwise.
            code = super().main(arguments, prog_name="qa-edge", standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            again = "; run the same command to go on" if arguments and arguments[0] in RESUMABLE else ""
            _say(f"interrupted{again}")
            code = 128 + signal.SIGINT
        except BrokenPipeError:
            # The reader has left, as head does; the interpreter must not try to flush again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except QaEdgeError as error:
            _say(f"qa-edge: error: {error}")
            code = 1
        except ModuleNotFoundError as error:
            _say(f'qa-edge: error: {error.name} is not installed; this command needs: pip install "qa-edge[train]"')
            code = 1
        except OSError as error:
            _say(f"qa-edge: error: {_os_error(error)}")
            code = 1
        except MemoryError:
            _say("qa-edge: error: out of memory; choose a smaller batch, or a machine with more")
            code = 1
        except Exception as error:
            if "can't allocate memory" in str(error):  # torch's on the CPU
                _say("qa-edge: error: out of memory; choose smaller sizes or a smaller batch, or a machine with more")
                sys.exit(1)
            # torch's is no MemoryError.
            if type(error).__name__ == "OutOfMemoryError":
                _say("qa-edge: error: the device is out of memory; choose a smaller batch")
                sys.exit(1)
            # safetensors reports a full disk by an exception of its own.
            if not any(f"os error {number}" in str(error) for number in NO_ROOM):
                raise
            _say(f"qa-edge: error: the disk is full ({error}); free some space or name another path")
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _os_error(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno in NO_ROOM:
        return f"cannot write{place}: {error.strerror}; free some space or name another path"
    return f"cannot use{place}: {error.strerror or error}"


def _say(message: str) -> None:
    """One line: line ends and control characters that a message quotes from a file must not act on the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message)
    click.echo(shown, err=True)


def _quiet_libraries() -> None:
    """Keep the bars and advice of other libraries out of logs; must run before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="qa-edge", message="qa-edge %(version)s")
def main() -> None:
    """Distil a BERT question answerer into a small QANet, export it, and let a device answer with it."""


for _module in (
    check,
    vectors,
    prepare,
    label,
    teach,
    distill,
    select,
    labels,
    active,
    evaluate,
    compare,
    experiment,
    report,
    export,
    sensitivity,
    info,
    pack,
    verify,
    answer,
    bench,
):
    main.add_command(_module.command)
