"""Plans: speed here and elsewhere, duration, cost, what fits; machines from files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omnima.config import model_preset
from omnima.errors import ConfigError
from omnima.planning import (
    Calibration,
    Job,
    Machine,
    advice,
    calibrate,
    largest_context,
    needed_bytes,
    plan,
    read_machine,
    this_machine,
    what_fits,
    with_rates,
)
from omnima.planning.calibration import _depths
from omnima.planning.machine import free_memory

MACHINES = sorted((Path(__file__).parents[3] / "examples" / "machines").glob("*.yaml"))
HERE = Machine(
    "here", 2, 16 << 30, rates={"fp32": 100.0, "bf16": 200.0}, bandwidth=20.0, price_per_hour=0.5
)
MEASURED = Calibration(0.5, 0.1, 0.2, 1e9)
JOB = Job(model_preset("1m", vocab_size=1024), rows=8, context=256, accumulate=2, steps=100)


def test_a_plan_holds_exactly_what_it_promises() -> None:
    found = plan(JOB, here=HERE, calibration=MEASURED)
    assert list(found.as_dict()) == [
        "parameters",
        "memory_bytes",
        "memory_by_part",
        "flops_per_token",
        "tokens_per_s",
        "seconds",
        "cost",
        "fits",
    ]
    assert found.parameters == JOB.model.num_parameters == sum(found.parameters_by_part.values())
    assert found.memory_bytes == sum(found.memory_by_part.values())
    assert found.step_seconds == pytest.approx(2 * 0.5 + 0.1)
    assert found.seconds == pytest.approx(110) and found.tokens == 100 * 8 * 256 * 2
    assert found.tokens_per_s == pytest.approx(found.tokens / 110)
    assert found.cost == pytest.approx(0.5 * 110 / 3600) and found.fits


def test_an_offloaded_state_is_told_beside_the_memory() -> None:
    job = dataclasses.replace(JOB, model=model_preset("35m", vocab_size=1024), offload="/fast")
    found = plan(job, here=HERE, calibration=MEASURED)
    kept = plan(dataclasses.replace(job, offload=None), here=HERE, calibration=MEASURED)
    assert list(found.as_dict())[-1] == "offloaded_bytes"
    assert found.memory_bytes == kept.memory_bytes - found.offloaded_bytes
    assert found.offloaded_bytes > 0 and kept.offloaded_bytes == 0
    tight = dataclasses.replace(HERE, memory_bytes=kept.memory_bytes - 1)
    said = advice(dataclasses.replace(job, offload=None), tight)
    assert "--offload-optimizer DIRECTORY (of a fast disk)" in said
    on_gpu = dataclasses.replace(tight, device="cuda", memory_bytes=1 << 30)
    wanted = dataclasses.replace(job, offload=None, rows=1, context=16)
    needed = needed_bytes(wanted, on_gpu)
    tight = dataclasses.replace(on_gpu, memory_bytes=needed - 1)
    assert "--offload-optimizer cpu" in advice(wanted, tight)
    assert "offload" not in advice(job, dataclasses.replace(HERE, memory_bytes=1 << 28))
    few = dataclasses.replace(wanted, optimizer="adafactor")
    assert "offload" not in advice(few, dataclasses.replace(tight, memory_bytes=1 << 20))


def test_operations_are_six_for_each_weight_and_token_and_those_of_attention() -> None:
    model = JOB.model
    weights = sum(o * i * times for o, i, times in _factors())
    attention = 6 * model.num_hidden_layers * 128 * (256 + 1)
    assert JOB.flops_per_token() == pytest.approx(6 * weights + attention)


def _factors() -> list[tuple[int, int, int]]:
    from omnima.planning.memory import factors

    return factors(JOB.model)


def test_evaluations_and_checkpoints_take_their_time() -> None:
    busy = dataclasses.replace(JOB, evaluations=10, eval_batches=5, save_every=10)
    found = plan(busy, here=HERE, calibration=MEASURED)
    saving = 10 * 12 * JOB.model.num_parameters / 1e9
    assert found.seconds == pytest.approx(110 + 10 * 5 * 0.2 + saving)
    seldom = dataclasses.replace(busy, save_every=0)  # three times thirty seconds
    found = plan(seldom, here=HERE, calibration=MEASURED)
    assert found.seconds == pytest.approx(120 + 4 * saving / 10)


def test_a_budget_on_the_clock_gives_steps() -> None:
    timed = dataclasses.replace(JOB, steps=None, seconds=60.0, evaluations=2, eval_batches=5)
    found = plan(timed, here=HERE, calibration=MEASURED)
    assert found.seconds == 60.0 and found.steps == int((60 - 2 - 0.025) / 1.1)
    short = dataclasses.replace(timed, seconds=6.7, unplanned_steps=6)
    few = plan(short, here=HERE, calibration=MEASURED)
    assert few.steps == 6  # and no evaluation
    # The rate is not rounded to whole steps.
    assert few.tokens_per_s == pytest.approx(JOB.step_tokens / 1.1, rel=0.01)
    open_end = plan(dataclasses.replace(JOB, steps=None), here=HERE, calibration=MEASURED)
    assert open_end.seconds is open_end.steps is open_end.cost is None
    assert open_end.tokens_per_s == pytest.approx(JOB.step_tokens / 1.1)


def test_another_machine_takes_its_share_of_products_and_of_memory() -> None:
    flops = JOB.flops_per_token() * JOB.rows * JOB.context
    products = flops / 100e9
    twice = dataclasses.replace(HERE, rates={"fp32": 200.0, "bf16": 400.0})
    found = plan(JOB, twice, here=HERE, calibration=MEASURED)
    assert found.step_seconds == pytest.approx(2 * (0.5 - products / 2) + 0.1)
    wide = dataclasses.replace(twice, bandwidth=40.0)
    found = plan(JOB, wide, here=HERE, calibration=MEASURED)
    assert found.step_seconds == pytest.approx(1.1 / 2)
    small = dataclasses.replace(HERE, memory_bytes=300 << 20)
    assert not plan(JOB, small, here=HERE, calibration=MEASURED).fits
    with pytest.raises(ConfigError, match="with_rates"):
        plan(JOB, twice, here=dataclasses.replace(HERE, rates={}), calibration=MEASURED)


def test_this_machine_is_measured() -> None:
    here = with_rates(this_machine(), seconds=0.01)
    assert here.rates["fp32"] > 0 and here.bandwidth > 0
    assert here.memory_bytes > here.runtime_bytes > 50 << 20
    tiny = Job(model_preset("nima", vocab_size=256), rows=2, context=32, steps=5)
    found = calibrate(tiny, here)
    assert 0 < found.evaluate_seconds and 0 < found.pass_seconds < 1
    assert plan(tiny, here=here).fits


def test_the_weights_of_a_model_that_is_measured_stay_as_they_are() -> None:
    import torch

    from omnima import _core

    job = Job(model_preset("nima", vocab_size=256), rows=2, context=32)
    decoder = _core.Decoder(job.model.core(), 3)
    before = [each.detach().clone() for _, each in decoder.named_parameters()]
    calibrate(job, this_machine(), decoder=decoder)
    now = [each.detach() for _, each in decoder.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


def test_large_models_are_measured_on_stand_ins_that_are_cut_alike() -> None:
    assert _depths(JOB) == [4]
    large = Job(model_preset("125m", vocab_size=50257), rows=1, context=128)
    assert _depths(large) == [1, 4]
    wide = model_preset("35m", vocab_size=8192)  # only whole it is too large to be packed
    assert _depths(Job(wide, rows=1, context=128)) == [10]


def test_stand_ins_predict_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from omnima.planning import calibration as module

    deep = Job(model_preset("nima", vocab_size=512, num_hidden_layers=12), rows=16, context=64)
    monkeypatch.setattr(module, "_measure", lambda job, depth, rows, *_: (depth * rows, 1.0))
    monkeypatch.setattr(module, "_depths", lambda job, device: [2, 3])
    monkeypatch.setattr(module, "_is_quick", lambda *_: False)
    monkeypatch.setattr(module, "_stream_bytes_per_s", lambda device: 1e18)
    monkeypatch.setattr(module, "_WHOLE_FLOPS", 0)
    found = module.calibrate(deep, dataclasses.replace(HERE, threads=1))
    assert found.pass_seconds == pytest.approx(12 * 16)  # linear in layers and rows


def test_what_fits_grows_with_the_memory() -> None:
    rows = what_fits(JOB, HERE)
    assert {row["preset"] for row in rows} >= {"nima", "gpt2", "1b"}
    poor = dataclasses.replace(HERE, memory_bytes=1 << 30)
    for rich, small in zip(rows, what_fits(JOB, poor), strict=True):
        assert rich["largest_context"] >= small["largest_context"]
        assert rich["largest_batch"] >= small["largest_batch"]
        assert small["fits"] == (small["memory_bytes"] <= 1 << 30)
        assert small["fits"] == (small["largest_batch"] >= JOB.rows)
    assert any(row["fits"] for row in rows) and not all(row["fits"] for row in rows)


def test_advice_names_what_would_fit() -> None:
    long = dataclasses.replace(
        JOB, model=JOB.model.replace(max_position_embeddings=1 << 17), context=1 << 17
    )
    poor = dataclasses.replace(HERE, memory_bytes=1 << 30)
    said = advice(long, poor)
    context = int(said.split("--context ")[1].split()[0])
    assert context <= largest_context(long, poor) < 1 << 17
    assert "--preset" in said
    assert advice(JOB, dataclasses.replace(HERE, memory_bytes=1)) == "a machine with more memory"


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.name)
def test_the_example_machines_can_be_read(path: Path) -> None:
    machine = read_machine(path)
    assert machine.rates["bf16"] >= machine.rates["fp32"] > 0
    assert plan(JOB, machine, here=HERE, calibration=MEASURED).cost is not None


def test_there_are_example_machines() -> None:
    assert len(MACHINES) >= 2


GOOD = """
threads: 8
fp32_gflops: 500
bf16_gflops: 900
bandwidth_gb_per_s: 40
memory_gb: 32
"""


@pytest.mark.parametrize(
    "text, said",
    [
        ("- a list", "mapping"),
        ("a: [", "cannot be read"),
        (GOOD + "colour: red", '"colour".*memory_gb'),
        (GOOD + "price_per_hour: dear", "price_per_hour is 'dear'"),
        (GOOD + "device: tpu", "cpu or cuda"),
        (GOOD.replace("memory_gb: 32", "memory_gb: 0"), "memory_gb is 0"),
        (GOOD.replace("fp32_gflops: 500", "fp32_gflops: true"), "fp32_gflops is True"),
        (GOOD.replace("threads: 8", "threads: 1.5"), "whole"),
        (GOOD.replace("memory_gb: 32", ""), "memory_gb is None"),
    ],
)
def test_a_wrong_machine_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_machine(path)


def test_a_machine_may_cost_nothing_and_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(GOOD + "price_per_hour: 0\nname: mine\ndevice: cuda\n")
    found = read_machine(path)
    assert (found.name, found.device, found.price_per_hour) == ("mine", "cuda", 0.0)
    with pytest.raises(ConfigError, match="No such file"):
        read_machine(tmp_path / "none.yaml")


def test_a_gpu_is_judged_by_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from omnima.planning.machine import forget_peak, peak_memory

    calls = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 4 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5)
    found = this_machine(1 << 30, "cuda")
    assert (found.name, found.device, found.memory_bytes) == ("card", "cuda", 4 << 30)
    forget_peak("cuda")
    assert calls == ["reset"] and peak_memory("cuda") == 5 and peak_memory() > 1 << 20
    assert _depths(Job(model_preset("125m", vocab_size=512), 1, 128), "cuda") == [12]


def test_the_limits_of_the_process_bound_the_free_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmSize:\t  1000 kB\nVmData:\t  500 kB\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free = free_memory(status)
    resource.setrlimit(resource.RLIMIT_DATA, (20 << 30, hard))
    try:
        assert free_memory(status) == min(free, (20 << 30) - 500 * 1024)
        assert free_memory(tmp_path / "none") == min(free, 20 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
