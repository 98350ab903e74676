"""What is timed: one call of one model on one input, whoever made the model, behind one small class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from interleave import run_rounds
from peer_models import BuiltPeer, PeerFile, example_inputs
from peer_texts import PeerTokenizer, Text
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import MissingExtraError

MAX_ANSWER_TOKENS = 30


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A call to be timed, and what the report says about it.

    :ivar kind: "network" or "end to end"; `length` is in word pieces for peers, in tokens of context for ours (network)
        or the peers' word pieces (end to end).
    :ivar detail: engine, and the recipe that won.
    :ivar model_bytes: the graph's file; `device_bytes` all files that a device needs to answer.
    :ivar call: does the work of round `n` once, from input to output.
    :ivar prepare: what has to be done before each call and is not timed.
    """

    name: str
    ours: bool
    precision: str
    detail: str
    kind: str
    length: int
    parameters: int | None
    model_bytes: int
    device_bytes: int
    call: Callable[[int], Any]
    prepare: Callable[[], None] = lambda: None


def open_session(path: Path) -> Any:
    """An ONNX Runtime session of one thread that sleeps, rather than spins, when it waits.

    :raises MissingExtraError: if ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("the peers run in ONNX Runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights such as these make no denormals; a run without bundles is set up as one with them may be.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The fastest recipe of a peer, precision and length, and the fastest call of each (ms), the winner's included."""

    name: str
    precision: str
    length: int
    winner: str
    fastest_ms: Mapping[str, float]


def run_heats(peer: BuiltPeer, lengths: Sequence[int], rounds: int) -> list[Heat]:
    """Time all recipes of a peer, interleaved, and pick the fastest of each precision at each length.

    By the fastest call, not the median: other load on the machine only ever adds time.
    """
    jobs = [
        contender
        for file in peer.files
        for contender in network_contenders(peer, file, open_session(peer.folder / file.file), lengths)
    ]
    samples = run_rounds(jobs, rounds=rounds)
    fastest = {
        (job.precision, job.length, job.detail): min(times.wall_ms) for job, times in zip(jobs, samples, strict=True)
    }
    heats = []
    for precision in sorted({file.precision for file in peer.files}):
        for length in lengths:
            times = {recipe: ms for (p, n, recipe), ms in fastest.items() if (p, n) == (precision, length)}
            winner = min(times, key=times.__getitem__)
            heats.append(Heat(name=peer.peer.name, precision=precision, length=length, winner=winner, fastest_ms=times))
    return heats


def winning_contenders(
    peer: BuiltPeer,
    heats: Sequence[Heat],
    tokenizer: PeerTokenizer | None,
    texts: Mapping[int, Sequence[Text]],
) -> list[Contender]:
    """A peer's contenders: of each precision and length the recipe that won; each file is loaded once."""
    contenders = []
    for file in peer.files:
        lengths = [heat.length for heat in heats if (heat.precision, heat.winner) == (file.precision, file.recipe)]
        if not lengths:
            continue
        session = open_session(peer.folder / file.file)
        names = [tensor.name for tensor in session.get_inputs()]
        contenders += network_contenders(peer, file, session, lengths)
        if tokenizer is not None:
            for length in lengths:
                call = partial(_read_and_answer, session, names, tokenizer, texts[length])
                contenders.append(_peer_contender(peer, file, "end to end", length, tokenizer.size_bytes, call))
    return contenders


def network_contenders(peer: BuiltPeer, file: PeerFile, session: Any, lengths: Sequence[int]) -> list[Contender]:
    """The network alone, on random word pieces, at each length."""
    names = [tensor.name for tensor in session.get_inputs()]
    contenders = []
    for length in lengths:
        example = example_inputs(length)
        inputs = {name: example[name] for name in names}
        call = partial(_run_session, session, inputs)
        contenders.append(_peer_contender(peer, file, "network", length, 0, call))
    return contenders


def _peer_contender(
    peer: BuiltPeer, file: PeerFile, kind: str, length: int, more_bytes: int, call: Callable[[int], Any]
) -> Contender:
    return Contender(
        name=peer.peer.name,
        ours=False,
        precision=file.precision,
        detail=file.recipe,
        kind=kind,
        length=length,
        parameters=peer.parameters,
        model_bytes=file.size_bytes,
        device_bytes=file.size_bytes + more_bytes,
        call=call,
    )


def _run_session(session: Any, inputs: Mapping[str, np.ndarray], number: int) -> Any:
    return session.run(None, inputs)


def _read_and_answer(
    session: Any, names: Sequence[str], tokenizer: PeerTokenizer, texts: Sequence[Text], number: int
) -> str:
    """A peer's way from two strings to the answer's text, with as little around the network as can be."""
    text = texts[number % len(texts)]
    encoding, inputs = tokenizer(text.question, text.context)
    start, end = session.run(["start_logits", "end_logits"], {name: inputs[name] for name in names})
    first, last = tokenizer.context_pieces(encoding)
    span = decode_spans(start[0, first:last], end[0, first:last], max_tokens=MAX_ANSWER_TOKENS)[0]
    begin, _ = encoding.token_to_chars(first + span.start)
    _, end_character = encoding.token_to_chars(first + span.end)
    return text.context[begin:end_character]
