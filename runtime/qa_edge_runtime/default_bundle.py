"""The bundle that is meant where none is named: that of the distribution qa-edge-models, if it is installed."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from qa_edge_runtime.errors import BundleError, MissingExtraError

_PACKAGE = "qa_edge_models"


def bundle_or_default(named: str | os.PathLike[str] | None) -> Path:
    """Path of a bundle: the one that is named, else the one that qa-edge-models brings.

    qa-edge-models is imported only if it is needed.

    :param named: a bundle's folder or single file, which may be missing; only None means the default, so that an empty
        name, out of a variable that is not set, is refused when it is opened.
    :raises MissingExtraError: if none is named and qa-edge-models is not installed.
    :raises BundleError: if none is named and qa-edge-models has lost its own.
    """
    if named is not None:
        return Path(named)
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:  # a folder of that name without the package is what a removal may leave
        raise MissingExtraError(
            "no bundle is named, and the one of qa-edge-models is not installed: name a bundle,"
            " or pip install qa-edge-models"
        )
    path = Path(import_module(_PACKAGE).path())
    if not path.exists():
        raise BundleError(f"qa-edge-models is installed without its bundle {path}: install it again")
    return path
