"""The rules of the house, read off the sources: one concept a file, imports one way, nothing that unpickles."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "qa_edge": ROOT / "qa_edge",
    "qa_edge_export": ROOT / "export" / "qa_edge_export",
    "qa_edge_runtime": ROOT / "runtime" / "qa_edge_runtime",
    "qa_edge_models": ROOT / "models" / "qa_edge_models",
}
# What stands above a package, and may not be imported by it.
ABOVE = {
    "qa_edge_models": {"qa_edge", "qa_edge_export", "qa_edge_runtime"},
    "qa_edge_runtime": {"qa_edge", "qa_edge_export", "qa_edge_models"},
    "qa_edge_export": {"qa_edge"},
    "qa_edge": set(),
}
# A first folder of an absolute path that tells of the machine on which a file was written.
MACHINE_PATH = re.compile(r"(?<![\w.:/<>$~*-])/(?:home|root|work|Users|opt|mnt|srv)/\w")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".json", ".jsonl", ".txt", ".sh", ".yml", ".yaml", ".cfg", ".ini"}
HEAVY = {"torch", "transformers", "spacy", "onnx", "onnxruntime", "accelerate", "safetensors", "tensorboard"}


def modules(*names: str) -> list[Path]:
    return sorted(path for name in names for path in PACKAGES[name].rglob("*.py"))


def sources() -> list[Path]:
    """Every Python file that is ours."""
    return sorted([*modules(*PACKAGES), *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])


def show(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    with tokenize.open(path) as stream:
        return ast.parse(stream.read(), str(path))


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that is imported anywhere below a node, in functions too."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.lineno, child.module


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression that is such a name, else the empty string."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    found = [
        f"{show(path)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imports(tree(path))
        if name.partition(".")[0] in ABOVE[package]
    ]
    assert not found


def test_nothing_imports_the_command_line() -> None:
    found = [
        f"{show(path)}:{line}"
        for path in modules(*PACKAGES)
        if "cli" not in path.parts and path.name != "__main__.py"
        for line, name in imports(tree(path))
        if name.startswith("qa_edge.cli")
    ]
    assert not found


def test_the_command_line_imports_heavy_modules_in_functions_alone() -> None:
    found = [
        f"{show(path)}:{node.lineno} imports {name}"
        for path in sorted((PACKAGES["qa_edge"] / "cli").glob("*.py"))
        for node in tree(path).body
        for _, name in imports(node)
        if isinstance(node, ast.Import | ast.ImportFrom) and name.partition(".")[0] in HEAVY
    ]
    assert not found


def test_nothing_unpickles() -> None:
    found = []
    for path in modules(*PACKAGES):
        for line, name in imports(tree(path)):
            if name.partition(".")[0] in {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}:
                found.append(f"{show(path)}:{line} imports {name}")
        for call, name in calls(path):
            if name in {"torch.load", "torch.save"} or name.endswith("read_pickle"):
                found.append(f"{show(path)}:{call.lineno} calls {name}")
            if name in {"np.load", "numpy.load", "np.save", "numpy.save"}:
                allowed = {keyword.arg: keyword.value for keyword in call.keywords}.get("allow_pickle")
                if not is_false(allowed):
                    found.append(f"{show(path)}:{call.lineno} calls {name} without allow_pickle=False")
    assert not found


def test_libraries_do_not_print() -> None:
    found = [
        f"{show(path)}:{call.lineno}"
        for path in modules(*PACKAGES)
        if "cli" not in path.relative_to(ROOT).parts
        for call, name in calls(path)
        if name == "print"
    ]
    assert not found


def test_no_module_holds_two_concepts_or_none() -> None:
    own = [path for path in sources() if "tests" not in path.parts]
    lengths = {show(path): len(path.read_text(encoding="utf-8").splitlines()) for path in own}
    assert not {path: length for path, length in lengths.items() if length > 400}
    nameless = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [show(path) for path in sources() if nameless & {path.stem, *path.relative_to(ROOT).parts[:-1]}]


def test_every_module_says_what_it_is() -> None:
    assert not [show(path) for path in modules(*PACKAGES) if not ast.get_docstring(tree(path))]


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    folders = [*PACKAGES.values(), *(ROOT / name for name in ("tests", "tools", "docs", "benchmarks", "models", ".ci"))]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in TEXT_SUFFIXES]
    files += [
        path
        for folder in (ROOT, ROOT / "runtime", ROOT / "models")
        for path in folder.glob("*")
        if path.suffix in TEXT_SUFFIXES
    ]
    files += [path for path in (ROOT / "Makefile", ROOT / ".ci" / "run") if path.is_file()]
    found = [
        f"{show(path)}:{number}"
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert files
    assert not found


def test_the_rule_on_paths_finds_them() -> None:
    for first in ("home", "root", "work", "Users"):
        assert MACHINE_PATH.search(f"see /{first}/someone/data")
        assert MACHINE_PATH.search(f'"/{first}/someone"')
    for harmless in (
        "docs/home/page",
        "https://example.org/home/page",
        "./work/x",
        "$HOME/root/x",
        "and/or",
        "../opt/x",
    ):
        assert not MACHINE_PATH.search(harmless)


def test_what_the_map_of_the_paper_names_is_there() -> None:
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:qa_edge|export|runtime|tests)/[\w./]*)(?:::(\w+))?`", text)
    assert len(named) > 40
    lost = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or (test and f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not lost


def test_all_distributions_have_the_licence_and_one_version() -> None:
    folders = (ROOT, ROOT / "runtime", ROOT / "models")
    assert len({(folder / "LICENSE").read_bytes() for folder in folders}) == 1
    projects = [(folder / "pyproject.toml").read_text(encoding="utf-8") for folder in folders]
    versions = {re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] for text in projects}  # type: ignore[index]
    (version,) = versions
    assert f'"qa-edge-runtime[onnx]=={version}"' in projects[0]
    assert f'"qa-edge-models=={version}"' in projects[0]
    for name in ("qa_edge_runtime", "qa_edge_models"):
        assert f'__version__ = "{version}"' in (PACKAGES[name] / "__init__.py").read_text(encoding="utf-8")
