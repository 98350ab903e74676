"""`qa-edge info`: what a bundle holds."""

from __future__ import annotations

import json

import click

from qa_edge.cli.options import bundle_argument
from qa_edge.cli.output import json_option, print_facts, print_json, print_table


@click.command("info", short_help="Say what a bundle holds: sizes, words, engine, scores, licences.")
@bundle_argument
@json_option
def command(bundle: str | None, as_json: bool) -> None:
    """Check the files of a bundle, that of qa-edge-models if none is named, and say what it holds."""
    from qa_edge_runtime.bundle import Bundle
    from qa_edge_runtime.default_bundle import bundle_or_default
    from qa_edge_runtime.entries import printable

    opened = Bundle.open(bundle_or_default(bundle))
    opened.close()
    manifest = opened.manifest
    if as_json:
        print_json({**json.loads(manifest.to_json()), "size_bytes": opened.size_bytes})
        return
    table, student = manifest.table, manifest.student
    scores, verification = manifest.scores, manifest.verification
    facts: dict[str, object] = {
        "name": manifest.name,
        "format": manifest.format_version,
        "created": f"{manifest.created} by qa-edge {manifest.qa_edge_version}, spaCy {manifest.spacy_version}",
        "engines": "; ".join(f"{engine} ({', '.join(manifest.precisions(engine))})" for engine in manifest.engines),
        "size": f"{opened.size_bytes / 1e6:.2f} MB",
        "words": f"{table.rows - 1:,} of {table.hidden} numbers ({table.dtype})",
        "student": f"{student.get('preset')} preset, hidden {manifest.hidden}, heads: {student.get('heads')}",
        "answers": f"up to {manifest.max_answer_tokens} tokens",
        "scores": "not measured",
        "verified": "no",
        "licences": "; ".join(f"{name}: {text}" for name, text in manifest.licences.items()) or "not stated",
    }
    if scores and {"exact_match", "f1"} <= scores.keys():
        place = f" on {scores['total']} questions" if "total" in scores else ""
        place += f" of {scores['on']}" if place and "on" in scores else ""
        of = f" ({scores['of']})" if "of" in scores else ""
        facts["scores"] = f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}{place}{of}"
    if {"equal_spans", "questions", "largest_difference"} <= verification.keys():
        graph = " ".join(str(verification[name]) for name in ("engine", "precision") if name in verification)
        facts["verified"] = (
            f"{verification['equal_spans']} of {verification['questions']} answers equal to the trained student's, "
            f"largest difference of logits {verification['largest_difference']:.1e}{f' ({graph})' if graph else ''}"
        )
        ours, theirs = verification.get("scores"), verification.get("reference_scores")
        if ours and theirs and {"f1", "total"} <= ours.keys() and "f1" in theirs:
            scored = f"F1 {ours['f1']:.2f} against {theirs['f1']:.2f} on {ours['total']} held-out questions"
            facts["verified"] = f"{facts['verified']}; {scored}"
    if manifest.probability is not None:
        facts["probability"] = manifest.probability
    print_facts({name: printable(str(value)) for name, value in facts.items()}, title=printable(str(opened.path)))
    verified = {graph.file: graph.verification.get("scores", {}) for graph in manifest.graphs}
    f1 = {file: f"{figures['f1']:.2f}" for file, figures in verified.items() if "f1" in figures}
    files = [
        [name, f"{record.size_bytes / 1e6:.3f} MB", f1.get(name, "")] for name, record in sorted(manifest.files.items())
    ]
    print_table(("file", "size", "F1 when verified"), files)
