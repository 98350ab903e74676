"""Our own bundles as contenders: each core graph as the runtime's engines run it, and the Answerer end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from contenders import Contender
from peer_texts import Text
from qa_edge_runtime import Answerer, Bundle
from qa_edge_runtime.engine import open_engine
from qa_edge_runtime.errors import BundleError, MissingExtraError
from qa_edge_runtime.manifest import MANIFEST_NAME
from qa_edge_runtime.positions import position_signal

QUESTION_TOKENS = 20


def bundle_contenders(
    label: str,
    path: Path,
    lengths: Sequence[int],
    texts: Mapping[int, Sequence[Text]],
    warn: Callable[[str], None] = lambda line: None,
) -> list[Contender]:
    """All core graphs of a bundle whose engine is installed, network alone and, if there are texts, end to end.

    :param label: what the report calls the bundle.
    :param texts: texts of each length; empty leaves the end-to-end contenders out.
    :param warn: called with a line about each graph that is left out.
    :raises BundleError: if the bundle cannot be used, or no engine that it has graphs for is installed.
    """
    bundle = Bundle.open(path)
    cores = [spec for spec in bundle.manifest.graphs if spec.role == "core"]
    parameters = _count_parameters(bundle, cores)
    contenders: list[Contender] = []
    missing = []
    for spec in cores:
        try:
            contenders += _network(label, bundle, spec, lengths, parameters)
            if texts:
                contenders += _end_to_end(label, bundle, spec, texts, parameters)
        except MissingExtraError as error:
            missing.append(f"{spec.engine} {spec.precision}")
            warn(f"{label} {spec.engine} {spec.precision} is left out: {error}")
    if not contenders:
        raise BundleError(
            f"bundle {path} has core graphs for {', '.join(missing) or 'no engine'} alone, and none of these engines is"
            " installed: pip install onnxruntime or ai-edge-litert, or export the bundle with a graph for the other"
        )
    return contenders


def _network(label: str, bundle: Bundle, spec: Any, lengths: Sequence[int], parameters: int | None) -> list[Contender]:
    """The core graph alone; a loaded graph for each length, so that a TFLite one is sized for it beforehand."""
    contenders = []
    for length in lengths:
        engine = open_engine(bundle, "core", engine=spec.engine, precision=spec.precision, threads=1)
        states = _word_states(bundle, spec.engine, length + QUESTION_TOKENS)
        hidden = states.shape[1]
        inputs = {
            "context": states[:length],
            "question": states[length:],
            "context_position": position_signal(length, hidden),
            "question_position": position_signal(QUESTION_TOKENS, hidden),
        }
        detail = f"{engine.name} {engine.version}"
        call = partial(_run_engine, engine, inputs)
        contenders.append(
            _contender(label, bundle, spec, parameters, detail=detail, kind="network", length=length, call=call)
        )
    return contenders


def _end_to_end(
    label: str, bundle: Bundle, spec: Any, texts: Mapping[int, Sequence[Text]], parameters: int | None
) -> list[Contender]:
    """One Answerer for all lengths, as an application would have it; token states are forgotten before each call."""
    answerer = Answerer.load(bundle.path, engine=spec.engine, precision=spec.precision, threads=1)
    detail = f"{answerer.engine_name} {answerer.engine_version}"
    contenders = []
    for length, some in texts.items():
        call = partial(_answer, answerer, some)
        contender = _contender(
            label, bundle, spec, parameters, detail=detail, kind="end to end", length=length, call=call
        )
        contenders.append(replace(contender, prepare=answerer.forget))
    return contenders


def _contender(label: str, bundle: Bundle, spec: Any, parameters: int | None, **about: Any) -> Contender:
    return Contender(
        name=label,
        ours=True,
        precision=spec.precision,
        parameters=parameters,
        model_bytes=bundle.manifest.files[spec.file].size_bytes,
        device_bytes=_device_bytes(bundle, spec),
        **about,
    )


def _run_engine(engine: Any, inputs: Mapping[str, np.ndarray], number: int) -> Any:
    return engine.run(inputs)


def _answer(answerer: Answerer, texts: Sequence[Text], number: int) -> str:
    text = texts[number % len(texts)]
    return answerer.answer(text.question, text.context).text


def _word_states(bundle: Bundle, engine: str, count: int) -> np.ndarray:
    """States of words drawn from the bundle's own, float32 (count, hidden): softmaxes as peaked as on real text."""
    vocabulary = bundle.vocabulary()
    chosen = np.random.default_rng(0).integers(len(vocabulary.words), size=count) if vocabulary.words else [0] * count
    words = [vocabulary.words[index] if vocabulary.words else "word" for index in chosen]
    token = open_engine(bundle, "token", engine=engine, threads=1)
    ids = vocabulary.character_ids(words, bundle.manifest.characters_per_word).astype(np.int32)
    return token.run({"character_ids": ids})["states"]


def _device_bytes(bundle: Bundle, core: Any) -> int:
    """Bytes of a bundle that had this core graph alone, with the token graph of its engine."""
    others = {spec.file for spec in bundle.manifest.graphs if spec.engine != core.engine or spec.role == "core"} - {
        core.file
    }
    files = sum(record.size_bytes for name, record in bundle.manifest.files.items() if name not in others)
    return files + (bundle.path / MANIFEST_NAME).stat().st_size


def _count_parameters(bundle: Bundle, cores: Sequence[Any]) -> int | None:
    """Weights of the core network as its fp32 ONNX graph holds them.

    None if there is no such graph, it is in the .ort format, which onnx does not read, or onnx is missing.
    """
    files = [
        spec.file
        for spec in cores
        if (spec.engine, spec.precision) == ("onnx", "fp32") and not spec.file.endswith(".ort")
    ]
    if not files:
        return None
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        return None
    try:
        weights = onnx.load(bundle.path / files[0]).graph.initializer
    except DecodeError as error:
        raise BundleError(f"bundle {bundle.path}: {files[0]} is not an ONNX graph; export the bundle again") from error
    return int(sum(np.prod(weight.dims) for weight in weights if weight.data_type == onnx.TensorProto.FLOAT))
