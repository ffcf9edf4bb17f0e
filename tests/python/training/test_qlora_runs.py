"""Runs that learn beside a model in blocks: from files with numbers and from quantized ones, with
the same bytes when resumed and the memory that was planned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import Model, Tokenizer
from omnima.errors import ConfigError
from omnima.planning import memory_by_part, this_machine
from omnima.planning.job import Held, Job
from omnima.training.display import Display
from omnima.training.finetune import finetune
from omnima.training.finetune_recipe import FineTuneRecipe

SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
QUICK: dict[str, Any] = {
    "batch_size": 2, "lr": 3e-3, "context": 96, "precision": "fp32", "val_fraction": 0.2,
    "eval_batches": 2, "eval_every": 4, "steps": 8, "save_every": 4, "rank": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    lines = [
        {"prompt": f"{n % 8} + {n // 8} =", "completion": str(n % 8 + n // 8)} for n in range(60)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["1 + 2 = 3"], "byte")
    model = Model.from_config({**SHAPE, "vocab_size": tokenizer.vocab_size})
    model.tokenizer = tokenizer
    path = tmp_path_factory.mktemp("base")
    model.save_pretrained(path / "numbers", dtype="bfloat16")
    model.quantize("nf4", "rtn")
    model.save_pretrained(path / "blocks")
    return path


def run(model: Any, data: Path, out: Path, **options: Any) -> Any:
    silent = Display(silent=True)
    return finetune(model, str(data), out, display=silent, **{**QUICK, **options})


@pytest.mark.parametrize("method", ["qlora", "lora"])
@pytest.mark.parametrize("kind", ["numbers", "blocks"])
def test_an_adapter_gets_better_beside_blocks(
    kind: str, method: str, base: Path, sums: Path, tmp_path: Path
) -> None:
    done = run(base / kind, sums, tmp_path / "run", method=method)
    assert done.summary["loss_after"] < done.summary["loss_before"]
    assert {each.name for each in done.path.iterdir()} >= {"adapter_model.safetensors"}
    assert not (done.path / "model.safetensors").exists()
    model = Model.from_pretrained(base / kind)
    model.load_adapter(done.path, "learned")
    assert model.num_trainable_parameters == done.summary["trainable_parameters"]
    assert model.generate("1 + 1 =", max_new_tokens=4, temperature=0.0).new_tokens > 0


def written(path: Path) -> bytes:
    return (path / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["numbers", "blocks"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bytes(
    kind: str, precision: str, base: Path, sums: Path, tmp_path: Path
) -> None:
    from omnima.training.finetune import run_recipe

    def given(out: str) -> FineTuneRecipe:
        return FineTuneRecipe.from_layers(
            {
                **QUICK,
                "precision": precision,
                "method": "qlora",
                "data": [str(sums)],
                "model": str(base / kind),
                "out": str(tmp_path / out),
            }  # fmt: skip
        )

    silent = Display(silent=True)
    run_recipe(given("whole"), display=silent)
    run_recipe(given("parts"), display=silent, stop_after=4)
    run_recipe(given("parts"), display=silent, resume=True)
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_a_model_at_hand_is_held_in_blocks(base: Path, sums: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(base / "numbers")
    run(model, sums, tmp_path / "run", method="qlora", base="int8")
    assert model.quantization is not None and model.quantization.settings["to"] == "int8"
    assert all(each.dim() == 1 for _, each in model.named_parameters())
    from_files = tmp_path / "from-files"
    run(base / "numbers", sums, from_files, method="qlora", base="int8")
    assert written(from_files) == written(tmp_path / "run")


def test_another_base_is_not_resumed(base: Path, sums: Path, tmp_path: Path) -> None:
    run(base / "numbers", sums, tmp_path / "run", method="qlora", steps=2)
    with pytest.raises(ConfigError, match="base"):
        run(base / "numbers", sums, tmp_path / "run", method="qlora", base="int4", resume=True)
    other = Model.from_pretrained(base / "numbers")
    with torch.no_grad():
        other.named_parameters()[0][1].mul_(2)
    with pytest.raises(ConfigError):
        run(other, sums, tmp_path / "run", method="qlora", steps=2, resume=True)


def test_what_contradicts_itself_is_refused(base: Path, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base=nf4 is what method qlora holds"):
        run(base / "numbers", sums, tmp_path / "a", method="lora", base="nf4")
    with pytest.raises(ConfigError, match="quantized to nf4 already, not to int8"):
        run(base / "blocks", sums, tmp_path / "b", method="qlora", base="int8")
    with pytest.raises(ConfigError, match="on the CPU, not on cuda"):
        run(base / "numbers", sums, tmp_path / "c", method="qlora", device="cuda")


def test_the_plan_knows_the_blocks(base: Path) -> None:
    model = Model.from_pretrained(base / "numbers", dtype="nf4")
    held = Held.of(model.core)
    assert held is not None and Held.of(Model.from_pretrained(base / "numbers").core) is None
    assert held.bytes == sum(blocks.numel() for _, _, blocks in model.core.held)
    vectors = sum(each.numel() for _, each in model.named_parameters())
    assert held.numbers + vectors == model.num_parameters
    machine = this_machine()
    common: dict[str, Any] = {"rows": 2, "context": 64, "precision": "bf16", "trained": 100}
    parts = memory_by_part(Job(model.config, held=held, **common), machine)
    assert parts["weights"] == 4 * (vectors + 100) + held.bytes
    assert parts["bf16_shadow"] == 2 * vectors and parts["packed_weights"] == 0
    plain = memory_by_part(Job(model.config, **common), machine)
    assert sum(parts.values()) < sum(plain.values())


def test_a_base_can_be_in_every_format_of_quantization() -> None:
    from omnima.quantization import TARGETS
    from omnima.training.finetune_recipe import BASES

    assert BASES == tuple(TARGETS)
