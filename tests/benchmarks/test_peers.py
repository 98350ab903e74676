"""The bench against peers: what it says of given samples, the order it runs in, what it refuses; no timing here."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "runtime")]

import own_contenders  # noqa: E402
import peer_chart  # noqa: E402
import peers  # noqa: E402
from contenders import Contender  # noqa: E402
from interleave import Samples, run_rounds  # noqa: E402
from peer_models import PEERS, RECIPE_VERSION, RECORD_NAME, _read_record, example_inputs, peer_as_json  # noqa: E402
from peer_report import PeerReport, Row, format_tables, ratio_to  # noqa: E402
from peer_texts import PeerTokenizer, cut_texts  # noqa: E402
from qa_edge_runtime.errors import BundleError, DataError, MissingExtraError  # noqa: E402
from qa_edge_runtime.questions import SquadQuestion  # noqa: E402


def contender(name: str = "BERT-base", precision: str = "fp32", **fields: Any) -> Contender:
    return Contender(
        **{
            "name": name,
            "ours": False,
            "precision": precision,
            "detail": "raw",
            "kind": "network",
            "length": 384,
            "parameters": 108_900_000,
            "model_bytes": 435_000_000,
            "device_bytes": 436_000_000,
            "call": lambda number: None,
            **fields,
        }
    )


def timed(subject: Contender, wall: list[float], cpu: list[float] | None = None) -> Row:
    return Row.of(subject, Samples(wall, wall if cpu is None else cpu))


def report(rows: Sequence[Row], **fields: Any) -> PeerReport:
    return PeerReport(
        **{
            "date": "2026-01-01T00:00:00+00:00",
            "rounds": 3,
            "rows": tuple(rows),
            "heats": (),
            "machine": {"cpu": "An Invented Chip", "cores": 2, "load_1_minute": 0.1, "load_1_minute_after": 1.2},
            "versions": {"onnxruntime": "9.9"},
            "arguments": {},
            **fields,
        }
    )


BASE = timed(contender(), [700.0, 900.0, 800.0])
TINY = timed(contender("TinyBERT 4", "int8", detail="optimised", model_bytes=14_400_000), [32.0, 30.0, 31.0])
OURS = timed(
    contender("edge", "int8", ours=True, detail="onnxruntime 9.9", model_bytes=1_500_000, parameters=1_180_000),
    [20.0, 19.0, 50.0],
)
ROWS = [BASE, TINY, OURS]


def test_a_row_holds_median_minimum_and_p90() -> None:
    row = timed(contender(), [5.0, 1.0, 2.0, 3.0, 4.0])
    assert (row.median_ms, row.min_ms, row.samples_ms) == (3.0, 1.0, (5.0, 1.0, 2.0, 3.0, 4.0))
    assert row.p90_ms == pytest.approx(4.6)  # linear between the neighbours 4 and 5


def test_ratios_are_of_medians_at_the_same_length_and_kind() -> None:
    assert ratio_to(ROWS, OURS, ("BERT-base", "fp32")) == pytest.approx(40.0)
    assert ratio_to(ROWS, OURS, ("TinyBERT 4", "int8")) == pytest.approx(1.55)
    assert ratio_to(ROWS, BASE, ("BERT-base", "fp32")) == 1.0
    assert ratio_to(ROWS, BASE, ("BERT-base", "int8")) is None
    assert ratio_to(ROWS, replace(OURS, length=128), ("BERT-base", "fp32")) is None
    assert ratio_to(ROWS, replace(OURS, kind="end to end"), ("BERT-base", "fp32")) is None


def test_the_table_says_what_was_measured() -> None:
    text = format_tables(report(ROWS))
    assert "random weights" in text and "1 thread, batch 1" in text and "3 interleaved rounds" in text
    assert "no embedding stage" in text and "20 question tokens" in text
    assert "End to end" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[2] == "| BERT-base | fp32 | raw | 108.90 M | 435 | 800 | 1.00 | 0.04 |"
    assert lines[4] == "| **edge** | int8 | onnxruntime 9.9 | 1.18 M | 1.50 | 20.0 | 40.0 | 1.55 |"
    assert len({line.count("|") for line in lines}) == 1


def test_a_busy_machine_is_told_apart_from_a_quiet_one() -> None:
    assert "was busy" not in format_tables(report(ROWS))
    busy = [timed(contender(), [300.0, 310.0], [100.0, 100.0]), *ROWS[1:], timed(contender("x"), [9.0], [3.0])]
    busy.append(timed(contender("y"), [6.0], [2.0]))
    assert "calls took 3.0 times the processor time" in format_tables(report(busy))
    assert busy[0].cpu_median_ms == 100.0


def test_recipes_that_differ_between_lengths_make_one_line_and_engines_of_ours_two() -> None:
    short = timed(contender("TinyBERT 4", "int8", detail="raw", length=128), [7.0])
    other = replace(OURS, detail="ai-edge-litert 1.0")
    lines = format_tables(report([*ROWS, short, other])).splitlines()
    assert [line.split("|")[3].strip() for line in lines if line.startswith("| TinyBERT 4 ")] == ["optimised / raw"]
    assert len([line for line in lines if line.startswith("| **edge** ")]) == 2


def test_the_end_to_end_caption_tells_texts_tokenizer_and_memory() -> None:
    rows = [*ROWS, replace(OURS, kind="end to end", device_bytes=8_700_000)]
    texts = {"source": "invented.json", "tokenizer": "WordPiece trained here", "counts": "3 of exactly 384"}
    text = format_tables(report(rows, texts=texts))
    assert "invented.json; 3 of exactly 384" in text and "WordPiece trained here" in text
    assert "no word's state is remembered" in text and "the tokenizer remembers" in text
    assert "| 8.70 |" in text


def test_the_json_holds_every_sample() -> None:
    found = json.loads(report(ROWS).to_json())
    assert found["threads"] == found["batch"] == 1
    assert "random" in found["weights_of_peers"]
    assert [row["samples_ms"] for row in found["rows"]] == [list(row.samples_ms) for row in ROWS]
    assert json.loads(report([]).to_json())["rows"] == []


@pytest.fixture
def clock() -> Iterator[Any]:
    state = {"now": 0.0}

    def advance(seconds: float) -> None:
        state["now"] += seconds

    yield SimpleNamespace(read=lambda: state["now"], advance=advance)


def test_a_round_runs_every_contender_once_in_an_order_of_its_own(clock: Any) -> None:
    calls: list[tuple[int, int]] = []

    def work(index: int) -> Any:
        def call(number: int) -> None:
            calls.append((number, index))
            clock.advance(0.001 * (index + 1))

        return call

    group = [contender(call=work(index)) for index in range(5)]
    samples = run_rounds(group, rounds=20, warmup=1, clock=clock.read)
    assert calls[:5] == [(-1, index) for index in range(5)]
    orders = [[index for number, index in calls if number == wanted] for wanted in range(20)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len({tuple(order) for order in orders}) > 10
    wall = [sample.wall_ms for sample in samples]
    np.testing.assert_allclose(wall, [[index + 1.0] * 20 for index in range(5)], rtol=1e-6)

    first = list(calls)
    calls.clear()
    run_rounds(group, rounds=20, warmup=1, clock=clock.read)
    assert calls == first  # the same seed
    calls.clear()
    run_rounds(group, rounds=20, warmup=1, seed=1, clock=clock.read)
    assert calls != first


def test_what_is_prepared_is_not_timed(clock: Any) -> None:
    job = contender(call=lambda number: clock.advance(0.002), prepare=lambda: clock.advance(5.0))
    assert run_rounds([job], rounds=3, clock=clock.read)[0].wall_ms == pytest.approx([2.0] * 3)


def test_no_round_begins_after_the_time_is_up(clock: Any) -> None:
    job = contender(call=lambda number: clock.advance(40.0))
    assert len(run_rounds([job], rounds=50, minutes=1, warmup=0, clock=clock.read)[0].wall_ms) == 2
    assert len(run_rounds([job], rounds=50, minutes=0.001, warmup=0, clock=clock.read)[0].wall_ms) == 1


def test_an_interrupt_keeps_whole_rounds() -> None:
    def until(last: int) -> Any:
        def call(number: int) -> None:
            if number == last:
                raise KeyboardInterrupt

        return call

    samples = run_rounds([contender(), contender(call=until(2))], rounds=9)
    assert [(len(sample.wall_ms), len(sample.cpu_ms)) for sample in samples] == [(2, 2), (2, 2)]
    with pytest.raises(KeyboardInterrupt):
        run_rounds([contender(call=until(0))], rounds=9)


WORDS = [f"{a}{b}" for a in ("river", "stone", "lamp", "grey", "mill") for b in ("bed", "s", "light", "house", "ing")]


@pytest.fixture(scope="module")
def questions() -> list[SquadQuestion]:
    generator = random.Random(0)

    def sentence(count: int) -> str:
        return " ".join(generator.choice(WORDS) for _ in range(count)).capitalize() + "."

    return [SquadQuestion(str(n), sentence(6)[:-1] + "?", sentence(15 + n), []) for n in range(30)]


@pytest.fixture(scope="module")
def tokenizer(questions: list[SquadQuestion]) -> PeerTokenizer:
    pytest.importorskip("tokenizers")
    return PeerTokenizer(corpus=[text for item in questions for text in (item.context, item.question)])


@pytest.mark.parametrize("pieces", [20, 64, 128])
def test_texts_have_just_the_pieces_that_are_wanted(
    questions: list[SquadQuestion], tokenizer: PeerTokenizer, pieces: int
) -> None:
    texts = cut_texts(questions, tokenizer, pieces, 8)
    assert texts and len(texts) <= 8
    whole = " ".join(item.context for item in questions)
    for text in texts:
        encoding, inputs = tokenizer(text.question, text.context)
        assert inputs["input_ids"].shape == (1, pieces)
        first, last = tokenizer.context_pieces(encoding)
        assert text.context[slice(*(encoding.offsets[first][0], encoding.offsets[last - 1][1]))] == text.context
        assert text.context in whole and whole[whole.index(text.context) + len(text.context) :][:1] in ("", " ")


def test_too_little_text_is_refused(questions: list[SquadQuestion], tokenizer: PeerTokenizer) -> None:
    with pytest.raises(DataError, match="5000 word pieces"):
        cut_texts(questions, tokenizer, 5000, 3)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        PeerTokenizer(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "edge"], "expected NAME=PATH"),
        (["--bundle", "edge=absent.qab"], "absent.qab does not exist"),
        (["--bundle", "a=.", "--bundle", "a=."], "two contenders are called 'a'"),
        (["--bundle", "BERT-base=."], "two contenders are called 'BERT-base'"),
        (["--presets", ".", "--bundle", "paper (random weights)=."], "two contenders are called 'paper (random"),
        (["--presets", str(ROOT / "benchmarks")], "has no config.json, expected the folder of a trained run"),
        (["--peers", "GPT-9"], "no peer 'GPT-9'"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--heat-rounds", "-1"], "--heat-rounds is -1"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--tokenizer", "t.json"], "add --squad"),
        (["-o", __file__], "is a file, expected a folder"),
        (["--squad", "absent.json"], "absent.json does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert peers.main(["--no-chart", "--cache", str(tmp_path / "cache"), "-o", str(out), *arguments]) == 1
    printed, errors = capsys.readouterr()
    assert not printed and message in errors and errors.count("\n") == 1
    assert not out.exists()


def test_a_missing_matplotlib_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert peers.main(["--cache", str(tmp_path)]) == 1
    assert "pip install matplotlib, or pass --no-chart" in capsys.readouterr().err


def test_the_command_helps_itself_without_heavy_modules() -> None:
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(('torch','transformers','onnx','onnxruntime','matplotlib')))"
    )
    blocked += "; sys.modules['qa_edge'] = None"  # nor the host side, which a device has not
    code = f"{blocked}; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import peers; peers.main(['--help'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "--bundle NAME=PATH" in run.stdout, run.stderr


def test_a_bundle_without_an_installed_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(role="core", engine="tflite", precision="int8", file="core.int8.tflite")
    bundle = SimpleNamespace(manifest=SimpleNamespace(graphs=[spec]), path=Path("edge.qab"))

    def no_engine(*positional: Any, **named: Any) -> Any:
        raise MissingExtraError("LiteRT is not installed")

    monkeypatch.setattr(own_contenders.Bundle, "open", lambda path: bundle)
    monkeypatch.setattr(own_contenders, "open_engine", no_engine)
    said: list[str] = []
    with pytest.raises(BundleError, match="core graphs for tflite int8 alone"):
        own_contenders.bundle_contenders("edge", Path("edge.qab"), (384,), {}, said.append)
    assert said == ["edge tflite int8 is left out: LiteRT is not installed"]


def write_cached_peer(cache: Path) -> None:
    """BERT-tiny's place in the cache, held by a graph that gives each word piece's id as its logit."""
    from onnx import TensorProto, helper

    shape = ["batch", "tokens"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("start_logits", "end_logits")]
    nodes = [helper.make_node("Cast", ["input_ids"], [output.name], to=TensorProto.FLOAT) for output in outputs]
    graph = helper.make_graph(nodes, "peer", inputs, outputs)
    opsets = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    folder = cache / PEERS[-1].file_name
    folder.mkdir(parents=True)
    files = []
    for precision in ("fp32", "int8"):
        for recipe in ("raw", "optimised"):
            name = f"{recipe}.{precision}.onnx"
            (folder / name).write_bytes(content)
            file = {"precision": precision, "recipe": recipe, "file": name}
            files.append({**file, "size_bytes": len(content), "largest_difference": 0.0})
    about = {"recipe_version": RECIPE_VERSION, "peer": peer_as_json(PEERS[-1]), "parameters": 4_369_666}
    (folder / RECORD_NAME).write_text(json.dumps({**about, "files": files, "versions": {}}))


def test_the_whole_command_with_a_cached_peer_and_a_bundle(
    tmp_path: Path, questions: list[SquadQuestion], capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnx", "onnxruntime", "tokenizers", "matplotlib"):
        pytest.importorskip(module)
    from tiny_bundle import write_tiny_bundle

    write_cached_peer(tmp_path / "cache")
    write_tiny_bundle(tmp_path / "tiny.qab")
    paragraphs = [{"context": item.context, "qas": [{"id": item.id, "question": item.question}]} for item in questions]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "invented", "paragraphs": paragraphs}]}))
    arguments = ["--quick", "--peers", "BERT-tiny", "--bundle", f"tiny={tmp_path / 'tiny.qab'}"]
    arguments += ["--squad", str(tmp_path / "squad.json"), "--cache", str(tmp_path / "cache")]
    assert peers.main([*arguments, "-o", str(tmp_path / "out")]) == 0, capsys.readouterr().err

    found = json.loads((tmp_path / "out" / "peers.json").read_text())
    rows = {(row["name"], row["precision"], row["kind"], row["length"]): row for row in found["rows"]}
    models = [("BERT-tiny", "fp32"), ("BERT-tiny", "int8"), ("tiny", "fp32")]
    kinds = [(kind, length) for kind in ("network", "end to end") for length in (128, 384)]
    assert set(rows) == {(*model, *kind) for model in models for kind in kinds}
    assert all(len(row["samples_ms"]) == found["rounds"] == 3 for row in rows.values())
    assert {heat["winner"] for heat in found["heats"]} <= {"raw", "optimised"} and len(found["heats"]) == 4
    assert "of exactly 384" in found["texts"]["counts"] and "of our tokens" in found["texts"]["counts"]
    ours = rows["tiny", "fp32", "network", 384]
    assert ours["model_bytes"] == (tmp_path / "tiny.qab" / "core.fp32.onnx").stat().st_size
    assert ours["device_bytes"] == sum(file.stat().st_size for file in (tmp_path / "tiny.qab").iterdir())
    assert str(tmp_path) not in json.dumps(found)
    assert (tmp_path / "out" / "peers.md").read_text().strip() == capsys.readouterr().out.strip()
    assert (tmp_path / "out" / "peers.png").stat().st_size > 10_000


def test_a_bundle_with_several_graphs_counts_what_each_one_needs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tiny_bundle import core_graph, graph_specs, write_tiny_bundle

    write_tiny_bundle(
        tmp_path / "two.qab",
        files={"core.int8.onnx": core_graph(scale=0.5)},
        graphs=graph_specs(onnx=["fp32", "int8"]),
    )
    found = own_contenders.bundle_contenders("two", tmp_path / "two.qab", (5, 9), {})
    assert sorted((one.precision, one.kind, one.length) for one in found) == [
        (precision, "network", length) for precision in ("fp32", "int8") for length in (5, 9)
    ]
    size = {file.name: file.stat().st_size for file in (tmp_path / "two.qab").iterdir()}
    for one in found:
        other = {"fp32": "core.int8.onnx", "int8": "core.fp32.onnx"}[one.precision]
        assert one.device_bytes == sum(size.values()) - size[other]
        assert one.call(0)["start_logits"].shape == (one.length,)


def test_a_graph_in_ort_format_has_no_count_of_parameters(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tiny_bundle import core_graph, graph_spec, write_tiny_bundle

    # What the file holds is not read: its ending says that onnx could not.
    core = replace(graph_spec("core"), file="core.fp32.ort")
    write_tiny_bundle(tmp_path / "ort.qab", files={core.file: core_graph()}, graphs=[core, graph_spec("token")])
    found = own_contenders.bundle_contenders("ort", tmp_path / "ort.qab", (5,), {})
    assert [one.parameters for one in found] == [None]


def test_a_graph_that_onnx_cannot_read_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tiny_bundle import write_tiny_bundle

    write_tiny_bundle(tmp_path / "bad.qab", files={"core.fp32.onnx": b"not a graph"})
    with pytest.raises(BundleError, match=r"core\.fp32\.onnx is not an ONNX graph; export the bundle again"):
        own_contenders.bundle_contenders("bad", tmp_path / "bad.qab", (5,), {})


def test_the_cache_is_read_without_torch_and_not_believed_when_it_changed(tmp_path: Path) -> None:
    peer = PEERS[-1]
    folder = tmp_path / peer.file_name
    folder.mkdir()
    (folder / "raw.fp32.onnx").write_bytes(b"12345")
    file = {
        "precision": "fp32",
        "recipe": "raw",
        "file": "raw.fp32.onnx",
        "size_bytes": 5,
        "largest_difference": 0.0,
    }
    record = {
        "recipe_version": RECIPE_VERSION,
        "peer": peer_as_json(peer),
        "parameters": 7,
        "files": [file],
        "versions": {},
    }
    (folder / RECORD_NAME).write_text(json.dumps(record))
    built = _read_record(peer, tmp_path)
    assert built is not None and (built.parameters, built.files[0].size_bytes) == (7, 5)
    assert _read_record(PEERS[0], tmp_path) is None
    (folder / RECORD_NAME).write_text(json.dumps({**record, "recipe_version": RECIPE_VERSION - 1}))
    assert _read_record(peer, tmp_path) is None
    (folder / RECORD_NAME).write_text(json.dumps(record))
    (folder / "raw.fp32.onnx").write_bytes(b"1234")
    assert _read_record(peer, tmp_path) is None


def test_peers_have_names_and_folders_of_their_own_and_take_word_pieces() -> None:
    assert len({peer.name for peer in PEERS}) == len({peer.file_name for peer in PEERS}) == len(PEERS) == 9
    inputs = example_inputs(32)
    assert {value.shape for value in inputs.values()} == {(1, 32)}
    assert inputs["input_ids"].max() < 30_522


def test_the_chart_labels_every_point_and_none_covers_another(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    # Twelve models at nearly one place, which is the worst there is, and some far off.
    crowd = [timed(contender(f"model {n}", "int8", model_bytes=10_000_000 + n), [20.0 + 0.01 * n]) for n in range(12)]
    rows = [*ROWS, *crowd, replace(OURS, detail="ai-edge-litert 1.0")]
    kept = []
    close = pyplot.close
    try:
        pyplot.close = kept.append
        peer_chart.draw_chart(report(rows), tmp_path / "chart.png")
    finally:
        pyplot.close = close
    (figure,) = kept
    labels = [label for label in figure.axes[0].texts if label.get_text() and "1 thread" not in label.get_text()]
    boxes = [tuple(label.get_window_extent().extents) for label in labels]
    close(figure)
    assert len(labels) == len(rows)
    assert {"edge int8 ORT", "edge int8 LiteRT"} <= {label.get_text() for label in labels}
    assert not [(one, other) for n, one in enumerate(boxes) for other in boxes[:n] if peer_chart.overlap(one, other)]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_chart_takes_the_longest_inputs_end_to_end_where_there_are_any() -> None:
    short = replace(OURS, length=128)
    assert peer_chart.chart_rows(report([*ROWS, short])) == ROWS
    both = replace(OURS, kind="end to end")
    assert peer_chart.chart_rows(report([*ROWS, both, replace(both, length=128)])) == [both]
