"""`omnima plan`: exactly the keys it promises, other machines, what fits, forecasts from runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.planning import Calibration

from .conftest import Says

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--preset", "nima", "--vocab-size", "256", "--precision", "fp32", "--batch-size", "2"]
KEYS = ["parameters", "memory_bytes", "memory_by_part", "flops_per_token"]
KEYS += ["tokens_per_s", "seconds", "cost", "fits"]
Asked = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No passes here: they are measured in tests/python/planning."""
    monkeypatch.setattr(
        "omnima.planning.prediction.calibrate",
        lambda job, here: Calibration(0.01, 0.001, 0.003, 1e9),
    )
    limits = {"fp32_gflops": 100.0, "bf16_gflops": 200.0, "read_gb_per_s": 10.0}
    monkeypatch.setattr(
        "omnima.benchmarking.limits.measure_limits", lambda threads, seconds: limits
    )


@pytest.fixture
def asked(shown: Says) -> Asked:
    """A plan, as --json writes it."""
    return lambda *words: dict(json.loads(shown("plan", *words, "--json")))


def test_json_holds_exactly_what_is_promised(asked: Asked) -> None:
    told = asked(*SMALL, "--steps", "10", "--val-fraction", "0")
    assert list(told) == KEYS
    assert told["memory_bytes"] == sum(told["memory_by_part"].values()) and told["fits"] is True
    assert told["seconds"] == pytest.approx(0.11) and told["cost"] is None


def test_the_flags_are_those_of_train(asked: Asked, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("A line about cats.\n\n" * 400)
    words = ["--data", str(text), "--tokenizer", "byte", "--epochs", "2", "--accumulate", "2"]
    told = asked(*words, "--preset", "nima", "--context", "64", "--precision", "fp32")
    tokens = 2 * 0.95 * text.stat().st_size
    assert told["seconds"] * told["tokens_per_s"] == pytest.approx(tokens, rel=0.1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("preset: nima\nvocab_size: 512\nminutes: 2\nprecision: bf16\n")
    told = asked("--config", str(recipe), "--set", "num_hidden_layers=2")
    assert told["seconds"] == 120 and told["memory_by_part"]["bf16_shadow"] > 0


def test_other_vocabularies_and_sources(asked: Asked, tmp_path: Path) -> None:
    import gzip

    from omnima import Tokenizer

    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"One more line of text.\n\n" * 300))
    saved = tmp_path / "tokenizer"
    Tokenizer.train(["a"], "byte").save_pretrained(saved)
    small = ["--preset", "nima", "--steps", "2", "--precision", "fp32"]
    named = asked(*small, "--data", str(packed), "--tokenizer", str(saved))
    byte = asked(*small, "--data", str(packed), "--tokenizer", "byte")
    assert named["parameters"] == byte["parameters"]
    more = asked(*small, "--data", "tinyworld:100KB")
    assert more["parameters"] > byte["parameters"]


def test_a_plan_is_read_by_people_too(shown: Says) -> None:
    told = shown("plan", *SMALL)  # neither text nor budget: twenty tokens for each parameter
    for part in ("parameters by part", "packed weights", "gradients", "largest batch", "duration"):
        assert part in told


def test_without_text_a_vocabulary_is_needed(asked: Asked, refused: Says) -> None:
    assert "--vocab-size" in refused("plan", "--preset", "nima")
    assert asked("--preset", "gpt2", "--precision", "fp32")["parameters"] > 10**8


def test_another_machine_has_a_cost(asked: Asked) -> None:
    for name in ("gpu-80gb", "laptop"):
        path = ROOT / "examples" / "machines" / f"{name}.yaml"
        words = [*SMALL[:4], "--steps", "1000", "--machine", str(path)]
        told = asked(*words)
        assert list(told) == KEYS and told["cost"] is not None
        shadow = told["memory_by_part"]["bf16_shadow"]
        assert (shadow > 0) == (name == "gpu-80gb")  # auto takes what is faster there


def test_what_fits_is_a_table(asked: Asked, shown: Says) -> None:
    told = asked(*SMALL, "--what-fits")
    assert {"preset", "precision", "fits", "largest_batch"} <= set(told["rows"][0])
    assert "largest context" in shown("plan", *SMALL, "--what-fits")


def finished(place: Path, tokens: int) -> str:
    place.mkdir()
    loss = 1.2 + 90 / tokens**0.5
    summary = {"parameters": 10**6, "tokens": tokens, "val_loss": loss}
    (place / "summary.json").write_text(json.dumps(summary))
    return str(place)


def test_runs_predict_a_larger_one(
    asked: Asked, shown: Says, refused: Says, tmp_path: Path
) -> None:
    places = [finished(tmp_path / str(n), n) for n in (10**5, 3 * 10**5, 10**6)]
    told = asked("--from-runs", *places)
    assert told["tokens"] == 10**7 and told["low"] < 1.2 + 90 / 1e7**0.5 < told["high"]
    wanted = asked("--from-runs", *places, *SMALL, "--steps", "100", "--context", "32")
    assert wanted["tokens"] == 100 * 2 * 32 and wanted["loss"] > told["loss"]
    assert "curve" in shown("plan", "--from-runs", *places)
    said = refused("plan", "--from-runs", *places, *SMALL, "--minutes", "1")
    assert "--steps or --epochs" in said
