"""The memory model: its facts are the core's, and it meets what real steps hold."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnima.config import ModelConfig, model_preset
from omnima.errors import ConfigError
from omnima.planning import (
    Job,
    Machine,
    calibrate,
    core_facts,
    largest_context,
    largest_rows,
    memory_by_part,
)
from omnima.planning import memory as plan_memory
from omnima.planning.memory import PARTS, factors, measured_optimizer_bytes, optimizer_bytes
from omnima.planning.prediction import needed_bytes
from omnima.training.config import TrainConfig
from omnima.training.schema import fields_of

CPP = Path(__file__).resolve().parents[3] / "cpp" / "omnima"
BOX = Machine("box", threads=2, memory_bytes=8 << 30, runtime_bytes=200 << 20)
MODEL = ModelConfig(
    vocab_size=96,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=64,
)


def number(file: str, pattern: str) -> int:
    """The constant that a source defines, such as `8 << 20`."""
    found = re.search(pattern, (CPP / file).read_text(encoding="utf-8"))
    assert found, f"{file} no longer says {pattern}"
    left, _, right = found[1].replace("int64_t{1}", "1").partition("<<")
    return int(left) << int(right or 0)


def test_the_facts_are_those_of_the_core() -> None:
    workers = number("train/row_workers.cpp", r"kLargestModel = ([^;]+);")
    assert workers == core_facts.SIDE_BY_SIDE_PARAMETERS
    assert number("nn/arena.cpp", r"kLargestPacked = ([^;]+);") == core_facts.PACKED_PARAMETERS
    step = r"holds\(\) \? (\d+) : \d+"
    assert number("train/step.cpp", step) == core_facts.SLICE_TOKENS_PACKED
    assert number("train/step.cpp", r"holds\(\) \? \d+ : (\d+)") == core_facts.SLICE_TOKENS
    loss = (CPP / "ops/linear_cross_entropy.cpp").read_text(encoding="utf-8")
    for line, side_by_side in zip(re.findall(r"std::clamp.*", loss), (True, False), strict=True):
        shift, low, high = map(int, re.findall(r"<< (\d+).*?(\d+), (\d+)\)", line)[0])
        assert 1 << shift == core_facts.CHUNK_NUMBERS[side_by_side]
        assert (low, high) == core_facts.CHUNK_ROWS[side_by_side]
    assert number("ops/product.cpp", r"kDepthBytes = ([^;]+);") == core_facts.DEPTH_BYTES
    assert number("ops/product.cpp", r"kRightBytes = ([^;]+);") == core_facts.RIGHT_BYTES
    assert number("optim/state_store.h", r"kSlice = ([^;]+);") == core_facts.OFFLOAD_SLICE
    assert number("data/loader.h", r"kAhead = ([^;]+);") == core_facts.BATCHES_AHEAD


@pytest.mark.parametrize("name", fields_of(TrainConfig)["optimizer"].choices)
def test_the_state_of_each_optimizer_is_what_the_core_holds(name: str) -> None:
    from omnima import _core

    options = _core.StepOptions()
    options.optimizer, options.schedule = name, "constant"
    state = _core.TrainStep(_core.Decoder(MODEL.core(), 0), options).state()
    held = sum(each.nbytes for key, each in state.items() if key != "weights")
    assert optimizer_bytes(MODEL, name) == held
    assert measured_optimizer_bytes(MODEL, name) == pytest.approx(held, rel=0.01)


def test_a_mixture_plans_for_all_its_weights_and_the_work_of_the_chosen_experts() -> None:
    fields = {"num_experts": 8, "moe_intermediate_size": 64, "decoder_sparse_step": 3}
    shared = {"shared_expert_intermediate_size": 32}
    for changes in (fields, {**fields, **shared}, {**fields, "activation": "gelu"}):
        mixture = MODEL.replace(**changes)
        matrices = sum(outputs * inputs * times for outputs, inputs, times in factors(mixture))
        norms, router = mixture.parameter_parts["norms"], 8 * 64
        assert matrices == mixture.num_parameters - norms - router
        job = Job(mixture, rows=4, context=64, precision="fp32")
        more = Job(mixture.replace(num_experts=16), rows=4, context=64, precision="fp32")
        by_part, wider = memory_by_part(job, BOX), memory_by_part(more, BOX)
        for part in ("weights", "gradients", "optimizer", "packed_weights"):
            assert wider[part] > by_part[part], part
        assert wider["activations"] < 1.05 * by_part["activations"]
        attention = 6 * 3 * 64 * (64 + 1)
        active = mixture.num_active_parameters - norms
        assert job.flops_per_token() == pytest.approx(6 * active + attention, rel=0.02)


@pytest.mark.parametrize(
    "name, tied, bias", [("nima", True, False), ("nima", False, False), ("gpt2", True, True)]
)
def test_factors_are_all_matrices_but_the_embedding(name: str, tied: bool, bias: bool) -> None:
    gate = {} if bias else {"activation": "geglu"}
    model = model_preset(name, vocab_size=1000, tie_word_embeddings=tied, **gate)
    parts = model.parameter_parts
    matrices = sum(outputs * inputs * times for outputs, inputs, times in factors(model))
    biases = model.num_hidden_layers * (5 * 768 + 3072) if bias else 0
    looked_up = 0 if tied else parts["embedding"]
    total = parts["embedding"] + parts["attention"] + parts["mlp"] + parts["head"] - looked_up
    assert matrices == total - biases


def test_parts_follow_the_shape() -> None:
    job = Job(MODEL, rows=4, context=64, precision="bf16", samples=2, sample_tokens=10)
    parts = memory_by_part(job, BOX)
    count = MODEL.num_parameters
    assert tuple(parts) == PARTS
    assert parts["weights"] == 4 * count and parts["bf16_shadow"] == 2 * count
    assert parts["gradients"] == 2 * 4 * count  # one for each of the two threads
    assert parts["runtime"] == BOX.runtime_bytes and parts["cache"] > 0
    alone = memory_by_part(dataclasses.replace(job, rows=1), BOX)
    assert alone["gradients"] == 4 * count
    assert alone["activations"] < parts["activations"]
    plain = memory_by_part(dataclasses.replace(job, precision="fp32"), BOX)
    assert plain["bf16_shadow"] == 0 and plain["activations"] > parts["activations"]
    twice = dataclasses.replace(job, checkpoint_layers=3)
    assert memory_by_part(twice, BOX)["activations"] < parts["activations"]
    gpu = dataclasses.replace(BOX, device="cuda")
    dropped = dataclasses.replace(job, model=MODEL.replace(dropout=0.1))
    masks = memory_by_part(dropped, gpu)["activations"] - memory_by_part(job, gpu)["activations"]
    assert masks == 4 * 64 * 3 * 2 * 64 * 2


def test_plain_aten_keeps_more_than_the_core() -> None:
    def parts(precision: str, **options: object) -> dict[str, int]:
        changes = {"activation": "swiglu", **options}
        return memory_by_part(Job(MODEL.replace(**changes), 4, 64, precision=precision), BOX)

    tokens, layers = 4 * 64, 3  # of both workers, two rows each
    causal, both = parts("bf16"), parts("bf16", causal=False)
    queries = keys = 64
    more = 2 * (2 * queries + keys) + 12 * (queries + keys)
    holes = 3 * 2 * 64  # of the core's kernels
    assert both["activations"] - causal["activations"] == tokens * layers * (more - holes)
    assert both["logits"] == causal["logits"] and both["workspace"] == causal["workspace"]
    half = parts("fp16")
    inner = MODEL.intermediate_size
    norms, activation = 20 * 64 - 4 * 64, 4 * inner
    assert half["activations"] - both["activations"] == tokens * layers * (norms + activation)
    assert half["logits"] == 16 * tokens * 96 and half["packed_weights"] == 0
    assert half["workspace"] > 2 * 8 * 96 * 64
    thin = parts("fp16", norm="layer_norm", activation="gelu")
    assert thin["activations"] < half["activations"]
    shared = parts("bf16", causal=False, num_key_value_heads=1)
    kept = parts("bf16", num_key_value_heads=1)
    more = 2 * (3 * queries + queries) + 12 * (queries + keys // 2)
    assert shared["activations"] - kept["activations"] == tokens * layers * (more - holes)
    written = parts("bf16", causal=False, sliding_window=8)["activations"] - both["activations"]
    scores = 2 * 64
    assert written == tokens * (layers * (12 * queries + 8 * scores + 64) + 12 * scores)
    gpu = dataclasses.replace(BOX, device="cuda")
    on_gpu = [
        memory_by_part(Job(MODEL, 4, 64, precision=each), gpu)["activations"]
        for each in ("fp16", "bf16")
    ]
    assert on_gpu[0] == on_gpu[1]


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "lion", "muon", "sgd"])
def test_an_offloaded_state_counts_by_the_slices_that_are_there(name: str) -> None:
    model = model_preset("125m", vocab_size=50304)
    job = Job(model, rows=4, context=512, optimizer=name)
    away = dataclasses.replace(job, offload="/fast")
    whole, left = memory_by_part(job, BOX)["optimizer"], memory_by_part(away, BOX)["optimizer"]
    assert 0 < left < 0.05 * whole
    assert plan_memory.offloaded_bytes(away) == whole - left
    gpu = dataclasses.replace(BOX, device="cuda")
    assert left < memory_by_part(dataclasses.replace(job, offload="cpu"), gpu)["optimizer"] < whole
    little = dataclasses.replace(away, model=MODEL)
    assert memory_by_part(little, BOX) == memory_by_part(
        dataclasses.replace(little, offload=None), BOX
    )


def test_a_running_mean_is_counted_and_what_lies_aside_while_it_is_shown() -> None:
    from omnima.training.foresight import job_of

    wide = MODEL.replace(vocab_size=20000)
    one = 4 * wide.num_parameters

    def averages(**changes: object) -> int:
        config = TrainConfig(steps=1, batch_size=1, context=8, **changes)  # type: ignore[arg-type]
        parts = memory_by_part(job_of(wide, config, "fp32"), BOX)
        return parts["averages"] + (parts["activations"] if config.averages else 0)

    assert averages() == 0
    assert averages(ema_decay=0.9, ema_eval=False) == one
    assert averages(ema_decay=0.9) == 2 * one
    assert averages(optimizer="schedule_free_adamw", schedule="constant") == one
    long = Job(MODEL, rows=4, context=64, ema=True, shows_average=True)
    assert memory_by_part(long, BOX)["averages"] == 4 * MODEL.num_parameters


@pytest.mark.parametrize(
    "options",
    [
        {"sliding_window": 40, "sliding_window_pattern": 2},
        {"rope_scaling": "yarn", "rope_factor": 2.0, "rope_original_context": 32},
        {"blocksparse_block_size": 4, "dense_attention_every_n_layers": 2},
        {"layer_drop": 0.2},
    ],
)
def test_options_bound_to_a_depth_or_a_context_can_be_planned(options: dict[str, object]) -> None:
    job = Job(MODEL.replace(**options), rows=2, context=16, optimizer="lion")
    plain = dataclasses.replace(job, model=MODEL)
    assert memory_by_part(job, BOX) == memory_by_part(plain, BOX)
    tight = dataclasses.replace(BOX, memory_bytes=needed_bytes(job, BOX))
    assert largest_context(job, tight) == largest_context(plain, tight) >= 16
    assert calibrate(job, BOX).pass_seconds > 0


def test_scores_that_are_written_out_are_counted() -> None:
    """On a GPU and in fp16 an option of attention runs on plain ATen, which keeps all scores."""
    gpu = dataclasses.replace(BOX, device="cuda")
    pairs = 2 * 64  # of a token with all keys, in both heads

    def more(machine: Machine, precision: str = "bf16", **options: object) -> float:
        job = Job(MODEL.replace(**options), rows=1, context=64, precision=precision)
        plain = dataclasses.replace(job, model=MODEL)
        parts = [memory_by_part(each, machine)["activations"] for each in (job, plain)]
        return (parts[0] - parts[1]) / 64

    passing = 12 * pairs
    assert more(BOX, sliding_window=8) == more(gpu) == 0
    assert more(gpu, sliding_window=8) == 3 * (4 * pairs + 64) + passing
    # On the CPU float32 queries, keys and values come in, and holes as large as the scores.
    assert more(BOX, "fp16", sliding_window=8) == 3 * (8 * pairs + 64 + 12 * 64) + passing
    twos = {"sliding_window": 8, "sliding_window_pattern": 2}
    assert more(gpu, **twos) == pytest.approx(2 * (4 * pairs + 64) + passing, abs=1)
    assert more(gpu, blocksparse_block_size=4) == 3 * (4 * pairs + pairs) + passing
    same = {"blocksparse_block_size": 4, "blocksparse_homo_head_pattern": True}
    assert more(gpu, **same) == more(gpu, sliding_window=8)
    assert more(gpu, positions="alibi", attention_softcap=5.0) == 3 * (8 * pairs + 64) + passing
    assert more(gpu, attention_dropout=0.1) == 3 * (12 * pairs + 64) + passing


def test_large_models_are_not_packed_and_go_in_longer_slices() -> None:
    large = Job(model_preset("125m", vocab_size=50257), rows=8, context=256)
    assert memory_by_part(large, BOX)["packed_weights"] == 0
    assert core_facts.slices_of(large, 2) == core_facts.Slices(1, 4, 1024)
    small = Job(model_preset("1m", vocab_size=512), rows=8, context=256)
    assert core_facts.slices_of(small, 2) == core_facts.Slices(2, 2, 512)
    gpu = core_facts.slices_of(large, 2, "cuda")
    assert gpu.tokens == 8 * 256


def test_on_the_cpu_memory_hardly_follows_the_batch_on_a_gpu_it_does() -> None:
    job = Job(model_preset("10m", vocab_size=2048), rows=8, context=512)
    twice = dataclasses.replace(job, rows=16)
    assert needed_bytes(twice, BOX) < 1.01 * needed_bytes(job, BOX)
    gpu = dataclasses.replace(BOX, device="cuda")
    growth = memory_by_part(twice, gpu)["activations"] / memory_by_part(job, gpu)["activations"]
    assert growth == pytest.approx(2)
    rows = largest_rows(job, gpu)
    assert needed_bytes(dataclasses.replace(job, rows=rows), gpu) <= gpu.memory_bytes
    assert needed_bytes(dataclasses.replace(job, rows=rows + 1), gpu) > gpu.memory_bytes


@pytest.mark.parametrize(
    "change, said",
    [({"rows": 0}, "rows"), ({"precision": "auto"}, "fp32"), ({"seconds": 0}, "sec")],
)
def test_a_job_that_makes_no_sense_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Job(**{"model": MODEL, "rows": 1, "context": 8, **change})  # type: ignore[arg-type]


MEASURE = """
import json, sys
import torch
from omnima import _core
from omnima.benchmarking.worker import peak_memory
from omnima.config import ModelConfig
from omnima.planning import Job, memory_by_part, this_machine
told = json.loads(sys.argv[1])
torch.set_num_threads(2)

def steps(model, rows, context, count):
    options = _core.StepOptions()
    options.precision = told["precision"]
    options.checkpoint_layers = told["checkpoint_layers"]
    options.offload_optimizer = told["offload"] or ""
    step = _core.TrainStep(_core.Decoder(model.core(), 0), options)
    for seed in range(count):
        dice = torch.Generator().manual_seed(seed)
        ids = torch.randint(model.vocab_size, (rows, context), generator=dice)
        step.run_batches([(ids, ids)])

small = ModelConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1,
                    num_attention_heads=1, max_position_embeddings=16)
steps(small, 2, 16, 1)  # the code of a step is part of the runtime
job = Job(ModelConfig(**told["model"]), told["rows"], told["context"], precision=told["precision"],
          checkpoint_layers=told["checkpoint_layers"], offload=told["offload"])
parts = memory_by_part(job, this_machine())
steps(job.model, job.rows, job.context, 2)
print(json.dumps([sum(parts.values()), peak_memory(), parts]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' view of memory")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": 256, "layers": 6, "vocab": 4096, "rows": 4, "context": 512},  # side by side
        {"hidden": 384, "layers": 6, "vocab": 8192, "rows": 2, "context": 512},  # packed
        {"hidden": 256, "layers": 2, "vocab": 32768, "rows": 2, "context": 1024},
    ],
)
def test_the_model_meets_real_steps_within_a_tenth(shape: dict[str, int], precision: str) -> None:
    predicted, peak, parts = _measured(shape, precision)
    assert predicted == pytest.approx(peak, rel=0.1), parts


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' view of memory")
@pytest.mark.parametrize(
    "precision, options, shape",
    [
        ("bf16", {"causal": False}, {"layers": 6, "vocab": 4096, "rows": 4, "context": 512}),
        (
            "fp32",
            {"causal": False, "sliding_window": 100, "num_key_value_heads": 2},
            {"layers": 4, "vocab": 4096, "rows": 4, "context": 512},
        ),
        ("fp16", {}, {"layers": 2, "vocab": 2048, "rows": 2, "context": 128}),
    ],
)
def test_the_model_meets_what_runs_on_plain_aten(
    precision: str, options: dict[str, object], shape: dict[str, int]
) -> None:
    predicted, peak, parts = _measured({"hidden": 256, **shape}, precision, **options)
    assert predicted == pytest.approx(peak, rel=0.1), parts


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' view of memory")
def test_an_offloaded_state_saves_what_was_predicted(tmp_path: Path) -> None:
    shape = {"hidden": 256, "layers": 4, "vocab": 24576, "rows": 2, "context": 512}
    plain, plain_peak, parts = _measured(shape, "fp32")
    offloaded, offloaded_peak, fewer = _measured({**shape, "offload": str(tmp_path)}, "fp32")
    assert plain == pytest.approx(plain_peak, rel=0.1), parts
    assert offloaded == pytest.approx(offloaded_peak, rel=0.1), fewer
    saved = parts["optimizer"] - fewer["optimizer"]
    assert saved > 60e6
    assert plain_peak - offloaded_peak > 0.8 * saved


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' view of memory")
def test_recomputed_blocks_save_what_was_predicted() -> None:
    # Activations are a quarter of this job: what they save stands far above a peak's noise.
    shape = {"hidden": 256, "layers": 12, "vocab": 4096, "rows": 2, "context": 1024}
    plain, plain_peak, parts = _measured(shape, "fp32")
    recomputed, recomputed_peak, fewer = _measured({**shape, "checkpoint_layers": 12}, "fp32")
    assert plain == pytest.approx(plain_peak, rel=0.1), parts
    assert recomputed == pytest.approx(recomputed_peak, rel=0.1), fewer
    saved = parts["activations"] - fewer["activations"]
    assert saved > 100e6
    assert plain_peak - recomputed_peak > 0.5 * saved


def _measured(
    shape: dict[str, Any], precision: str, **options: object
) -> tuple[int, int, dict[str, int]]:
    """Predicted and real peak of a process that takes two steps, and the parts of the first."""
    model = {
        "vocab_size": shape["vocab"],
        "hidden_size": shape["hidden"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["hidden"] // 64,
        "max_position_embeddings": shape["context"],
        **options,
    }
    told = {"checkpoint_layers": 0, "offload": None, "model": model, "precision": precision}
    told |= shape
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(told)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predicted, peak, parts = json.loads(done.stdout)
    return predicted, peak, parts
