from __future__ import annotations

import functools
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge.align import STRATEGIES, Alignment, align, align_logits, coverage, fold
from qa_edge_runtime.errors import DataError, InputError

Ranges = list[tuple[int, int]]
Tokenize = Callable[[str], Ranges]

TEXTS = [
    "Accommodation in Nuclear Astrophysics. They cannot understand; don't you?",
    "  Beyoncé Giselle Knowles-Carter (/biːˈjɒnseɪ/ bee-YON-say) was\u00a0born\n\n in 1981…  ",
    "The Łódź–Straße 東京都 (Tōkyō-to), Ελλάδα и Москва, नमस्ते: ½ of 10²™ … ﬁne e\u0301te\u0301",
    "zero\u200bwidth\ufeff 👩‍👩‍👧‍👦 flags 🇩🇪! \x00control\x07 \ufffd U.S.A. e.g. $1,000.50 http://x.org/a?b=c",
    "K Å ℵ ﷺ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ⅷ Ⅷ ㍿ İstanbul ß ŉ a\u0301\u0327\u0302b \u0301 ",
]


def find(context: str, parts: list[str]) -> Ranges:
    """Ranges of the parts, each looked for behind the one before."""
    ranges, position = [], 0
    for part in parts:
        position = context.index(part, position)
        ranges.append((position, position + len(part)))
        position += len(part)
    return ranges


def align_ranges(strategy: str, context: str, tokens: Ranges, pieces: Ranges) -> Alignment:
    return align(
        strategy,
        context,
        [start for start, _ in tokens],
        [end for _, end in tokens],
        [start for start, _ in pieces],
        [end for _, end in pieces],
    )


def align_parts(strategy: str, context: str, tokens: list[str], pieces: list[str]) -> tuple[list[int], list[int]]:
    alignment = align_ranges(strategy, context, find(context, tokens), find(context, pieces))
    return alignment.start_piece.tolist(), alignment.end_piece.tolist()


def check(context: str, tokens: Ranges, pieces: Ranges) -> dict[str, float]:
    """Align by each strategy and assert what holds for any text; returns the share of tokens with a logit."""
    shares = {}
    for strategy in STRATEGIES:
        alignment = align_ranges(strategy, context, tokens, pieces)
        assert alignment.start_piece.dtype == alignment.end_piece.dtype == np.int32
        assert alignment.start_piece.shape == alignment.end_piece.shape == (len(tokens),)
        assert ((alignment.start_piece >= 0) == (alignment.end_piece >= 0)).all()
        previous = -1
        for (token_start, token_end), first, last in zip(
            tokens, alignment.start_piece.tolist(), alignment.end_piece.tolist(), strict=True
        ):
            if first < 0:
                assert first == last == -1
                continue
            assert previous <= first <= last < len(pieces)
            assert first == last or strategy == "offset"
            assert pieces[first][0] < token_end and pieces[first][1] > token_start
            assert pieces[last][0] < token_end and pieces[last][1] > token_start
            previous = first
        shares[strategy] = coverage(alignment)
    return shares


# --- the paper's examples -------------------------------------------------------------------------------------------


def test_accommodation_takes_its_first_piece() -> None:
    context, pieces = "Accommodation", ["Acc", "ommo", "dation"]
    assert align_parts("rule", context, ["Accommodation"], pieces) == ([0], [0])
    assert align_parts("offset", context, ["Accommodation"], pieces) == ([0], [2])


def test_nuclear_astrophysics_continues_after_the_merged_pieces() -> None:
    context = "Nuclear Astrophysics."
    tokens, pieces = ["Nuclear", "Astrophysics", "."], ["Nuclear", "Astro", "physics", "."]
    assert align_parts("rule", context, tokens, pieces) == ([0, 1, 3], [0, 1, 3])
    assert align_parts("offset", context, tokens, pieces) == ([0, 1, 3], [0, 2, 3])


def test_cannot_understand_ignores_the_second_token_of_a_piece() -> None:
    context = "cannot understand"
    tokens, pieces = ["can", "not", "understand"], ["cannot", "understand"]
    assert align_parts("rule", context, tokens, pieces) == ([0, -1, 1], [0, -1, 1])
    assert align_parts("offset", context, tokens, pieces) == ([0, 0, 1], [0, 0, 1])


# --- beyond the paper's examples ------------------------------------------------------------------------------------


def test_rule_merges_when_both_sides_cut_within_a_word() -> None:
    context, tokens, pieces = "I don't know", ["I", "do", "n't", "know"], ["I", "don", "'", "t", "know"]
    assert align_parts("rule", context, tokens, pieces) == ([0, 1, -1, 4], [0, 1, -1, 4])
    assert align_parts("offset", context, tokens, pieces) == ([0, 1, 1, 4], [0, 1, 3, 4])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_spaces_inside_piece_ranges_do_not_count(strategy: str) -> None:
    context = "a big  cat \n sat"
    tokens = [(0, 1), (2, 5), (6, 7), (7, 10), (11, 13), (13, 16)]  # spaCy makes tokens of surplus white space
    pieces = [(0, 1), (1, 5), (5, 6), (6, 10), (10, 16)]  # GPT-2 counts the space to the word
    alignment = align_ranges(strategy, context, tokens, pieces)
    assert alignment.start_piece.tolist() == [0, 1, -1, 3, -1, 4]
    assert coverage(alignment) == pytest.approx(4 / 6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bytes_of_one_character_are_one_piece_of_text(strategy: str) -> None:
    context = "a 👧 b"
    pieces = [(0, 1), (1, 3), (2, 3), (2, 3), (2, 3), (3, 5)]
    alignment = align_ranges(strategy, context, [(0, 1), (2, 3), (4, 5)], pieces)
    assert alignment.start_piece.tolist() == [0, 1, 5]


def test_rule_finds_its_place_again_after_what_it_cannot_explain() -> None:
    context = "one 東京 two Łódź three"
    tokens = ["one", "東京", "two", "Łódź", "three"]
    # The teacher's tokenizer dropped one character and cut another where folding leaves nothing of the first half.
    assert align_parts("rule", context, tokens, ["one", "京", "two", "Ł", "ódź", "three"])[0] == [0, -1, 2, 3, 5]


def test_rule_skips_a_token_that_the_teacher_does_not_have() -> None:
    context = "one \x07\x07 two three"
    assert align_parts("rule", context, ["one", "\x07\x07", "two", "three"], ["one", "two", "three"])[0] == [
        0,
        -1,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Café", "cafe"),
        ("ﬁne", "fine"),
        ("東京", "東京"),
        ("ΑΘΗΝΑ", "αθηνα"),
        ("İ", "i"),
        ("10²™", "102tm"),
        ("\x07a\x00", "a"),
        ("\x07", "\x07"),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_align_logits_masks_tokens_without_a_piece() -> None:
    alignment = align_ranges("rule", "cannot go", [(0, 3), (3, 6), (7, 9)], [(0, 6), (7, 9)])
    start, end, mask = align_logits(alignment, np.array([1.5, 2.5], np.float16), np.array([3.5, 4.5], np.float16))
    assert start.tolist() == [1.5, 0.0, 2.5] and end.tolist() == [3.5, 0.0, 4.5]
    assert mask.tolist() == [True, False, True] and start.dtype == end.dtype == np.float32


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_to_align(strategy: str) -> None:
    assert coverage(align_ranges(strategy, "", [], [])) == 1.0
    assert coverage(align_ranges(strategy, "a b", [(0, 1), (2, 3)], [])) == 0.0
    assert align_ranges(strategy, "a b", [], [(0, 1)]).start_piece.size == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="'best' is unknown: choose one of rule, offset"):
        align("best", "a", [0], [1], [0], [1])
    with pytest.raises(DataError, match="reach from character 0 to 9, but the context has 1"):
        align("rule", "a", [0], [1], [0], [9])
    with pytest.raises(DataError, match="2 token starts but 1 token ends"):
        align("rule", "a", [0, 1], [1], [0], [1])


# --- any text, any cut ----------------------------------------------------------------------------------------------

nasty_text = st.text(
    st.one_of(
        st.sampled_from("abcAB  \n\t\u00a0.,'-½…™ŁßéİſK東京👧\u0301\u0327\u200b\u200d\ufeff\ufffd\x00ﬁﷺ"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


@given(st.data(), nasty_text)
@settings(max_examples=300, deadline=None)
def test_any_cut_of_any_text_aligns(data: st.DataObject, context: str) -> None:
    def cut(*, overlapping: bool) -> Ranges:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(context)), max_size=30)))
        ranges = list(itertools.pairwise(cuts))
        kept = data.draw(st.lists(st.booleans(), min_size=len(ranges), max_size=len(ranges)))
        repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(ranges), max_size=len(ranges)))
        return [
            one
            for one, keep, repeat in zip(ranges, kept, repeats, strict=True)
            if keep
            for _ in range(repeat if overlapping else 1)
        ]

    check(context, cut(overlapping=False), cut(overlapping=True))


@given(nasty_text, st.data())
@settings(max_examples=200, deadline=None)
def test_equal_cuts_align_one_to_one(context: str, data: st.DataObject) -> None:
    cuts = sorted(set(data.draw(st.lists(st.integers(0, len(context)), max_size=30))))
    ranges = list(itertools.pairwise(cuts))
    for strategy in STRATEGIES:
        alignment = align_ranges(strategy, context, ranges, ranges)
        expected = [index if context[start:end].strip() else -1 for index, (start, end) in enumerate(ranges)]
        assert alignment.start_piece.tolist() == alignment.end_piece.tolist() == expected


@given(nasty_text, st.data())
@settings(max_examples=200, deadline=None)
def test_ascii_words_cut_finer_by_the_teacher_all_get_their_first_piece(context: str, data: st.DataObject) -> None:
    context = "".join(character for character in context if character.isascii())
    cuts = sorted(set(data.draw(st.lists(st.integers(0, len(context)), max_size=30))) | {0, len(context)})
    pieces = list(itertools.pairwise(cuts))
    coarse = sorted(set(data.draw(st.lists(st.sampled_from(cuts), max_size=8))) | {0, len(context)})
    tokens = list(itertools.pairwise(coarse))
    by_rule = align_ranges("rule", context, tokens, pieces)
    by_offset = align_ranges("offset", context, tokens, pieces)
    assert by_rule.start_piece.tolist() == by_offset.start_piece.tolist()


# --- real tokenizers ------------------------------------------------------------------------------------------------


@functools.cache
def spacy_tokens() -> Tokenize:
    spacy = pytest.importorskip("spacy")
    tokenizer = spacy.blank("en").tokenizer
    return lambda text: [(token.idx, token.idx + len(token.text)) for token in tokenizer(text)]


def train_tokenizers(texts: list[str], size: int) -> dict[str, Tokenize]:
    """WordPiece, byte-level BPE and SentencePiece-like Unigram tokenizers trained on the texts."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    def finished(tokenizer: object, trainer: object) -> Tokenize:
        tokenizer.train_from_iterator(texts, trainer)  # type: ignore[attr-defined]
        return lambda text: tokenizer.encode(text, add_special_tokens=False).offsets  # type: ignore[attr-defined]

    wordpiece = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    unigram = tokenizers.Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    quiet = {"show_progress": False, "vocab_size": size}
    return {
        "wordpiece": finished(wordpiece, trainers.WordPieceTrainer(special_tokens=["[UNK]"], **quiet)),
        "byte-level bpe": finished(bpe, trainers.BpeTrainer(initial_alphabet=alphabet, **quiet)),
        "unigram": finished(unigram, trainers.UnigramTrainer(unk_token="<unk>", special_tokens=["<unk>"], **quiet)),
    }


@pytest.fixture(scope="module")
def small_tokenizers() -> dict[str, Tokenize]:
    return train_tokenizers(TEXTS * 3, 400)


@pytest.mark.parametrize("name", ["wordpiece", "byte-level bpe", "unigram"])
def test_real_tokenizers_on_small_texts(small_tokenizers: dict[str, Tokenize], name: str) -> None:
    tokens = spacy_tokens()
    for text in TEXTS:
        shares = check(text, tokens(text), small_tokenizers[name](text))
        # White space, what the teacher drops and, by `rule`, the later tokens of a piece stay without a logit.
        assert shares["offset"] > 0.8 and shares["rule"] > 0.5, (name, text, shares)


@given(nasty_text)
@settings(max_examples=100, deadline=None)
def test_real_tokenizers_on_any_text(small_tokenizers: dict[str, Tokenize], context: str) -> None:
    words = spacy_tokens()
    for pieces in small_tokenizers.values():
        check(context, words(context), pieces(context))


def squad_contexts(data: Path) -> Iterator[str]:
    for article in json.loads((data / "squad" / "train-v1.1.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]


@pytest.mark.slow
@pytest.mark.skipif("QA_EDGE_DATA" not in os.environ, reason="needs QA_EDGE_DATA")
def test_every_context_of_squad_aligns_for_every_kind_of_teacher() -> None:
    transformers = pytest.importorskip("transformers")
    data = Path(os.environ["QA_EDGE_DATA"])
    contexts = list(squad_contexts(data))
    teacher = transformers.AutoTokenizer.from_pretrained(data / "teacher" / "minilm-squad")
    trained = train_tokenizers(contexts[::6], 16_000)
    tokenizers: dict[str, Tokenize] = {
        "teacher's wordpiece": lambda text: teacher(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"],
        "byte-level bpe": trained["byte-level bpe"],
        "unigram": trained["unigram"],
    }
    words = spacy_tokens()
    counts = {(name, strategy): 0 for name in tokenizers for strategy in STRATEGIES}
    seconds = dict.fromkeys(counts, 0.0)
    total = 0
    for context in contexts:
        tokens = words(context)
        total += len(tokens)
        for name, pieces_of in tokenizers.items():
            pieces = pieces_of(context)
            check(context, tokens, pieces)
            for strategy in STRATEGIES:
                begin = time.perf_counter()
                alignment = align_ranges(strategy, context, tokens, pieces)
                seconds[name, strategy] += time.perf_counter() - begin
                counts[name, strategy] += int(alignment.mask.sum())
    for (name, strategy), count in counts.items():
        # A warning, so that pytest shows the figures of a test that passes.
        warnings.warn(
            f"{name}, {strategy}: {100 * count / total:.3f} % of {total} tokens in {len(contexts)} contexts have a "
            f"logit, {1e3 * seconds[name, strategy] / len(contexts):.2f} ms a context",
            stacklevel=1,
        )
        assert count / total > (0.99 if strategy == "offset" else 0.9), (name, strategy)
