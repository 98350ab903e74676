"""The same trained student as TFLite graphs of two writers, litert-torch and qa_edge_export, and real inputs for them.

All take states of tokens and give logits; the embedding stage is in none. That of litert-torch has fixed lengths and
no padding, and holds its position signals as constants.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qa_edge.squad import read_squad
from qa_edge_runtime.errors import InputError, MissingExtraError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.positions import position_signal

if TYPE_CHECKING:
    from qa_edge_export.checkpoint import Checkpoint

CONTEXT_TOKENS, QUESTION_TOKENS = 384, 20
CALIBRATION_QUESTIONS = 200
LOGITS = ("start_logits", "end_logits")
PIP = "pip install torch==2.13.0 litert-torch==0.10.0"

Arrays = Mapping[str, np.ndarray]


class RunInputs(NamedTuple):
    """A run's checkpoint, the inputs to time graphs on, and those that int8 is calibrated on, of other contexts."""

    checkpoint: Checkpoint
    timed: list[Arrays]
    calibration: list[Arrays]


def import_litert_torch() -> Any:
    """The module litert_torch.

    :raises MissingExtraError: if it is not installed.
    """
    try:
        return import_module("litert_torch")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the comparison needs {error.name}; litert-torch is in none of the extras of qa-edge: {PIP}"
        ) from error


def read_inputs(run: Path) -> RunInputs:
    """Inputs out of a run's held-out questions, as the trained student has them: no table, nothing rounded.

    Timed are those whose contexts are long enough, cut to 384 tokens, the question cut or repeated to 20; calibration
    reads others, evenly spread.

    :raises QaEdgeError: if the run cannot be read, or no held-out context is long enough.
    """
    from qa_edge_export.checkpoint import read_checkpoint
    from qa_edge_export.inputs import ExactInputs

    checkpoint = read_checkpoint(run)
    exact = ExactInputs(checkpoint)
    timed: list[Arrays] = []
    others = []
    for _, paragraph, question in read_squad(run / "heldout.json").items():
        if len(checkpoint.tokenizer(paragraph.context)) >= CONTEXT_TOKENS:
            timed.append(fixed_lengths(exact(question.text, paragraph.context)[0]))
        else:
            others.append((question.text, paragraph.context))
    if not timed:
        raise InputError(f"no held-out context of {run} has {CONTEXT_TOKENS} tokens; name a run with longer ones")
    step = max(1, -(-len(others) // CALIBRATION_QUESTIONS))
    return RunInputs(checkpoint, timed, [exact(*texts)[0] for texts in others[::step]])


def fixed_lengths(inputs: Arrays) -> Arrays:
    """Inputs of the core graph with 384 context tokens, of at least as many, and 20 question tokens."""
    asked, hidden = inputs["question"], inputs["question"].shape[1]
    return {
        "context": inputs["context"][:CONTEXT_TOKENS],
        "question": asked[np.arange(QUESTION_TOKENS) % len(asked)],
        "context_position": position_signal(CONTEXT_TOKENS, hidden),
        "question_position": position_signal(QUESTION_TOKENS, hidden),
    }


def core_module(run: Path) -> Any:
    """The trained student from states to logits: a torch module of one question, lengths as they come, no padding."""
    import torch

    from qa_edge.checkpoint import load_student

    class Core(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = load_student(run).requires_grad_(False)

        def forward(self, context: torch.Tensor, question: torch.Tensor) -> dict[str, torch.Tensor]:
            student: Any = self.student
            no_bias = torch.zeros(1, 1, 1)
            x, asked = (student._encode(side.unsqueeze(0), None, no_bias) for side in (context, question))
            x = student.fusion(x, asked, no_bias, no_bias)
            outputs = []
            for _ in range(student.config.passes):
                x = student._model_pass(x, None, no_bias)
                outputs.append(student.output_norm(x))
            first, second, third = outputs
            logits = student.start(torch.cat([first, second], -1)), student.end(torch.cat([first, third], -1))
            return {name: value.flatten() for name, value in zip(LOGITS, logits, strict=True)}

    return Core().eval()


def reference_logits(run: Path, timed: Sequence[Arrays]) -> list[Arrays]:
    """Logits of the student in torch."""
    import torch

    module = core_module(run)
    with torch.inference_mode():
        found = [module(*_tensors(inputs).values()) for inputs in timed]
    return [{name: value.numpy() for name, value in logits.items()} for logits in found]


def convert(run: Path, sample: Arrays, target: Path) -> None:
    """Have litert-torch write the student to `target`, for inputs of the sample's shapes."""
    litert_torch, module = import_litert_torch(), core_module(run)
    with redirect_stdout(sys.stderr):  # where it says how far it is
        litert_torch.convert(module, sample_kwargs=_tensors(sample)).export(str(target))


def write_core(checkpoint: Checkpoint, precision: str, calibration: Sequence[Arrays], target: Path) -> None:
    """Write the core graph that a bundle would have to `target`; the token graph is made with it and left out."""
    from qa_edge_export.graphs import write_graphs
    from qa_edge_export.settings import ExportSettings

    settings = ExportSettings(engines=("tflite",), precisions=(precision,))
    (core,) = (graph for graph in write_graphs(checkpoint, settings, calibration) if graph.spec.role == "core")
    atomic_write(target, core.content)


def open_graph(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    """A TFLite graph in LiteRT with one thread, sized once: a call takes those inputs that the graph has to logits.

    :raises MissingExtraError: if LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError('running TFLite graphs needs LiteRT: pip install "qa-edge[tflite]"') from error
    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    inputs, outputs, hidden = _bind(interpreter)
    for name, index in inputs.items():
        interpreter.resize_tensor_input(index, (CONTEXT_TOKENS if "context" in name else QUESTION_TOKENS, hidden))
    interpreter.allocate_tensors()

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        for name, index in inputs.items():
            interpreter.set_tensor(index, arrays[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return call


def _bind(interpreter: Any) -> tuple[dict[str, int], dict[str, int], int]:
    """Indices of inputs and outputs by name, and the states' width; nothing here keeps the interpreter's memory."""
    runner = interpreter.get_signature_runner()
    inputs, outputs = (
        {name: int(detail["index"]) for name, detail in details.items()}
        for details in (runner.get_input_details(), runner.get_output_details())
    )
    return inputs, outputs, int(runner.get_input_details()["context"]["shape"][-1])


def _tensors(inputs: Arrays) -> dict[str, Any]:
    import torch

    return {side: torch.tensor(inputs[side]) for side in ("context", "question")}
