"""The result of an experiment: what each variant scores, and how sure it is that it differs from the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from qa_edge.active.curve import read_curves, read_loop
from qa_edge.breakdown import ENOUGH_FOR_AN_INTERVAL
from qa_edge.experiments.definitions import Variant
from qa_edge.experiments.deviations import loop_notes
from qa_edge.experiments.records import question_scores, read_evaluations, read_record
from qa_edge.experiments.runner import Plan, Run
from qa_edge.question_scores import QuestionScores
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge.significance import ALPHA, RESAMPLES, bootstrap
from qa_edge.squad import read_squad, references
from qa_edge.system_comparison import compare_scores
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, read_json, sha256_file

FORMAT_VERSION = 1
RESULTS = "results.json"
METRICS = ("exact_match", "f1")
_KEYS = {"format_version", "experiment", "question", "size", "tests", "runs", "baseline", "variants", "curves"}


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished run with its record and its scores by test set."""

    run: Run
    folder: Path
    record: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]


def collect_results(plan: Plan, tests: Mapping[str, Path], *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """What the finished runs of an experiment say; runs that are missing are counted.

    The bootstrap looks at the mean over the seeds of each question's score, so that it covers the choice of questions;
    what the seed makes is seen in the scores of the single runs.

    :param tests: SQuAD files that were scored on, by key; the differences are tested on each.
    :returns: what `results.json` holds.
    """
    experiment = plan.experiment
    runs = [(run, plan.folder / run.name) for run in plan.all_runs]
    hashes = {key: sha256_file(path) for key, path in tests.items()}
    done = [
        Done(run=run, folder=folder, record=record, evaluations=_evaluations(folder, hashes))
        for run, folder in runs
        if (record := read_record(folder)) is not None
    ]
    students = [one for one in done if one.run.variant.strategy is None]
    truths = {key: references(read_squad(path)) for key, path in tests.items()}
    steps = sorted({one.record["steps"] for one in students})
    return {
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "question": experiment.question,
        "budget": asdict(plan.budget),
        "size": plan.said_size,
        "data": _data(students, experiment.baseline),
        "tests": {key: _test(key, students) for key in tests if any(key in one.evaluations for one in students)},
        "students": len(students),
        "loops": _loops([one for one in done if one.run.variant.strategy is not None]),
        "git": sorted({one.record["git"] or "unknown" for one in done}),
        "settings": _settings(students, experiment.baseline),
        "runs": {"finished": len(done), "planned": len(runs)},
        "baseline": experiment.baseline,
        "equal_steps": len(steps) == 1,
        "variants": [
            found
            for variant in experiment.variants
            if (found := _variant(variant, students, experiment.baseline, truths, resamples)) is not None
        ],
        "curves": _curves([one for one in done if one.run.variant.strategy is not None]),
    }


def _evaluations(folder: Path, hashes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Scores of a run on the test sets as they are now: those on other files of an earlier command are left out."""
    return {key: one for key, one in read_evaluations(folder).items() if one.get("sha256") == hashes.get(key)}


def _test(key: str, done: Sequence[Done]) -> dict[str, Any]:
    scored = [one.evaluations[key] for one in done if key in one.evaluations]
    return {**{name: scored[0][name] for name in ("on", "total", "of")}, "scored": len(scored)}


def _loops(done: Sequence[Done]) -> list[str]:
    """What the loops are, a sentence for each sort of them."""
    return list(dict.fromkeys("; ".join(loop_notes(read_loop(one.folder))) for one in done))


def _data(done: Sequence[Done], baseline: str) -> dict[str, Any] | None:
    """What the baseline was trained on, or whichever variant is there."""
    first = min(done, key=lambda found: found.run.variant.name != baseline, default=None)
    return None if first is None else dict(first.record["data"])


def _settings(done: Sequence[Done], baseline: str) -> dict[str, Any] | None:
    """Training settings and sizes of the baseline's first run; the variants say what they change."""
    for one in sorted(done, key=lambda found: found.run.variant.name != baseline):
        recipe = read_recipe(one.folder)
        return {"variant": one.run.variant.name, "train": recipe["train"], "student": recipe["student"]}
    return None


def _variant(
    variant: Variant, done: Sequence[Done], baseline: str, truths: Mapping[str, Any], resamples: int
) -> dict[str, Any] | None:
    own = [one for one in done if one.run.variant.name == variant.name]
    if not own:
        return None
    base = {one.run.seed: one for one in done if one.run.variant.name == baseline}
    heldout = [one.record["heldout"] for one in own if one.record.get("heldout")]
    found: dict[str, Any] = {
        "name": variant.name,
        "said": variant.said,
        "seeds": [one.run.seed for one in own],
        "steps": sorted({one.record["steps"] for one in own}),
        "training_hours": round(sum(one.record["training_hours"] for one in own), 3),
        "parameters": own[0].record["parameters"],
        # Older records do not say how many have no answer.
        **{name: own[0].record["data"].get(name, 0) for name in ("articles", "questions", "unanswered")},
        "teacher": own[0].record["teacher"],
        "chosen": own[0].record["data"].get("chosen"),
        "heldout": {name: round(fmean(one[name] for one in heldout), 3) for name in METRICS} if heldout else None,
        "scores": {},
        "difference": {},
    }
    for key, truth in truths.items():
        scored = [one for one in own if key in one.evaluations]
        if not scored:
            continue
        found["scores"][key] = {
            name: _mean([one.evaluations[key][name] for one in scored], [one.run.seed for one in scored])
            for name in METRICS
        }
        pairs = [(base[one.run.seed], one) for one in scored if one.run.seed in base and variant.name != baseline]
        compared = [_pair(*pair, key, truth) for pair in pairs if key in pair[0].evaluations]
        if compared:
            found["difference"][key] = _difference([one for one in compared if one is not None], resamples)
    return found


def _mean(values: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    by_seed = {str(seed): round(value, 4) for seed, value in zip(seeds, values, strict=True)}
    return {
        "mean": round(fmean(values), 4),
        "low": min(by_seed.values()),
        "high": max(by_seed.values()),
        "by_seed": by_seed,
    }


def _pair(base: Done, other: Done, key: str, truth: Any) -> tuple[int, QuestionScores, QuestionScores]:
    scores = [question_scores(one.folder, key, truth) for one in (base, other)]
    if scores[0] is None or scores[1] is None:
        raise DataError(f"{base.folder} or {other.folder} has no answers to {key}: run the experiment again")
    return other.run.seed, scores[0], scores[1]


def _difference(pairs: Sequence[tuple[int, QuestionScores, QuestionScores]], resamples: int) -> dict[str, Any]:
    """Paired bootstrap of the mean over seeds of each question's difference, and all tests seed by seed."""
    values = {
        "exact_match": [other.exact.astype(np.float64) - base.exact for _, base, other in pairs],
        "f1": [other.f1 - base.f1 for _, base, other in pairs],
    }
    found: dict[str, Any] = {"seeds": [seed for seed, _, _ in pairs], "alpha": ALPHA}
    for place, (name, differences) in enumerate(values.items()):
        rng = np.random.default_rng([0, place])
        found[name] = asdict(bootstrap(np.mean(differences, axis=0), resamples=resamples, rng=rng))
    # The paper's test looks at a tenth of the questions.
    found["by_seed"] = {
        str(seed): asdict(compare_scores(base, other, resamples=resamples))
        for seed, base, other in pairs
        if len(base.ids) >= ENOUGH_FOR_AN_INTERVAL
    }
    return found


def _curves(done: Sequence[Done]) -> dict[str, Any] | None:
    """Learning curves by strategy, over seeds."""
    if not done:
        return None
    folders = [one.folder for one in done]
    return {
        metric: {name: [asdict(point) for point in points] for name, points in read_curves(folders, metric).items()}
        for metric in METRICS
    }


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results of an experiment's folder; None if a file of this name is something else's.

    :raises DataError: if they are an experiment's, but damaged or of another format.
    """
    own = (folder / RECIPE).exists() and read_recipe(folder).get("kind") == "experiment"
    try:
        found = read_json(folder / RESULTS, "results of an experiment")
    except DataError:
        if own:
            raise
        return None
    ours = isinstance(found, dict) and found.keys() >= _KEYS
    if not ours and not own:
        return None
    runs = found["runs"] if ours else None
    counted = isinstance(runs, dict) and all(isinstance(runs.get(name), int) for name in ("finished", "planned"))
    if not counted or found["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"{folder / RESULTS} is damaged or not of format {FORMAT_VERSION}: run the experiment's command again"
        )
    return dict(found)


def write_results(folder: Path, results: Mapping[str, Any], page: str) -> None:
    """Write `results.json`, and `results.md` for a person."""
    atomic_write(folder / RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    atomic_write(folder / "results.md", page)
