"""A tiny data set, tiny word vectors, tiny features, a tiny BERT with a WordPiece tokenizer and a tiny student.

All is made from a seed in a second or two. The teacher's weights are random: what is tested is how its logits are
taken, not what they say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qa_edge.batches import build_batch
from qa_edge.features import Features
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, write_squad
from qa_edge.student.config import StudentConfig
from qa_edge.student.qanet import Batch, QANet
from qa_edge.trained import TrainedStudent, read_inputs

NAMES = ("Anna", "Björn", "Carla", "Dmitri", "Élodie", "Farid", "Gwen", "Hiro", "Ines", "Jürgen")
THINGS = ("kettle", "bicycle", "boat", "lamp", "piano", "camera", "drum", "ladder", "clock", "tent")
COLOURS = ("red", "green", "blue", "yellow", "pale grey", "dark brown", "white", "black", "orange", "pink")
PLACES = ("in the cellar", "at the harbour", "near Łódź", "under the stairs", "in São Paulo", "by the old mill")
SIZES: dict[str, Any] = {
    "hidden": 32,
    "heads": 1,
    "encoder_convolutions": 1,
    "model_blocks": 1,
    "character_dim": 8,
    "characters": 60,
    "word_dim": 12,
}


def fact(random: np.random.Generator, number: int) -> tuple[str, list[tuple[str, str]]]:
    """A sentence, and questions about it with their answers."""
    name, thing, colour, place = (str(random.choice(words)) for words in (NAMES, THINGS, COLOURS, PLACES))
    size = int(random.integers(2, 99))
    text = f"The {thing} of {name} is {colour}, it weighs {size} kg and it's kept {place} (item no. {number})."
    return text, [
        (f"What colour is the {thing} of {name}?", colour),
        (f"How heavy is {name}'s {thing}, item {number}?", f"{size} kg"),
        (f"Where is {name}'s {thing} kept?", place),
    ]


def tiny_squad(*, articles: int = 6, contexts: int = 3, facts: int = 2, seed: int = 0) -> Squad:
    """Facts about things, three questions a fact, each answer at its true offset."""
    random = np.random.default_rng(seed)
    made: list[Article] = []
    number = 0
    for article in range(articles):
        paragraphs = []
        for _ in range(contexts):
            context = ""
            questions = []
            for _ in range(facts):
                text, asked = fact(random, number)
                start = len(context) + bool(context)
                context = f"{context} {text}" if context else text
                for question, answer in asked:
                    place = start + text.index(f" {answer}") + 1
                    reference = Reference(text=answer, start=place)
                    questions.append(Question(id=f"q{len(questions)}-{number}", text=question, answers=(reference,)))
                number += 1
            paragraphs.append(Paragraph(context=context, questions=tuple(questions)))
        made.append(Article(title=f"Article {article}", paragraphs=tuple(paragraphs)))
    return Squad(articles=tuple(made))


def write_tiny_squad(path: Path, **sizes: int) -> Path:
    write_squad(path, tiny_squad(**sizes))
    return path


def write_tiny_vectors(path: Path, squad: Squad, *, dim: int = 12, seed: int = 0) -> Path:
    """GloVe text with a vector for each lower-cased word of the data set; names and numbers have none."""
    words: dict[str, None] = {}
    for _, paragraph, question in squad.items():
        for text in (paragraph.context, question.text):
            for word in text.lower().replace("'s", " 's").replace("(", "( ").split():
                words.setdefault(word.strip(".,?"))
    kept = [word for word in words if word and not word.isdigit() and word not in {name.lower() for name in NAMES}]
    random = np.random.default_rng(seed)
    lines = [f"{word} " + " ".join(f"{x:.4f}" for x in random.normal(size=dim)) for word in [*kept, ",", ".", "?"]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tiny_teacher(
    folder: Path, texts: Sequence[str], *, seed: int = 0, pieces: int = 300, limit: int = 128, head: bool = True
) -> Path:
    """A BERT of two layers with random weights, as `save_pretrained` leaves it; without a QA head on request."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForQuestionAnswering, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=pieces, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=limit,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=limit,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    model = BertForQuestionAnswering(config) if head else BertModel(config)
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def all_texts(squad: Squad) -> list[str]:
    return [text for _, paragraph, question in squad.items() for text in (paragraph.context, question.text)]


def tiny_student(*, seed: int = 0, **sizes: Any) -> QANet:
    torch.manual_seed(seed)
    return QANet(StudentConfig(**{**SIZES, **sizes}))


def student_of(features: Features, *, seed: int = 0, **sizes: Any) -> TrainedStudent:
    """An untrained student that fits a features folder."""
    tokenizer, vocabulary, vectors = read_inputs(features.folder)
    fitted = {"word_dim": vectors.shape[1], "characters": vocabulary.character_rows}
    return TrainedStudent(tiny_student(seed=seed, **fitted, **sizes), tokenizer, vocabulary, vectors)


FORMS = 400


def random_batch(
    lengths: Sequence[tuple[int, int]], *, seed: int = 0, word_dim: int = 12, characters: int = 60
) -> Batch:
    """Random tokens; some words are unknown. A row's tokens depend on the seed and on its place alone.

    :param lengths: context and question tokens of each row.
    """
    rows = [random_row(place, *pair, seed=seed) for place, pair in enumerate(lengths)]
    return batch_of(rows, word_dim=word_dim, characters=characters)


def random_row(place: int, context: int, question: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([seed, place])
    forms = random.integers(0, FORMS, context + question).astype(np.int32)
    return forms[:context], forms[context:]


def batch_of(rows: Sequence[tuple[np.ndarray, np.ndarray]], *, word_dim: int = 12, characters: int = 60) -> Batch:
    """A batch of (context, question) forms over one fixed table of forms."""
    random = np.random.default_rng(99)
    form_words = random.integers(0, 50, FORMS).astype(np.int32)
    form_words[::7] = 0
    letters = random.integers(1, characters, (FORMS, 16)).astype(np.int32)
    letters[np.arange(16) >= random.integers(1, 17, FORMS)[:, None]] = 0
    vectors = random.normal(size=(51, word_dim)).astype(np.float16)
    vectors[0] = 0
    return build_batch([c for c, _ in rows], [q for _, q in rows], form_words, letters, vectors)


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
