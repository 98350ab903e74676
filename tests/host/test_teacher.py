"""The teacher's logits: those of transformers' own forward pass, window by window, merged by most context."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_squad, write_tiny_teacher

from qa_edge.squad import Squad, read_squad
from qa_edge.teacher import Teacher
from qa_edge_runtime.errors import DataError, InputError

SENTENCE = "The piano of Björn is pale grey; it weighs 31 kg and it's kept near Łódź (item no. 7). "
QUESTIONS = ("What colour is the piano?", "Where is Björn's piano kept, and how heavy is it?", "Who?")


@pytest.fixture(scope="module")
def squad(tiny_squad_path: Path) -> Squad:
    return read_squad(tiny_squad_path)


@pytest.fixture(scope="module")
def bpe_teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa: byte-level pieces, four special pieces, no types, padding id 1, positions made from the padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForQuestionAnswering

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        [SENTENCE, *QUESTIONS],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("bpe") / "teacher"
    RobertaForQuestionAnswering(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def own_forward(teacher: Teacher, question: list[int], context: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a run of context pieces from one unpadded forward pass, without any code of the product."""
    tokenizer = teacher.tokenizer
    if "token_type_ids" in tokenizer.model_input_names:
        first, between = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    else:
        first, between = [tokenizer.cls_token_id], [tokenizer.sep_token_id] * 2
    ids = [*first, *question, *between, *context, tokenizer.sep_token_id]
    head = len(first) + len(question) + len(between)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = torch.tensor([[0] * head + [1] * (len(ids) - head)])
    with torch.no_grad():
        output = teacher.model(**inputs)
    here = slice(head, head + len(context))
    return output.start_logits[0, here].numpy(), output.end_logits[0, here].numpy()


def brute_force(teacher: Teacher, question: str, context: str) -> list[list[tuple[float, float]]]:
    """For each piece, (start, end) logits of the windows in which it has most context; several if they are even."""
    encode = teacher.tokenizer
    asked = encode(question, add_special_tokens=False)["input_ids"]
    pieces = encode(context, add_special_tokens=False)["input_ids"]
    special = 3 if "token_type_ids" in encode.model_input_names else 4
    room = teacher.window - special - len(asked)
    best: list[tuple[int, list[tuple[float, float]]]] = [(-1, []) for _ in pieces]
    first = 0
    while True:
        part = pieces[first : first + room]
        start, end = own_forward(teacher, asked, part)
        for place in range(len(part)):
            margin = min(place, len(part) - 1 - place)
            logits = (float(start[place]), float(end[place]))
            if margin > best[first + place][0]:
                best[first + place] = (margin, [logits])
            elif margin == best[first + place][0]:
                best[first + place][1].append(logits)
        if first + room >= len(pieces):
            return [found for _, found in best]
        first += room - teacher.stride


def assert_like_brute_force(teacher: Teacher, questions: Sequence[str], contexts: Sequence[str], **values: Any) -> None:
    results = teacher.logits(questions, contexts, precision="fp32", **values)
    for question, context, result in zip(questions, contexts, results, strict=True):
        expected = brute_force(teacher, question, context)
        assert len(expected) == len(result.start) == len(result.end) == len(result.pieces.starts)
        for place, candidates in enumerate(expected):
            found = np.asarray([result.start[place], result.end[place]])
            assert min(np.abs(found - candidate).max() for candidate in candidates) < 1e-4


def test_a_short_context_is_transformers_own_forward(tiny_teacher: Teacher, squad: Squad) -> None:
    """One window: the pair as the tokenizer joins it, straight through the model."""
    for _, paragraph, question in list(squad.items())[:8]:
        context = paragraph.context[: paragraph.context.index(").") + 2]
        encoded = tiny_teacher.tokenizer(question.text, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0]
        assert encoded["input_ids"].shape[1] <= tiny_teacher.window
        with torch.no_grad():
            output = tiny_teacher.model(**encoded)
        inside = [place for place, sequence in enumerate(encoded.sequence_ids(0)) if sequence == 1]
        (result,) = tiny_teacher.logits([question.text], [context], precision="fp32")
        np.testing.assert_allclose(result.start, output.start_logits[0, inside], atol=1e-5)
        np.testing.assert_allclose(result.end, output.end_logits[0, inside], atol=1e-5)
        assert offsets[inside, 0].tolist() == result.pieces.starts.tolist()
        assert offsets[inside, 1].tolist() == result.pieces.ends.tolist()


@pytest.mark.parametrize("repeats", [1, 2, 3, 5, 8])
def test_a_long_context_takes_each_piece_from_the_window_with_most_context(tiny_teacher: Teacher, repeats: int) -> None:
    assert_like_brute_force(tiny_teacher, QUESTIONS, [SENTENCE * repeats] * len(QUESTIONS))


@pytest.mark.parametrize(("window", "stride"), [(64, 1), (64, 17), (48, 30), (128, 60), (40, 16)])
def test_any_window_and_stride(tiny_teacher_path: Path, window: int, stride: int) -> None:
    """Where a piece is in the middle of an overlap of odd length, two windows give it as much context."""
    teacher = Teacher.load(str(tiny_teacher_path), window=window, stride=stride)
    question = QUESTIONS[0] if stride < 30 else QUESTIONS[2]
    assert_like_brute_force(teacher, [question] * 2, [SENTENCE * 4, SENTENCE * 4 + "The end."])


def test_byte_level_pieces_without_types(bpe_teacher_path: Path) -> None:
    teacher = Teacher.load(str(bpe_teacher_path), window=64, stride=16)
    assert_like_brute_force(teacher, QUESTIONS, [SENTENCE * 2, SENTENCE, SENTENCE * 4])
    with pytest.raises(InputError, match="window"):
        Teacher.load(str(bpe_teacher_path), window=129)


def test_logits_do_not_depend_on_the_batch(tiny_teacher: Teacher, squad: Squad) -> None:
    items = list(squad.items())[:12]
    questions, contexts = [q.text for _, _, q in items], [p.context for _, p, _ in items]
    alone = [tiny_teacher.logits([q], [c], precision="fp32")[0] for q, c in zip(questions, contexts, strict=True)]
    for batch_tokens in (1, 300, 100_000):
        together = tiny_teacher.logits(questions[::-1], contexts[::-1], precision="fp32", batch_tokens=batch_tokens)
        for one, other in zip(alone, together[::-1], strict=True):
            np.testing.assert_allclose(one.start, other.start, atol=1e-4)
            np.testing.assert_allclose(one.end, other.end, atol=1e-4)


def test_half_precision_is_close(tiny_teacher: Teacher) -> None:
    (full,) = tiny_teacher.logits(QUESTIONS[:1], [SENTENCE * 3], precision="fp32")
    (half,) = tiny_teacher.logits(QUESTIONS[:1], [SENTENCE * 3], precision="bf16")
    assert half.start.dtype == np.float32
    assert np.corrcoef(full.start, half.start)[0, 1] > 0.99
    assert not np.array_equal(full.start, half.start)


def test_pieces_cover_the_whole_context(tiny_teacher: Teacher, squad: Squad) -> None:
    contexts = [paragraph.context for _, paragraph in squad.paragraphs()]
    contexts += [SENTENCE * 7, "\u200b", "x", "a\u0301bc \u00a0 e" * 40]
    windows, pieces = tiny_teacher.encode([""] * len(contexts), contexts)
    assert {window.question for window in windows} == set(range(len(contexts)))
    for context, found in zip(contexts, pieces, strict=True):
        assert (found.starts >= 0).all() and (found.ends <= len(context)).all() and (found.starts < found.ends).all()
        assert (np.diff(found.starts) >= 0).all()
        covered = np.zeros(len(context), bool)
        for start, end in zip(found.starts, found.ends, strict=True):
            covered[start:end] = True
        plain = [place for place, character in enumerate(context) if character.isascii() and not character.isspace()]
        assert covered[plain].all()
        # The pieces are the context's own, whatever the question before it is.
        _, (asked,) = tiny_teacher.encode([QUESTIONS[1]], [context])
        assert asked.starts.tolist() == found.starts.tolist() and asked.ends.tolist() == found.ends.tolist()


def test_a_context_without_a_piece(tiny_teacher: Teacher) -> None:
    empty, other = tiny_teacher.logits(QUESTIONS[:2], ["\u200b", SENTENCE], precision="fp32")
    assert empty.start.shape == empty.end.shape == (0,) and len(other.start) > 10


def test_a_question_too_long_for_the_window_is_named(tiny_teacher: Teacher) -> None:
    with pytest.raises(DataError, match="room for a context") as caught:
        tiny_teacher.encode(["why " * 60], [SENTENCE])
    assert "why why" in str(caught.value)


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (64, 0), (129, 16), (64, 61)])
def test_windows_that_cannot_be(tiny_teacher_path: Path, window: int, stride: int) -> None:
    with pytest.raises(InputError, match="window"):
        Teacher.load(str(tiny_teacher_path), window=window, stride=stride)


def refused(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Teacher.load(name, window=64, stride=16)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_teacher_that_is_none(tmp_path: Path, tiny_teacher_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(str(tmp_path / "missing"), "missing")
    refused(str(tmp_path / "no" / "such" / "folder"), "could not be loaded|does not exist")
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "config.json")
    monkeypatch.chdir(tmp_path)
    refused("empty", "config.json")
    refused("./empty", "config.json")
    encoder = write_tiny_teacher(tmp_path / "encoder", [SENTENCE], head=False)
    refused(str(encoder), "no trained question-answering head")
    for number, (file, content, words) in enumerate(
        [
            ("config.json", b"{", "could not be loaded"),
            ("config.json", b'{"model_type": "vit"}', "could not be loaded"),
            ("config.json", b'{"model_type": "nonsense"}', "could not be loaded"),
            ("config.json", b"{}", "could not be loaded"),
            ("model.safetensors", b"", "could not be loaded"),
            ("model.safetensors", (tiny_teacher_path / "model.safetensors").read_bytes()[:5000], "could not be loaded"),
            ("model.safetensors", None, "could not be loaded"),
            ("tokenizer.json", b"{", "could not be loaded"),
            ("tokenizer.json", None, "could not be loaded|fast tokenizer"),
        ]
    ):
        damaged = tmp_path / f"damaged{number}"
        shutil.copytree(tiny_teacher_path, damaged)
        if content is None:
            (damaged / file).unlink()
        else:
            (damaged / file).write_bytes(content)
        refused(str(damaged), words)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (encoder / file).unlink()
    shutil.copy(tiny_teacher_path / "model.safetensors", encoder)
    shutil.copy(tiny_teacher_path / "config.json", encoder)
    refused(str(encoder), "no tokenizer")


def test_the_hub_cannot_be_reached() -> None:
    """HF_HUB_OFFLINE is set for all tests; a name that no cache holds."""
    refused("nobody/has-such-a-teacher", "could not be loaded")
    refused("has-such-a-teacher-nobody", "could not be loaded")


def test_hashes_tell_teachers_apart(tiny_teacher: Teacher, tiny_teacher_path: Path, tmp_path: Path) -> None:
    texts = [p.context for _, p in tiny_squad().paragraphs()]
    other = Teacher.load(str(write_tiny_teacher(tmp_path / "other", texts, seed=1, pieces=200)), window=64, stride=16)
    again = Teacher.load(str(tiny_teacher_path), window=64, stride=16)
    assert tiny_teacher.sha256() == again.sha256() != other.sha256()
    assert tiny_teacher.tokenizer_sha256() == again.tokenizer_sha256() != other.tokenizer_sha256()
    again.tokenizer(["a text"], truncation=True, max_length=3, padding="max_length")
    assert tiny_teacher.tokenizer_sha256() == again.tokenizer_sha256()


def test_the_config_is_hashed_where_it_decides_the_logits(tiny_teacher_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_teacher_path, tmp_path / "same")
    config = json.loads((tiny_teacher_path / "config.json").read_text())
    (tmp_path / "same" / "config.json").write_text(
        json.dumps({**config, "transformers_version": "4.0.0", "architectures": ["BertModel"], "dtype": "float16"})
    )
    shutil.copytree(tiny_teacher_path, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    teachers = [
        Teacher.load(str(path), window=64, stride=16)
        for path in (tiny_teacher_path, tmp_path / "same", tmp_path / "other")
    ]
    assert len({teacher.sha256() for teacher in teachers}) == 1
    first, same, other = (teacher.config_sha256() for teacher in teachers)
    assert first == same != other


@pytest.mark.parametrize("device", ["meta", "hpu", "vulkan", "xla", "nonsense", "", "-1"])
def test_a_device_that_cannot_be_used_is_one_sentence(tiny_teacher_path: Path, device: str) -> None:
    with pytest.raises(InputError, match=r"cannot be used .*name another") as caught:
        Teacher.load(str(tiny_teacher_path), device=device, window=64, stride=16)
    assert "\n" not in str(caught.value) and repr(device) in str(caught.value)


def test_loading_is_silent(tiny_teacher_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Progress goes to a terminal alone."""
    Teacher.load(str(tiny_teacher_path), window=64, stride=16)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
