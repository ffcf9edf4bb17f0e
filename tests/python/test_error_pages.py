"""Every public error has its page in the documentation: what it is, what it says in the cases that
people meet, why, and what to do; and the page is found from the others."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import omnima

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "errors"
TABLE = "| it says | why | what to do |\n| --- | --- | --- |\n"


def public_errors() -> dict[str, type[BaseException]]:
    """Those of omnima.errors, and those that other public modules export."""
    found = {name: each for name, each in vars(omnima.errors).items() if inspect.isclass(each)}
    for name in omnima.__all__:
        module = getattr(omnima, name)
        for public in getattr(module, "__all__", ()) if inspect.ismodule(module) else ():
            found[public] = getattr(module, public)
    return {
        name: each
        for name, each in found.items()
        if inspect.isclass(each) and issubclass(each, BaseException)
    }


def test_there_are_errors() -> None:
    assert {"OmnimaError", "ConfigError", "ExportError", "WrongAnswer"} <= set(public_errors())


@pytest.mark.parametrize("name", sorted(public_errors()))
def test_every_error_has_its_page(name: str) -> None:
    path = PAGES / f"{name}.md"
    assert path.exists(), f"docs/how-to/errors lacks {name}.md: what, why, what to do"
    page = path.read_text(encoding="utf-8")
    each = public_errors()[name]
    public = "omnima.errors" if name in vars(omnima.errors) else each.__module__.rpartition(".")[0]
    assert page.startswith(f"# {name}\n\n**What.** `{public}.{name}`: ")
    _, _, rest = page.partition(TABLE)
    cases = rest.partition("\n\n")[0].splitlines()
    assert len(cases) >= 3, "each page has the commonest cases in a table"
    assert all(row.count(" | ") == 2 for row in cases)
    assert f"except {name}" in page and "```python" in page
    assert "\n**Related.** " in page


@pytest.mark.parametrize("name", sorted(public_errors()))
def test_the_first_page_names_every_error_and_what_it_is_caught_as(name: str) -> None:
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| \[{name}\]\({name}\.md\) .*$", index, re.M)
    builtin = [each.__name__ for each in public_errors()[name].__bases__]
    for base in set(builtin) - {"OmnimaError", "Exception"}:
        assert f"`{base}`" in row
    assert f"\n{name}\n" in index.partition("{toctree}")[2]


def test_every_page_is_of_an_error_that_there_is() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", *public_errors()}
