"""The student: masks, sizes, presets, gradients, dropout and stochastic depth."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import batch_of, random_batch, random_row, tiny_student, write_json

from qa_edge.student import dropout as dropout_module
from qa_edge.student.block import EncoderBlock
from qa_edge.student.config import PRESETS, StudentConfig, preset_config
from qa_edge.student.dropout import Dropout, DropoutPool, survives
from qa_edge.student.fusion import Fusion
from qa_edge.student.qanet import Batch, QANet, count_parameters, position_signal
from qa_edge_runtime.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [
    {"heads": 1},
    {"heads": 2},
    {"heads": 4, "hidden": 16},
    {"word_dim": 0},
    {"encoder_convolutions": 4, "model_convolutions": 0, "model_blocks": 2},
]


def logits(model: QANet, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(batch)


def shaken(model: QANet, seed: int = 0) -> QANet:
    """Weights away from zero everywhere: biases that start at 0 could hide a missing mask."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.15, generator=generator))
        model.token.characters[0] = 0
    return model


def padded(batch: Batch, context: int, question: int) -> Batch:
    """The same questions with more padding, of tokens that are not the padding's usual ones."""

    def wider(ids: torch.Tensor, extra: int) -> torch.Tensor:
        return F.pad(ids, (0, extra), value=len(batch.unknown) - 1)

    return dataclasses.replace(batch, context=wider(batch.context, context), question=wider(batch.question, question))


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_logits_do_not_depend_on_neighbours_order_or_padding(sizes: dict[str, int]) -> None:
    model = shaken(tiny_student(**sizes))
    dim = model.config.word_dim
    lengths = [(1, 1), (40, 9), (7, 30), (1, 12), (65, 1), (8, 8), (23, 5)]
    rows = [random_row(place, *pair) for place, pair in enumerate(lengths)]
    together = logits(model, batch_of(rows, word_dim=dim))
    wide = logits(model, padded(batch_of(rows, word_dim=dim), 13, 21))
    order = [4, 2, 6, 0, 5, 1, 3]
    shuffled = logits(model, batch_of([rows[place] for place in order], word_dim=dim))
    for place, (context, _) in enumerate(lengths):
        alone = logits(model, batch_of([rows[place]], word_dim=dim))[0, :, :context]
        assert alone.abs().max() < 100 and torch.isfinite(alone).all()
        for other in (together[place], wide[place], shuffled[order.index(place)]):
            torch.testing.assert_close(other[:, :context], alone, atol=1e-5, rtol=1e-5)
            assert (other[:, context:] < -9000).all()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=2, max_size=6),
    heads=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_any_lengths_give_what_they_give_alone(lengths: list[tuple[int, int]], heads: int, seed: int) -> None:
    model = shaken(tiny_student(heads=heads))
    rows = [random_row(place, *pair, seed=seed) for place, pair in enumerate(lengths)]
    together = logits(model, batch_of(rows))
    for place, (context, _) in enumerate(lengths):
        alone = logits(model, batch_of([rows[place]]))[0, :, :context]
        torch.testing.assert_close(together[place, :, :context], alone, atol=1e-5, rtol=1e-5)


def test_gradients_do_not_depend_on_padding_or_neighbours() -> None:
    """The sum over questions of a loss has the sum of their gradients, whatever batch they came in."""
    model = shaken(tiny_student(heads=2)).eval()
    lengths = [(9, 4), (33, 12), (2, 1)]
    rows = [random_row(place, *pair) for place, pair in enumerate(lengths)]

    def gradient(*batches: Batch) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            output = model(batch)
            for row, count in enumerate(batch.context_lengths.tolist()):
                (output[row, :, :count] * torch.arange(2 * count).view(2, count).cos()).sum().backward(
                    retain_graph=True
                )
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    alone = gradient(*(batch_of([row]) for row in rows))
    for batch in (batch_of(rows), padded(batch_of(rows), 7, 5), batch_of(rows[::-1])):
        torch.testing.assert_close(gradient(batch), alone, atol=2e-4, rtol=2e-4)


def test_bfloat16_does_not_depend_on_padding_either() -> None:
    """Only to its own precision: sums of another length round differently."""
    model = shaken(tiny_student(heads=1))
    rows = [random_row(0, 20, 6), random_row(1, 60, 11)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together, alone = logits(model, batch_of(rows)), logits(model, batch_of(rows[:1]))
    exact = logits(model, batch_of(rows[:1]))[0, :, :20]
    scale = exact.std()
    assert (together[0, :, :20] - alone[0, :, :20]).abs().max() < 0.1 * scale
    assert (alone[0, :, :20] - exact).abs().max() < 0.2 * scale
    assert (together[0, :, 20:] < -9000).all() and together.dtype == torch.float32


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_gradients_reach_every_parameter(sizes: dict[str, int]) -> None:
    model = shaken(tiny_student(**sizes, dropout=0.0, character_dropout=0.0, survival=1.0)).train()
    output = model(random_batch([(30, 9), (22, 12), (5, 3)], word_dim=model.config.word_dim))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator) * (output > -9000)
    (output * weights).sum().backward()
    for name, parameter in model.named_parameters():
        if not parameter.numel():  # the unknown word of a student without word vectors
            continue
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if not name.endswith("key.bias"):  # a softmax does not see what all keys share
            assert parameter.grad.norm() > 1e-4, name
    assert not model.token.characters.grad[0].any()  # padding


def test_unknown_words_have_the_trained_vector_and_no_other() -> None:
    model = shaken(tiny_student())
    batch = random_batch([(20, 5)])
    assert batch.unknown.any() and not batch.unknown.all()
    before = logits(model, batch)
    noise = torch.where(batch.unknown.unsqueeze(1), torch.randn_like(batch.word_vectors), 0.0)
    torch.testing.assert_close(
        logits(model, dataclasses.replace(batch, word_vectors=batch.word_vectors + noise)), before
    )
    with torch.no_grad():
        model.token.unknown.add_(1.0)
    assert (logits(model, batch) - before)[:, :, :20].abs().max() > 1e-4


def test_every_token_of_the_question_counts() -> None:
    model = shaken(tiny_student())
    context, question = random_row(0, 12, 6)
    before = logits(model, batch_of([(context, question)]))
    for place in range(6):
        other = question.copy()
        other[place] = (other[place] + 1) % 400
        assert (logits(model, batch_of([(context, other)])) - before).abs().max() > 1e-5


def test_the_order_of_tokens_counts() -> None:
    model = shaken(tiny_student(encoder_convolutions=0, model_convolutions=0))
    context, question = random_row(0, 12, 6)
    straight = logits(model, batch_of([(context, question)]))[0, :, :12]
    turned = logits(model, batch_of([(context[::-1].copy(), question)]))[0, :, :12]
    assert (straight - turned.flip(1)).abs().max() > 1e-3


def test_the_position_signal_is_tensor2tensors() -> None:
    found = position_signal(50, 16).double()
    for position, place in itertools.product((0, 1, 17, 49), range(8)):
        angle = position * 10_000 ** (-place / 7)
        assert math.isclose(found[position, place], math.sin(angle), abs_tol=1e-5)
        assert math.isclose(found[position, 8 + place], math.cos(angle), abs_tol=1e-5)
    assert torch.isfinite(position_signal(3, 2)).all()


def test_one_block_is_what_stock_layers_make(one_thread: None) -> None:
    """Pre-norm residuals: convolutions, torch's own multi-head attention, feed-forward."""
    torch.manual_seed(0)
    block = EncoderBlock(
        hidden=16, heads=4, kernel=5, convolutions=2, dropout=0.0, survival=1.0, pool=DropoutPool()
    ).eval()
    stock = torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    attention = block.attention
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
        stock.in_proj_weight.copy_(
            torch.cat([part.weight for part in (attention.query, attention.key, attention.value)])
        )
        stock.in_proj_bias.copy_(torch.cat([part.bias for part in (attention.query, attention.key, attention.value)]))
        stock.out_proj.weight.copy_(attention.output.weight)
        stock.out_proj.bias.copy_(attention.output.bias)
        x = torch.randn(2, 9, 16)
        keep = (torch.arange(9) < torch.tensor([[9], [6]])).float()
        found = block(x, keep.unsqueeze(2), ((1 - keep) * -1e4).unsqueeze(1), first=1, sublayers=4)
        expected = x
        for convolution in block.convolutions:
            normed = F.layer_norm(expected, (16,), convolution.norm.weight, convolution.norm.bias, 1e-6)
            normed = normed * keep.unsqueeze(2)
            mixed = F.conv1d(normed.mT, convolution.depthwise.unsqueeze(1), padding=2, groups=16)
            mixed = F.conv1d(mixed, convolution.pointwise.weight.unsqueeze(2), convolution.pointwise.bias).mT
            expected = expected + F.relu(mixed)
        normed = F.layer_norm(expected, (16,), attention.norm.weight, attention.norm.bias, 1e-6)
        expected = expected + stock(normed, normed, normed, key_padding_mask=keep == 0, need_weights=False)[0]
        forward = block.feedforward
        normed = F.layer_norm(expected, (16,), forward.norm.weight, forward.norm.bias, 1e-6)
        expected = expected + forward.outer(F.relu(forward.inner(normed)))
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, :6], expected[1, :6], atol=1e-5, rtol=1e-5)


def test_one_head_and_many_are_the_same_layer() -> None:
    """The edge preset's attention is written out; with one head torch's own must give the same."""
    torch.manual_seed(0)
    attention = EncoderBlock(
        hidden=8, heads=1, kernel=3, convolutions=0, dropout=0.0, survival=1.0, pool=DropoutPool()
    ).attention
    x = torch.randn(2, 5, 8)
    bias = torch.tensor([[[0.0] * 5], [[0.0] * 3 + [-1e4] * 2]])
    with torch.no_grad():
        normal = attention.norm(x)
        query, key, value = attention.query(normal), attention.key(normal), attention.value(normal)
        expected = x + attention.output(F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
        torch.testing.assert_close(attention(x, torch.ones(2, 5, 1), bias), expected)


def test_fusion_is_its_formula() -> None:
    """By loops in numpy over one row without padding, and over the same row with padding."""
    torch.manual_seed(0)
    fusion = Fusion(6)
    context, question = torch.randn(1, 5, 6), torch.randn(1, 3, 6)
    with torch.no_grad():
        found = fusion(context, question, torch.zeros(1, 1, 5), torch.zeros(1, 1, 3))[0].numpy()
        c, q = context[0].double().numpy(), question[0].double().numpy()
        w_c, w_q, w_p = (p.double().numpy() for p in (fusion.context, fusion.question, fusion.product))
        weight, bias = fusion.projection.weight.double().numpy(), fusion.projection.bias.double().numpy()
        similarity = np.asarray([[ci @ w_c + qj @ w_q + (ci * qj) @ w_p for qj in q] for ci in c])
        over_question = np.exp(similarity) / np.exp(similarity).sum(1, keepdims=True)
        over_context = np.exp(similarity) / np.exp(similarity).sum(0, keepdims=True)
        for i in range(5):
            to_question = sum(over_question[i, j] * q[j] for j in range(3))
            to_context = sum(over_question[i, j] * over_context[k, j] * c[k] for j in range(3) for k in range(5))
            joined = np.concatenate([c[i], to_question, c[i] * to_question, c[i] * to_context])
            np.testing.assert_allclose(found[i], weight @ joined + bias, atol=1e-5)
        wide_bias = [F.pad(torch.zeros(1, 1, n), (0, extra), value=-1e4) for n, extra in ((5, 2), (3, 4))]
        wide = fusion(F.pad(context, (0, 0, 0, 2), value=3.0), F.pad(question, (0, 0, 0, 4), value=-2.0), *wide_bias)
    np.testing.assert_allclose(wide[0, :5].numpy(), found, atol=1e-5)


def test_the_paper_preset_has_about_the_papers_parameters() -> None:
    """Boreshban et al. say 1.3 M; here 1.34 M without embeddings, counted layer by layer."""
    d, w, c = 128, 300, 64
    dense = d * d + d
    token = (5 * c * d + d) + d * (w + d) + 2 * 2 * dense
    rest = (2 * d + 4 * dense) + (2 * d + 2 * dense)  # attention and feed-forward with their norms
    encoder = 4 * (2 * d + 7 * d + dense) + rest
    model = 7 * (2 * (2 * d + 5 * d + dense) + rest)
    fusion = 3 * d + 4 * d * d + d
    expected = token + encoder + model + fusion + 2 * 2 * d + 2 * (2 * d + 1)
    paper = QANet(preset_config("paper", word_dim=w, characters=96))
    assert count_parameters(paper) == (expected + w + 96 * c, expected)
    assert expected == 1_340_034
    edge = QANet(preset_config("edge", word_dim=w, characters=96))
    assert count_parameters(edge) == count_parameters(paper)  # heads share the same weights
    assert (paper.config.heads, edge.config.heads) == (8, 1)
    assert set(PRESETS) >= {"paper", "edge"}


def test_a_seed_makes_the_same_student() -> None:
    first, second, other = tiny_student(seed=1), tiny_student(seed=1), tiny_student(seed=2)
    for (name, one), (_, two) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.token.characters, other.token.characters)


# Dropout and stochastic depth


def test_dropout_and_stochastic_depth_are_in_training_alone() -> None:
    batch = random_batch([(30, 9), (22, 12)])
    model = shaken(tiny_student(survival=0.5))
    assert torch.equal(logits(model, batch), logits(model, batch))
    torch.manual_seed(0)
    model.train()
    first, second = model(batch), model(batch)
    assert (first - second)[:, :, :22].abs().max() > 1e-3
    plain = shaken(tiny_student(dropout=0.0, character_dropout=0.0, survival=1.0)).train()
    torch.testing.assert_close(plain(batch), logits(model, batch))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_the_pool_drops_at_the_right_rate(rate: float) -> None:
    torch.manual_seed(0)
    pool = DropoutPool(3)
    shape = torch.Size([50, 100, 128])
    mask = pool.mask(shape, rate, torch.float32)
    dropped = (mask == 0).float().mean().item()
    assert abs(dropped - rate) < 1 / 512 + 4 * math.sqrt(rate / mask.numel())
    assert abs(mask.mean().item() - 1) < 0.01  # what is kept is scaled up
    assert len(mask.unique()) == 2
    along = [(mask == 0).float().mean(dims) for dims in ((0, 1), (0, 2), (1, 2))]
    for means in along:  # no axis is favoured
        assert (means - dropped).abs().max() < 6 * math.sqrt(rate * len(means) / mask.numel())


def test_masks_of_places_and_steps_differ_and_of_the_same_step_do_not() -> None:
    shape = torch.Size([4, 40, 32])

    def masks(step: int, seed: int = 0, state: int = 0) -> list[torch.Tensor]:
        torch.manual_seed(state)
        pool = DropoutPool(seed)
        pool.start_step(step)
        return [pool.mask(shape, 0.5, torch.float32).clone() for _ in range(5)]

    first, again = masks(7), masks(7)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    for one, two in itertools.combinations(first, 2):
        assert 0.4 < (one == two).float().mean() < 0.6
    for others in (masks(7, seed=1), masks(64), masks(7, state=1)):
        for one, two in zip(first, others, strict=True):
            assert 0.4 < (one == two).float().mean() < 0.6
    # Within 64 steps the pool is the same one: what differs is the place, from torch's generator.
    assert torch.equal(masks(3)[0], first[0]) and not torch.equal(masks(64)[0], masks(128)[0])


def test_masks_do_not_depend_on_what_the_pool_was_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run has not asked what the unbroken one has, such as one batch of very long contexts."""
    monkeypatch.setattr(dropout_module, "POOL_ELEMENTS", 1 << 12)
    small, large = torch.Size([10, 32]), torch.Size([200, 64])
    pool, fresh = DropoutPool(1), DropoutPool(1)
    torch.manual_seed(0)
    pool.mask(large, 0.1, torch.float32)
    state = torch.get_rng_state()
    unbroken = [pool.mask(shape, 0.1, torch.float32).clone() for shape in (small, large, small)]
    torch.set_rng_state(state)
    resumed = [fresh.mask(shape, 0.1, torch.float32).clone() for shape in (small, large, small)]
    for one, two in zip(unbroken, resumed, strict=True):
        assert torch.equal(one, two)


def test_dropout_applies_the_mask_and_the_padding() -> None:
    torch.manual_seed(0)
    layer = Dropout(0.5, DropoutPool()).train()
    x = torch.randn(3, 8, 16, requires_grad=True)
    keep = torch.ones(3, 8, 1)
    keep[1, 5:] = 0
    y = layer(x, keep)
    assert not y[1, 5:].any()
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * x[kept])
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept)
    torch.testing.assert_close(layer.eval()(x, keep), x * keep)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0, DropoutPool()).train()(x), x)


def test_stochastic_depth_keeps_later_layers_less_often() -> None:
    torch.manual_seed(0)
    for layer, expected in ((1, 0.99), (5, 0.95), (10, 0.9)):
        share = sum(survives(True, layer, 10, 0.9) for _ in range(20_000)) / 20_000
        assert abs(share - expected) < 0.01
    assert all(survives(False, 10, 10, 0.1) for _ in range(100))
    assert all(survives(True, 10, 10, 1.0) for _ in range(100))


# Config


def test_a_config_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    config = preset_config("edge", hidden=64, word_dim=100, characters=70)
    config.save(tmp_path / "config.json")
    assert StudentConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 0},
        {"hidden": 33},
        {"hidden": 30, "heads": 4},
        {"encoder_kernel": 4},
        {"model_kernel": 2},
        {"passes": 2},
        {"character_kernel": 17},
        {"dropout": 1.0},
        {"character_dropout": -0.1},
        {"survival": 0.0},
        {"word_dim": -1},
        {"max_answer_tokens": 0},
        {"encoder_convolutions": -1},
        {"model_convolutions": -1},
        {"character_kernel": 0},
        {"dropout": 0.999},
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(InputError):
        StudentConfig(**sizes)  # type: ignore[arg-type]


def test_configs_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edge, "):
        preset_config("huge")
    good = StudentConfig().to_json()
    for value, words in [
        ({**good, "format_version": 2}, "format 2"),
        ([1], "format list"),
        ({**good, "colour": 1}, "colour"),
        ({**good, "hidden": "128"}, "hidden is '128', expected a whole number"),
        ({**good, "hidden": 96.5}, "hidden is 96.5, expected a whole number"),
        ({**good, "heads": True}, "heads is True, expected a whole number"),
        ({**good, "dropout": None}, "dropout is None, expected a finite number"),
    ]:
        with pytest.raises(DataError, match=words):
            StudentConfig.load(write_json(tmp_path / "config.json", value))
