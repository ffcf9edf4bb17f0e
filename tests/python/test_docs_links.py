"""Every link between the pages of README and docs leads to a page, and to a heading that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = {"commands.md", "python.md", "architectures.md"}  # in docs/reference, when docs are built
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "reference"),
]
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors_of(page: Path) -> set[str]:
    """What may stand behind the # of a link to a page: its headings, as the builder writes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#{1,3} (.+)$", text, re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
        found.add(plain.strip().replace(" ", "-"))
    return found


def broken_links(page: Path) -> list[str]:
    found = []
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        if re.match(r"\w+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        if target.parent == DOCS / "reference" and target.name in WRITTEN:
            continue
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            found.append(link)
    return found


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    other = tmp_path / "other.md"
    other.write_text("# One `two`, three\n\n```text\n# four\n```\n")
    page = tmp_path / "page.md"
    good = "[a](other.md) [b](other.md#one-two-three) [c](https://nowhere.example) `[d](e)`\n"
    page.write_text(good + "[f](gone.md) [g](other.md#four)\n")
    assert broken_links(page) == ["gone.md", "other.md#four"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page)
