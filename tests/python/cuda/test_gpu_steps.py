"""On a GPU: losses, gradients and whole steps beside the CPU's. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core
from omnima.errors import DataError, NonFiniteError
from omnima.training.launch import train
from omnima.training.recipe import Recipe

VOCAB, TIME = 211, 48
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TIME,
}
GPT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": TIME,
    "norm": "layer_norm",
    "activation": "gelu",
    "positions": "learned",
    "attention_bias": True,
    "mlp_bias": True,
}
# Nothing here is a multiple of a 16-byte access, and no head fits flash attention.
ODD: dict[str, Any] = {
    **LLAMA,
    "hidden_size": 60,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 101,
}
FAMILIES = pytest.mark.parametrize("values", [LLAMA, GPT, ODD], ids=["llama", "gpt", "odd"])
PRECISIONS = pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-4), ("bf16", 3e-2)])


@pytest.fixture
def repeatable() -> Any:
    """Flash attention's backward pass repeats its bits only when asked to."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def decoder(values: dict[str, Any], device: str) -> Any:
    return _core.Decoder(_core.DecoderConfig(values), 3, device)


def batch(seed: int, rows: int = 4, time: int = TIME) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, time + 1), generator=generator)
    labels = ids[:, 1:].clone()
    labels[0, :3] = -100
    return ids[:, :-1].contiguous(), labels


def trainer(values: dict[str, Any], device: str, precision: str, **changes: Any) -> Any:
    options = _core.StepOptions()
    options.precision, options.schedule, options.lr = precision, "constant", 1e-3
    for name, value in changes.items():
        setattr(options, name, value)
    return _core.TrainStep(decoder(values, device), options)


@FAMILIES
@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_are_those_of_the_cpu(values: dict[str, Any], packed: bool) -> None:
    ids, labels = batch(1)
    segments = (torch.arange(TIME) // 17).expand(4, TIME).to(torch.int32).contiguous()
    found = {}
    for device in ("cpu", "cuda"):
        model = decoder(values, device)
        on = [x.to(device) for x in (ids, labels)]
        loss = model.loss(*on, segments.to(device) if packed else None)
        loss.backward()
        found[device] = (
            loss.detach().cpu(),
            {name: leaf.grad.cpu() for name, leaf in model.named_parameters()},
        )
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=1e-5, atol=1e-5)
    for name, expected in found["cpu"][1].items():
        torch.testing.assert_close(
            found["cuda"][1][name], expected, rtol=2e-3, atol=2e-5, msg=f"gradient of {name}"
        )


@FAMILIES
@PRECISIONS
def test_steps_follow_the_cpu(values: dict[str, Any], precision: str, tolerance: float) -> None:
    steps = [[batch(2 * i), batch(2 * i + 1)] for i in range(6)]
    results = {
        device: [step.run_batches(batches) for batches in steps]
        for device, step in (
            (device, trainer(values, device, precision)) for device in ("cpu", "cuda")
        )
    }
    for on_cpu, on_gpu in zip(results["cpu"], results["cuda"], strict=True):
        assert on_gpu.loss == pytest.approx(on_cpu.loss, abs=tolerance)
        assert on_gpu.grad_norm == pytest.approx(on_cpu.grad_norm, rel=10 * tolerance)
        assert on_gpu.tokens == on_cpu.tokens


@PRECISIONS
def test_the_second_step_of_a_shape_is_captured(precision: str, tolerance: float) -> None:
    step = trainer(LLAMA, "cuda", precision)
    assert step.graph == "eager"
    for i in range(3):
        step.run_batches([batch(i)])
    assert step.graph == "captured"


@PRECISIONS
@pytest.mark.usefixtures("repeatable")
def test_a_replayed_step_gives_the_bits_of_an_eager_one(precision: str, tolerance: float) -> None:
    runs = []
    for captured in (False, True):
        step = trainer(LLAMA, "cuda", precision)
        for i in range(5):
            ids, labels = batch(i)
            halves = [(ids[:2], labels[:2]), (ids[2:], labels[2:])]
            step.run_batches(halves)
            if not captured:  # what is new with every step never sees a shape twice
                other = trainer(LLAMA, "cuda", precision)
                other.load_state(step.state(), step.step)
                step = other
        assert step.graph == ("captured" if captured else "eager")
        runs.append(step.state()["weights"].cpu())
    assert torch.equal(runs[0], runs[1])


@pytest.mark.usefixtures("repeatable")
def test_two_runs_give_the_same_bits() -> None:
    runs = []
    for _ in range(2):
        step = trainer(LLAMA, "cuda", "bf16")
        for i in range(4):
            step.run_batches([batch(i)])
        runs.append(step.state()["weights"].cpu())
    assert torch.equal(runs[0], runs[1])


def test_dropout_is_never_captured() -> None:
    step = trainer({**LLAMA, "dropout": 0.1}, "cuda", "fp32")
    for i in range(3):
        step.run_batches([batch(i)])
    assert step.graph.startswith("eager: dropout")


@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_loss_that_is_not_finite_keeps_the_weights(steps_before: int) -> None:
    step = trainer(LLAMA, "cuda", "fp32")
    for i in range(steps_before):
        step.run_batches([batch(i)])
    weights = step.state()["weights"]
    weights[5] = float("nan")
    before = weights.clone()
    ids, labels = batch(9)
    ids[0, 0] = 0
    with pytest.raises(NonFiniteError):
        step.run_batches([(ids, labels)])
    assert torch.equal(weights.isnan(), before.isnan())
    assert torch.equal(weights.nan_to_num(), before.nan_to_num())
    assert step.step == steps_before


def test_a_token_outside_the_vocabulary_is_named() -> None:
    step = trainer(LLAMA, "cuda", "fp32")
    ids, labels = batch(1)
    ids[1, 1] = VOCAB
    with pytest.raises(DataError, match=f"Token id {VOCAB} lies outside"):
        step.run_batches([(ids, labels)])


def test_evaluation_follows_the_cpu() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        loss, tokens = trainer(LLAMA, device, "bf16").evaluate_batches([batch(1), batch(2)])
        found[device] = loss / tokens
    assert found["cuda"] == pytest.approx(found["cpu"], abs=2e-2)


def test_a_run_on_the_gpu_from_text_to_a_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = {"data": ["tinyworld:20k"], "preset": "nima", "steps": 6, "context": 32}
    recipe = Recipe.from_layers({**flags, "device": "cuda", "samples": 1, "out": str(out)})
    run = train(recipe, stop_after=3)
    run = train(recipe, resume=True)
    assert run.summary["steps"] == 6
    again = omnima.Model.from_pretrained(out, device="cuda")
    assert again.device == "cuda:0"
    assert again.generate("The", max_new_tokens=4).text
