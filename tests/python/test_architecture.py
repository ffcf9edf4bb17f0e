"""The arrows of the house: who may include or import whom. An arrow against the plan fails here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# C++: a folder may include itself and what stands on its right. bindings may include everything.
CPP = {
    "core": set(),
    "kernels": {"core"},
    "text": {"core"},
    "data": {"core"},
    "ops": {"core", "kernels"},
    "quant": {"core", "kernels", "ops"},
    "nn": {"core", "ops", "quant"},
    "io": {"core"},
    "models": {"core", "ops", "quant", "nn", "io"},
    # nn holds the arena of the parameters, which an optimizer updates in one pass.
    "optim": {"core", "kernels", "ops", "nn"},
    "train": {"core", "kernels", "ops", "nn", "models", "optim", "data"},
    "generate": {"core", "kernels", "ops", "models", "quant", "text"},
}
CPP["bindings"] = set(CPP)
# Folders whose code must compile without torch.
TORCH_FREE = {"core", "kernels", "text", "data"}
TORCH_HEADER = re.compile(r"^(torch|ATen|c10|pybind11)/")
# CUDA is a folder: what needs it stands in one of that name.
CUDA_HEADER = re.compile(r"^cuda|/cuda/")
# Too slow to compile: a narrow header does the same.
WIDE_HEADERS = {"torch/torch.h", "torch/extension.h"}

# Python: an area may import itself and what stands on its right.
BASE = {"", "errors", "_blocks", "_device", "_durable", "_core", "_torch_guard"}
BASE |= {"_collector", "_machine", "_sizes", "_places", "_outputs", "_downloads", "_hub_client"}
PYTHON = {
    "errors": set(),
    "_blocks": set(),
    "_collector": set(),
    "_torch_guard": set(),
    "_durable": set(),
    "_machine": set(),
    "_sizes": set(),
    "_device": {"errors"},
    "_places": {"errors", "_downloads"},
    "_outputs": {"errors"},
    "_downloads": {"errors", "_places", "_hub_client"},
    "_hub_client": {"errors"},
    "config": BASE,
    "templates": {"errors"},
    "tokenizers": BASE | {"templates"},
    "data": BASE | {"tokenizers"},
    "hub": BASE | {"config", "tokenizers"},
    "adapters": BASE | {"config", "hub"},
    "_adapting": BASE | {"config", "adapters", "hub", "tokenizers"},
    "generation": BASE | {"config", "tokenizers", "model"},
    "_growth": BASE | {"config"},
    "quantization": BASE | {"config", "tokenizers", "data", "hub", "model"},
    "_sharing": BASE | {"config", "tokenizers", "hub"},
    "notebook": BASE | {"tokenizers", "generation"},
    "_looking": {"notebook"},
    "model": BASE
    | {"_looking", "config", "_growth", "_sharing", "_adapting", "tokenizers", "hub", "generation"}
    | {"quantization"},
    "exporting": BASE | {"config", "tokenizers", "hub", "model", "generation", "evaluation"},
    "evaluation": BASE | {"config", "tokenizers", "data", "model"},
    "training": BASE
    | {"config", "tokenizers", "data", "hub", "model", "generation", "evaluation"}
    | {"_growth", "adapters", "notebook", "planning", "profiling", "quantization"},
    "doctor": BASE | {"config", "planning"},
    "benchmarking": BASE
    | {"adapters"}
    | {"config", "tokenizers", "data", "hub", "model", "generation", "quantization"},
    "profiling": BASE | {"benchmarking", "config", "model", "generation"},
    "planning": BASE | {"config", "adapters", "benchmarking", "profiling"},
}
PYTHON["server"] = BASE | {"templates", "tokenizers", "hub", "model", "generation", "evaluation"}
PYTHON["demo"] = BASE | {"tokenizers", "generation", "notebook", "model", "evaluation", "server"}
PYTHON["demo"] |= {"training"}
EVERYTHING = set(PYTHON) | BASE
PYTHON["cli"] = EVERYTHING
PYTHON["__main__"] = {"cli"}
PYTHON[""] = EVERYTHING
# Never imported when a module loads: only inside the function that needs them.
LAZY = {
    "transformers",
    "matplotlib",
    "IPython",
    "tokenizers",
    "safetensors",
    "sphinx",
    "litgpt",
    "wandb",
    "mlflow",
    "pyarrow",
    "datasets",
    "rensa",
    "py3langid",
    "huggingface_hub",
}


def cpp_violations(root: Path) -> list[str]:
    """Every include under `root` (the folder cpp/omnima) that the plan does not allow."""
    found = []
    files = [p for p in sorted(root.rglob("*")) if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    for path in files:
        folder = path.relative_to(root).parts[0]
        name = path.relative_to(root)
        if folder not in CPP:
            found.append(f"{name}: the folder {folder} is not in the plan")
            continue
        text = path.read_text(encoding="utf-8")
        for mark, header in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.M):
            if mark == '"' and not header.startswith("omnima/"):
                found.append(f'{name}: "{header}" is to be included as "omnima/…"')
            elif "cuda" not in name.parts and CUDA_HEADER.search(header):
                found.append(f"{name}: only folders named cuda may include {header}")
            elif header.startswith("omnima/"):
                target = header.split("/")[1]
                if target != folder and target not in CPP[folder]:
                    found.append(f"{name}: {folder} may not include {header}")
            elif header in WIDE_HEADERS:
                found.append(f"{name}: {header} is too wide, include what is used")
            elif folder in TORCH_FREE and TORCH_HEADER.match(header):
                found.append(f"{name}: {folder} is free of torch, but includes {header}")
    return found


def imports_of(tree: ast.Module, package: str) -> list[tuple[str, bool, int]]:
    """(module, loaded at import time, line) of every import, relative ones resolved."""
    found: list[tuple[str, bool, int]] = []

    def visit(node: ast.AST, eager: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner = eager and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((each.name, eager, child.lineno) for each in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*above, base]).rstrip(".")
                if base == "omnima":
                    found.extend((f"omnima.{n.name}", eager, child.lineno) for n in child.names)
                else:
                    found.append((base, eager, child.lineno))
            visit(child, inner)

    visit(tree, True)
    return found


def python_violations(root: Path) -> list[str]:
    """Every import under `root` (the package omnima) that the plan does not allow."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        area = name.parts[0].removesuffix(".py").replace("__init__", "")
        package = ".".join(("omnima", *name.parts[:-1]))
        if area not in PYTHON:
            found.append(f"{name}: the area {area} is not in the plan")
            continue
        for module, eager, line in imports_of(ast.parse(path.read_text("utf-8")), package):
            first, *rest = module.split(".")
            if first in LAZY and eager:
                found.append(f"{name}:{line}: {first} is to be imported where it is used")
            if first != "omnima":
                continue
            target = rest[0] if rest else ""
            if target not in EVERYTHING and target != "cli":
                target = ""  # a plain name of the package, such as omnima.__version__
            if target != area and target not in PYTHON[area]:
                found.append(f"{name}:{line}: {area or 'omnima'} may not import {module}")
    return found


def test_includes_follow_the_plan():
    assert cpp_violations(ROOT / "cpp" / "omnima") == []


def test_imports_follow_the_plan():
    assert python_violations(ROOT / "python" / "omnima") == []


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_wrong_include_is_found(tmp_path):
    plant(tmp_path, "core/a.h", '#include "omnima/ops/b.h"\n#include <vector>\n')
    plant(tmp_path, "kernels/cpu/k.cpp", "#include <ATen/core/Tensor.h>\n")
    plant(tmp_path, "ops/o.cpp", '#include <torch/extension.h>\n#include "o.h"\n')
    plant(tmp_path, "cellar/c.h", "#pragma once\n")
    plant(tmp_path, "train/t.cpp", '#include "omnima/train/cuda/b.h"\n#include <cuda_runtime.h>\n')
    plant(tmp_path, "train/cuda/b.h", "#include <ATen/cuda/CUDAGraph.h>\n")
    plant(tmp_path, "nn/fine.cpp", '#include "omnima/ops/b.h"\n#include <ATen/core/Tensor.h>\n')
    assert cpp_violations(tmp_path) == [
        "cellar/c.h: the folder cellar is not in the plan",
        "core/a.h: core may not include omnima/ops/b.h",
        "kernels/cpu/k.cpp: kernels is free of torch, but includes ATen/core/Tensor.h",
        "ops/o.cpp: torch/extension.h is too wide, include what is used",
        'ops/o.cpp: "o.h" is to be included as "omnima/…"',
        "train/t.cpp: only folders named cuda may include omnima/train/cuda/b.h",
        "train/t.cpp: only folders named cuda may include cuda_runtime.h",
    ]


def test_a_wrong_import_is_found(tmp_path):
    plant(tmp_path, "errors.py", "from omnima import cli\n")
    plant(tmp_path, "data/a.py", "from ..training import Trainer\nimport transformers\n")
    plant(tmp_path, "tokenizers/b.py", "def f():\n    import omnima.data\n    import tokenizers\n")
    plant(tmp_path, "attic.py", "")
    plant(tmp_path, "cli/app.py", "from omnima.training import Trainer\nfrom omnima import Model\n")
    assert python_violations(tmp_path) == [
        "attic.py: the area attic is not in the plan",
        "data/a.py:1: data may not import omnima.training",
        "data/a.py:2: transformers is to be imported where it is used",
        "errors.py:1: errors may not import omnima.cli",
        "tokenizers/b.py:2: tokenizers may not import omnima.data",
    ]
