"""The public face: quick to import, and clear about a torch it was not built with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import time

import pytest

import omnima
from omnima import _torch_guard


def test_matching_minor_passes(tmp_path):
    (tmp_path / "_torch_version.txt").write_text("2.13.0+cpu\n")
    _torch_guard.check_torch([str(tmp_path / "nothing"), str(tmp_path)])


def test_source_tree_without_build_passes(tmp_path):
    _torch_guard.check_torch([str(tmp_path)])


def test_other_minor_names_both_versions_and_the_command(tmp_path):
    (tmp_path / "_torch_version.txt").write_text("2.9.1+cpu\n")
    with pytest.raises(ImportError) as caught:
        _torch_guard.check_torch([str(tmp_path)])
    message = str(caught.value)
    assert "2.9" in message and _torch_guard.running_torch() in message
    assert "pip install 'torch==2.9.*'" in message


def test_absent_torch_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "_torch_version.txt").write_text("2.13.0\n")
    monkeypatch.setattr(_torch_guard, "running_torch", lambda: None)
    with pytest.raises(ImportError, match=r"no torch here.*pip install"):
        _torch_guard.check_torch([str(tmp_path)])


def test_running_torch_without_import(monkeypatch):
    torch = sys.modules.pop("torch", None)
    try:
        assert _torch_guard.running_torch().startswith("2.")

        def absent(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.version", absent)
        assert _torch_guard.running_torch() is None
    finally:
        if torch is not None:
            sys.modules["torch"] = torch


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        _ = omnima.Modle
    assert "Trainer" in dir(omnima)


@pytest.mark.parametrize("name", sorted(omnima._EXPORTS))
def test_every_public_name_loads(name):
    if importlib.util.find_spec(omnima._EXPORTS[name] or f"omnima.{name}") is None:
        pytest.skip(f"the module of {name} is not in this build")
    assert getattr(omnima, name) is not None


def test_extension_loads_after_torch_in_a_fresh_process():
    code = (
        "import omnima; core = omnima._core; import torch; "
        "print(core.built_with_torch == torch.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_import_is_cheap():
    def seconds(module: str) -> float:
        best = 1e9
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds("omnima") < 1.5 * seconds("torch")
