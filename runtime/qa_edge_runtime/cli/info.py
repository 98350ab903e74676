"""`python -m qa_edge_runtime info`: say what a bundle holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cli.options import add_bundle_argument, add_json_option
from qa_edge_runtime.default_bundle import bundle_or_default
from qa_edge_runtime.entries import printable


def add_parser(commands: Any) -> None:
    """Add the command to those of the parser."""
    command = commands.add_parser("info", help="say what a bundle holds")
    command.set_defaults(run=run)
    add_bundle_argument(command)
    add_json_option(command)


def run(options: argparse.Namespace) -> None:
    """Print the bundle's manifest, for people or as JSON."""
    bundle = Bundle.open(bundle_or_default(options.bundle))
    bundle.close()
    if options.json:
        print(bundle.manifest.to_json().rstrip())
        return
    manifest, table = bundle.manifest, bundle.manifest.table
    groups = f" with a scale for each {table.group_size}" if table.quantised else ""
    rows = {
        "name": manifest.name,
        "path": bundle.path,
        "format": manifest.format_version,
        "created": f"{manifest.created} by qa-edge {manifest.qa_edge_version}, spaCy {manifest.spacy_version}",
        "size": f"{bundle.size_bytes / 1e6:.2f} MB",
        "table": f"{table.rows:,} rows of {table.hidden} numbers, {table.dtype}{groups}",
        "answers": f"up to {manifest.max_answer_tokens} tokens",
        "probability": str(manifest.probability or "not fitted"),
        "scores": json.dumps(manifest.scores) if manifest.scores else "not measured",
        "licences": json.dumps(manifest.licences, ensure_ascii=False) if manifest.licences else "not stated",
    }
    sizes = {name: f"{record.size_bytes / 1e6:>9.3f} MB" for name, record in manifest.files.items()}
    graphs = {graph.file: f"  {graph.role} graph, {graph.engine}, {graph.precision}" for graph in manifest.graphs}
    files = [f"  {name:<20}{size}{graphs.get(name, '')}" for name, size in sizes.items()]
    facts = [f"{name:<12}{printable(str(value))}" for name, value in rows.items()]
    print("\n".join([*facts, "files", *files]))
