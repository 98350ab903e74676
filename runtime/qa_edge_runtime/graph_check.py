"""Whether a loaded graph is the one that the manifest declares."""

from __future__ import annotations

from collections.abc import Sequence

from qa_edge_runtime.entries import list_names
from qa_edge_runtime.errors import BundleError
from qa_edge_runtime.graphs import TensorSpec


def check_tensors(file: str, side: str, found: Sequence[TensorSpec], declared: Sequence[TensorSpec]) -> None:
    """Compare a loaded graph's inputs or outputs with the manifest: names, dtypes, ranks and fixed sizes.

    A size that the manifest leaves open must be open in the graph; one that it fixes may be either.

    :raises BundleError: naming the file and the tensor.
    """
    names = {tensor.name: tensor for tensor in found}
    if set(names) != {tensor.name for tensor in declared}:
        expected = ", ".join(tensor.name for tensor in declared)
        raise BundleError(f"{file} has the {side}s {list_names(names)}; the manifest declares {expected}")
    for tensor in declared:
        other = names[tensor.name]
        fits = len(other.shape) == len(tensor.shape) and all(
            isinstance(theirs, str) or theirs == ours for theirs, ours in zip(other.shape, tensor.shape, strict=True)
        )
        if not fits or other.dtype != tensor.dtype:
            raise BundleError(
                f"{file}: {side} {tensor.name} is {other.dtype} {list(other.shape)};"
                f" the manifest declares {tensor.dtype} {list(tensor.shape)}"
            )


def first_line(error: Exception) -> str:
    """An engine's message, cut to one line of at most 300 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
