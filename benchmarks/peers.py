"""Latency of our bundles beside the small BERTs, one thread, batch 1, interleaved in one run.

    python benchmarks/peers.py --cache peers-cache --squad dev-v1.1.json --bundle edge=edge.qab -o peers-results

writes peers.json (every sample, the machine, versions), peers.md (two tables: the network alone, and end to end from
two strings to an answer) and peers.png (latency against size). With `--presets runs/first` the presets that no bundle
stands for are timed too, as "paper (random weights)" and so on. It runs on any machine. Needed:

    pip install "qa-edge-runtime[onnx]" torch transformers onnx onnxruntime tokenizers matplotlib

and `ai-edge-litert` for the TFLite graphs of bundles; torch and transformers, and for `--presets` qa-edge with its
extras train and tflite, only until all is in the cache folder (5 GB), which can be copied to another machine. The
peers have random weights: nothing here tells of accuracy. `--tokenizer` takes the tokenizer.json of a real BERT;
without it a WordPiece vocabulary is trained on the texts. Time it while nothing else runs; the table says so if
something did.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Before anything that would start threads is imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")

import numpy as np

from contenders import Contender, Heat, run_heats, winning_contenders
from interleave import WARMUP, run_rounds
from own_contenders import bundle_contenders
from peer_chart import draw_chart, load_pyplot
from peer_models import PEERS, QUICK_PEERS, cached_peers
from peer_report import PeerReport, Row, format_tables
from peer_texts import PeerTokenizer, Text, cut_texts, load_texts
from preset_bundles import UNTRAINED, cached_bundles
from qa_edge_runtime import Bundle
from qa_edge_runtime.errors import BundleError, InputError, QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.machine import describe_machine

LENGTHS = (384, 128)
PACKAGES = ("onnxruntime", "ai-edge-litert", "tflite-runtime", "tokenizers", "numpy")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; --quick only changes defaults."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=PATH", help="ours; may be repeated")
    parser.add_argument(
        "--presets",
        type=Path,
        metavar="RUN",
        help=f"a trained run: time {', '.join(UNTRAINED)} too, with random weights and the run's words; built once",
    )
    parser.add_argument("--squad", type=Path, help="SQuAD JSON to take texts from; without it nothing runs end to end")
    parser.add_argument("--tokenizer", type=Path, help="a BERT model's tokenizer.json; else one is trained on --squad")
    parser.add_argument("--cache", type=Path, default=Path("peers-cache"), help="folder that keeps the exported peers")
    parser.add_argument("--peers", help="names of the peers to run, between commas (all)")
    parser.add_argument("--rounds", type=int, help="rounds at most (40)")
    parser.add_argument("--minutes", type=float, default=15.0, help="no round begins after so many minutes")
    parser.add_argument("--heat-rounds", type=int, help="rounds that pick the fastest export of each peer (6)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within the rounds")
    parser.add_argument("--no-chart", action="store_true", help="draw no chart")
    parser.add_argument("--quick", action="store_true", help="a smoke run: two small peers, three rounds")
    parser.add_argument("-o", "--out", type=Path, default=Path("peers-results"), help="folder for the results")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    arguments.rounds = (3 if quick else 40) if arguments.rounds is None else arguments.rounds
    arguments.heat_rounds = (1 if quick else 6) if arguments.heat_rounds is None else arguments.heat_rounds
    default = QUICK_PEERS if quick else tuple(peer.name for peer in PEERS)
    arguments.peers = [name.strip() for name in arguments.peers.split(",")] if arguments.peers else list(default)
    return arguments


def check_arguments(arguments: argparse.Namespace) -> dict[str, Path]:
    """Refuse what cannot work before minutes are spent on it.

    :return: the bundles, path by name.
    :raises QaEdgeError: one sentence on what is wrong.
    """
    known = [peer.name for peer in PEERS]
    for name in arguments.peers:
        if name not in known:
            raise InputError(f"there is no peer {name!r}; the peers are {', '.join(known)}")
    for noun, value in (("--rounds", arguments.rounds), ("--heat-rounds", arguments.heat_rounds)):
        if value < 1:
            raise InputError(f"{noun} is {value}, expected a whole number from 1")
    if not arguments.minutes > 0:
        raise InputError(f"--minutes is {arguments.minutes}, expected a number above 0")
    for noun, folder in (("--out", arguments.out), ("--cache", arguments.cache)):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{noun} {folder} is a file, expected a folder; name another path")
    bundles: dict[str, Path] = {}
    for text in arguments.bundle:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"--bundle is {text!r}, expected NAME=PATH, such as edge=edge.qab")
        if name in bundles or name in known or (arguments.presets and name in map(preset_label, UNTRAINED)):
            raise InputError(f"two contenders are called {name!r}; give each bundle a name of its own")
        if not Path(path).is_dir():
            raise BundleError(f"bundle {path} does not exist or is no folder; check the path")
        bundles[name] = Path(path)
    if arguments.presets and arguments.presets.exists() and not (arguments.presets / "config.json").is_file():
        raise InputError(f"--presets {arguments.presets} has no config.json, expected the folder of a trained run")
    if arguments.tokenizer and not arguments.squad:
        raise InputError("--tokenizer is for the end-to-end times, which need texts: add --squad FILE")
    if not arguments.no_chart:
        load_pyplot()
    return bundles


def preset_label(preset: str) -> str:
    """What the report calls a preset that is timed with random weights."""
    return f"{preset} (random weights)"


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> PeerReport:
    """Build what is missing, pick the fastest exports, run the rounds.

    :param say: called with lines on how far it is.
    :raises QaEdgeError: if an input cannot be used or something is not installed.
    """
    paths = check_arguments(arguments)
    machine = describe_machine()
    tokenizer: PeerTokenizer | None = None
    texts: dict[int, list[Text]] = {}
    if arguments.squad:
        tokenizer, questions = load_texts(arguments.squad, arguments.tokenizer)
        wanted = arguments.rounds + WARMUP
        texts = {
            length: cut_texts(questions, tokenizer, length, wanted, offset=index * len(questions) // len(LENGTHS))
            for index, length in enumerate(LENGTHS)
        }
    if arguments.presets:
        untrained = cached_bundles(arguments.presets, arguments.cache, say)
        paths |= {preset_label(preset): path for preset, path in untrained.items()}
    contenders: list[Contender] = []
    # Ours first. ONNX Runtime takes from the first session of a process whether denormal numbers count as zero, for all
    # later ones: so the runtime decides that for itself, as it does in an application, and gets nothing from the peers.
    for name, path in paths.items():
        contenders += bundle_contenders(name, path, LENGTHS, texts, say)
    heats: list[Heat] = []
    for built in cached_peers([peer for peer in PEERS if peer.name in arguments.peers], arguments.cache, say):
        say(f"{built.peer.name}: which export is the fastest")
        found = run_heats(built, LENGTHS, arguments.heat_rounds)
        heats += found
        contenders += winning_contenders(built, found, tokenizer, texts)
    say(f"{len(contenders)} contenders, {arguments.rounds} rounds, {arguments.minutes:g} minutes at most")
    samples = run_rounds(
        contenders,
        rounds=arguments.rounds,
        minutes=arguments.minutes,
        seed=arguments.seed,
        progress=lambda done, seconds: say(f"round {done} of {arguments.rounds}, {seconds:.0f} s"),
    )
    rounds = len(samples[0].wall_ms)
    return PeerReport(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        rounds=rounds,
        rows=tuple(Row.of(contender, times) for contender, times in zip(contenders, samples, strict=True)),
        heats=tuple(heats),
        machine={**machine, "load_1_minute_after": describe_machine()["load_1_minute"]},
        versions=versions(),
        # Names alone: folders of this machine are nobody's business.
        arguments={
            "bundles": {name: path.name for name, path in paths.items()},
            "presets": arguments.presets and arguments.presets.name,
            "squad": arguments.squad and arguments.squad.name,
            **{name: getattr(arguments, name) for name in ("peers", "rounds", "minutes", "heat_rounds", "seed")},
        },
        texts=describe_texts(arguments, tokenizer, texts, rounds, list(paths.values())) if tokenizer else None,
    )


def describe_texts(
    arguments: argparse.Namespace,
    tokenizer: PeerTokenizer,
    texts: dict[int, list[Text]],
    rounds: int,
    bundles: Sequence[Path],
) -> dict[str, Any]:
    """What the end-to-end times were taken on, for the caption: also as many tokens of ours as the texts have."""
    counts = []
    for length, some in texts.items():
        # Texts count from the front; the warm-up takes its own from the back, if there are enough.
        used = some[:rounds]
        count = f"{len(used)} of exactly {length} of the peers' word pieces"
        if len(used) < rounds:
            count += " (each asked more than once)"
        if bundles:
            split = Bundle.open(bundles[0]).tokenizer()
            tokens = [(len(split(text.context)), len(split(text.question))) for text in used]
            context, question = np.median(tokens, axis=0)
            count += f" (median {context:.0f} + {question:.0f} of our tokens, context and question)"
        counts.append(count)
    return {
        "source": f"{arguments.squad.name}, contexts joined or cut at word borders",
        "tokenizer": tokenizer.source,
        "counts": ", ".join(counts),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what runs during the measurement, as far as it is installed."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 with one sentence on standard error."""
    arguments = parse_arguments(argv)
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"[{time.perf_counter() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        report = run(arguments, say)
        arguments.out.mkdir(parents=True, exist_ok=True)
        tables = format_tables(report)
        atomic_write(arguments.out / "peers.json", report.to_json())
        atomic_write(arguments.out / "peers.md", tables + "\n")
        if not arguments.no_chart:
            draw_chart(report, arguments.out / "peers.png")
    except (QaEdgeError, OSError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("peers: interrupted before the first round ended; nothing was written", file=sys.stderr)
        return 130
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
