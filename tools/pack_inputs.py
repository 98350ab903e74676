"""Features and a teacher's labels in one file, small enough to carry: `pack` here, `unpack` on the other machine.

    python tools/pack_inputs.py pack features labels -o inputs.zip
    python tools/pack_inputs.py unpack inputs.zip -o inputs
    qa-edge distill --features inputs/features --labels inputs/labels ...

What comes out are ordinary folders. Whole numbers and texts are those that went in, to the bit. Logits have 8 bits with
a scale a question, word vectors 8 bits with a scale a word: `pack` prints what that changed, and the folders' manifests
say it, so that a run begun with the originals does not go on with these unnoticed. Every array's SHA-256 is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import HELDOUT, MANIFEST, TENSORS, TOKENIZER, VECTORS, VOCABULARY, Features, read_tensors
from qa_edge.labels import Labels
from qa_edge_runtime.errors import DataError, QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write

FORMAT_VERSION = 1
INDEX = "index.json"
FOLDERS = ("features", "labels")
LOGITS = ("start_logits", "end_logits")
LEVELS = 255
# Ends of ranges lie a token's length behind their starts.
BESIDE = {"context_ends": "context_starts", "ends": "starts"}
# The last byte says most about the next one; nothing here is aligned to more.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0}]

Array = NDArray[Any]


class Errors:
    """What rounding changed: the largest and the root of the mean square, over all arrays of a kind."""

    def __init__(self) -> None:
        self.largest, self.squares, self.count = 0.0, 0.0, 0

    def add(self, original: Array, restored: Array) -> None:
        """Compare an array with what comes out in its place."""
        difference = np.abs(original.astype(np.float32) - restored.astype(np.float32))
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.squares += float(np.square(difference, dtype=np.float64).sum())
        self.count += difference.size

    def __str__(self) -> str:
        return f"largest {self.largest:.4f}, root mean square {(self.squares / max(self.count, 1)) ** 0.5:.4f}"


def narrow_integers(values: Array, base: Array | None) -> tuple[Array, dict[str, Any]]:
    """The same numbers in the smallest type, as they are or as differences, whichever packs better.

    :param base: numbers that are taken off first.
    """
    wide = values.ravel().astype(np.int64) - (0 if base is None else base.ravel())
    found = []
    for differences in (False, True):
        numbers = np.diff(wide, prepend=0) if differences else wide
        low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
        kinds = ("<u1", "<i1", "<u2", "<i2", "<i4", "<i8")
        kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
        stored = numbers.astype(kind)
        found.append((len(zlib.compress(stored.tobytes(), 1)), differences, stored))
    _, differences, stored = min(found, key=lambda one: one[:2])
    return stored, {"differences": differences}


def widen_integers(stored: Array, entry: Mapping[str, Any], base: Array | None) -> Array:
    """Undo `narrow_integers`."""
    numbers = stored.astype(np.int64)
    numbers = np.cumsum(numbers) if entry["differences"] else numbers
    return (numbers + (0 if base is None else base.ravel())).astype(entry["dtype"]).reshape(entry["shape"])


def round_logits(arrays: Mapping[str, Array]) -> tuple[Array, Array]:
    """Start and end logits in 8 bits, and the lowest logit and the step of each question.

    :returns: uint8, shape (2, pieces of all questions); float32, shape (2, questions).
    """
    both = np.stack([arrays[name] for name in LOGITS]).astype(np.float32)
    offsets = arrays["offsets"]
    lengths, scales = np.diff(offsets), np.zeros((2, len(offsets) - 1), np.float32)
    if both.size:
        # From one start to the next is a question, if those without a piece are left out.
        filled = lengths > 0
        scales[0, filled] = np.minimum.reduceat(both.min(0), offsets[:-1][filled])
        highest = np.maximum.reduceat(both.max(0), offsets[:-1][filled])
        scales[1, filled] = (highest - scales[0, filled]) / LEVELS
    low, step = np.repeat(scales, lengths, axis=1)
    codes = np.rint((both - low) / np.where(step > 0, step, 1.0))
    return codes.astype(np.uint8), scales


def restore_logits(codes: Array, scales: Array, offsets: Array) -> dict[str, Array]:
    """Start and end logits, float16."""
    low, step = np.repeat(scales, np.diff(offsets), axis=1)
    both = (codes.astype(np.float32) * step + low).astype(np.float16)
    return dict(zip(LOGITS, both, strict=True))


def round_vectors(vectors: Array) -> tuple[Array, Array]:
    """Rows in 8 bits and a scale each: int8 of the same shape, float32, shape (rows, 1)."""
    wide = vectors.astype(np.float32)
    scales = np.abs(wide).max(1, initial=0.0, keepdims=True) / 127
    return np.rint(wide / np.where(scales > 0, scales, 1.0)).astype(np.int8), scales


def restore_vectors(codes: Array, scales: Array) -> Array:
    """The vectors, float16."""
    return (codes.astype(np.float32) * scales).astype(np.float16)


class Packer:
    """Writes members, and what is to be known of them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.files: dict[str, Any] = {}
        self.errors = {"logits": Errors(), "vectors": Errors()}

    def add_bytes(self, name: str, data: bytes) -> None:
        """Put in a file as it is."""
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest()}
        self._write(name, data)

    def add_tensors(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Put in the arrays of a safetensors file."""
        entries: dict[str, Any] = {}
        for array, values in arrays.items():
            if array in LOGITS:
                continue
            if values.dtype == np.float16 and values.ndim == 2:
                codes, scales = round_vectors(values)
                restored = restore_vectors(codes, scales)
                self.errors["vectors"].add(values, restored)
                entries[array] = {**_described(restored), "coding": "rows"}
                self._write(f"{name}/{array}", codes.tobytes(), scales.astype("<f4").tobytes())
            elif np.issubdtype(values.dtype, np.integer):
                base = BESIDE.get(array)
                stored, coding = narrow_integers(values, None if base is None else arrays[base])
                entries[array] = {**_described(values), "coding": "integers", "stored": stored.dtype.str, **coding}
                self._write(f"{name}/{array}", stored.tobytes())
            else:
                raise DataError(f"{name} holds {array} of type {values.dtype}, which no features or labels have")
        if all(side in arrays for side in LOGITS):
            codes, scales = round_logits(arrays)
            for side, restored in restore_logits(codes, scales, arrays["offsets"]).items():
                self.errors["logits"].add(arrays[side], restored)
                entries[side] = {**_described(restored), "coding": "questions"}
            self._write(f"{name}/logits", codes.tobytes(), scales.astype("<f4").tobytes())
        self.files[name] = {"arrays": entries}

    def _write(self, name: str, *parts: bytes) -> None:
        for number, part in enumerate(parts):
            self.archive.writestr(f"{name}.{number}", lzma.compress(part, lzma.FORMAT_XZ, filters=FILTERS))


def _described(values: Array) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return {"dtype": values.dtype.str, "shape": list(values.shape), "sha256": digest}


def pack(features_folder: Path, labels_folder: Path, output: Path) -> dict[str, Errors]:
    """Write one file that holds features and the labels made from the same data.

    :returns: what rounding changed.
    :raises DataError: if one of the folders cannot be read, or they do not belong together.
    """
    features, labels = Features.open(features_folder), Labels(labels_folder)
    labels.require(features.manifest["squad_sha256"])
    # Where a teacher lay is nobody's business elsewhere; its hash stays.
    teacher = Path(labels.manifest["teacher"]).name
    manifests = {
        "features": {**features.manifest, "packed": {"vectors": "8 bits, a scale a word"}},
        "labels": {**labels.manifest, "teacher": teacher, "packed": {"logits": "8 bits, a scale a question"}},
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        packer = Packer(archive)
        for folder, manifest in manifests.items():
            packer.add_bytes(f"{folder}/{MANIFEST}", (json.dumps(manifest, indent=1) + "\n").encode())
        for name in (TOKENIZER, VOCABULARY, HELDOUT):
            if (features_folder / name).exists():
                packer.add_bytes(f"features/{name}", (features_folder / name).read_bytes())
        for name in (TENSORS, VECTORS):
            packer.add_tensors(f"features/{name}", read_tensors(features_folder / name))
        for path in sorted(labels_folder.glob("*.safetensors")):
            packer.add_tensors(f"labels/{path.name}", read_tensors(path))
        archive.writestr(INDEX, json.dumps({"format_version": FORMAT_VERSION, "files": packer.files}))
    atomic_write(output, stream.getvalue())
    return packer.errors


class Reader:
    """Members of a packed file, checked."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def member(self, name: str, number: int = 0) -> bytes:
        """One part of a member."""
        return lzma.decompress(self.archive.read(f"{name}.{number}"))

    def file(self, name: str, entry: Mapping[str, Any]) -> bytes:
        """The bytes of a file."""
        from safetensors.numpy import save

        if "arrays" not in entry:
            data = self.member(name)
            _require(hashlib.sha256(data).hexdigest(), entry, name)
            return data
        entries, arrays = entry["arrays"], {}
        # What others are counted from comes first.
        for array in sorted(entries, key=lambda one: one in BESIDE):
            if array not in arrays:
                arrays |= self._arrays(name, array, entries[array], arrays)
        for array, values in arrays.items():
            _require(_described(values)["sha256"], entries[array], f"{array} of {name}")
        return bytes(save({array: np.ascontiguousarray(arrays[array]) for array in entries}))

    def _arrays(self, name: str, array: str, entry: Mapping[str, Any], known: Mapping[str, Array]) -> dict[str, Array]:
        coding = entry["coding"]
        if coding == "integers":
            stored = np.frombuffer(self.member(f"{name}/{array}"), entry["stored"])
            base = BESIDE.get(array)
            return {array: widen_integers(stored, entry, None if base is None else known[base])}
        if coding == "rows":
            codes = np.frombuffer(self.member(f"{name}/{array}"), np.int8).reshape(entry["shape"])
            scales = np.frombuffer(self.member(f"{name}/{array}", 1), "<f4").reshape(-1, 1)
            return {array: restore_vectors(codes, scales)}
        if coding == "questions":
            codes = np.frombuffer(self.member(f"{name}/logits"), np.uint8).reshape(2, -1)
            scales = np.frombuffer(self.member(f"{name}/logits", 1), "<f4").reshape(2, -1)
            return restore_logits(codes, scales, known["offsets"])
        raise ValueError(f"{array} has the unknown coding {coding}")


def _require(sha256: str, entry: Mapping[str, Any], what: str) -> None:
    if sha256 != entry["sha256"]:
        raise ValueError(f"{what} has another SHA-256 than the one that was packed")


def _restored(file: Path) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each file, the manifests included."""
    with zipfile.ZipFile(file) as archive:
        index = json.loads(archive.read(INDEX))
        version = index["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(f"{file} has format {version}, expected {FORMAT_VERSION}: use the tool that packed it")
        reader = Reader(archive)
        for name, entry in index["files"].items():
            folder, _, rest = name.partition("/")
            if folder not in FOLDERS or Path(rest).name != rest:
                raise ValueError(f"it names a file {name!r}")
            yield name, reader.file(name, entry)


def unpack(file: Path, output: Path, *, force: bool = False) -> None:
    """Write the folders `features` and `labels` of a packed file into a folder.

    :raises DataError: if the file is cut, damaged or something else, or the folder exists and `force` is false.
    """
    with atomic_folder(output, force=force, marker=f"features/{MANIFEST}") as folder:
        for name in FOLDERS:
            (folder / name).mkdir()
        try:
            for name, data in _restored(file):
                atomic_write(folder / name, data)
        except FileNotFoundError:
            raise DataError(f"{file} does not exist; check the path") from None
        except (OSError, zipfile.BadZipFile, lzma.LZMAError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is cut, damaged or no packed inputs ({error}); copy or pack it again") from error
        # As training will open them.
        labels, features = Labels(folder / "labels"), Features.open(folder / "features")
        labels.require(features.manifest["squad_sha256"])


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    packing = actions.add_parser("pack", help="features and labels into one file")
    packing.add_argument("features", type=Path)
    packing.add_argument("labels", type=Path)
    unpacking = actions.add_parser("unpack", help="one file into the folders features and labels")
    unpacking.add_argument("file", type=Path)
    unpacking.add_argument("--force", action="store_true", help="replace what was unpacked there before")
    for action in (packing, unpacking):
        action.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.action == "pack":
            for kind, found in pack(options.features, options.labels, options.output).items():
                sys.stdout.write(f"{kind} in 8 bits: error {found}\n")
            sys.stdout.write(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB\n")
        else:
            unpack(options.file, options.output, force=options.force)
            sys.stdout.write(f"{options.output / 'features'} and {options.output / 'labels'} are there\n")
    except QaEdgeError as error:
        sys.stderr.write(f"pack_inputs: error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
