"""`python -m qa_edge_runtime verify`: whether this machine answers as the trained student does."""

from __future__ import annotations

import argparse
import json
from typing import Any

from qa_edge_runtime.cli.options import add_bundle_argument, add_engine_options, add_json_option
from qa_edge_runtime.conformance import format_result, refuse_differences, results_to_json, verify_bundle
from qa_edge_runtime.default_bundle import bundle_or_default


def add_parser(commands: Any) -> None:
    """Add the command to those of the parser."""
    command = commands.add_parser("verify", help="run a bundle's conformance cases on this machine")
    command.set_defaults(run=run)
    add_bundle_argument(command)
    add_engine_options(command)
    add_json_option(command)


def run(options: argparse.Namespace) -> None:
    """Print a line for each graph, or JSON.

    :raises BundleError: if a graph does not answer as the trained student does, with the first difference.
    """
    bundle = bundle_or_default(options.bundle)
    results = verify_bundle(bundle, engine=options.engine, precision=options.precision, threads=options.threads)
    print(json.dumps(results_to_json(results)) if options.json else "\n".join(map(format_result, results)))
    refuse_differences(bundle, results)
