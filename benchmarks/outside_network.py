"""What a question takes outside the network: tokenise, look up, decode; and what a whole document takes to tokenise.

    python benchmarks/outside_network.py first.qab --squad dev-v1.1.json -o docs/benchmarks/outside-network.json

Contexts of about 150 tokens with their questions are answered twice, in an order of their own each time: first as
texts that the bundle has not met before, then again. The document is the file's distinct contexts with a blank line
between them, cut to a million characters; it is tokenised by a tokenizer that is new, and again by the same one, and
its unknown words go through the token graph. All on one thread. Needs the runtime and an engine alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import open_engine
from qa_edge_runtime.errors import DataError, QaEdgeError
from qa_edge_runtime.files import atomic_write, check_output_file, require_other_file
from qa_edge_runtime.machine import describe_machine
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions
from qa_edge_runtime.states import TokenStates
from qa_edge_runtime.times import StageTimes
from qa_edge_runtime.tokenizer import Tokenizer

CONTEXT_TOKENS = range(140, 161)
DOCUMENT_CHARACTERS = 1_000_000
STAGES = ("tokenise_ms", "look_up_ms", "decode_ms")


def time_questions(bundle: Bundle, questions: Sequence[SquadQuestion]) -> dict[str, Any]:
    """Medians of the stages in milliseconds, with texts that are new and with the same once more."""
    samples: list[StageTimes] = []
    with Answerer(bundle, observer=samples.append) as answerer:
        # What the first question of a process alone pays for is not what is asked here.
        answerer.answer("Where is the switch?", "The switch is behind the grey panel.")
        passes = {}
        for number, name in enumerate(("new texts", "known texts")):
            samples.clear()
            for question in random.Random(number).sample(questions, len(questions)):
                answerer.answer(question.question, question.context)
            passes[name] = _medians(samples)
        return {"engine": f"{answerer.engine_name} {answerer.engine_version} {answerer.precision}", **passes}


def time_document(bundle: Bundle, text: str, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds over rounds, each with a tokenizer and a memory of words of its own."""
    vocabulary, engine = bundle.vocabulary(), open_engine(bundle, "token")
    times: dict[str, list[float]] = {name: [] for name in ("tokenise_new", "tokenise_known", "unknown_words")}
    unknown = 0
    for _ in range(rounds):
        tokenizer = bundle.tokenizer()
        states = TokenStates(vocabulary, bundle.table, engine, characters_per_word=bundle.manifest.characters_per_word)
        times["tokenise_new"].append(milliseconds(lambda split=tokenizer: split(text)))
        times["tokenise_known"].append(milliseconds(lambda split=tokenizer: split(text)))
        texts = tokenizer(text).texts
        times["unknown_words"].append(milliseconds(lambda known=states, words=texts: known.prepare(words)))
        unknown = len(states)
    return {
        "characters": len(text),
        "tokens": len(texts),
        "distinct_tokens": len(set(texts)),
        "unknown_words": unknown,
        **{f"{name}_ms": round(statistics.median(values), 1) for name, values in times.items()},
        **{f"{name}_least_ms": round(min(values), 1) for name, values in times.items()},
    }


def time_loading(bundle: Bundle, rounds: int) -> dict[str, float]:
    """Medians in milliseconds of reading tokenizer and vocabulary in a process that has read them before."""
    readers: dict[str, Callable[[], object]] = {"tokenizer": bundle.tokenizer, "vocabulary": bundle.vocabulary}
    return {
        f"{name}_ms": round(statistics.median(milliseconds(read) for _ in range(rounds)), 1)
        for name, read in readers.items()
    }


def choose_questions(path: Path, tokenizer: Tokenizer, wanted: int) -> tuple[list[SquadQuestion], str]:
    """One question of each of the first contexts of about 150 tokens, and the document.

    :raises DataError: if there are fewer than 10 of them.
    """
    first = {question.context: question for question in reversed(load_squad_questions(path))}
    contexts = sorted(first, key=lambda context: (len(context), context))
    fitting = (first[context] for context in contexts if len(tokenizer(context)) in CONTEXT_TOKENS)
    questions = list(islice(fitting, wanted))
    if len(questions) < 10:
        raise DataError(f"{path} has {len(questions)} contexts of about 150 tokens, expected at least 10")
    return questions, "\n\n".join(reversed(first))[:DOCUMENT_CHARACTERS]


def _medians(samples: Sequence[StageTimes]) -> dict[str, Any]:
    sums = [sum(getattr(sample, stage) for stage in STAGES) for sample in samples]
    return {
        "questions": len(samples),
        "context_tokens": statistics.median(sample.context_tokens for sample in samples),
        "question_tokens": statistics.median(sample.question_tokens for sample in samples),
        **{stage: round(statistics.median(getattr(sample, stage) for sample in samples), 3) for stage in STAGES},
        "sum_ms": round(statistics.median(sums), 3),
        "least_sum_ms": round(min(sums), 3),
        "infer_ms": round(statistics.median(sample.infer_ms for sample in samples), 3),
    }


def milliseconds(call: Callable[[], object]) -> float:
    """What a call takes, by the clock."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def _table(report: dict[str, Any]) -> str:
    lines = [f"{'150-token context and question, ms':36}{'tokenise':>10}{'look up':>10}{'decode':>10}{'sum':>10}"]
    for name in ("new texts", "known texts"):
        found = report["questions"][name]
        lines.append(f"{name:36}" + "".join(f"{found[stage]:10.3f}" for stage in (*STAGES, "sum_ms")))
    document = report["document"]
    lines.append(f"document of {document['characters']:,} characters, {document['tokens']:,} tokens")
    lines.append(f"  tokenise, new {document['tokenise_new_ms']} ms; once more {document['tokenise_known_ms']} ms")
    lines.append(f"  {document['unknown_words']:,} unknown words {document['unknown_words_ms']} ms")
    loading = report["loading"]
    lines.append(f"load: tokenizer {loading['tokenizer_ms']} ms, vocabulary {loading['vocabulary_ms']} ms")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--squad", type=Path, required=True, help="a SQuAD file whose contexts are read")
    parser.add_argument("--questions", type=int, default=200, help="contexts of about 150 tokens that are asked")
    parser.add_argument("--rounds", type=int, default=7, help="times that the document is tokenised anew")
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.output is not None:
            check_output_file(options.output)
            require_other_file(options.output, options.bundle, options.squad)
        bundle = Bundle.open(options.bundle)
        questions, document = choose_questions(options.squad, bundle.tokenizer(), options.questions)
        report = {
            "bundle": bundle.manifest.name,
            "machine": describe_machine(),
            "questions": time_questions(bundle, questions),
            "document": time_document(bundle, document, options.rounds),
            "loading": time_loading(bundle, options.rounds),
        }
        if options.output is not None:
            atomic_write(options.output, json.dumps(report, indent=2) + "\n")
    except QaEdgeError as error:
        print(f"outside_network: {error}", file=sys.stderr)
        return 1
    print(_table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
