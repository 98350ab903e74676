"""Scores by groups, altered questions against their originals, calibration, and the report that has them all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_teacher import Workshop, ran, run, write_example_squad

from qa_edge.adversarial import adversarial_scores, original_of, sample_with_altered
from qa_edge.breakdown import break_down, question_type
from qa_edge.calibration_curve import calibration_curve
from qa_edge.question_scores import QuestionScores, score_questions
from qa_edge.split import only_questions, sample_questions
from qa_edge.squad import read_squad, references
from qa_edge_runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE_SECTIONS = ("By type of question", "By length of the answer", "By length of the text")


def scores(**f1: float) -> QuestionScores:
    """F1 by question id; exactly right is what has F1 1. A double underscore stands for a hyphen."""
    values = np.array(list(f1.values()))
    return QuestionScores(ids=tuple(name.replace("__", "-") for name in f1), exact=values == 1, f1=values)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Who opened it?", "who"),
        ("To WHOM was it given?", "who"),
        ("Whose idea was it?", "who"),
        ("In what year did it open?", "what"),
        ("What's there, and why?", "what"),
        ("The fair opened when?", "when"),
        ("Where is it?", "where"),
        ("Why?", "why"),
        ("About how many people came?", "how many"),
        ("How much does it cost?", "how many"),
        ("How is it made?", "how"),
        ("how", "how"),
        ("On which day?", "which"),
        ("Is it open?", "other"),
        ("The whole, the somehow, nowhere", "other"),
    ],
)
def test_types_of_questions(text: str, kind: str) -> None:
    assert question_type(text) == kind


def test_groups_hold_every_question_once_and_add_up(tmp_path: Path) -> None:
    squad = read_squad(write_example_squad(tmp_path / "squad.json"))
    truths = references(squad)
    answers = {name: found[0] if place % 3 else "the wrong words" for place, (name, found) in enumerate(truths.items())}
    found = score_questions(truths, answers)
    breakdowns = break_down(squad, found)
    assert [one.key for one in breakdowns] == ["question_type", "answer_words", "context_words"]
    for one in breakdowns:
        assert sum(group.questions for group in one.groups) == len(truths)
        assert all(group.questions for group in one.groups)
        mean = sum(group.questions * group.f1 for group in one.groups) / len(truths)
        assert mean == pytest.approx(found.f1_percent)
        assert all((group.f1_error is None) == (group.questions < 30) for group in one.groups)
    with pytest.raises(InputError, match="question z has a score but is not in the data"):
        break_down(squad, scores(z=1))


def test_lengths_are_counted_in_words(tmp_path: Path) -> None:
    context = "one two three four five six seven eight nine ten eleven twelve " + "more " * 64
    answers = {"a": ["one"], "b": ["one two", "one", "one two three"], "c": ["one two three four five"]}
    questions = [
        {"id": name, "question": "What?", "answers": [{"text": text, "answer_start": 0} for text in texts]}
        for name, texts in [*answers.items(), ("d", [context[:62].strip()])]
    ]
    data = {"data": [{"title": "T", "paragraphs": [{"context": context, "qas": questions}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(data))
    squad = read_squad(tmp_path / "squad.json")
    _, by_answer, by_context = break_down(squad, score_questions(references(squad), {}))
    assert [group.name for group in by_answer.groups] == ["1 word", "2 words", "4-5 words", "over 10 words"]
    assert [(group.name, group.questions) for group in by_context.groups] == [("76-100 words", 4)]


def test_the_worst_altered_question_counts_for_its_original() -> None:
    found = adversarial_scores(
        scores(a=1, a__x__turk0=0.5, a__x__turk1=0.25, b=1, b__x__turk0=1, b__x__turk1=1, c=0.5, d__1=1)
    )
    assert found is not None
    # c has no altered form and counts as it is; so does an id with a hyphen whose beginning is no id.
    assert [group.questions for group in found.groups] == [4, 4, 2, 2, 2, 4]
    assert found.originals.f1 == pytest.approx(87.5) and found.altered.f1 == pytest.approx(68.75)
    assert (found.attacked.f1, found.worst.f1, found.best.f1) == (100, 62.5, 75)
    assert found.official.f1 == pytest.approx(100 * (0.25 + 1 + 0.5 + 1) / 4)
    assert (found.worst.exact_match, found.official.exact_match, found.kept) == (50, 50, 50)


def test_of_altered_questions_with_one_f1_the_first_counts_and_its_match_with_it() -> None:
    # The same words in another order: F1 1 and no match.
    found = adversarial_scores(
        QuestionScores(ids=("a", "a-0", "a-1"), exact=np.array([False, False, True]), f1=np.array([0.0, 1.0, 1.0]))
    )
    assert found is not None and found.worst.exact_match == 0 and found.kept is None


def test_an_id_with_a_hyphen_may_be_an_original() -> None:
    ids = frozenset({"a-1", "a-1-turk0", "a-1-turk0-b", "c", "-", "d-"})
    found = {one: original_of(one, ids) for one in ids}
    assert {one: original for one, original in found.items() if original} == {"a-1-turk0": "a-1", "a-1-turk0-b": "a-1"}


def test_a_sample_has_altered_questions_beside_their_originals(altered: Path) -> None:
    squad = read_squad(altered)
    for count in (1, 3, 1000):
        found = [question.id for _, _, question in sample_with_altered(squad, count, 0).items()]
        originals = [one for one in found if original_of(one, frozenset(found)) is None]
        assert len(originals) == min(count, len(references(squad)) // 2) and len(found) == 2 * len(originals)
        assert not any("-high-conf" in one for one in originals)
    ordinary = only_questions(squad, lambda one: "-high-conf" not in one)
    assert sample_with_altered(ordinary, 3, 1) == sample_questions(ordinary, 3, 1)


def test_a_set_without_altered_questions_is_not_taken_apart() -> None:
    assert adversarial_scores(scores(a=1, b=0, squad__train__2=1)) is None


def test_the_curve_has_the_bins_and_the_error_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    likely = rng.random(6000)
    right = rng.random(6000) < likely
    ids = tuple(map(str, range(6000)))
    found = QuestionScores(ids=ids, exact=right, f1=right.astype(float))
    curve = calibration_curve(found, dict(zip(ids, likely.tolist(), strict=True)))
    assert curve is not None and len(curve.bins) == 15 and sum(one.questions for one in curve.bins) == 6000
    assert curve.expected_calibration_error < 0.03
    by_hand = sum(one.questions * abs(one.probability - one.right) for one in curve.bins) / 6000
    assert curve.expected_calibration_error == pytest.approx(by_hand)
    assert all(one.low <= one.probability < one.high for one in curve.bins)
    # Sure and wrong, and a question without a probability, which is left out.
    curve = calibration_curve(scores(a=0, b=0, c=1), {"a": 1.0, "b": 1.0})
    assert curve is not None and (curve.expected_calibration_error, curve.questions, len(curve.bins)) == (1, 2, 1)
    assert calibration_curve(scores(a=0), {}) is None


@pytest.fixture
def altered(tmp_path: Path, shop: Workshop) -> Path:
    """The development set of these tests, with a sentence added to a copy of each paragraph, and of each id."""
    data = json.loads(shop.dev.read_text(encoding="utf-8"))
    for article in data["data"]:
        for paragraph in list(article["paragraphs"]):
            changed = json.loads(json.dumps(paragraph))
            changed["context"] += " The green valve is in Oslo."
            for question in changed["qas"]:
                question["id"] += "-high-conf-turk0"
            article["paragraphs"].append(changed)
    path = tmp_path / "<altered> & more.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def with_probability(shop: Workshop, folder: Path) -> Path:
    import shutil

    shutil.copytree(shop.bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("manifest_sha256", None)  # it is optional, and would be another
    fit = {"temperature": 1.5, "expected_calibration_error": 0.05, "questions": 300, "no_answer_below": None}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "probability": fit}))
    return folder


class Page(HTMLParser):
    """Titles, what is loaded from elsewhere, and whether every element ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.identifiers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        assert tag not in ("script", "img", "link", "iframe", "image")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_option_writes_the_whole_report(altered: Path, shop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bundle = with_probability(shop, tmp_path / "sure.qab")
    for suffix in ("html", "md", "json"):
        shown = ran("evaluate", bundle, "--squad", altered, "--report", tmp_path / f"report.{suffix}", "--json")
    totals = json.loads(shown)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["total"]["f1"] == totals["f1"] and report["total"]["questions"] == totals["total"]
    assert report["adversarial"] == totals["adversarial"]
    assert report["adversarial"]["altered"]["questions"] * 2 == totals["total"]
    assert report["calibration"]["questions"] == totals["total"]
    assert report["system"] == "sure.qab" and report["data_sha256"] == read_squad(altered).sha256

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert markdown.startswith("# sure.qab on \\<altered\\> & more.json\n")
    for title in (*PAGE_SECTIONS, "Altered questions against their originals", "How far the probability"):
        assert f"\n## {title}" in markdown
    for line in markdown.splitlines():
        assert not line.startswith("|") or line.count(" | ") == 3

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and all(link.startswith("#") for link in page.links)
    assert len(page.identifiers) == len(set(page.identifiers)) > 0
    assert {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.identifiers)
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert "&lt;altered&gt; &amp; more.json" in text and "<altered>" not in text
    again = ("evaluate", bundle, "--squad", altered, "--report", tmp_path / "again.html")
    assert "Altered questions against" in ran(*again) and (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_a_report_of_answers_of_unknown_certainty(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    asked = ("evaluate", "--predictions", tmp_path / "none.json", "--squad", shop.dev)
    ran(*asked, "--report", tmp_path / "page.HTML")
    text = (tmp_path / "page.HTML").read_text(encoding="utf-8")
    assert "of them have no answer, which scores 0" in text and "only a bundle with a fitted probability" in text
    assert text.count("<svg") == 3 and "Altered" not in text


def test_answers_of_a_run_and_of_a_file_are_compared(shop: Workshop, tmp_path: Path) -> None:
    ran("evaluate", shop.bundle, "--squad", shop.dev, "-o", tmp_path / "answers.json")
    compared = ("--squad", shop.dev, "--resamples", "200", "--json")
    result = run("compare", shop.bundle, tmp_path / "answers.json", *compared)
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["exact_match"]["difference"] == found["f1"]["difference"] == 0
    assert found["exact_match"]["p_value"] == found["mcnemar"]["p_value"] == found["sample"]["p_value"] == 1
    assert found["a"]["f1"] == found["b"]["f1"] and found["a"]["unanswered"] == 0
    truths = references(read_squad(shop.dev))
    right = {identifier: answers[0] for identifier, answers in truths.items()}
    left = right.popitem()[0]
    (tmp_path / "right.json").write_text(json.dumps({**right, "other": "x"}))
    result = run("compare", shop.run, tmp_path / "right.json", "--squad", shop.dev, "--resamples", "200")
    assert "1 of" in result.stderr and "have no answer" in result.stderr and "1 answers are to" in result.stderr
    for asked in ("do A and B differ", "a toss-up which", "is B better than A?", "EM significant at 0.05"):
        assert asked in result.stdout
    assert left not in right


@pytest.mark.parametrize(
    ("code", "line", "sentence"),
    [
        (2, "compare BUNDLE --squad DEV", "Missing argument 'B'"),
        (2, "compare BUNDLE BUNDLE", "Missing option '--squad'"),
        (2, "compare BUNDLE BUNDLE --squad DEV --alpha 1", "alpha is 1, expected a number between 0 and 1"),
        (2, "compare BUNDLE BUNDLE --squad DEV --alpha nan", "alpha is nan"),
        (2, "compare BUNDLE BUNDLE --squad DEV --sample 0", "the sample's share is 0, expected above 0"),
        (2, "compare BUNDLE BUNDLE --squad DEV --resamples 0", "--resamples"),
        (2, "compare BUNDLE BUNDLE --squad DEV --sample 0.001", "is empty; raise the share"),
        (1, "compare BUNDLE missing --squad DEV", "missing does not exist"),
        (1, "compare few.json missing --squad DEV", "of another data set"),
        (1, "compare DEV RUN --squad DEV --engine onnx", "is not text"),
        (1, "compare RUN RUN --squad DEV --engine onnx", "is a bundle: engine and precision are a bundle's"),
        (1, "compare BUNDLE BUNDLE --squad missing", "does not exist"),
        (1, "compare BUNDLE DEV --squad DEV", "is not text"),
        (1, "compare few.json few.json --squad DEV", "expected 90% of them or more: it is of another data set"),
        (1, "compare RUN/features BUNDLE --squad DEV", "features that prepare wrote"),
        (2, "evaluate BUNDLE --squad DEV --report page.pdf", "ends with '.pdf', expected .html, .md or .json"),
        (2, "evaluate BUNDLE --squad DEV --report page", "has no suffix, expected"),
        (1, "evaluate BUNDLE --squad DEV --report missing/page.md", "is not a folder; make it"),
        (1, "evaluate BUNDLE --squad DEV -o missing/answers.json", "is not a folder; make it"),
        (1, "evaluate BUNDLE --squad DEV -o BUNDLE/manifest.json", "is what was read, which is never changed"),
        (1, "evaluate RUN --squad DEV -o RUN/config.json", "is what was read, which is never changed"),
        (1, "labels score RUN/labels --squad DEV -o RUN/labels/manifest.json", "is what was read, which is never"),
        (2, "evaluate RUN --squad DEV -o same.json --report same.json", "-o and --report are the same file"),
        (2, "evaluate --squad DEV --predictions few.json --engine onnx", "are answers already: leave out --engine"),
    ],
)
def test_wrong_input_is_one_sentence(code: int, line: str, sentence: str, shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "few.json").write_text('{"unknown": "x"}')
    known = {"BUNDLE": shop.bundle, "RUN": shop.run, "DEV": shop.dev, "few.json": tmp_path / "few.json"}
    arguments = []
    for word in line.split():
        name, slash, rest = word.partition("/")
        arguments.append(f"{known[name]}{slash}{rest}" if name in known else word)
    result = run(*arguments)
    assert result.exit_code == code and sentence in result.stderr and result.stdout == ""
    assert "Traceback" not in result.stderr


def test_the_light_install_compares_and_reports(shop: Workshop, tmp_path: Path) -> None:
    """Neither torch nor Matplotlib nor scipy: only the page with plots needs more, and says so."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "accelerate", "transformers", "spacy", "scipy", "matplotlib", "onnx"):
            raise ImportError("blocked by the test: " + name)
sys.meta_path.insert(0, Blocked())
from qa_edge.__main__ import main
main()
"""

    def light(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    asked = ("evaluate", shop.bundle, "--squad", shop.dev)
    answers, report = tmp_path / "answers.json", tmp_path / "report.md"
    done = light(*asked, "-o", answers, "--report", report)
    assert done.returncode == 0 and report.exists(), done.stderr
    done = light("compare", answers, shop.bundle, "--squad", shop.dev, "--resamples", "1000")
    assert done.returncode == 0 and "p = 1.00" in done.stdout, done.stderr
    done = light(*asked, "--report", tmp_path / "report.html")
    assert done.returncode == 1 and 'pip install "qa-edge[chart]"; or name a .md or .json' in done.stderr
    assert not (tmp_path / "report.html").exists() and len(done.stderr.splitlines()) == 1
