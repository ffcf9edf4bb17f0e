"""The training tab where several dropdowns, tabs and models are, without a browser."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from omnima.demo import earlier
from omnima.demo import models as demo_models
from omnima.demo.progress import Progress
from omnima.demo.training import Training
from omnima.demo.training_tab import TrainingTab

from .conftest import begun, made


def wired(models: Any, runs: Path) -> TrainingTab:
    """A tab with the dropdowns of Chat and Compare."""
    with gr.Blocks(analytics_enabled=False) as page:
        tab = TrainingTab(models, Training(runs))
        tab.wire(page, gr.Tabs(), [gr.HTML()], [gr.Dropdown() for _ in range(3)])
    return tab


def test_the_first_model_is_chosen_everywhere(tmp_path: Path) -> None:
    async def run() -> None:
        async with begun() as models:
            tab = wired(models, tmp_path)
            await models.add("mine", made())
            offers = (await tab.look(("", 0), None, None, None))[-3:]
            assert [each["value"] for each in offers] == ["mine"] * 3
            assert len({id(each) for each in offers}) == 3  # each is emptied when it is used
            await models.add("second", made(seed=4))
            for each in (await tab.look(("", 1), "mine", "mine", "mine"))[-3:]:
                assert each["choices"] == ["mine", "second"] and "value" not in each

    asyncio.run(run())


def test_old_models_are_closed_but_none_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_models, "TRAINED", 1)

    async def run() -> None:
        async with begun(given=made()) as models:
            tab = wired(models, tmp_path)
            for name in ("first", "used"):
                await models.add(name, made())
            models.find("used")
            made().save_pretrained(tmp_path / "newest")
            tab.training.progress = Progress(
                "done", directory=str(tmp_path / "newest"), name="newest", said="Done."
            )
            shown = await tab.look(("", 0), "given", "first", "newest")
            assert models.names == ["given", "used", "newest"]
            assert "“first” can no longer be chosen" in shown[1]
            values = [each.get("value", "kept") for each in shown[-3:]]
            assert values == ["kept", "given", "kept"]
            assert await models.close_old() == []

    asyncio.run(run())


@pytest.mark.parametrize("place,label", [(2, "Steps"), (3, "Learning rate"), (4, "Patience")])
def test_an_emptied_number_is_an_error_that_stays(place: int, label: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with begun() as models:
            tab = wired(models, tmp_path / "runs")
            asked: list[Any] = ["To be. " * 100, "nima", 10, 0.1, 4, ""]
            asked[place] = None
            shown = await tab.start(*asked, ("", 0))
            assert f"{label} is empty" in shown[1] and not (tmp_path / "runs").exists()
            later = await tab.look(shown[0])
            assert later[1] == gr.skip()  # the timer does not wipe it away

    asyncio.run(run())


def test_whatever_fails_at_opening_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(directory: str) -> Any:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(earlier, "_model_of", opened)

    async def run() -> None:
        async with begun() as models:
            tab = wired(models, tmp_path)
            tab.training.progress = Progress("done", directory="gone", said="Done.")
            shown = await tab.look(("", 0))
            assert "cannot be opened: RuntimeError: no more memory" in shown[1]
            assert 'class="error"' in shown[1]

    asyncio.run(run())
