"""Whole small runs: through the Trainer, stopped, resumed, killed, damaged."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from omnima.errors import CheckpointError, ConfigError, NonFiniteError, OmnimaError
from omnima.training import TrainConfig, Trainer
from omnima.training.checkpoint import latest_checkpoint, open_checkpoint
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.run import SUMMARY_KEYS, Run

from .runs import MODEL, quiet, recipe, write_story

STEPS = 8


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("text mit ü") / "stories ä.txt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Run:
    return quiet(recipe(tmp_path_factory.mktemp("whole") / "run", text))


def weights(path: Path) -> tuple[bytes, bytes]:
    found = latest_checkpoint(path)
    assert found is not None
    optimizer = (found.path / "optimizer.safetensors").read_bytes()
    return (path / "model.safetensors").read_bytes(), optimizer


def test_a_run_leaves_what_it_promises(whole: Run) -> None:
    assert tuple(whole.summary) == SUMMARY_KEYS
    assert whole.summary["steps"] == STEPS and whole.summary["entropy_floor"] is None
    assert whole.summary["val_loss"] < 6.0
    assert [each["step"] for each in whole.history] == list(range(1, STEPS + 1))
    names = {each.name for each in whole.path.iterdir()}
    assert {"config.yaml", "config.json", "model.safetensors", "summary.json", "loss.png"} <= names
    assert Run.load(whole.path).summary == whole.summary
    assert whole.checkpoint == whole.path


def test_a_finished_run_is_refused_or_returned(whole: Run, text: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run"):
        quiet(recipe(whole.path, text))
    with pytest.raises(ConfigError, match=r"lr: 0\.001 there, 0\.5 here"):
        quiet(recipe(whole.path, text, lr=0.5), resume=True)
    assert quiet(recipe(whole.path, text), resume=True).summary == whole.summary


@pytest.mark.parametrize("half", [1, 5])
def test_resume_is_exact(tmp_path: Path, text: Path, whole: Run, half: int) -> None:
    wanted = recipe(tmp_path / "run", text)
    quiet(wanted, stop_after=half)
    run = quiet(wanted, resume=True)
    assert weights(run.path) == weights(whole.path)
    assert [each["step"] for each in run.history] == list(range(1, STEPS + 1))


def test_a_damaged_checkpoint_is_skipped_aloud(tmp_path: Path, text: Path, whole: Run) -> None:
    wanted = recipe(tmp_path / "run", text, save_every=2)
    quiet(wanted, stop_after=4)
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None and newest.step == 4
    (newest.path / "optimizer.safetensors").write_bytes(b"broken")
    said = tmp_path / "said"
    with open(said, "w") as stream:
        run = train(wanted, resume=True, display=Display(stream))
    assert "damaged" in said.read_text() and "Continuing from step 2" in said.read_text()
    assert weights(run.path) == weights(whole.path)


def start(
    wanted: Recipe, tmp_path: Path, *more: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    import yaml

    path = tmp_path / "recipe ü.yaml"
    path.write_text(yaml.safe_dump(wanted.values(), allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "omnima", "train", "--config", str(path), "--json", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def wait_for_steps(out: Path, count: int) -> None:
    limit = time.monotonic() + 120
    metrics = out / "metrics.jsonl"
    while time.monotonic() < limit:
        if metrics.exists() and metrics.read_text().count("\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError("the run made no steps")


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path, text: Path) -> None:
    dice = random.Random(5)
    straight = quiet(recipe(tmp_path / "straight", text, steps=60, save_every=3))
    wanted = recipe(tmp_path / "killed", text, steps=60, save_every=3)
    for kill in range(2):
        running = start(wanted, tmp_path, "--resume")
        wait_for_steps(tmp_path / "killed", 5 + 20 * kill)
        time.sleep(dice.random() * 0.2)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    last = start(wanted, tmp_path, "--resume")
    out, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    assert json.loads(out)["steps"] == 60
    assert weights(tmp_path / "killed") == weights(straight.path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_leaves_with_130(
    tmp_path: Path, text: Path, number: signal.Signals, unmeasured: dict[str, str]
) -> None:
    running = start(recipe(tmp_path / "run", text, steps=100_000), tmp_path, env=unmeasured)
    wait_for_steps(tmp_path / "run", 3)
    running.send_signal(number)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130 and out == ""
    assert "Continue with --resume" in err
    assert latest_checkpoint(tmp_path / "run") is not None
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import torch

    from omnima import Model, Tokenizer, data
    from omnima.config import ModelConfig

    tokenizer = Tokenizer.train(["abc"], "byte")
    tokens = data.prepare(data.open_source(str(text)), tokenizer, tmp_path / "data", 0.2, 0)
    model = Model.from_config(ModelConfig(vocab_size=tokenizer.vocab_size, **MODEL))
    with torch.no_grad():
        model.named_parameters()[0][1].fill_(float("nan"))
    config = TrainConfig(
        steps=4, batch_size=2, samples=0, precision="fp32", out=str(tmp_path / "r")
    )
    with pytest.raises(NonFiniteError, match="weights were not changed.*lower learning rate"):
        Trainer(model, tokenizer, tokens, config, display=Display(silent=True)).fit()
    with np.load(tmp_path / "r" / "nonfinite-step-1" / "batches.npz") as batch:
        assert batch["input_ids_0"].shape == (2, 32)

    # A disk that is full, too, does not hide why the run stopped.
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omnima.training.loop.save_batches", full)
    again = dataclasses.replace(config, out=str(tmp_path / "full"))
    with pytest.raises(NonFiniteError, match=r"lower learning rate.*not be kept \(No space left"):
        Trainer(model, tokenizer, tokens, again, display=Display(silent=True)).fit()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tmp_path: Path, text: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima.training.stepper import Stepper

    wanted = recipe(tmp_path / "run", text, save_every=3)
    save = Stepper.save

    def full(self: Stepper, *given: object) -> None:
        if self.step.step > 3:
            raise OSError(28, "No space left on device")
        save(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "save", full)
        with pytest.raises(CheckpointError, match="No space left"):
            quiet(wanted)
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None and found.step == 3
    assert weights(quiet(wanted, resume=True).path) == weights(whole.path)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, text: Path) -> None:
    from omnima import Model, Tokenizer
    from omnima.config import ModelConfig

    tokenizer = Tokenizer.train(["abc"], "byte")
    small = Model.from_config(ModelConfig(vocab_size=100, **MODEL))
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        Trainer(small, tokenizer, None, {"steps": 1})
    model = Model.from_config(ModelConfig(vocab_size=tokenizer.vocab_size, **MODEL))
    with pytest.raises(ConfigError, match="context is 64, but the model's context is 32"):
        Trainer(model, tokenizer, None, {"steps": 1, "context": 64})
    with pytest.raises(ConfigError, match="sample_prompt has 41 tokens, .* context is 32"):
        Trainer(model, tokenizer, None, {"steps": 1, "sample_prompt": "a" * 40})


def test_a_tokenizer_without_begin_token_trains_and_writes(tmp_path: Path, text: Path) -> None:
    from omnima import Tokenizer

    place = tmp_path / "tokenizer"
    Tokenizer.train(["abc"], "byte").save_pretrained(place)
    file = place / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["bos_token"]
    file.write_text(json.dumps(config))
    wanted = recipe(tmp_path / "run", text, tokenizer=str(place), steps=1, samples=1)
    assert len(quiet(wanted).samples) == 1


def test_the_best_is_chosen_by_figures_of_its_own_weights(tmp_path: Path, text: Path) -> None:
    wanted = recipe(tmp_path / "run", text, eval_every=2, save_every=3, keep_last=8, steps=6)
    quiet(wanted)
    folder = tmp_path / "run" / "checkpoints"
    metrics = [open_checkpoint(folder / f"step-{step:08d}").metric for step in (3, 6)]
    assert metrics[0] is None and metrics[1] is not None


def test_text_of_the_same_length_is_not_the_same_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh\n" * 200)
    wanted = recipe(tmp_path / "run", text)
    quiet(wanted, stop_after=2)
    text.write_text("abcdefgi\n" * 200)
    with pytest.raises(ConfigError, match="was started differently .*tokens: "):
        quiet(wanted, resume=True)


def test_another_order_of_sums_is_said(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima.training import loop

    wanted = recipe(tmp_path / "run", text)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "order_of_sums", lambda: {"threads": 999, "kernels": "other"})
        quiet(wanted, stop_after=2)
    said = tmp_path / "said"
    with open(said, "w") as stream:
        train(wanted, resume=True, display=Display(stream))
    assert "'threads': 999" in said.read_text() and "another order" in said.read_text()


def test_no_validation_text_gives_no_validation_loss(tmp_path: Path, text: Path) -> None:
    run = quiet(recipe(tmp_path / "run", text, steps=2, val_fraction=0.0))
    assert run.summary["val_loss"] is None and run.summary["val_bits_per_byte"] is None


def test_minutes_and_epochs_end(tmp_path: Path, text: Path) -> None:
    run = quiet(recipe(tmp_path / "m", text, steps=None, minutes=0.03))
    assert run.summary["steps"] >= 1
    run = quiet(recipe(tmp_path / "e", text, steps=None, epochs=0.05))
    assert run.summary["steps"] >= 1


def test_precision_is_measured_and_remembered(tmp_path: Path, text: Path) -> None:
    said = tmp_path / "said"
    wanted = recipe(tmp_path / "run", text, precision="auto")
    with open(said, "w") as stream:
        train(wanted, display=Display(stream), stop_after=1)
    record = tmp_path / "run" / "precision.json"
    choice = json.loads(record.read_text())
    assert choice["precision"] in ("fp32", "bf16") and " ms in bf16" in choice["reason"]
    assert choice["reason"] in said.read_text()  # the display says why, too
    # A resumed run keeps the format even where a new measurement would choose the other one.
    other = {"fp32": "bf16", "bf16": "fp32"}[choice["precision"]]
    record.write_text(json.dumps({**choice, "precision": other}))
    quiet(wanted, resume=True)
    assert json.loads(record.read_text())["precision"] == other
    assert latest_precision(tmp_path / "run") == other


def latest_precision(path: Path) -> str:
    found = latest_checkpoint(path)
    assert found is not None
    return str(json.loads((found.path / "state.json").read_text())["precision"])


def test_verify_resume_measures_precision_once(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima.training import trainer
    from omnima.training.precision import PrecisionChoice
    from omnima.training.verify import verify_resume

    turns = iter(("bf16", "fp32", "fp32"))
    monkeypatch.setattr(
        trainer, "choose_precision", lambda *_: PrecisionChoice(next(turns), "measured")
    )
    wanted = recipe(tmp_path / "run", text, steps=2, precision="auto")
    assert verify_resume(wanted, Display(silent=True))["identical"]
    for name in ("straight", "resumed"):
        assert latest_precision(tmp_path / "run" / "verify-resume" / name) == "bf16"


def test_verify_resume(tmp_path: Path, text: Path) -> None:
    from omnima.training.verify import verdict, verify_resume

    result = verify_resume(recipe(tmp_path / "run", text, steps=4), Display(silent=True))
    assert result["identical"] and "same bytes" in verdict(result)
    assert "NOT exact" in verdict({**result, "identical": False})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the second process must take as many
    try:
        result = verify_resume(recipe(tmp_path / "more", text, steps=4), Display(silent=True))
    finally:
        torch.set_num_threads(threads)
    assert result["identical"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", None), (b"\xff\xfe broken", None)],
)
def test_bad_text_is_refused(tmp_path: Path, content: bytes, message: str | None) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(OmnimaError, match="bad.txt|document"):
        quiet(recipe(tmp_path / "run", path))


def test_missing_text_and_tokenizer_are_named(tmp_path: Path, text: Path) -> None:
    with pytest.raises(OmnimaError, match="nowhere"):
        quiet(recipe(tmp_path / "a", tmp_path / "nowhere.txt"))
    with pytest.raises(ConfigError, match="neither one of bpe"):
        quiet(recipe(tmp_path / "b", text, tokenizer="no-such"))


def test_a_tokenizer_directory_is_taken(tmp_path: Path, text: Path, whole: Run) -> None:
    run = quiet(recipe(tmp_path / "run", text, tokenizer=str(whole.path), steps=1))
    assert run.summary["steps"] == 1


def test_eval_info_and_tokenize_read_the_run(whole: Run, text: Path) -> None:
    def ask(*arguments: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "omnima", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    score = ask("eval", str(whole.path), "--data", str(text))
    assert set(score) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    facts = ask("info", str(whole.path))
    assert sum(facts["parts"].values()) == facts["parameters"]  # type: ignore[attr-defined]
    assert ask("tokenize", str(whole.path), "--text", "é")["pieces"] == ["<0xC3>", "<0xA9>"]
