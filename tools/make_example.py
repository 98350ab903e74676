"""Make what the embedded example holds beside its questions: vectors of its words and a teacher's logits.

    python tools/make_example.py --vectors glove.6B.100d.txt.gz --teacher FOLDER_OR_NAME

Needed again whenever a word of qa_edge/example/*.json changes: the logits carry the hash of their data set, and
training refuses those of another.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

from qa_edge.labels import LabelSettings, label
from qa_edge.squad import read_squad
from qa_edge.vectors import read_vectors
from qa_edge_export.tokenizer_tables import build_tokenizer_tables
from qa_edge_runtime.errors import QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write
from qa_edge_runtime.tokenizer import Tokenizer

EXAMPLE = Path(__file__).resolve().parent.parent / "qa_edge" / "example"
LIMIT_BYTES = 2_000_000
DECIMALS = 4


def write_vectors(source: Path, target: Path) -> int:
    """Write the vectors of all words of the example, as written and in lower case, and return how many there are."""
    tokenizer = Tokenizer(build_tokenizer_tables())
    words: set[str] = set()
    for name in ("train.json", "dev.json"):
        for _, paragraph, question in read_squad(EXAMPLE / name).items():
            for text in (paragraph.context, question.text):
                words.update(spelling for token in tokenizer(text) for spelling in (token.text, token.text.lower()))
    found = read_vectors(source, words)
    lines = (
        f"{word} {' '.join(f'{value:.{DECIMALS}f}'.rstrip('0').rstrip('.') for value in vector)}\n"
        for word, vector in zip(found.words, found.array.tolist(), strict=True)
    )
    # Without a time stamp, so that the same input gives the same bytes.
    atomic_write(target, gzip.compress("".join(lines).encode("utf-8"), compresslevel=9, mtime=0))
    return len(found.words)


def write_labels(teacher: str, target: Path) -> None:
    """Label the example's training questions, in float32, and keep of the teacher's name what others can use."""
    with tempfile.TemporaryDirectory() as scratch:
        made = label(
            EXAMPLE / "train.json", teacher, Path(scratch) / "labels", settings=LabelSettings(precision="fp32")
        )
        manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
        manifest["teacher"] = Path(teacher).name
        with atomic_folder(target, force=True) as folder:
            for file in made.iterdir():
                shutil.copyfile(file, folder / file.name)
            atomic_write(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def main() -> int:
    """Make both, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=Path, required=True, metavar="FILE", help="GloVe text, .gz or .zip")
    parser.add_argument("--teacher", required=True, metavar="NAME", help="question answerer: a folder or a hub's name")
    options = parser.parse_args()
    try:
        words = write_vectors(options.vectors, EXAMPLE / "vectors.txt.gz")
        write_labels(options.teacher, EXAMPLE / "labels")
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    size = sum(file.stat().st_size for file in EXAMPLE.rglob("*") if file.is_file())
    sys.stdout.write(f"{words} words; the example has {size / 1e6:.2f} MB in all\n")
    if size > LIMIT_BYTES:
        sys.stderr.write(f"error: the example has more than {LIMIT_BYTES / 1e6:.0f} MB: round the vectors further\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
