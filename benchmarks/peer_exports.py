"""How a peer becomes ONNX files: random weights, each export recipe, int8 of each, and a check against torch."""

from __future__ import annotations

import gc
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from peer_models import RECIPE_VERSION, RECORD_NAME, Peer, PeerFile, example_inputs, peer_as_json
from qa_edge_runtime.errors import DataError, MissingExtraError
from qa_edge_runtime.files import atomic_folder

EXTRAS = "pip install torch transformers onnx onnxruntime"
# Quantised where there are weights: matrix products, also those that the optimiser fuses into Attention, and embedding
# tables (which makes the files as small as they can be; it costs no time).
INT8_OPERATORS = ["MatMul", "Attention", "Gather", "EmbedLayerNormalization"]


def build_peer(peer: Peer, cache: Path) -> None:
    """Export a peer in every recipe and precision, compare the files with one another, and put them into the cache.

    :raises MissingExtraError: if torch, transformers, onnx or onnxruntime is missing.
    :raises DataError: if a file's logits are not those of torch.
    """
    try:
        import onnx
        import onnxruntime
        import torch
        import transformers
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.transformers import optimizer
        from onnxruntime.transformers.fusion_options import FusionOptions
    except ImportError as error:
        raise MissingExtraError(f"building {peer.name} needs {error.name or error}: {EXTRAS}") from error
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    model = _random_model(peer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    expected = _torch_logits(model)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_folder(cache / peer.file_name, force=True, marker=RECORD_NAME) as folder:
        floats = {"raw": folder / "raw.fp32.onnx"}
        _export(model, floats["raw"])
        del model
        gc.collect()
        for recipe, skip_layer_norm in (("optimised", True), ("optimised, no SkipLayerNorm", False)):
            options = FusionOptions("bert")
            options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = skip_layer_norm
            target = folder / f"{'optimised' if skip_layer_norm else 'no-skip'}.fp32.onnx"
            optimizer.optimize_model(
                str(floats["raw"]),
                model_type="bert",
                num_heads=peer.heads,
                hidden_size=peer.hidden,
                optimization_options=options,
            ).save_model_to_file(str(target))
            floats[recipe] = target
        files = []
        for recipe, source in floats.items():
            files.append(_describe("fp32", recipe, source, expected, limit=1e-3))
            target = source.with_name(source.name.replace("fp32", "int8"))
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=INT8_OPERATORS,
                weight_type=QuantType.QInt8,
                # Contrib operators have no inferred types; activations times activations stay in float.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
            )
            files.append(_describe("int8", recipe, target, expected, limit=np.inf))
        versions = {module.__name__: module.__version__ for module in (torch, transformers, onnx, onnxruntime)}
        record = {
            "recipe_version": RECIPE_VERSION,
            "peer": peer_as_json(peer),
            "parameters": parameters,
            "files": [asdict(file) for file in files],
            "versions": versions,
        }
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _random_model(peer: Peer) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{peer.family}Config")(**peer.config)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{peer.family}ForQuestionAnswering")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                # Fresh biases are all zeros: the exporter would share one among all layers, which no trained model has.
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return model.requires_grad_(False)


# Two lengths, neither of them the one that is traced: a length that went into the graph as a constant shows.
CHECKED_LENGTHS = (40, 131)


def _input_names(model: Any) -> list[str]:
    typed = getattr(model.config, "type_vocab_size", 0) and model.config.model_type != "distilbert"
    return ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]


def _torch_logits(model: Any) -> list[np.ndarray]:
    import torch

    logits = []
    for tokens in CHECKED_LENGTHS:
        given = {name: torch.from_numpy(example_inputs(tokens)[name]) for name in _input_names(model)}
        with torch.no_grad():
            output = model(**given)
        logits.append(np.stack([output.start_logits.numpy(), output.end_logits.numpy()]))
    return logits


def _export(model: Any, target: Path) -> None:
    import torch

    names = _input_names(model)
    example = example_inputs(64)
    model.config.return_dict = False
    dynamic = {0: "batch", 1: "tokens"}
    # By name: the order of the arguments differs between the families.
    torch.onnx.export(
        model,
        (),
        str(target),
        kwargs={name: torch.from_numpy(example[name]) for name in names},
        input_names=names,
        output_names=["start_logits", "end_logits"],
        dynamic_axes=dict.fromkeys((*names, "start_logits", "end_logits"), dynamic),
        opset_version=17,
        dynamo=False,
    )


def _describe(precision: str, recipe: str, path: Path, expected: list[np.ndarray], limit: float) -> PeerFile:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    difference = 0.0
    for tokens, logits in zip(CHECKED_LENGTHS, expected, strict=True):
        example = example_inputs(tokens)
        found = np.stack(session.run(["start_logits", "end_logits"], {name: example[name] for name in names}))
        difference = max(difference, float(np.abs(found - logits).max()))
    if not difference <= limit * max(1.0, float(np.abs(expected[0]).max())):
        raise DataError(f"{path.name} ({recipe}) gives logits that differ from torch's by {difference:.2g}")
    return PeerFile(
        precision=precision,
        recipe=recipe,
        file=path.name,
        size_bytes=path.stat().st_size,
        largest_difference=difference,
    )
