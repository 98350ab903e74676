"""What docs/embed.md shows runs: its Python, its Java and its JavaScript, with the bundle that is kept."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qa_edge_runtime import Answerer, QaEdgeError, engine
from qa_edge_runtime.bundle import Bundle, copy_bundle
from qa_edge_runtime.positions import position_signal

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "embed.md").read_text(encoding="utf-8")
KEPT = ROOT / "models" / "qa_edge_models" / "edge.qab"
MANUAL = "The main switch is behind the grey panel. Turn it off before you open the lid."
QUESTION, ANSWER = "Where is the main switch?", "the grey panel"

needs_bundle = pytest.mark.skipif(not KEPT.is_dir(), reason="the bundle that ships is not there")
needs_engine = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("ai_edge_litert", "onnxruntime")), reason="no engine"
)


def blocks() -> dict[str, str]:
    """The document's code by the file that its first line names."""
    found = re.findall(r"^```\w+\n(?:#|//) (\S*?([\w-]+\.\w+)\b[^\n]*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return {name: content for _, name, content in found}


def write(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_text(blocks()[name], encoding="utf-8")
    return [folder / name for name in names]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("embed") / "edge.qab.zip"
    copy_bundle(KEPT, target)
    return target


@pytest.fixture(scope="module")
def service(packed: Path) -> Iterator[str]:
    (script,) = write(packed.parent, "service.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(script), str(packed), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10).close()
                    break
                except OSError:
                    assert process.poll() is None
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def call(url: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_document_shows_what_is_tried_here() -> None:
    shown = re.findall(r"^```(python|java|js|ini)$", DOCUMENT, re.MULTILINE)
    assert sorted(shown) == ["ini", "java", "js", "js", "python", "python", "python"]
    assert {"service.py", "qa.py", "kiosk.py", "Bundle.java", "bundle.mjs", "core.mjs", "qa.service"} <= set(blocks())


@needs_bundle
@needs_engine
def test_service_answers(service: str) -> None:
    status, health = call(f"{service}/healthz")
    assert (status, health["documents"]) == (200, 0)
    assert call(f"{service}/documents", {"id": "manual", "text": MANUAL}) == (201, {"tokens": 18, "windows": 1})
    asked = {"document": "manual", "question": QUESTION}
    status, answer = call(f"{service}/answer", asked)
    assert status == 200
    assert answer["text"] == ANSWER == MANUAL[answer["start"] : answer["end"]]
    assert answer["sentence"]["text"] == MANUAL[:41]
    with ThreadPoolExecutor(4) as threads:
        assert all(
            found == (200, answer) for found in threads.map(lambda _: call(f"{service}/answer", asked), range(8))
        )


@needs_bundle
@needs_engine
def test_service_refuses_what_is_wrong_and_goes_on(service: str) -> None:
    call(f"{service}/documents", {"id": "manual", "text": MANUAL})
    for path, body, expected in (
        ("answer", {"document": "other", "question": QUESTION}, 404),
        ("answer", {"document": "manual"}, 404),
        ("answer", {"document": "manual", "question": " "}, 400),
        ("answer", {"document": "manual", "question": 3}, 400),
        ("answer", {"document": ["manual"], "question": QUESTION}, 400),
        ("answer", [], 400),
        ("answer", b"no JSON", 400),
        ("answer", b"\xff\xfe{", 400),
        ("documents", {"id": "empty", "text": ""}, 400),
        ("elsewhere", {}, 404),
    ):
        status, content = call(f"{service}/{path}", body)
        assert (status, list(content)) == (expected, ["error"]), (path, body)
    assert call(f"{service}/nothing")[0] == 404
    # Only announced: a body that the service leaves unread can reset the connection before the reply is read.
    connection = http.client.HTTPConnection(service.removeprefix("http://"), timeout=60)
    for size in ("1000001", "-1"):
        connection.request("POST", "/documents", headers={"Content-Length": size})
        reply = connection.getresponse()
        assert (reply.status, list(json.load(reply))) == (413, ["error"])
        connection.close()
    for number in range(25):
        call(f"{service}/documents", {"id": str(number), "text": MANUAL})
    assert call(f"{service}/healthz")[1]["documents"] == 20


def test_what_is_missing_is_said_as_the_document_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = write(tmp_path, "service.py")
    ran = subprocess.run([sys.executable, str(script), "edge.qab.zip", "0"], capture_output=True, cwd=tmp_path)
    last = ran.stderr.decode().strip().splitlines()[-1]
    assert ran.returncode == 1
    assert f"`{last.split(': ', 1)[1]}`" in DOCUMENT
    monkeypatch.setattr(engine, "_is_installed", lambda module: False)
    if KEPT.is_dir():
        for wanted in (None, "onnx"):
            with pytest.raises(QaEdgeError) as caught:
                Answerer.load(KEPT, engine=wanted)
            assert f"`{caught.value}`" in DOCUMENT


@needs_bundle
@needs_engine
@pytest.mark.parametrize("no_answer_below", [None, 1.0])
def test_kiosk_answers_and_says_when_it_does_not_know(tmp_path: Path, no_answer_below: float | None) -> None:
    bundle, script, manual = tmp_path / "fitted.qab", *write(tmp_path, "kiosk.py"), tmp_path / "manual.txt"
    manual.write_text(MANUAL, encoding="utf-8")
    shutil.copytree(KEPT, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest.pop("manifest_sha256", None)
    fit = {"temperature": 1.0, "expected_calibration_error": 0.1, "questions": 1, "no_answer_below": no_answer_below}
    manifest["probability"] = None if no_answer_below is None else fit
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    command = [sys.executable, str(script), str(bundle), str(manual)]
    ran = subprocess.run(command, input=f"{QUESTION}\n\n{QUESTION}\n".encode(), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    expected = f"{ANSWER} -- {MANUAL[:41]}" if no_answer_below is None else "I do not know."
    assert ran.stdout.decode().splitlines() == [expected, expected]


@needs_bundle
@needs_engine
def test_module_for_chaquopy_answers(packed: Path) -> None:
    (path,) = write(packed.parent, "qa.py")
    spec = importlib.util.spec_from_file_location("qa_of_the_document", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.answerer:
        assert module.answer(QUESTION, MANUAL)[:2] == [ANSWER, MANUAL[:41]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_unit_has_nothing_that_systemd_does_not_know(tmp_path: Path) -> None:
    unit = tmp_path / "qa.service"
    unit.write_text(re.sub(r"(?<=ExecStart=)\S+", sys.executable, blocks()["qa.service"]), encoding="utf-8")
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")


def digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


@needs_bundle
@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK")
def test_java_finds_the_files_of_a_bundle_within_another_file(packed: Path, tmp_path: Path) -> None:
    imports, found, bundle = blocks()["Bundle.java"].partition("final class Bundle")
    (tmp_path / "app.apk").write_bytes(b"another" + packed.read_bytes() + b"file")
    show = """
        class Show {
            public static void main(String[] arguments) throws Exception {
                java.io.RandomAccessFile file = new java.io.RandomAccessFile("app.apk", "r");
                for (Map.Entry<String, ByteBuffer> entry
                        : Bundle.files(file.getChannel(), 7, file.length() - 11).entrySet()) {
                    java.security.MessageDigest digest = java.security.MessageDigest.getInstance("SHA-256");
                    digest.update(entry.getValue());
                    String hexadecimal = String.format("%064x", new java.math.BigInteger(1, digest.digest()));
                    System.out.println(entry.getKey() + " " + hexadecimal);
                }
            }
        }
    """
    (tmp_path / "Show.java").write_text(imports + show + found + bundle, encoding="utf-8")
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "Show.java"]
    ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert dict(line.split() for line in ran.stdout.decode().splitlines()) == digests(KEPT)


@needs_bundle
@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js")
def test_javascript_reads_what_python_reads(packed: Path, tmp_path: Path) -> None:
    write(tmp_path, "bundle.mjs")
    # What needs ONNX Runtime Web is left out: the position signal does not.
    core = blocks()["core.mjs"]
    (tmp_path / "positions.mjs").write_text(core[core.index("export function positions") :], encoding="utf-8")
    (tmp_path / "show.mjs").write_text(
        """
        import { createHash } from "node:crypto";
        import { readFileSync } from "node:fs";
        import { bundleFiles, tableRow } from "./bundle.mjs";
        import { positions } from "./positions.mjs";
        const raw = readFileSync(process.argv[2]);
        const files = bundleFiles(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
        const digests = {};
        for (const [name, bytes] of files) digests[name] = createHash("sha256").update(bytes).digest("hex");
        const table = JSON.parse(new TextDecoder().decode(files.get("manifest.json"))).table;
        const rows = [0, 1, 4321, table.rows - 1].map((id) => [...tableRow(files, id, table)]);
        console.log(JSON.stringify({ digests, rows, signal: [...positions(400, table.hidden)] }));
        """,
        encoding="utf-8",
    )
    ran = subprocess.run(["node", "show.mjs", str(packed)], cwd=tmp_path, check=True, capture_output=True)
    found = json.loads(ran.stdout)
    assert found["digests"] == digests(KEPT)
    table = Bundle.open(KEPT).table
    assert found["rows"] == table.rows([0, 1, 4321, len(Bundle.open(KEPT).vocabulary().words)]).tolist()
    signal = position_signal(400, 128).ravel().tolist()
    assert max(abs(one - other) for one, other in zip(found["signal"], signal, strict=True)) < 3e-5


def test_wheels_are_those_of_the_page_on_arm() -> None:
    wheels = set(re.findall(r"`(\w+-[\w.-]+(?:aarch64|armv7l)\.whl)`", DOCUMENT))
    on_arm = (ROOT / "docs" / "arm.md").read_text(encoding="utf-8")
    assert len(wheels) >= 4
    assert not [name for name in wheels if name not in on_arm]
