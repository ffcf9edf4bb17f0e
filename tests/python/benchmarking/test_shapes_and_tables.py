"""What a benchmark measures and how it is shown and judged; nothing here is timed."""

from __future__ import annotations

import json

import pytest

from omnima.benchmarking import SHAPES, check_gate, markdown, read_gate, shape_of, tables
from omnima.benchmarking.choices import check_peers, check_precisions
from omnima.benchmarking.systems import missing, systems_of
from omnima.benchmarking.texts import corpus_of
from omnima.config import PRESETS, ModelConfig
from omnima.errors import ConfigError, DataError


def row(system, precision="bf16", **more):
    return {
        "system": system,
        "precision": precision,
        "tokens_per_s": 1234.5,
        "seconds": 0.25,
        "peak_memory_bytes": 3 << 20,
        "share_of_limit": 0.5,
        "omnima_ratio": 2.0,
        "memory_ratio": 0.6,
        "first_step_seconds": 0.5,
        "spread": 0.04,
        "mb_per_s": 7.5,
        **more,
    }


def report(task="train"):
    shape = shape_of("bench-1.9m").as_dict()
    if task == "tokenize":
        shape = {"kind": "bpe", "vocab_size": 8192, "bytes": 8e6, "data": "pystdlib"}
    return {
        "task": task,
        "shape": shape,
        "rows": [row("omnima"), row("torch-eager")],
        "skipped": [
            {"system": "litgpt", "reason": "not installed"},
            {"system": "torch-compile", "reason": "no compiler", "precision": "bf16"},
        ],
        "machine": {
            "cpu": "A CPU",
            "threads": 2,
            "level": "avx2",
            "torch": "2",
            "fp32_gflops": 100.0,
            "bf16_gflops": 1000.0,
            "read_gb_per_s": 30.0,
        },
    }


@pytest.mark.parametrize("name", [*SHAPES, *PRESETS])
def test_every_preset_has_a_shape(name):
    shape = shape_of(name)
    ModelConfig(**shape.model)
    assert shape.tokens == shape.batch_size * shape.context
    assert shape.flops("train") == 3 * shape.flops("evaluate") > 0
    assert shape.memory("train") > shape.memory("evaluate") > 0
    assert abs(shape.gelu_width * 2 / (shape.swiglu_width * 3) - 1) < 0.02


def test_the_shapes_of_the_tables_have_their_size():
    sizes = {name: ModelConfig(**shape_of(name).model).num_parameters / 1e6 for name in SHAPES}
    assert sizes["bench-1.9m"] == pytest.approx(1.84, abs=0.05)
    assert sizes["bench-13.9m"] == pytest.approx(13.8, abs=0.1)
    assert sizes["bench-124m"] == pytest.approx(123.6, abs=0.5)
    assert shape_of("bench-13.9m-long").context == 4096 and shape_of().name == "bench-13.9m"


def test_flops_count_every_product_once():
    shape = shape_of("nima", vocab_size=100, context=8, batch_size=3)
    m = shape.model
    parts = ModelConfig(**m).parameter_parts
    weights = parts["attention"] + parts["mlp"] + parts["embedding"]
    scores = sum(range(1, 9)) * m["num_hidden_layers"] * m["hidden_size"] * 2
    assert shape.flops("evaluate") == 2 * (3 * 8 * weights + 3 * scores)


def test_what_is_given_wins():
    shape = shape_of("bench-1.9m", vocab_size=512, context=16, batch_size=2)
    assert (shape.model["vocab_size"], shape.context, shape.batch_size) == (512, 16, 2)
    sized = shape_of(params=2_000_000, vocab_size=1024, context=32)
    assert sized.name == "2M" and sized.context == 32 and sized.batch_size == 8
    assert abs(ModelConfig(**sized.model).num_parameters / 2e6 - 1) < 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "7b"}, "Unknown preset"),
        ({"preset": "1m", "params": 1_000_000}, "drop one"),
        ({"context": 0}, "context is 0"),
        ({"params": 5}, "at least 10,000"),
    ],
)
def test_wrong_shapes_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        shape_of(**given)


def test_peers_and_precisions():
    everything = ["torch-eager", "torch-compile", "transformers", "litgpt"]
    assert check_peers("train", None) == everything
    assert all(check_peers("train", given) == [] for given in ("none", "", []))
    assert check_peers("train", "litgpt, omnima,litgpt") == ["litgpt"]
    assert check_peers("tokenize", None) == ["sentencepiece", "tokenizers"]
    assert check_precisions("fp32, bf16") == ["fp32", "bf16"]
    with pytest.raises(ConfigError, match="Unknown peer"):
        check_peers("evaluate", ["jax"])
    with pytest.raises(ConfigError, match="Unknown precision"):
        check_precisions(["int8"])


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    assert missing("train", "torch-eager") is None
    monkeypatch.setitem(systems_of("train"), "litgpt", ("litgpt_model", "no_such_package_here"))
    assert missing("train", "litgpt") == (
        "no_such_package_here is not installed (pip install no_such_package_here)"
    )


def test_tables_say_what_was_measured():
    text = markdown(report())
    assert "| torch-eager | bf16 | 1,234 | 250.0 | 4% | 3 | 0.50 | 50% | 2.00x as fast |" in text
    assert "skipped: torch-compile bf16: no compiler" in text and "A CPU, 2 threads" in text
    assert "8.0 MB of pystdlib" in markdown(report("tokenize"))
    shown = tables.table(report())
    assert shown.row_count == 2 and "skipped: litgpt: not installed" in str(shown.caption)


def test_a_gate_compares_ratios(tmp_path):
    path = tmp_path / "gate.json"
    rules = [
        {"peer": "torch-eager", "precision": "bf16", "at_least": 2.1, "memory_at_most": 0.5},
        {"peer": "torch-eager", "precision": "fp32", "at_least": 99},
        {"peer": "litgpt", "precision": "bf16", "at_least": 99},
        {"peer": "torch-eager", "precision": "bf16", "at_least": 99, "preset": "bench-124m"},
        {"peer": "torch-eager", "precision": "bf16", "at_least": 99, "task": "evaluate"},
    ]
    path.write_text(json.dumps(rules))
    broken = check_gate(report(), read_gate(path))
    assert len(broken) == 2
    assert "2.00 times torch-eager" in broken[0] and "0.60 times the memory" in broken[1]
    rules[0].update(at_least=1.9, memory_at_most=0.7)
    assert check_gate(report(), rules) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "a JSON list"),
        ('[{"peer": "torch-eager"}]', "rule 1"),
        ('[{"peer": "a", "precision": "bf16", "at_least": "2"}]', "rule 1"),
        ('[{"peer": "a", "precision": "bf16", "at_least": 2, "atleast": 1}]', "rule 1"),
        ("[3]", "rule 1"),
    ],
)
def test_a_damaged_gate_is_refused(tmp_path, text, message):
    path = tmp_path / "gate.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_gate(path)


def test_texts_without_text_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError), corpus_of(str(tmp_path / "empty.txt"), "bpe", None, []):
        pass
