"""Training of adapters beside PEFT: the same parameters learn, and rows say what they must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import omnima
from omnima.benchmarking import benchmark_adapter
from omnima.errors import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    values = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }  # fmt: skip
    omnima.Model.from_config(values).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("method", "rank"),
    [("lora", 2), ("dora", 2), ("vera", 4), ("adalora", 2)]
    + [(method, None) for method in ("ia3", "prompt", "prefix")],
)
def test_rows_are_those_of_training(model: Path, method: str, rank: int | None) -> None:
    pytest.importorskip("peft")
    found = benchmark_adapter(
        model, method=method, rank=rank, batch_size=2, precision="fp32", threads=1, rounds=1,
        seconds=0.05,
    )  # fmt: skip
    ours, theirs = found["rows"]
    assert (ours["system"], theirs["system"]) == ("omnima", "peft")
    assert ours["trainable_parameters"] == theirs["trainable_parameters"] > 0
    context = 12 if method in ("prompt", "prefix") else 32  # 20 places are the adapter's
    assert found["shape"]["model"]["max_position_embeddings"] == context and not found["skipped"]
    for row in found["rows"]:
        assert row["tokens_per_s"] > 0 and row["peak_memory_bytes"] > 0 and row["gflops_per_s"] > 0


@pytest.mark.parametrize(
    ("task", "method", "peers"),
    [("sft", "lora", ["peft", "trl"]), ("sft", "full", ["peft"]), ("dpo", "lora", ["trl"])],
)
def test_answers_and_preferences_have_such_rows(
    model: Path, task: str, method: str, peers: list[str]
) -> None:
    for peer in peers:
        pytest.importorskip(peer)
    found = benchmark_adapter(
        model, task=task, method=method, rank=2, batch_size=2, precision="fp32", threads=1,
        rounds=1, seconds=0.05, peers=peers,
    )  # fmt: skip
    assert [row["system"] for row in found["rows"]] == ["omnima", *peers], found["skipped"]
    assert found["task"] == task
    assert len({row["trainable_parameters"] for row in found["rows"]}) == 1
    tokens = 2 * 32 * (2 if task == "dpo" else 1)
    for row in found["rows"]:
        assert row["tokens_per_s"] == pytest.approx(tokens / row["seconds"])


def test_the_command_takes_a_models_flags_alone(model: Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "omnima", "bench", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    common = ("lora", "--model", model, "--peers", "none", "--precision", "fp32", "--rank", 2)
    done = run(*common, "--rounds", 1, "--seconds", 0.05, "--context", 16, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["system"] for row in json.loads(done.stdout)["rows"]] == ["omnima"]
    for words in (("--preset", "nima"), ("--group-size", 32), ("--kind", "bpe")):
        refused = run(*common, *words)
        assert refused.returncode == 1 and "says nothing to bench lora" in refused.stderr
    assert run("train", "--rank", 2).returncode == 1


def test_a_kind_that_peft_does_not_have_is_measured_alone(model: Path) -> None:
    pytest.importorskip("peft")
    found = benchmark_adapter(
        model, method="bottleneck", batch_size=2, precision="fp32", threads=1, rounds=1,
        seconds=0.05,
    )  # fmt: skip
    assert [row["system"] for row in found["rows"]] == ["omnima"]
    assert "PEFT has no bottleneck" in found["skipped"][0]["reason"]


def test_what_cannot_be_measured_is_refused(model: Path) -> None:
    for wrong in ({"method": "lore"}, {"method": "ia3", "rank": 4}, {"rank": 0}, {"context": 33},
        {"peers": "trl"},
        {"task": "ppo"}, {"method": "full"}, {"task": "dpo", "peers": "peft"},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            benchmark_adapter(model, **wrong)
