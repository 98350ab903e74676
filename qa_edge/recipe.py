"""What a run was made from and how: `recipe.json`, written before the work, so that the run can be gone on with."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qa_edge.settings import require_types
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, read_json, sha256_file

FILE = "recipe.json"
FORMAT_VERSION = 1
STEPS = ("features", "labels")
"""Folders that may lie in a run's folder before the run begins: `prepare` and `label` may have written them there."""
_MODEL_SUFFIXES = (".safetensors", ".bin")
_PACKAGES = ("qa-edge", "torch", "transformers", "accelerate", "spacy", "numpy")


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file that a run reads, or a folder that its `mark` stands for; the same input is the same hash, at any path."""

    path: str
    sha256: str
    mark: str = ""

    def __post_init__(self) -> None:
        require_types(self)

    @classmethod
    def of(cls, path: str | Path, what: str, mark: str = "") -> Input:
        """Hash a file, or the file `mark` of a folder.

        :param what: the noun that messages use for it.
        :raises DataError: if it cannot be read.
        """
        source = Path(path).absolute()
        return cls(path=str(source), sha256=_hash(source / mark, what), mark=mark)

    def checked(self, what: str) -> Path:
        """The path, if what is there is still what the run began with.

        :raises DataError: if it is missing or has changed.
        """
        if _hash(Path(self.path) / self.mark, what) != self.sha256:
            raise DataError(f"{what} {self.path} has changed since the run began: put it back, or begin another run")
        return Path(self.path)


def model_entry(model: str) -> dict[str, str]:
    """A model as recipes hold it: `name`, and for a folder the `sha256` of its weights, by which it is known.

    What is no folder, or one without weights, is a name on the hub or its reader's to refuse.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {"name": model}
    files = sorted(path for suffix in _MODEL_SUFFIXES for path in folder.glob(f"*{suffix}"))
    hashes = "".join(_hash(path, "model") for path in files)
    named = {"name": folder.resolve().name}
    return {**named, "sha256": hashlib.sha256(hashes.encode()).hexdigest()} if files else named


def settle_recipe(folder: Path, recipe: Mapping[str, Any], *, begun: bool) -> None:
    """Write a new run's recipe, or check that the run of this folder was begun with the same one.

    :param recipe: sections (objects) and values, as JSON holds them; inputs are compared by hash alone.
    :param begun: there is training to go on with; before that a recipe is replaced, so that a mistake can be mended.
    :raises DataError: if the folder belongs to something else, or to a run with other settings.
    """
    make_folder(folder)
    exists = (folder / FILE).exists()
    if not exists:
        entries = sorted(entry.name for entry in folder.iterdir())
        # What a kill left under a temporary name is nobody's.
        others = [name for name in entries if name not in STEPS and not (name[0] == "." and name.endswith(".tmp"))]
        if others:
            raise DataError(
                f"{folder} holds {others[0]} but no {FILE}, so that it is no run to go on with; name another folder"
            )
    if not exists or (not begun and read_recipe(folder).get("kind") == recipe.get("kind")):
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        whole = {"format_version": FORMAT_VERSION, "created": created, "versions": _versions(), **recipe}
        atomic_write(folder / FILE, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        return
    found, new = _flat(read_recipe(folder)), _flat(json.loads(json.dumps(recipe)))
    for name in sorted(new.keys() | {name for name in found if name.partition(".")[0] in recipe}):
        if found.get(name) != new.get(name):
            raise DataError(
                f"{folder} was begun with {_said(name, found)}, this command has {_said(name, new)}: "
                "name another folder, or give the settings that it was begun with"
            )


def make_folder(folder: Path) -> None:
    """Make a run's folder, unless it is there.

    :raises DataError: if it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder for the run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder}: {error.strerror or error}; name another path") from error


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of a run's folder.

    :raises DataError: if there is none, or it is of another format.
    """
    if not (folder / FILE).exists():
        raise DataError(f"{folder} has no {FILE}; expected the folder of a run that was begun")
    recipe = read_json(folder / FILE, "recipe")
    version = recipe.get("format_version") if isinstance(recipe, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{folder / FILE} has format {version}, expected {FORMAT_VERSION}: use the qa-edge of the run")
    return dict(recipe)


def digest(recipe: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """Hash of what a recipe decides, its inputs by their hashes alone: equal for runs that were made alike.

    :param without: names of values that are left out, in whatever section they stand.
    """
    kept = {
        name: float(value) if type(value) is int else value  # 1 and 1.0 are the same setting
        for name, value in _flat(recipe).items()
        if name.rpartition(".")[2] not in without
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _hash(path: Path, what: str) -> str:
    try:
        return sha256_file(path)
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name; of an input the hash alone, and no version or time."""
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in ("format_version", "created", "versions"):
            continue
        if isinstance(value, dict) and "sha256" in value:
            flat[name] = value["sha256"]
        elif isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in _flat(value).items()})
        elif value is not None:
            flat[name] = value
    return flat


def _said(name: str, values: Mapping[str, Any]) -> str:
    label = name.rpartition(".")[2].replace("_", "-")
    if name not in values:
        return f"no {label}"
    value = values[name]
    other = isinstance(value, str) and len(value) == 64
    return f"{label} of SHA-256 {value[:12]}" if other else f"{label} {value}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
