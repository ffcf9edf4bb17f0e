"""A browser where there is one, and a page to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import omnima

from ..conftest import made, made_slow

LOCAL = "http://127.0.0.1:"


def chromium() -> str | None:
    """Where a Chromium of this machine is."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A real browser; its event loop lets no other one run beside it: it ends with these tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium here")
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=args)
        yield running
        running.close()


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page over three models."""
    models = {"tiny": made("bard"), "other": made(seed=4), "slow": made_slow()}
    with omnima.demo.demo(models, runs=tmp_path_factory.mktemp("runs")) as running:
        yield running


@pytest.fixture
def opened(browser: Any, place: Any) -> Iterator[Any]:
    """The page in a tab of its own: it asks nobody else for anything and complains of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    yield from watched(context, place.url)


def watched(context: Any, url: str) -> Iterator[Any]:
    """Open the page and look at what it asks for and complains of until it is closed."""
    asked: list[str] = []
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(45_000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(f"{error}\n{error.stack}"))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.goto(url)
    page.get_by_role("textbox", name="Message").first.wait_for()
    yield page
    context.close()
    elsewhere = [each for each in asked if not each.startswith((LOCAL, "data:", "blob:"))]
    assert asked and elsewhere == []
    # Gradio's own, when a page is left whose streams are open.
    left = ("signal is aborted", "errored out")
    assert [each for each in complaints if not any(word in each for word in left)] == []


def shot(page: Any, name: str) -> None:
    """Keep a picture of the page where somebody wants to look at it (OMNIMA_SHOTS, a directory)."""
    if folder := os.environ.get("OMNIMA_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
