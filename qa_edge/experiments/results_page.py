"""The result of an experiment as Markdown: what came out first, then how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from qa_edge.experiments.definitions import CHOICE
from qa_edge.noise import NOISES
from qa_edge.significance import p_value_text

_SAID = {
    "dev": "paragraphs",
    "articles": "whole articles",
    "lowercase": "questions in lower case",
    "typos": "mistyped questions",
    "unpunctuated": "questions without punctuation",
    "combined": "questions with all three",
}
_NAMES = (("exact_match", "EM"), ("f1", "F1"))


def results_page(results: Mapping[str, Any], command: str) -> str:
    """A page of an experiment's results.

    :param results: as `collect_results` gave them.
    :param command: that makes them again.
    """
    runs, variants = results["runs"], results["variants"]
    parts = [f"# {results['experiment']}: {results['question']}"]
    if runs["finished"] < runs["planned"]:
        parts.append(f"**Unfinished: {runs['finished']} of {runs['planned']} runs.** The same command goes on.")
    if variants:
        parts += [f"**Result.** {conclusion(results)}", _side_by_side(results)]
        for key in results["tests"]:
            parts += [_title(results, key), _scores_table(results, key)]
        parts += [_choice(results), _made(results)]
    if results["curves"]:
        parts.append(f"**Result.** {curve_conclusion(results)}")
        parts += [_curve_table(results["curves"], metric, name) for metric, name in _NAMES]
        parts.append(f"## How\n\n{results['size']}: {'. '.join(results['loops'])}; git {', '.join(results['git'])}.")
    parts += ["## Again", f"    {command}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def conclusion(results: Mapping[str, Any]) -> str:
    """What the differences are and which of them the questions can tell from chance, in sentences."""
    variants = {variant["name"]: variant for variant in results["variants"]}
    baseline = variants.get(results["baseline"])
    if baseline is None:
        return f"No run of the baseline ({results['baseline']}) is finished, so that nothing can be compared."
    sentences = []
    for key in results["tests"]:
        where = _SAID.get(key, key)
        if key in baseline["scores"]:
            scores, test = baseline["scores"][key], results["tests"][key]
            part = "" if test["total"] == test["of"] else f" ({test['total']:,} of {test['of']:,} questions)"
            sentences.append(
                f"On {where}{part} {baseline['said']} has EM {scores['exact_match']['mean']:.2f}, F1"
                f" {scores['f1']['mean']:.2f}."
            )
        for variant in variants.values():
            found = variant["difference"].get(key)
            if found is None:
                continue
            told = [
                f"{name} {100 * found[metric]['difference']:+.2f}"
                f" ({100 * found[metric]['low']:+.2f} to {100 * found[metric]['high']:+.2f})"
                for metric, name in _NAMES
            ]
            sure = [name for metric, name in _NAMES if found[metric]["p_value"] < found["alpha"]]
            chance = "" if len(sure) == 2 else f", {'F1 not' if sure == ['EM'] else 'EM not' if sure else 'neither'}"
            said = f"{variant['said']}: {', '.join(told)}"
            sentences.append(f"{said}{f'{chance} beyond chance' if chance else ''}; {_seeds_said(found)}.")
    if not any(variant["difference"] for variant in variants.values()):
        sentences.append("No other variant is finished, so that nothing can be compared.")
    return " ".join(sentences)


def _seeds_said(difference: Mapping[str, Any]) -> str:
    """What the seeds say beside an interval that is of the questions alone."""
    if len(difference["seeds"]) < 2:
        return "one seed, and what another would give is not in the interval"
    by_seed = [100 * one["f1"]["difference"] for one in difference["by_seed"].values()]
    if not by_seed:  # too few questions for a comparison of each
        return f"mean of {len(difference['seeds'])} seeds"
    said = f"F1 seed by seed {', '.join(f'{value:+.2f}' for value in by_seed)}"
    apart = max(by_seed) - min(by_seed) > 100 * (difference["f1"]["high"] - difference["f1"]["low"])
    return said + (", further apart than the interval is wide: it is of the questions alone" if apart else "")


def curve_conclusion(results: Mapping[str, Any]) -> str:
    """Each strategy against the baseline at every share of the labels, exact match."""
    curves = results["curves"]["exact_match"]
    base = {point["share"]: point for point in curves.get(results["baseline"], [])}
    sentences = []
    for name, points in curves.items():
        both = [
            (base[point["share"]], point, gains)
            for point in points
            if point["share"] in base and (gains := _with_same_seeds(base[point["share"]], point))
        ]
        if name == results["baseline"] or not both:
            continue
        told = ", ".join(f"{fmean(gains):+.2f} at {100 * one['share']:.4g} %" for _, one, gains in both)
        seeds = min(len(gains) for _, _, gains in both)
        above = [f"{100 * one['share']:.4g} %" for first, one, _ in both if one["lowest"] > first["highest"]]
        sure = (
            "one seed, so that chance cannot be told"
            if seeds < 2
            else f"every seed above all of {results['baseline']}'s at {', '.join(above) or 'no share'}"
        )
        sentences.append(f"{name} against {results['baseline']}, EM: {told}; {sure}.")
    return " ".join(sentences) or "Nothing can be compared yet."


def _with_same_seeds(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """Differences of two curves at a share, seed by seed."""
    first, second = base["by_seed"], other["by_seed"]
    return [second[seed] - first[seed] for seed in second if seed in first]


def _title(results: Mapping[str, Any], key: str) -> str:
    test = results["tests"][key]
    part = "" if test["total"] == test["of"] else f", a part of {test['of']:,}"
    name = _SAID[key].capitalize() if key in _SAID else key
    left = results["students"] - test["scored"]
    unscored = (
        f"\n\n**{left} of {results['students']} runs have not answered these questions yet:** the command below, which"
        " names no variants, has them do it."
    )
    return f"## {name}: {test['total']:,} questions of {test['on']}{part}{unscored if left else ''}"


def _scores_table(results: Mapping[str, Any], key: str) -> str:
    rows = [["", "seeds", "EM", "F1", "EM: difference", "p", "F1: difference", "p", "EM by seed", "F1 by seed"]]
    for variant in results["variants"]:
        scores, difference = variant["scores"].get(key), variant["difference"].get(key)
        if scores is None:
            continue
        cells = [variant["said"], str(len(scores["f1"]["by_seed"]))]
        cells += [f"{scores[metric]['mean']:.2f}" for metric, _ in _NAMES]
        for metric, _ in _NAMES:
            if difference is None:
                cells += ["baseline" if variant["name"] == results["baseline"] else "", ""]
                continue
            test = difference[metric]
            interval = f"{100 * test['low']:+.2f} to {100 * test['high']:+.2f}"
            cells += [f"{100 * test['difference']:+.2f} ({interval})", p_value_text(test["p_value"])]
        cells += [", ".join(f"{value:.2f}" for value in scores[metric]["by_seed"].values()) for metric, _ in _NAMES]
        rows.append(cells)
    note = (
        "Scores are means over the seeds. Differences are to the baseline, with the same seeds: 95 % interval and"
        " p-value of the paired bootstrap over the questions, two-sided; what another seed would give shows in the last"
        " columns alone."
    )
    return f"{markdown_table(rows)}\n\n{note}"


def _side_by_side(results: Mapping[str, Any]) -> str:
    """F1 on all test sets; on questions in noise with its distance from the same questions as they are."""
    tests = results["tests"]
    if len(tests) < 2:
        return ""
    rows = [["", *(_SAID.get(key, key) for key in tests)]]
    for variant in results["variants"]:
        scores = {key: one["f1"]["mean"] for key, one in variant["scores"].items()}
        cells = []
        for key in tests:
            apart = f" ({scores[key] - scores['dev']:+.2f})" if key in NOISES and {"dev", key} <= scores.keys() else ""
            cells.append(f"{scores[key]:.2f}{apart}" if key in scores else "")
        rows.append([variant["said"], *cells])
    noisy = " In brackets: less the same questions as they are." if any(key in NOISES for key in tests) else ""
    return f"## F1, side by side\n\n{markdown_table(rows)}\n\nMeans over the seeds.{noisy}"


def _choice(results: Mapping[str, Any]) -> str:
    """What a choice between the variants may look at."""
    scored = [variant for variant in results["variants"] if variant["heldout"]]
    if not scored:
        return ""
    rows = [["", "held-out EM", "held-out F1", "updates", "hours of training", "weights"]]
    for variant in scored:
        held = variant["heldout"]
        steps = ", ".join(f"{step:,}" for step in variant["steps"])
        hours = variant["training_hours"] / len(variant["seeds"])
        cells = [variant["said"], f"{held['exact_match']:.2f}", f"{held['f1']:.2f}", steps]
        rows.append([*cells, f"{hours:.2f}", f"{variant['parameters']:,}"])
    best = max(scored, key=lambda variant: variant["heldout"]["f1"])
    if len({variant["chosen"] for variant in scored}) > 1:
        said = "Held-out articles are those of each choice, other ones from variant to variant: no ranking."
    else:
        said = (
            "On the held-out articles of the training set, which choices are made on,"
            f" {best['said']} has the highest F1."
        )
    said += " Each run's own checkpoint was chosen on them too. Hours are those of the updates, a run."
    return f"## For a choice\n\n{said}\n\n{markdown_table(rows)}"


def _made(results: Mapping[str, Any]) -> str:
    data, settings = results["data"], results["settings"]
    of = "all articles" if data["share"] == 1 else f"{100 * data['share']:g} % of the articles"
    of += f" of {data['name']}"
    if data["chosen"] == CHOICE:
        of = f"questions that least confidence chose of {of}"
    train = {name: value for name, value in settings["train"].items() if value is not None}
    steps = (
        "All runs made the same number of updates."
        if results["equal_steps"]
        else "**The runs made different numbers of updates.**"
    )
    teachers = sorted({variant["teacher"] for variant in results["variants"] if variant["teacher"]})
    parts = {variant["said"]: _trained_on(variant) for variant in results["variants"]}
    same = len(set(parts.values())) == 1
    trained = _trained_on(data) if same else "; ".join(f"{said}: {part}" for said, part in parts.items())
    lines = [
        f"{results['size']}: {of} ({trained});"
        f" vectors {data['vectors'] or 'none'}; teacher"
        f" {', '.join(teachers) or 'none'};"
        f" git {', '.join(results['git'])}. {steps}",
        f"Settings of {settings['variant']}: "
        + ", ".join(f"{name.replace('_', '-')} {value}" for name, value in {**settings["student"], **train}.items())
        + ".",
    ]
    return "## How\n\n" + "\n\n".join(lines)


def _trained_on(data: Mapping[str, Any]) -> str:
    unanswered = f", {data['unanswered']:,} of them without an answer" if data.get("unanswered") else ""
    return f"{data['articles']:,} articles, {data['questions']:,} questions{unanswered}"


def _curve_table(curves: Mapping[str, Any], metric: str, name: str) -> str:
    strategies = curves[metric]
    shares = sorted({point["share"] for points in strategies.values() for point in points})
    rows = [["labelled", *strategies]]
    for share in shares:
        cells = [f"{100 * share:.4g} %"]
        for points in strategies.values():
            point = next((one for one in points if one["share"] == share), None)
            cells.append("" if point is None else _point(point))
        rows.append(cells)
    note = "Mean over the seeds, and from the lowest to the highest."
    return f"## {name}\n\n{markdown_table(rows)}\n\n{note}"


def _point(point: Mapping[str, Any]) -> str:
    mean = f"{point['mean']:.2f}"
    return mean if point["seeds"] == 1 else f"{mean} ({point['lowest']:.2f} to {point['highest']:.2f})"


def markdown_table(rows: list[list[str]]) -> str:
    """A table whose first row is its head; all columns but the first are numbers."""
    marks = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], marks, *rows[1:]))
