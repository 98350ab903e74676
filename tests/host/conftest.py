from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_teacher import Workshop

    from qa_edge.experiments.sources import Sources
    from qa_edge.features import Features
    from qa_edge.labels import Labels
    from qa_edge.teacher import Teacher

# A shell lets its background jobs ignore Ctrl-C, which these tests send to themselves and to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Read once, when the hub's package is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# What the tiny teacher of these tests reads at once: contexts of the tiny data set need two or three such windows.
WINDOW, STRIDE = 64, 16


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch on one thread, before what a session shares is trained: another number of them adds in another order.

    Two would only wait for each other on tensors this small.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_squad_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import write_tiny_squad

    return write_tiny_squad(tmp_path_factory.mktemp("squad") / "tiny.json")


@pytest.fixture(scope="session")
def tiny_vectors_path(tiny_squad_path: Path) -> Path:
    from tiny_models import write_tiny_vectors

    from qa_edge.squad import read_squad

    return write_tiny_vectors(tiny_squad_path.with_name("tiny-vectors.txt"), read_squad(tiny_squad_path))


@pytest.fixture(scope="session")
def tiny_features(tiny_squad_path: Path, tiny_vectors_path: Path) -> Features:

    from qa_edge.features import Features
    from qa_edge.prepare import PrepareSettings, prepare

    folder = tiny_squad_path.with_name("features")
    settings = PrepareSettings(heldout=0.2, character_count=2)
    prepare(tiny_squad_path, folder, vectors_path=tiny_vectors_path, settings=settings)
    return Features.open(folder)


@pytest.fixture(scope="session")
def tiny_teacher_path(tiny_squad_path: Path) -> Path:
    from tiny_models import all_texts, write_tiny_teacher

    from qa_edge.squad import read_squad

    return write_tiny_teacher(tiny_squad_path.with_name("teacher"), all_texts(read_squad(tiny_squad_path)))


@pytest.fixture(scope="session")
def tiny_teacher(tiny_teacher_path: Path) -> Teacher:
    from qa_edge.teacher import Teacher

    return Teacher.load(str(tiny_teacher_path), window=WINDOW, stride=STRIDE)


@pytest.fixture(scope="session")
def tiny_labels(tiny_squad_path: Path, tiny_teacher_path: Path) -> Labels:
    from qa_edge.labels import Labels, LabelSettings, label

    settings = LabelSettings(window=WINDOW, stride=STRIDE, precision="fp32", batch_tokens=1024)
    return Labels(
        label(tiny_squad_path, str(tiny_teacher_path), tiny_squad_path.with_name("labels"), settings=settings)
    )


@pytest.fixture
def tiny_sources(tiny_squad_path: Path, tiny_features: Features, tiny_labels: Labels) -> Sources:
    """What an experiment on the tiny data set is given."""
    from qa_edge.experiments.sources import Sources

    return Sources(
        dev=str(tiny_squad_path), features=str(tiny_features.folder), labels={"only": str(tiny_labels.folder)}
    )


@pytest.fixture(scope="session")
def other_labels(tiny_squad_path: Path, tiny_teacher_path: Path) -> Labels:
    """Of another teacher with the same tokenizer: a tokenizer that is trained again may have other pieces."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from qa_edge.labels import Labels, LabelSettings, label

    teacher = shutil.copytree(tiny_teacher_path, tiny_squad_path.with_name("other-teacher"))
    tensors = load_file(teacher / "model.safetensors")
    head = np.random.default_rng(1).normal(size=tensors["qa_outputs.weight"].shape).astype(np.float32)
    save_file({**tensors, "qa_outputs.weight": head}, teacher / "model.safetensors", metadata={"format": "pt"})
    settings = LabelSettings(window=WINDOW, stride=STRIDE, precision="fp32", batch_tokens=1024)
    return Labels(label(tiny_squad_path, str(teacher), tiny_squad_path.with_name("other-labels"), settings=settings))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A run and its bundle, made by the command line, for all tests of the session."""
    from tiny_teacher import workshop

    return workshop(tmp_path_factory.getbasetemp())
