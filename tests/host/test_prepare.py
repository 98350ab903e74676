"""Features: tokens and answers against their text, nothing of the held-out articles, the same bytes again."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import NAMES, THINGS, student_of, tiny_squad

from qa_edge.checkpoint import copy_inputs, save_checkpoint
from qa_edge.features import HELDOUT, TENSORS, Features
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.split import sample_questions, split_articles
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, read_squad, references, write_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.tokenizer import Tokenizer


def squad_of(context: str, *questions: Question) -> Squad:
    return Squad(articles=(Article(title="One", paragraphs=(Paragraph(context=context, questions=questions),)),))


def asked(identity: str, *answers: tuple[str, int], impossible: bool = False) -> Question:
    found = tuple(Reference(text=text, start=start) for text, start in answers)
    return Question(id=identity, text="Which one?", answers=found, impossible=impossible)


def prepared(squad: Squad, folder: Path, **values: object) -> Features:
    write_squad(folder / "data.json", squad)
    prepare(folder / "data.json", folder / "features", settings=PrepareSettings(heldout=0.0, **values))  # type: ignore[arg-type]
    return Features.open(folder / "features")


def spans(features: Features) -> list[str]:
    """Text of each question's answer span; "" without one."""
    found = []
    for row, context in enumerate(features.question_context):
        first, last = int(features.answer_start[row]), int(features.answer_end[row])
        base, stop = int(features.context_offsets[context]), int(features.context_offsets[context + 1])
        assert (first, last) == (-1, -1) or base <= base + first <= base + last < stop
        text = features.context_text(int(context))
        found.append(
            "" if first < 0 else text[features.context_starts[base + first] : features.context_ends[base + last]]
        )
    return found


def test_every_answer_span_covers_its_reference_and_no_token_more(
    tiny_features: Features, tiny_squad_path: Path
) -> None:
    items = list(read_squad(tiny_squad_path).items())
    for row, span in enumerate(spans(tiny_features)):
        _, paragraph, question = items[int(tiny_features.question_number[row])]
        answer = question.answers[0]
        assert tiny_features.context_text(int(tiny_features.question_context[row])) == paragraph.context
        assert answer.text in span
        # The tiny answers begin and end with tokens, so nothing else may be in the span.
        assert answer.text == span


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_range_of_a_nasty_text_lies_in_its_span(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    letters = st.sampled_from(list("ab .,'-$°é𝛼😀\n\t\u00a0\u3000()http:/"))
    context = "x" + data.draw(st.text(letters, max_size=60)) + "y"
    places = data.draw(st.lists(st.tuples(st.integers(0, len(context)), st.integers(1, 9)), min_size=1, max_size=5))
    answers = [(context[first : first + size], first) for first, size in places]
    questions = [asked(f"q{i}", answer) for i, answer in enumerate(answers) if answer[0].strip()]
    questions.append(asked("last", (context[-1], len(context) - 1)))
    features = prepared(squad_of(context, *questions), tmp_path_factory.mktemp("nasty"))
    tokens = [context[a:b] for a, b in zip(features.context_starts, features.context_ends, strict=True)]
    for question, first, last, span in zip(
        questions, features.answer_start, features.answer_end, spans(features), strict=True
    ):
        text = question.answers[0].text.strip()
        assert text in span
        if first < last:  # neither the first nor the last token could be spared
            assert text not in "".join(context[features.context_starts[first + 1] : features.context_ends[last]])[1:]
    assert all(token == token.strip() or not token.strip() for token in tokens)


def test_tokens_are_those_of_the_device(tiny_features: Features) -> None:
    tokenizer = Tokenizer.load(tiny_features.folder)
    for context in range(len(tiny_features.context_number)):
        here = slice(tiny_features.context_offsets[context], tiny_features.context_offsets[context + 1])
        text = tiny_features.context_text(context)
        expected = [(token.start, token.end) for token in tokenizer(text)]
        assert list(zip(tiny_features.context_starts[here], tiny_features.context_ends[here], strict=True)) == expected


def test_forms_give_back_words_and_characters(tiny_features: Features, tiny_squad_path: Path) -> None:
    vocabulary = tiny_features.vocabulary()
    tokenizer = Tokenizer.load(tiny_features.folder)
    items = list(read_squad(tiny_squad_path).items())
    offsets = tiny_features.question_offsets
    for row in range(len(tiny_features)):
        tokens = [token.text for token in tokenizer(items[int(tiny_features.question_number[row])][2].text)]
        forms = tiny_features.question_tokens[offsets[row] : offsets[row + 1]]
        assert tiny_features.form_words[forms].tolist() == vocabulary.word_ids(tokens).tolist()
        assert (tiny_features.form_characters[forms] == vocabulary.character_ids(tokens)).all()


def test_contexts_are_stored_once(tiny_features: Features) -> None:
    assert len(tiny_features.context_number) == 15 < len(tiny_features) == 90
    assert len(tiny_features.text) == int(tiny_features.text_offsets[-1])
    assert len(tiny_features.context_tokens) == int(tiny_features.context_offsets[-1])
    texts = [tiny_features.context_text(row) for row in range(15)]
    assert len(set(texts)) == 15
    assert len(tiny_features.text) == sum(len(text.encode()) for text in texts)


def test_vectors_are_those_of_the_file(tiny_features: Features, tiny_vectors_path: Path) -> None:
    vocabulary, vectors = tiny_features.vocabulary(), tiny_features.vectors()
    lines = [line.split(" ") for line in tiny_vectors_path.read_text(encoding="utf-8").splitlines()]
    expected = {word: np.asarray(numbers, np.float16) for word, *numbers in lines}
    assert vectors.shape == (vocabulary.word_rows, 12) and not vectors[0].any()
    assert len(vocabulary.words) > 40
    for word in vocabulary.words:
        assert (vectors[vocabulary.word_id(word)] == expected[word]).all()


def test_heldout_articles_are_nowhere_in_the_features(tmp_path: Path) -> None:
    """One word and one character of its own in each article: those of the held-out ones must be unknown."""
    marks = [chr(0x3B1 + number) for number in range(10)]
    articles = tuple(
        Article(
            title=f"{mark}{number}",
            paragraphs=(
                Paragraph(
                    context=f"own{number} {mark * 9} pot",
                    questions=(Question(id=str(number), text="What?", answers=(Reference(text="pot", start=15),)),),
                ),
            ),
        )
        for number, mark in enumerate(marks)
    )
    write_squad(tmp_path / "data.json", Squad(articles=articles))
    glove = "".join(f"own{number} 0.5 0.5\n" for number in range(10)) + "pot 1 1\n"
    (tmp_path / "glove.txt").write_text(glove)
    manifest = prepare(
        tmp_path / "data.json",
        tmp_path / "features",
        vectors_path=tmp_path / "glove.txt",
        settings=PrepareSettings(heldout=0.3, seed=4),
    )
    features = Features.open(tmp_path / "features")
    heldout = read_squad(tmp_path / "features" / HELDOUT)
    numbers = {int(article.title[1:]) for article in heldout.articles}
    assert manifest["heldout_articles"] == len(numbers) == 3 and manifest["heldout_questions"] == 3
    kept = set(range(10)) - numbers
    assert set(features.context_number.tolist()) == set(features.question_number.tolist()) == kept
    vocabulary = features.vocabulary()
    assert set(vocabulary.words) == {f"own{number}" for number in kept} | {"pot"}
    assert {mark for mark in marks if mark in vocabulary.characters} == {marks[number] for number in kept}
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "features").iterdir() if path.name not in (HELDOUT, "tokenizer.json")
    )
    for number in numbers:
        assert f"own{number}".encode() not in written and (marks[number] * 9).encode() not in written


def test_the_split_is_by_whole_articles_and_by_seed() -> None:
    squad = tiny_squad(articles=20, contexts=1, facts=1)
    training, heldout = split_articles(squad, 0.05, 0)
    assert len(heldout.articles) == 1 and len(training) == 19
    several = {split_articles(squad, 0.05, seed)[1].articles[0].title for seed in range(10)}
    assert len(several) > 3
    for share in (0.01, 0.5, 0.99):
        training, heldout = split_articles(squad, share, 1)
        assert training and heldout.articles
        titles = {article.title for article in heldout.articles}
        contexts = [p.context for article in squad.articles if article.title not in titles for p in article.paragraphs]
        assert [found.paragraph.context for found in training] == contexts
    assert split_articles(squad, 0.0, 0)[1].articles == ()


def test_numbers_of_questions_and_contexts_are_places_in_the_file(tmp_path: Path) -> None:
    """With impossible questions between them, which labels leave out as well."""
    base = tiny_squad(articles=4, contexts=2, facts=1)
    articles = []
    for article in base.articles:
        paragraphs = tuple(
            dataclasses.replace(
                paragraph,
                questions=(
                    dataclasses.replace(paragraph.questions[0], answers=(), impossible=True),
                    *paragraph.questions[1:],
                ),
            )
            for paragraph in article.paragraphs
        )
        articles.append(dataclasses.replace(article, paragraphs=paragraphs))
    squad = Squad(articles=tuple(articles), version="2.0")
    write_squad(tmp_path / "data.json", squad)
    manifest = prepare(tmp_path / "data.json", tmp_path / "features", settings=PrepareSettings(heldout=0.5, seed=1))
    features = Features.open(tmp_path / "features")
    assert manifest["impossible_questions"] == 8 and manifest["questions"] == len(features) == 8
    contexts = [paragraph.context for _, paragraph in squad.paragraphs()]
    items = list(squad.items())
    for row, span in enumerate(spans(features)):
        _, paragraph, question = items[int(features.question_number[row])]
        assert question.answers[0].text == span
        assert contexts[int(features.context_number[features.question_context[row]])] == paragraph.context


def test_answers_that_do_not_stand_at_their_offset(tmp_path: Path) -> None:
    squad = squad_of(
        "a pot, a lid, a pan",
        asked("good", ("lid", 9)),
        asked("second is good", ("lid", 8), ("pan", 16)),
        asked("misplaced", ("lid", 8)),
        asked("unlabelled"),
        asked("impossible", impossible=True),
        asked("inside a token", ("i", 10)),
        asked("over borders", ("t, a l", 4)),
    )
    features = prepared(squad, tmp_path)
    assert spans(features) == ["lid", "pan", "", "", "lid", "pot, a lid"]
    manifest = features.manifest
    assert (manifest["misplaced_answers"], manifest["unlabelled_questions"], manifest["impossible_questions"]) == (
        1,
        1,
        1,
    )


def test_without_vectors_there_are_characters_alone(tmp_path: Path) -> None:
    features = prepared(squad_of("aaa bbb aab", asked("q", ("bbb", 4))), tmp_path, character_count=3)
    vocabulary = features.vocabulary()
    assert vocabulary.words == () and vocabulary.characters == ("a", "b")  # of the question no letter is there thrice
    assert features.vectors().shape == (1, 0) and not features.form_words.any()
    assert features.manifest["vectors"] is None
    assert features.form_characters[0].tolist() == [2, 2, 2] + [0] * 13
    assert (features.form_characters[features.question_tokens[0], :5] == 1).all()


def test_vocabulary_size_keeps_the_most_frequent_words(tmp_path: Path) -> None:
    write_squad(tmp_path / "data.json", squad_of("pot Pot pot pan pan lid", asked("q", ("lid", 20))))
    (tmp_path / "glove.txt").write_text("lid 1 2\npan 3 4\npot 5 6\nnever 7 8\n")
    options = PrepareSettings(heldout=0.0, vocabulary_size=2)
    prepare(tmp_path / "data.json", tmp_path / "f", vectors_path=tmp_path / "glove.txt", settings=options)
    features = Features.open(tmp_path / "f")
    assert features.vocabulary().words == ("pot", "pan")
    assert features.vectors().tolist() == [[0, 0], [5, 6], [3, 4]]
    assert features.form_words[features.context_tokens].tolist() == [1, 1, 1, 2, 2, 0]


def test_the_same_bytes_again(
    tiny_features: Features, tiny_squad_path: Path, tiny_vectors_path: Path, tmp_path: Path
) -> None:
    """In another process, where sets of strings are in another order."""
    code = (
        "import sys; from qa_edge.prepare import *; prepare(sys.argv[1], sys.argv[2], vectors_path=sys.argv[3],"
        " settings=PrepareSettings(heldout=0.2, character_count=2))"
    )
    arguments = [str(tiny_squad_path), str(tmp_path / "again"), str(tiny_vectors_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment)
    names = sorted(path.name for path in tiny_features.folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir()) and len(names) == 6
    for name in names:
        assert (tiny_features.folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_features_are_mapped_not_read(tmp_path: Path) -> None:
    """Opening 120 MB of features must not take 120 MB of memory."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, torch
from safetensors.numpy import save_file
from pathlib import Path
from qa_edge.features import read_tensors
path = Path(sys.argv[1]) / "big.safetensors"
save_file({{"big": np.ones(30_000_000, np.float32)}}, path)
def private():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0])
before = private()
big = read_tensors(path)["big"]
assert big[::5000].sum() == 6000
print((private() - before) / 1024)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc")
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert float(result.stdout) < 20


def test_sample_questions(tiny_squad_path: Path) -> None:
    squad = read_squad(tiny_squad_path)
    sample = sample_questions(squad, 10, 0)
    order = [question.id for _, _, question in squad.items()]
    chosen = [question.id for _, _, question in sample.items()]
    assert len(chosen) == 10 and chosen == sorted(chosen, key=order.index)
    assert chosen == [question.id for _, _, question in sample_questions(squad, 10, 0).items()]
    assert chosen != [question.id for _, _, question in sample_questions(squad, 10, 1).items()]
    assert len(references(sample_questions(squad, 10_000, 0))) == 108
    everything = dataclasses.replace(sample_questions(squad, 10_000, 0), sha256="")
    assert everything == dataclasses.replace(squad, sha256="")
    assert not list(sample_questions(squad_of("a", asked("unlabelled")), 5, 0).items())


def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path: Path, tiny_squad_path: Path) -> None:
    target = tmp_path / "features"
    write_squad(tmp_path / "none.json", squad_of("a pot", asked("q", impossible=True)))
    (tmp_path / "wrong.txt").write_text("the 1 2 3\nof 1 2\n")
    (tmp_path / "large.txt").write_text("the 1 2 70000\n")
    cases = [
        ({"squad_path": tmp_path / "missing.json"}, "does not exist"),
        ({"squad_path": tmp_path / "none.json"}, "no question"),
        ({"squad_path": tiny_squad_path, "vectors_path": tmp_path / "missing.txt"}, "does not exist"),
        ({"squad_path": tiny_squad_path, "vectors_path": tmp_path / "wrong.txt"}, "line 2"),
        ({"squad_path": tiny_squad_path, "vectors_path": tmp_path / "large.txt"}, "'the' has a number beyond 65,504"),
    ]
    for arguments, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            prepare(output=target, **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert not target.exists() and not list(tmp_path.glob(".features*"))
    with pytest.raises(InputError, match="heldout"):
        PrepareSettings(heldout=1.0)
    with pytest.raises(InputError, match="vocabulary_size"):
        PrepareSettings(vocabulary_size=0)


def test_a_folder_that_exists_is_kept_unless_forced(tmp_path: Path, tiny_squad_path: Path) -> None:
    target = tmp_path / "features"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        prepare(tiny_squad_path, target)
    assert (target / "mine.txt").read_text() == "mine"
    for manifest in (None, "{}"):  # one of another program
        if manifest is not None:
            (target / "manifest.json").write_text(manifest)
        with pytest.raises(DataError, match="not one that qa-edge wrote"):
            prepare(tiny_squad_path, target, force=True)
    (target / "manifest.json").write_text('{"format_version": 1}')
    prepare(tiny_squad_path, target, force=True)
    assert not (target / "mine.txt").exists() and len(Features.open(target)) > 0


def test_vectors_out_of_a_pipe_have_no_hash_to_keep(tmp_path: Path, tiny_squad_path: Path) -> None:
    reading, writing = os.pipe()
    with pytest.raises(DataError, match="is a pipe, and is read more than once"):
        prepare(tiny_squad_path, tmp_path / "features", vectors_path=f"/dev/fd/{reading}")
    os.close(reading)
    os.close(writing)
    assert not (tmp_path / "features").exists()


def test_a_full_disk_is_one_sentence(tmp_path: Path, tiny_squad_path: Path) -> None:
    """A limit on the size of files stands in for it: writing fails in the same way, with another number."""
    code = """
import resource, sys
from qa_edge.prepare import prepare
from qa_edge_runtime.errors import DataError
import spacy, safetensors.numpy
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    prepare(sys.argv[1], sys.argv[2])
except DataError as error:
    print(error)
"""
    arguments = [str(tiny_squad_path), str(tmp_path / "features")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "cannot write" in result.stdout and result.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_features_that_are_none(tmp_path: Path, tiny_features: Features) -> None:
    for words, damage in {
        "does not exist": lambda folder: (folder / "manifest.json").unlink(),
        "not JSON": lambda folder: (folder / "manifest.json").write_text("{"),
        "format 9": lambda folder: (folder / "manifest.json").write_text('{"format_version": 9}'),
        "settings is missing": lambda folder: (folder / "manifest.json").write_text('{"format_version": 2}'),
        "format None": lambda folder: (folder / "manifest.json").write_text("[]"),
        "cannot be read": lambda folder: (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-9]),
        "No such file": lambda folder: (folder / TENSORS).unlink(),
        "expected tensors": lambda folder: (folder / TENSORS).write_bytes(
            (tiny_features.folder / "vectors.safetensors").read_bytes()
        ),
    }.items():
        folder = tmp_path / words.replace(" ", "-")
        folder.mkdir()
        for path in tiny_features.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        damage(folder)
        with pytest.raises(DataError, match=words):
            Features.open(folder)


def test_names_of_the_tiny_data_are_unknown_words(tiny_features: Features) -> None:
    """The other tests lean on it: the tiny data hold words without a vector, and words with one."""
    vocabulary = tiny_features.vocabulary()
    assert not any(vocabulary.word_id(name) for name in NAMES)
    assert sum(vocabulary.word_id(thing) > 0 for thing in THINGS) > 5
    assert 0.7 < tiny_features.manifest["known_token_share"] < 0.95


@pytest.mark.slow
def test_all_of_squad_in_minutes_and_little_memory(tmp_path: Path) -> None:
    data = Path(os.environ.get("QA_EDGE_DATA", ""))
    if not (data / "squad").is_dir():
        pytest.skip("needs QA_EDGE_DATA")
    code = (
        "import sys; from qa_edge.prepare import prepare; from qa_edge_runtime.machine import peak_memory_bytes;"
        " prepare(sys.argv[1], sys.argv[2], vectors_path=sys.argv[3]);"
        " print(peak_memory_bytes())"
    )
    squad_path = data / "squad" / "train-v1.1.json"
    vectors_path = data / "vectors" / "glove.6B.100d.sub.txt.gz"
    since = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code, str(squad_path), str(tmp_path / "features"), str(vectors_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    peak_bytes = int(result.stdout)
    assert peak_bytes < 2e9
    assert time.monotonic() - since < 600
    features = Features.open(tmp_path / "features")
    items = list(read_squad(squad_path).items())
    assert features.manifest["questions"] + features.manifest["heldout_questions"] == len(items) == 87_599
    for row, span in enumerate(spans(features)):
        standing = [a.text for a in items[int(features.question_number[row])][2].answers]
        assert not span or standing[0] in span
    assert (features.answer_start < 0).sum() == features.manifest["misplaced_answers"]
    print(json.dumps({"peak_bytes": peak_bytes, "seconds": time.monotonic() - since}))


def test_features_for_a_student_to_go_on_from(tmp_path: Path, tiny_features: Features, tiny_squad_path: Path) -> None:
    """Its words keep their ids, its characters are all there are, and words that it did not know come behind."""
    start = tmp_path / "start"
    start.mkdir()
    student = student_of(tiny_features)
    save_checkpoint(start, student.model.config, dict(student.model.named_parameters()))
    copy_inputs(tiny_features.folder, start)
    write_squad(tmp_path / "own.json", squad_of("the kettle zorbs Ω quickly zorbs", asked("q", ("zorbs", 11))))
    known = dict(zip(tiny_features.vocabulary().words, tiny_features.vectors()[1:].tolist(), strict=True))
    known["zorbs"] = [0.5] * 12
    (tmp_path / "own.txt").write_text(
        "".join(f"{word} {' '.join(map(str, known[word]))}\n" for word in ("zorbs", "kettle", "is"))
    )
    options = PrepareSettings(heldout=0.0, character_count=1)
    prepare(tmp_path / "own.json", tmp_path / "f", vectors_path=tmp_path / "own.txt", init=start, settings=options)
    features, own = Features.open(tmp_path / "f"), tiny_features.vocabulary()
    assert features.vocabulary().words == (*own.words, "zorbs")
    assert features.vocabulary().characters == own.characters
    assert (features.vectors()[:-1] == tiny_features.vectors()).all() and (features.vectors()[-1] == 0.5).all()
    prepare(tmp_path / "own.json", tmp_path / "g", init=start, settings=options)
    assert Features.open(tmp_path / "g").vocabulary() == own
    (tmp_path / "own.txt").write_text("zorbs 1 2 3\n")
    with pytest.raises(DataError, match=r"3 numbers a word.*trained with 12"):
        prepare(tmp_path / "own.json", tmp_path / "h", vectors_path=tmp_path / "own.txt", init=start, settings=options)
    (start / "vectors.safetensors").write_bytes((tmp_path / "f" / "vectors.safetensors").read_bytes())
    with pytest.raises(DataError, match="no checkpoint of one run"):
        prepare(tmp_path / "own.json", tmp_path / "h", init=start, settings=options)
    assert not (tmp_path / "h").exists()
