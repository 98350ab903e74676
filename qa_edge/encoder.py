"""Encoders of the Hugging Face ecosystem, without a head: what sentences and words become vectors by."""

from __future__ import annotations

from typing import Any

from qa_edge.hub import first_line, quiet, require_device
from qa_edge_runtime.errors import DataError, MissingExtraError


def load_encoder(name_or_folder: str, *, device: str = "cpu", noun: str = "encoder", needs: str) -> tuple[Any, Any]:
    """Read an encoder and its tokenizer from the hub or from a folder; the head of a teacher is left out.

    :param noun: what messages call it.
    :param needs: the sentence that names the extra, for where transformers is not installed.
    :returns: the model, evaluating, and the tokenizer.
    :raises DataError: if it cannot be found or loaded, or has no tokenizer that pads.
    :raises InputError: if the device cannot be used.
    :raises MissingExtraError: if transformers is not installed.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(needs) from error
    import torch

    require_device(device)
    try:
        with quiet():
            model = AutoModel.from_pretrained(name_or_folder, dtype=torch.float32)
            if model.config.is_encoder_decoder:
                model = model.get_encoder()
            model = model.to(device).eval()
            tokenizer = AutoTokenizer.from_pretrained(name_or_folder)
    except Exception as error:  # a damaged file raises what its reader likes
        raise DataError(
            f"{noun} {name_or_folder} could not be loaded ({first_line(error)}); give a folder, or the name of one "
            "such as sentence-transformers/all-MiniLM-L6-v2 while its hub can be reached"
        ) from error
    if tokenizer.pad_token_id is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise DataError(f"{noun} {name_or_folder} has no tokenizer that pads; copy the whole folder")
    return model, tokenizer
