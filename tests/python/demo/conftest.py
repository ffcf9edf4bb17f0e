"""Small models, and a browser where there is one, for all tests here."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["To be, or not to be, that is the question: é 日本 🙂 <b>bold</b>"] * 4
LOCAL = "http://127.0.0.1:"


def made(adapter: str = "", template: str | None = TEMPLATE, **shape: Any) -> omnima.Model:
    """A model of drawn weights, with an adapter that changes all it writes where one is named."""
    tokenizer = omnima.Tokenizer.train(
        TEXTS, "bpe", vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.chat_template = template
    sizes = {
        "max_position_embeddings": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "seed": 3,
    }
    model = omnima.Model.from_preset(
        "nima", vocab_size=tokenizer.vocab_size, **{**sizes, **shape}
    )
    model.tokenizer = tokenizer
    if adapter:
        model.add_adapter("lora", name=adapter, rank=4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _, parameter in model.core.adapter_parameters(adapter):
                parameter.normal_(0, 0.5, generator=generator)
        model.set_adapters({})
    return model


def made_slow() -> omnima.Model:
    """One that takes its time, so that there is some to stop it."""
    return made(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        max_position_embeddings=2048,
        seed=5,
    )


@asynccontextmanager
async def begun(**models: omnima.Model) -> AsyncGenerator[Any, None]:
    """Models whose engines run."""
    from omnima.demo.models import Models

    found = Models(models)
    await found.begin()
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture(scope="session")
def model() -> omnima.Model:
    return made("bard")


def chromium() -> str | None:
    """Where a Chromium of this machine is."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; of one module, because its event loop lets no other one run beside it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium here")
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=args)
        yield running
        running.close()


@pytest.fixture(scope="module")
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
    page.set_default_timeout(15_000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
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
