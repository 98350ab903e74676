"""A run to a bundle: the run's own held-out questions, scores and licences, handed to export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qa_edge.checkpoint import WEIGHTS
from qa_edge.features import HELDOUT, SCORES
from qa_edge.licences import known_licences
from qa_edge.progress import progress
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge.squad import read_squad
from qa_edge.trained import TrainedStudent
from qa_edge_export.export import ExportReport, check_output, export_bundle
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json, sha256_file


def export_run(
    run: str | Path,
    output: str | Path,
    *,
    questions_path: str | Path | None = None,
    licences: Mapping[str, str] | None = None,
    force: bool = False,
) -> ExportReport:
    """Write a bundle of a run, verified on the second half of its held-out questions.

    The first half is left to calibration (DESIGN: layout).

    :param questions_path: SQuAD JSON to verify on instead.
    :param licences: by noun, beside those that are known of the run's data and vectors.
    :raises DataError: if the run cannot be read, its scores are not of its weights, there are no questions to verify
        on, or `output` exists.
    :raises BundleError: if the bundle answers otherwise; nothing is written then.
    """
    run = Path(run)
    check_output(run, output, force=force)
    scores = _scores(run)
    student = TrainedStudent.load(run)
    if questions_path is None and not (run / HELDOUT).exists():
        raise DataError(f"{run} has no {HELDOUT} to verify the bundle on: name questions with --questions")
    squad = read_squad(run / HELDOUT if questions_path is None else questions_path)
    pairs = [(question.text, paragraph.context) for _, paragraph, question in squad.items()]
    if questions_path is None:
        pairs = pairs[len(pairs) // 2 :]
    known = known_licences(read_recipe(run)) if (run / RECIPE).exists() else {}
    with progress("verify", len(pairs)) as advance:
        return export_bundle(
            run,
            output,
            reference=student.logits,
            questions=pairs,
            scores=scores,
            licences={**known, **(licences or {})},
            advance=advance,
            force=force,
        )


def _scores(run: Path) -> dict[str, object] | None:
    """What was measured, and on what; the weights' hash is the run's own affair."""
    path = run / SCORES
    if not path.exists():
        return None
    found = read_json(path, "scores")
    if not isinstance(found, dict):
        raise DataError(f"{path} is not an object; expected the scores that distill wrote")
    if (run / WEIGHTS).is_file() and found.get("weights_sha256") != sha256_file(run / WEIGHTS):
        raise DataError(
            f"{path} was measured on other weights than {run / WEIGHTS}; delete it to export without scores, "
            "or have distill score the run again"
        )
    return {name: value for name, value in found.items() if name != "weights_sha256"}
