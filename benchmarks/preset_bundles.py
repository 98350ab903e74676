"""Bundles of presets that are not trained yet, with random weights, to time them by: nothing in them can answer.

    python benchmarks/preset_bundles.py runs/first -o presets paper edge-small edge-tiny

writes presets/paper.qab and so on, for both engines in int8 and fp32. Tokenizer, words and calibration questions are
those of a trained run. Needs the extras train and tflite of qa-edge.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import BundleError, DataError, InputError, MissingExtraError, QaEdgeError
from qa_edge_runtime.files import read_json

# Those that no trained bundle stands for.
UNTRAINED = ("paper", "edge-small", "edge-tiny")
FOLDER = "presets"
QUESTIONS = 20
WORDS = 50_000
# What a student of any preset has from the data that it was made for.
_DATA_SIZES = ("word_dim", "character_dim", "characters", "characters_per_word")


def random_bundle(run: Path, preset: str, target: Path) -> str:
    """Export a student of a preset with the weights that training would begin with; its report.

    :raises MissingExtraError: if torch, or what export needs, is not installed.
    """
    try:
        import torch

        from qa_edge.bundle import heldout_halves, word_counts
        from qa_edge.checkpoint import copy_inputs, save_checkpoint
        from qa_edge.student.config import StudentConfig, preset_config
        from qa_edge.student.qanet import QANet
        from qa_edge_export.export import export_bundle
        from qa_edge_export.report import format_report
        from qa_edge_export.settings import ExportSettings
        from qa_edge_runtime.tokenizer import Tokenizer
        from qa_edge_runtime.vocabulary import Vocabulary
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'bundles of presets need {error.name}: pip install "qa-edge[train,tflite]"') from error
    trained = asdict(StudentConfig.load(run / "config.json"))
    config = preset_config(preset, **{name: trained[name] for name in _DATA_SIZES})
    counts, _ = word_counts(run, None, Tokenizer.load(run))
    known = int((Vocabulary.load(run).word_ids(list(counts)) > 0).sum())
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        copy_inputs(run, Path(folder))
        save_checkpoint(Path(folder), config, QANet(config).state_dict())
        report = export_bundle(
            folder,
            target,
            settings=ExportSettings(engines=("onnx", "tflite"), precisions=("int8", "fp32"), words=min(WORDS, known)),
            counts=counts,
            calibration=heldout_halves(run)[0][:QUESTIONS],
            force=True,
        )
    return format_report(report)


def cached_bundles(
    run: Path,
    cache: Path,
    announce: Callable[[str], None] = lambda line: None,
    build: Callable[[Path, str, Path], object] | None = None,
) -> dict[str, Path]:
    """Bundles of the untrained presets by name, out of a cache folder; one that is not there is built first.

    A bundle is built again if it is of another format, or for a run of other sizes. One of a copied cache folder is
    taken without the run, which need not be on a device that only times it.

    :param announce: called with a line before each bundle that has to be built.
    :param build: what builds one; `random_bundle` in a process of its own, which gives its memory back.
    :raises DataError: if a bundle has to be built and the run cannot be read.
    :raises MissingExtraError: if one has to be built and something for it is not installed.
    """
    found = {}
    for preset in UNTRAINED:
        target = cache / FOLDER / f"{preset}.qab"
        if not _is_usable(target, run):
            announce(f"building a bundle of {preset} with random weights (once, a minute or more)")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"cannot make {target.parent}: {error.strerror or error}; name another path") from error
            (build or _build_apart)(run, preset, target)
        found[preset] = target
    return found


def _build_apart(run: Path, preset: str, target: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(random_bundle, run, preset, target).result()


def _is_usable(target: Path, run: Path) -> bool:
    try:
        student = Bundle.open(target).manifest.student
    except BundleError:
        return False
    if not run.exists():
        return True
    config = read_json(run / "config.json", "student config")
    return isinstance(config, dict) and all(student.get(name) == config.get(name) for name in _DATA_SIZES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a trained run")
    parser.add_argument("presets", nargs="+", metavar="PRESET", help="such as paper, edge-small, edge-tiny")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the bundles")
    arguments = parser.parse_args(argv)
    try:
        _check_presets(arguments.presets)
        arguments.output.mkdir(parents=True, exist_ok=True)
        for preset in arguments.presets:
            sys.stdout.write(f"{random_bundle(arguments.run, preset, arguments.output / f'{preset}.qab')}\n")
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the bundles that were reported are written\n")
        return 130
    return 0


def _check_presets(names: Sequence[str]) -> None:
    """Refuse a preset that does not exist before minutes are spent on the others."""
    try:
        from qa_edge.student.config import PRESETS
    except ImportError as error:
        raise MissingExtraError('bundles of presets need qa-edge: pip install "qa-edge[train,tflite]"') from error
    for name in names:
        if name not in PRESETS:
            raise InputError(f"there is no preset {name!r:.40}; the presets are {', '.join(sorted(PRESETS))}")


if __name__ == "__main__":
    sys.exit(main())
