"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import omnima


def modules() -> list[str]:
    found = pkgutil.walk_packages(omnima.__path__, "omnima.")
    return sorted(each.name for each in found if each.name.rpartition(".")[2][0] != "_")


def examples_of(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    return [each for each in found if each.examples]


def test_there_are_examples() -> None:
    assert sum(len(examples_of(name)) for name in modules()) > 20


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    for example in examples_of(name):
        told: list[str] = []
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        result = runner.run(example, out=told.append)
        assert result.failed == 0, "".join(told)
