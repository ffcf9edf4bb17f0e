"""Training in a real Chromium: a text is opened, a run is drawn, ends early, is talked with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..test_training import TEXT
from .conftest import shot
from .test_chat import ask, choose


def begin(page: Any, steps: str, **fields: str) -> None:
    page.get_by_role("tab", name="Training").click()
    for name, value in {"steps": steps, **fields}.items():
        page.locator(f"#training-{name} :is(input, textarea)").fill(value)
    page.get_by_role("button", name="Start").click()


def test_a_run_is_drawn_and_its_model_talked_with(opened: Any, tmp_path: Path) -> None:
    page = opened
    said, status = page.locator("#text-file-said"), page.locator("#training-status")
    page.get_by_role("tab", name="Training").click()
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 300)
    page.set_input_files("#text-file", tmp_path / "latin.txt")
    said.get_by_text("latin.txt is not UTF-8").wait_for()
    (tmp_path / "large.txt").write_bytes(b"a" * (5 << 20))
    page.set_input_files("#text-file", tmp_path / "large.txt")
    said.get_by_text("at most 4194304").wait_for()
    begin(page, "30")
    status.get_by_text("at least 200").wait_for()

    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    page.set_input_files("#text-file", tmp_path / "mine.txt")
    said.get_by_text("mine.txt is in the box").wait_for()
    assert page.locator("#training-text textarea").input_value() == TEXT
    # Nothing is learned at this rate: patience ends the run.
    fields = {"name": "idle", "lr": "1e-30", "patience": "6"}
    begin(page, "400", **fields)
    page.locator("#training-curve svg polyline.training").wait_for(timeout=120_000)
    page.locator("#training-curve svg circle").first.wait_for()
    drawn = "document.querySelector('#training-curve polyline.raw')"
    points = f"{drawn}?.getAttribute('points')?.length"
    first = page.evaluate(points)
    page.wait_for_function(f"{points} > {first}")
    shot(page, "training-running")
    status.get_by_text("Stopped early").wait_for(timeout=180_000)
    assert "Loss from" in page.locator("#training-curve svg").get_attribute("aria-label")
    assert page.locator("#training-samples .said").count() >= 1
    shot(page, "training-done")

    page.get_by_role("button", name="Chat with the new model").click()
    page.get_by_role("textbox", name="Message").first.wait_for()
    ask(page, "To be")
    turn = page.locator("#chat-log-0 .history article").last
    assert turn.get_attribute("aria-label") == "idle"
    page.get_by_role("tab", name="Compare").click()
    choose(page, "Right model", "idle")


def test_a_run_is_stopped_and_outlives_its_tab(opened: Any, place: Any) -> None:
    page = opened
    page.get_by_role("tab", name="Training").click()
    page.locator("#training-text textarea").fill(TEXT)
    begin(page, "20000", patience="0", name="long")
    # Not its curve: that of another test's run may still be there.
    status = page.locator("#training-status")
    status.get_by_text("Training has begun").wait_for(timeout=120_000)
    page.reload()
    page.get_by_role("tab", name="Training").click()
    status.get_by_text("Training has begun").wait_for()
    page.locator("#training-curve svg").wait_for()
    page.get_by_role("button", name="Start").click()
    status.get_by_text("already being trained").wait_for()
    page.locator("#training-stop").click()
    status.get_by_text("Stopped by you").wait_for(timeout=120_000)
    status.get_by_text("“long”").wait_for(timeout=120_000)
    assert place._parts.models.names[-1] == "long"
    goes_on(page, place)


def goes_on(page: Any, place: Any) -> None:
    """The run that was stopped is chosen again, and goes on where it was."""
    page.reload()
    page.get_by_role("tab", name="Training").click()
    run = page.get_by_role("combobox", name="Run")
    chosen = "document.querySelector('#earlier-run input')?.value"
    page.wait_for_function(f"{chosen}?.includes('long: s')")
    label = run.input_value()
    assert re.fullmatch(r"long: stopped at step \d+ of 20000", label)
    before = int(label.split()[4])
    shot(page, "training-earlier")
    resume = page.get_by_role("button", name="Resume")
    resume.focus()
    page.keyboard.press("Enter")
    status = page.locator("#training-status")
    status.get_by_text(f"“long” goes on after step {before}.").wait_for(timeout=120_000)
    page.wait_for_function(
        "before => document.querySelector('#training-curve polyline.raw')?.getAttribute('points')"
        ".split(' ').length > before",
        arg=min(before, 399),
    )
    assert "at step 1 to" in page.locator("#training-curve svg").get_attribute("aria-label")
    shot(page, "training-resumed")
    page.locator("#training-stop").click()
    status.get_by_text("Stopped by you").wait_for(timeout=120_000)
    status.get_by_text("can be chosen as").wait_for(timeout=120_000)
    trained = place._parts.training.progress.history
    assert [each["step"] for each in trained] == list(range(1, len(trained) + 1))
    assert len(trained) > before

    page.get_by_role("button", name="Talk to it").click()
    page.locator("#chat-message textarea").wait_for()
    ask(page, "To be")
    turn = page.locator("#chat-log-0 .history article").last
    assert turn.get_attribute("aria-label").startswith("long")
