"""What all models of the Hugging Face ecosystem are loaded with: a quiet library, a device, a fast precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qa_edge_runtime.errors import DataError, InputError, MissingExtraError


def first_line(error: Exception) -> str:
    """What a library says of its error, in one line without a full stop; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' report on missing weights, which has a sentence of ours, and its bars off a log file."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def fast_precision(device: str) -> str:
    """The precision in which a kind of device multiplies matrices fastest: bf16 or fp16 where it has it, else fp32."""
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device == "cpu":
        # On a CPU without the instructions bfloat16 is emulated, and slower than float32.
        features = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        has = any(getattr(torch.cpu, feature, bool)() for feature in features)
        return "bf16" if has else "fp32"
    return "fp32"


def require_device(device: str) -> None:
    """Compute a number there and fetch it: a device that is known to torch may not be built in, or hold no numbers.

    :raises InputError: if that does not go.
    """
    import torch

    try:
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error)
        raise InputError(f"device {device!r} cannot be used ({reason}); name another, such as cpu") from error


def require_loadable(name_or_folder: str) -> None:
    """Refuse a model whose configuration cannot be read, before the work that ends in loading it.

    :raises DataError: if it cannot.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise MissingExtraError('a teacher or an encoder needs: pip install "qa-edge[train]"') from error
    require_model_folder(name_or_folder)
    try:
        with quiet():
            AutoConfig.from_pretrained(name_or_folder)
    except Exception as error:  # as in loading
        raise DataError(
            f"model {name_or_folder} cannot be found or read ({first_line(error)}); give a folder, or a name while its"
            " hub can be reached"
        ) from error


def require_model_folder(folder: str) -> None:
    """Refuse a folder that holds no model.

    :raises DataError: if it has no configuration.
    """
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        raise DataError(f"teacher folder {folder} has no config.json; expected a Hugging Face model folder")
