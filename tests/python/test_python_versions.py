"""The package runs on Python 3.10: no younger syntax, and nothing of the standard library that is
younger; the interpreters that are on this machine compile it too."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "python").rglob("*.py"))

# module -> names that came after 3.10 (an empty set: the whole module did).
YOUNGER: dict[str, set[str]] = {
    "tomllib": set(),
    "annotationlib": set(),
    "asyncio": {"TaskGroup", "timeout", "timeout_at", "Runner", "Barrier"},
    "contextlib": {"chdir"},
    "copy": {"replace"},
    "datetime": {"UTC"},
    "enum": {"StrEnum", "EnumCheck", "verify", "member", "nonmember", "ReprEnum", "EnumType"},
    "hashlib": {"file_digest"},
    "http": {"HTTPMethod"},
    "importlib.resources.abc": set(),
    "inspect": {"getmembers_static", "markcoroutinefunction", "BufferFlags"},
    "itertools": {"batched"},
    "logging": {"getLevelNamesMapping", "getHandlerByName", "getHandlerNames"},
    "math": {"cbrt", "exp2", "sumprod", "fma"},
    "operator": {"call"},
    "os": {"process_cpu_count", "listdrives", "unshare", "setns"},
    "re": {"NOFLAG"},
    "sys": {"exception", "monitoring", "activate_stack_trampoline"},
    "threading": {"setprofile_all_threads", "settrace_all_threads"},
    "types": {"get_original_bases"},
    "typing": {
        *("Self", "LiteralString", "Never", "NotRequired", "Required", "TypeVarTuple", "Unpack"),
        *("assert_never", "assert_type", "reveal_type", "dataclass_transform", "override"),
        *("TypeAliasType", "get_overloads", "clear_overloads", "ReadOnly", "TypeIs", "NoDefault"),
    },
    "warnings": {"deprecated"},
}
BUILTINS = {"ExceptionGroup", "BaseExceptionGroup", "PythonFinalizationError"}
METHODS = {"add_note", "walk_up"}


def younger_uses(source: str) -> list[str]:
    """What of a source text is younger than Python 3.10."""
    tree = ast.parse(source, feature_version=(3, 10))
    modules: dict[str, str] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                modules[each.asname or each.name] = each.name
                found += [each.name] if YOUNGER.get(each.name) == set() else []
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module or ""
            names = YOUNGER.get(module)
            if names is not None:
                taken = {each.name for each in node.names}
                found += [f"{module}.{name}" for name in sorted(taken & names if names else taken)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = modules.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if node.attr in METHODS or node.attr in YOUNGER.get(owner or "", set()):
                found.append(f"{owner or ''}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            found.append(node.id)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "python")))
def test_nothing_is_younger_than_310(path: Path) -> None:
    assert younger_uses(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import tomllib",
        "import typing as t\nx: t.Self",
        "from datetime import UTC",
        "raise ExceptionGroup('a', [])",
        "import itertools\nitertools.batched([], 2)",
        "error.add_note('x')",
    ],
)
def test_the_reader_sees_what_is_younger(source: str) -> None:
    assert younger_uses(source)


@pytest.mark.parametrize("source", ["try:\n 1\nexcept* OSError:\n 2", "def f[T](x: T): ..."])
def test_the_reader_refuses_younger_syntax(source: str) -> None:
    with pytest.raises(SyntaxError):
        younger_uses(source)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_interpreter_here_compiles_the_package(version: str) -> None:
    ours = sys.version_info[:2] == tuple(map(int, version.split(".")))
    python = sys.executable if ours else shutil.which(f"python{version}")
    code = (
        "import sys, pathlib\n"
        "if sys.version_info[:2] != tuple(map(int, sys.argv[1].split('.'))): sys.exit(77)\n"
        "for path in pathlib.Path(sys.argv[2]).rglob('*.py'):\n"
        "    compile(path.read_text(encoding='utf-8'), str(path), 'exec', dont_inherit=True)\n"
    )
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    words = [python, "-I", "-c", code, version, str(ROOT / "python")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode in (77, 127):
        pytest.skip(f"there is no Python {version} here")
    assert done.returncode == 0, done.stderr
