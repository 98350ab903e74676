"""The bundle reader in JavaScript, as far as it goes without its engine: tokens, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READER = ROOT / "examples" / "javascript" / "reader.mjs"
BUNDLE = ROOT / "models" / "qa_edge_models" / "edge.qab"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js")


def node(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_tokens_are_those_of_the_conformance_cases(tmp_path: Path) -> None:
    (tmp_path / "show.mjs").write_text(
        f"""
        import {{ readFileSync }} from "node:fs";
        import {{ Tokenizer }} from {json.dumps(READER.as_uri())};
        const read = (name) => JSON.parse(readFileSync(`${{process.argv[2]}}/${{name}}`));
        const tokenizer = new Tokenizer(read("tokenizer.json"));
        console.log(JSON.stringify(read("cases.json").texts.map(({{ text }}) => tokenizer.tokens(text))));
        """,
        encoding="utf-8",
    )
    ran = node("show.mjs", BUNDLE, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    cases = json.loads((BUNDLE / "cases.json").read_text(encoding="utf-8"))
    assert json.loads(ran.stdout) == [one["tokens"] for one in cases["texts"]] and len(cases["texts"]) > 50


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("table.npy", lambda raw: raw[:-1], "table.npy has {} bytes instead of {}"),
        ("table.npy", lambda raw: raw[:3_000_000] + b"\xff\x00" + raw[3_000_002:], "table.npy was changed"),
        (
            "cases.json",
            lambda raw: raw.replace(b'"format_version":2', b'"format_version":3'),
            "cases.json was changed",
        ),
        ("manifest.json", lambda raw: raw.replace(b'"decoder"', b'"encoder"'), "has an entry encoder that format 2"),
        ("manifest.json", lambda raw: raw.replace(b'"format_version": 2', b'"format_version": 3'), "bundle format 3"),
    ],
)
def test_damaged_bundles_are_refused_in_a_sentence(name: str, change: object, said: str, tmp_path: Path) -> None:
    assert callable(change)
    shutil.copytree(BUNDLE, tmp_path / "edge.qab")
    raw = (BUNDLE / name).read_bytes()
    changed = change(raw)
    assert changed != raw
    said = said.format(len(changed), len(raw))
    (tmp_path / "edge.qab" / name).write_bytes(changed)
    ran = node(READER, tmp_path / "edge.qab", cwd=tmp_path)
    assert ran.returncode == 1 and said in ran.stderr and len(ran.stderr.splitlines()) == 1, ran.stderr
