"""A run to a bundle: the run's own held-out questions, words, scores and licences, handed to export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qa_edge.checkpoint import WEIGHTS
from qa_edge.features import HELDOUT, SCORES, Features
from qa_edge.licences import known_licences
from qa_edge.progress import progress
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import Input, read_recipe
from qa_edge.squad import Squad, read_squad
from qa_edge.trained import TrainedStudent
from qa_edge.words import count_words_of_features, count_words_of_text, read_words
from qa_edge_export.export import check_output, export_bundle
from qa_edge_export.report import ExportReport
from qa_edge_export.sensitivity import LayerEffect, layer_effects
from qa_edge_export.settings import ExportSettings
from qa_edge_export.token_table import default_counts
from qa_edge_export.verify import Logits, Question
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json, sha256_file
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

# More questions hardly change a scale, and each takes some 80 ms.
CALIBRATION_QUESTIONS = 200
SENSITIVITY_QUESTIONS = 50


def export_run(
    run: str | Path,
    output: str | Path,
    *,
    settings: ExportSettings | None = None,
    questions_path: str | Path | None = None,
    calibration_path: str | Path | None = None,
    text_path: str | Path | None = None,
    words_path: str | Path | None = None,
    licences: Mapping[str, str] | None = None,
    force: bool = False,
) -> ExportReport:
    """Write a bundle of a run, calibrated on half of its held-out questions and verified on the others.

    :param questions_path: SQuAD JSON to verify on instead of the run's own.
    :param calibration_path: SQuAD JSON to calibrate on instead of the run's own; no development contexts. Those that
        are verified on too are left out.
    :param text_path: SQuAD JSON or plain text whose most frequent words get a row in the bundle's table; the training
        contexts, where the run still has its features, else the words that the run knows a vector of.
    :param words_path: a domain's own words, one a line, which get a row at any rate.
    :param licences: by noun, beside those that are known of the run's data and vectors.
    :raises DataError: if the run cannot be read, its scores are not of its weights, there are no questions to verify
        on, or `output` exists.
    :raises BundleError: if the bundle answers otherwise; nothing is written then.
    :raises InputError: if all questions to calibrate on are verified on.
    """
    run = Path(run)
    check_output(run, output, force=force)
    scores = _scores(run)
    student = TrainedStudent.load(run)
    calibration, verification = heldout_halves(run)
    if questions_path is not None:
        verification = _questions(questions_path)
    if calibration_path is not None:
        calibration = _questions(calibration_path)
        _refuse_development(run, calibration, calibration_path)
    if not verification:
        raise DataError(f"{run} has no {HELDOUT} to verify the bundle on: name questions with --questions")
    # Data sets ask some questions twice. Where all are verified on, somebody has given the same file for both.
    verified = {question[:2] for question in verification}
    calibration = [question for question in calibration if question[:2] not in verified] or calibration

    words = word_counts(run, text_path, student.tokenizer)

    def reference(questions: Sequence[Question]) -> Sequence[Logits]:
        return student.logits([question[:2] for question in questions])

    return export_bundle(
        run,
        output,
        settings=settings,
        counts=words.counts,
        text=words.text,
        required_words=[] if words_path is None else read_words(words_path, student.tokenizer),
        reference=reference,
        questions=verification,
        calibration=_spread(calibration, CALIBRATION_QUESTIONS),
        fitting=calibration,
        scores=scores,
        licences={**_known_licences(run), **(licences or {})},
        progress=progress,
        force=force,
    )


class WordCounts(NamedTuple):
    """How often each word stands in a text, and what text that is."""

    counts: Mapping[str, int]
    text: str


def word_counts(run: str | Path, text_path: str | Path | None, tokenizer: Tokenizer) -> WordCounts:
    """Words of a text: the one that is named, else the contexts that the run was trained on.

    Where neither is there, the words that the run knows a vector of, the most frequent in its training first.

    :raises DataError: if the text cannot be read, or the features are not those that the run was trained on.
    """
    if text_path is not None:
        return WordCounts(count_words_of_text(text_path, tokenizer), Path(text_path).name)
    features = _features(Path(run))
    if features is not None:
        return WordCounts(count_words_of_features(features), "the training contexts")
    return WordCounts(default_counts(Vocabulary.load(run)), "the run's vocabulary (name a --text for better ones)")


def measure_sensitivity(run: str | Path, *, calibration: str = "max") -> list[LayerEffect]:
    """What each layer's 8 bits do to a run's logits, the worst first, on held-out questions.

    :raises DataError: if the run cannot be read or has no held-out questions.
    """
    questions, _ = heldout_halves(Path(run))
    if not questions:
        raise DataError(
            f"{run} has no {HELDOUT} to measure on; expected the folder of a run that held articles out, or a kept one "
            "that tools/keep_checkpoint.py restored"
        )
    return layer_effects(run, _spread(questions, SENSITIVITY_QUESTIONS), calibration=calibration, progress=progress)


def heldout_halves(run: Path) -> tuple[list[Question], list[Question]]:
    """A run's held-out questions to calibrate on and those to verify on, of different articles where it has several.

    Both are empty where it has none.
    """
    if not (run / HELDOUT).exists():
        return [], []
    squad = read_squad(run / HELDOUT)
    articles = [article for article, _, _ in squad.items()]
    questions = _questions_of(squad)
    # At the first border of two articles from the middle on, or in the middle if there is none.
    cut = middle = len(questions) // 2
    while 0 < cut < len(articles) and articles[cut] == articles[cut - 1]:
        cut += 1
    cut = middle if cut == len(articles) else cut
    first, second = questions[:cut], questions[cut:]
    known = {question[:2] for question in first}
    return first, [question for question in second if question[:2] not in known]


def _spread(questions: Sequence[Question], count: int) -> list[Question]:
    """At most `count` questions, evenly spread: neighbours are of one text."""
    step = max(1, -(-len(questions) // count))
    return list(questions[::step])


def _refuse_development(run: Path, questions: Sequence[Question], path: str | Path) -> None:
    """Scales that were chosen on development contexts would flatter every score on them.

    Where the run's development file is no longer where it was, only a file that is that very one is noticed.
    """
    dev = read_recipe(run).get("inputs", {}).get("dev") if (run / RECIPE).exists() else None
    if dev is None:
        return
    if sha256_file(path) == dev["sha256"]:
        raise DataError(f"{path} holds the development contexts of {run}; calibrate on others")
    if not Path(dev["path"]).is_file():
        return
    shared = {question.context for question in _questions(dev["path"])} & {question.context for question in questions}
    if shared:
        raise DataError(
            f"{path} has {len(shared)} of the development contexts of {run}, such as {min(shared)!r:.80};"
            " calibrate on others"
        )


def _questions(path: str | Path) -> list[Question]:
    return _questions_of(read_squad(path))


def _questions_of(squad: Squad) -> list[Question]:
    return [
        Question(question.text, paragraph.context, tuple(answer.text for answer in question.answers))
        for _, paragraph, question in squad.items()
    ]


def _features(run: Path) -> Features | None:
    """The features that a run was trained on, if they are still where it had them."""
    if (run / "features").is_dir():
        return Features.open(run / "features")
    found = read_recipe(run).get("inputs", {}).get("features") if (run / RECIPE).exists() else None
    if found is None or not Path(found["path"]).is_dir():
        return None
    return Features.open(Input(**found).checked("features"))


def _known_licences(run: Path) -> dict[str, str]:
    return known_licences(read_recipe(run)) if (run / RECIPE).exists() else {}


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
    return {"of": "the trained student, through torch", **{k: v for k, v in found.items() if k != "weights_sha256"}}
