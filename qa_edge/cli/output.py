"""How commands print: results on standard output, JSON or a table; what happens meanwhile on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from qa_edge_runtime.errors import InputError
from qa_edge_runtime.files import check_output_file, require_other_file

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
# Where standard output is no terminal nothing is known of its width, and a folded cell is hard to read or grep.
_WIDTH_OF_A_FILE = 200


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """Print a value as JSON; in ASCII where the stream's encoding cannot hold all of Unicode."""
    whole = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")
    click.echo(json.dumps(value, indent=indent, ensure_ascii=not whole))


def print_facts(facts: Mapping[str, object], title: str | None = None) -> None:
    """Print names with their values, as a table without lines."""
    print_table((), [[name, str(value)] for name, value in facts.items()], title=title)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; cells are text, in which nothing is markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD if columns else None,
        show_header=bool(columns),
    )
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    # Not rich's own title, which is folded to the table's width.
    click.echo("\n".join([*([] if title is None else [title]), *lines]))


def log(message: str) -> None:
    """Say on standard error what happens."""
    click.echo(message, err=True)


def is_main_process() -> bool:
    """Whether this is the process that prints, of those that `accelerate launch` started."""
    from qa_edge.accelerator import open_processes

    return bool(open_processes().is_main_process)


def check_new_file(path: str, *read: str, force: bool) -> None:
    """Refuse, before the work, a file that cannot be written, that is read, or that exists and may not be replaced."""
    require_other_file(path, *read)
    check_output_file(path)
    if not force and Path(path).exists():
        raise click.UsageError(f"{path} exists already; name another path, or pass --force to replace it")


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Values that a library refuses were given on the command line: exit code 2."""
    try:
        yield
    except InputError as error:
        raise click.UsageError(str(error)) from error
