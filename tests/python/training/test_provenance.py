"""provenance.json holds what it takes to repeat a run, and hides what is secret."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima import __version__
from omnima.errors import CheckpointError, DataError
from omnima.evaluation.inventory import describe_directory
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.provenance import git_state, without_secrets
from omnima.training.recipe import Recipe
from omnima.training.run import Run

Make = Callable[..., Recipe]


def quiet(wanted: Recipe, **how: Any) -> Run:
    return train(wanted, display=Display(silent=True), **how)


def git(place: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    (place / "script.py").write_text("one\n")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    return place


def test_a_run_writes_what_it_is_made_of(
    small: Make, story: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMNIMA_EXAMPLE", "1")
    (repository / "script.py").write_text("two\n")
    wanted = small(seed=7)
    quiet(wanted, stop_after=4)
    run = quiet(wanted, resume=True)
    facts = json.loads((run.path / "provenance.json").read_text(encoding="utf-8"))
    assert facts["seed"] == 7
    (text,) = facts["data"]["files"]
    assert text["sha256"] == hashlib.sha256(story.read_bytes()).hexdigest()
    assert text["bytes"] == story.stat().st_size and text["path"].endswith("story.txt")
    assert facts["data"]["train_tokens"] > 0 and facts["data"]["tokens_fingerprint"]
    assert facts["tokenizer"]["kind"] == "byte" and facts["model"]["hidden_size"] == 32
    config = (run.path / "config.yaml").read_bytes()
    assert facts["config"] == {
        "path": "config.yaml",
        "sha256": hashlib.sha256(config).hexdigest(),
    }
    begun, resumed = facts["sessions"]
    assert (begun["from_step"], resumed["from_step"]) == (0, 4)
    assert begun["command"] == sys.orig_argv and begun["directory"] == str(repository)
    assert begun["versions"]["omnima"] == __version__ and "torch" in begun["versions"]
    assert begun["machine"]["threads"] > 0 and begun["environment"]["OMNIMA_EXAMPLE"] == "1"
    assert begun["git"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert begun["git"]["branch"] == "main" and begun["git"]["changed"] == ["script.py"]
    patch = run.path / "uncommitted.patch"
    git(repository, "checkout", "-q", "script.py")
    git(repository, "apply", str(patch))
    assert (repository / "script.py").read_text() == "two\n"
    shown = describe_directory(run.path)
    assert shown["provenance"] == facts
    (run.path / "provenance.json").write_text("[")
    with pytest.raises(DataError, match="provenance.json is damaged"):
        describe_directory(run.path)


def test_what_git_says(repository: Path, tmp_path: Path) -> None:
    patch = tmp_path / "patch"
    (repository / "new").write_text("")
    state = git_state(repository, patch)
    assert state is not None and state["changed"] == [] and state["untracked"] == ["new"]
    assert state["patch"] is None and not patch.exists()
    patch.write_text("of an earlier start")
    git_state(repository, patch)
    assert not patch.exists()
    bare = tmp_path / "bare"
    bare.mkdir()
    assert git_state(bare, patch) is None
    git(bare, "init", "-q")
    assert git_state(bare, patch) is None  # no commit yet


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path, tmp_path / "patch") is None


@pytest.mark.parametrize(
    "words",
    [
        ["--alert-webhook", "S"],
        ["--alert-webhook=S"],
        ["--set", "alert_webhook=S"],
        ["--set=alert_webhook=S"],
        ["--set", "alert-webhook=S"],
    ],
)
def test_secrets_stay_here(words: list[str]) -> None:
    shown = without_secrets(["omnima", "train", *words, "--steps", "3"])
    assert "S" not in "".join(shown).replace("--steps", "") and shown[-2:] == ["--steps", "3"]


def test_a_damaged_record_is_said(small: Make) -> None:
    run = quiet(small(), stop_after=4)
    (run.path / "provenance.json").write_text("{}")
    with pytest.raises(CheckpointError, match="provenance.json is damaged"):
        quiet(small(), resume=True)
