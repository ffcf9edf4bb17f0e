"""Runs of before: what a list says of them, and that they go on as if they had never ended."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from omnima.demo.earlier import EarlierRuns
from omnima.demo.past_runs import PastRun, find_run, past_runs, read_run
from omnima.demo.progress import Progress
from omnima.demo.training import Order, Training, recipe_of
from omnima.demo.worker import work
from omnima.errors import ConfigError

from .conftest import begun, made
from .test_training import TEXT, Asked, until


def heard(recipe: dict[str, Any], stop: bool = False) -> list[dict[str, Any]]:
    """What a run says that is stopped at once, or by nobody."""
    asked = io.StringIO(json.dumps(recipe) + "\n") if stop else Asked(recipe)
    out = io.StringIO()
    try:
        work(asked, out)
    finally:
        if isinstance(asked, Asked):
            asked.over.set()
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of 12 steps that was stopped before its end."""
    place = tmp_path_factory.mktemp("runs") / "run"
    place.with_suffix(".txt").write_text(TEXT)
    heard(recipe_of(Order(TEXT, steps=12, patience=0), place), stop=True)
    return place


def test_a_stopped_run_goes_on_to_the_same_bytes(stopped: Path, tmp_path: Path) -> None:
    run = read_run(stopped)
    assert run is not None and run.state == "stopped" and 0 < run.step < run.of == 12
    assert run.label == f"run: stopped at step {run.step} of 12"
    place = tmp_path / "runs" / "run"
    shutil.copytree(stopped, place)
    moved = find_run(place.parent, "run")
    said = heard({**moved.recipe(), "resume": True})
    assert [each["step"] for each in said[0]["before"]] == list(range(1, run.step + 1))

    progress = Progress("starting", begun="It goes on.")
    for each in said[:2]:
        progress.take(each)
    assert progress.state == "running" and progress.said == "It goes on."
    for each in said[2:]:
        progress.take(each)
    assert [each["step"] for each in progress.history] == list(range(1, 13))
    assert any("val_loss" in each for each in progress.history[: run.step])
    assert progress.state == "done" and "done, after 12 steps" in progress.said

    whole = tmp_path / "whole"
    heard({**moved.recipe(), "out": str(whole)})
    ended = (place / "model.safetensors").read_bytes()
    assert ended == (whole / "model.safetensors").read_bytes()
    assert ended != (stopped / "model.safetensors").read_bytes()
    done = find_run(place.parent, "run")
    assert (done.state, done.label) == ("finished", "run: finished at step 12")
    with pytest.raises(ConfigError, match="is finished"):
        done.recipe()


def test_what_a_killed_run_left_is_offered(stopped: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(stopped, place)
    for name in ("summary.json", "model.safetensors"):
        (place / name).unlink()
    run = find_run(tmp_path, "run")
    assert run.state == "unfinished" and run.can_go_on and "not finished" in run.label
    assert run.model().parent.parent == place / "checkpoints"
    shutil.rmtree(place / "checkpoints")
    run = find_run(tmp_path, "run")
    assert run.step == 0
    with pytest.raises(ConfigError, match="Nothing of “run” is saved yet"):
        run.model()


def test_patience_that_ran_out_is_an_end(stopped: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(stopped, place)
    config = (place / "config.yaml").read_text().replace("patience: 0", "patience: 2")
    (place / "config.yaml").write_text(config)
    newest = sorted(place.glob("checkpoints/step-*/state.json"))[-1]
    state = json.loads(newest.read_text())
    for waited, expected in [(1, "stopped"), (2, "finished")]:
        newest.write_text(json.dumps({**state, "early_stop": {"best": 1.0, "waited": waited}}))
        run = read_run(place)
        assert run is not None and run.state == expected


def test_what_is_no_run_is_left_out(stopped: Path, tmp_path: Path) -> None:
    assert past_runs(tmp_path / "none") == []
    shutil.copytree(stopped, tmp_path / "good")
    for name, config in [
        ("other", "adapter: lora\nrank: 4\n"),
        ("broken", "a: [\n"),
        ("large", "#" * (2 << 20)),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(config)
    (tmp_path / "notes.txt").write_text("mine")
    shutil.copytree(stopped, tmp_path / "cut")
    (tmp_path / "cut" / "summary.json").write_text('{"steps": ')
    assert {run.name: run.state for run in past_runs(tmp_path)} == {
        "good": "stopped",
        "cut": "unfinished",
    }
    for name in ("../good", "other", str(tmp_path / "good"), ["good"], None, ""):
        with pytest.raises(ConfigError, match="There is no run|Choose a run first"):
            find_run(tmp_path, name)


def test_the_page_resumes_a_run_once(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    training = Training(tmp_path)
    try:
        with pytest.raises(ConfigError, match="no run 'gone'"):
            training.resume("gone")
        training.resume("run")
        progress = training.progress
        with pytest.raises(ConfigError, match="already being trained"):
            training.resume("run")
        until(lambda: not progress.busy)
        assert (progress.state, progress.name) == ("done", "run"), progress.said
        assert progress.history[0]["step"] == 1 and len(progress.history) == 12
        with pytest.raises(ConfigError, match="is finished"):
            training.resume("run")
    finally:
        training.close()
    with pytest.raises(ConfigError, match="being closed"):
        training.resume("run")


def earlier(models: Any, runs: Path) -> EarlierRuns:
    with gr.Blocks(analytics_enabled=False):
        return EarlierRuns(models, Training(runs))


def test_a_runs_model_is_talked_to(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")

    async def go() -> None:
        async with begun(given=made()) as models:
            part = earlier(models, tmp_path)
            group, choice = await part.offer("gone")
            assert group["visible"] and choice["value"] == "run"
            assert "stopped at step" in choice["choices"][0][0]
            for _ in range(2):  # the second time it is open already
                tabs, chosen, status = await part.talk_to("run")
                assert tabs.selected == "chat" and chosen["value"] == "run"
                assert models.names == ["given", "run"] and status == gr.skip()
            *_, status = await part.talk_to("gone")
            assert 'class="error"' in status and "no run" in status
            # When it has learned more, its new model takes the place of the old one.
            assert await part.add(str(tmp_path / "run"), 12, "run") == ("run", "")
            models.find("run")
            assert (await part.add(str(tmp_path / "run"), 13, "run"))[0] == "run-2"

            part._training.progress = Progress("running", name="run")
            _, choice = await part.offer("run")
            assert choice["choices"] == [("run: being trained", "run")]

    asyncio.run(go())


def test_a_list_without_runs_is_hidden(tmp_path: Path) -> None:
    async def go() -> None:
        async with begun() as models:
            group, choice = await earlier(models, tmp_path).offer(None)
            assert not group["visible"] and choice["value"] is None

    asyncio.run(go())


def test_a_budget_of_time_has_no_number_of_steps() -> None:
    run = PastRun("timed", Path("timed"), 7, 0, "unfinished")
    assert run.label == "timed: not finished, saved at step 7"
