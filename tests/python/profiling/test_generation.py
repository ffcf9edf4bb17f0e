"""Where the time of a written token goes: the contract, the parts, and what they count."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from omnima import Model, _core
from omnima.cli.app import main
from omnima.errors import ConfigError
from omnima.profiling import generation, markdown, profile_generation, tables
from omnima.profiling.parts import bytes_of, part_rows, phases_of, seconds_of

TINY = {"preset": "nima", "vocab_size": 300, "context": 64, "prompt_tokens": 40, "new_tokens": 9}
FLAGS = ["--preset", "nima", "--vocab-size", "300", "--context", "64", "--new-tokens", "9"]
LIMITS = {"fp32_gflops": 100.0, "bf16_gflops": 1000.0, "read_gb_per_s": 10.0}
PARTS = {"embedding", "attention", "products", "norms", "head", "sampling"}


class Span:
    def __init__(self, name, begin, end, flops=0.0, bytes=0.0):
        self.name, self.begin, self.end, self.flops, self.bytes = name, begin, end, flops, bytes
        self.thread, self.team = 0, 1


SPANS = [
    Span("prompt", 0, 4_000_000),
    Span("products", 1_000_000, 3_000_000, flops=1e9, bytes=8e6),
    Span("token", 10_000_000, 12_000_000),
    Span("products", 10_000_000, 11_000_000, flops=1e6, bytes=4e6),
    Span("waiting", 10_800_000, 11_000_000),
    Span("token", 12_000_000, 16_000_000),
    Span("products", 12_000_000, 13_000_000, flops=1e6, bytes=4e6),
    Span("sampling", 20_000_000, 21_000_000),
]


@pytest.fixture()
def quick(monkeypatch):
    monkeypatch.setattr(generation, "measured_limits", lambda threads: dict(LIMITS))
    monkeypatch.setattr(generation, "measure_reading", lambda threads, sizes: [20.0] * len(sizes))


def test_spans_belong_to_the_phase_around_them():
    assert phases_of(SPANS) == ["prompt"] * 2 + ["token"] * 5 + [None]
    assert seconds_of(SPANS, "token") == pytest.approx(3e-3)
    assert bytes_of(SPANS, "token") == 4e6 and bytes_of(SPANS, "prompt") == 8e6


def test_parts_of_a_phase_add_up_to_it():
    rows = part_rows(SPANS, LIMITS, "f32", 20.0)
    found = {(row.operator, row.phase): row for row in rows}
    for phase, whole in (("token", 3.0), ("prompt", 4.0)):
        own = [row for row in rows if row.phase == phase]
        assert sum(row.ms for row in own) == pytest.approx(whole)
        assert sum(row.share for row in own) == pytest.approx(1.0)
        assert own[-1].operator.startswith("rest")
    products = found["products", "token"]
    assert products.ms == pytest.approx(0.9) and products.calls == 1
    assert found["waiting", "token"].ms == pytest.approx(0.1)
    # Others were still at work while this thread waited: that time counts for the rate.
    assert products.gb_per_s == pytest.approx(4.0) and products.bound == "memory"
    assert products.share_of_roofline == pytest.approx(0.2)
    assert found["products", "prompt"].bound == "products"
    assert found["products", "prompt"].share_of_roofline == pytest.approx(5.0)
    faster = part_rows(SPANS, LIMITS, "bf16", 20.0)
    assert faster[-2].share_of_roofline == pytest.approx(0.5)


def test_profile_generate_keeps_its_contract(tmp_path):
    path = tmp_path / "spur.json"
    words = ["profile", "generate", *FLAGS, "--prompt-tokens", "40", "--trace", str(path), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "omnima", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found.keys() == {
        "task", "shape", "precision", "prompt_ms", "token_ms", "plain_token_ms", "tokens_per_s",
        "bytes_per_token", "gb_per_s", "read_limit_gb_per_s", "share_of_read_bandwidth",
        "operators", "memory", "trace", "machine",
    }  # fmt: skip
    assert found["task"] == "generate" and found["trace"] == str(path)
    for phase in ("token", "prompt"):
        rows = [row for row in found["operators"] if row["phase"] == phase]
        assert {row["operator"] for row in rows} >= PARTS
        assert sum(row["ms"] for row in rows) == pytest.approx(found[f"{phase}_ms"])
    assert found["share_of_read_bandwidth"] == pytest.approx(
        found["gb_per_s"] / found["read_limit_gb_per_s"]
    )
    memory = found["memory"]
    assert memory["weights"] == 4 * found["shape"]["parameters"]
    assert 0 < memory["process"] <= memory["peak"] and memory["keys_and_values"] > 0
    events = json.loads(path.read_text())["traceEvents"]
    names = [each["name"] for each in events if each["ph"] == "X"]
    assert names.count("token") == 8 and names.count("prompt") == 1
    assert {each.get("cat") for each in events if each["ph"] == "X"} == {"generate"}


def test_a_token_reads_the_weights_and_its_keys_and_values(quick):
    model = Model.from_preset("nima", vocab_size=300, max_position_embeddings=64)
    c = model.config
    heads = c.num_hidden_layers * c.num_key_value_heads
    mean = sum(range(41, 49)) / 8  # keys that each of the eight steps sees
    norms = 4 * c.hidden_size * (2 * c.num_hidden_layers + 1)  # too small to be counted
    row = 4 * c.hidden_size  # of the embedding
    weights = 4 * model.num_parameters - norms + row
    assert c.head_dim % 16 == 0  # else rounded values take more than their numbers
    for precision, number, scale in (("fp32", 4, 0), ("bf16", 2, 0), ("int8", 1, 4)):
        found = profile_generation(**TINY, threads=1, cache_precision=precision)
        token = 2 * heads * (number * c.head_dim + scale)
        assert found["bytes_per_token"] == pytest.approx(weights + token * mean)
        assert found["memory"]["keys_and_values"] == token * 49
        assert found["read_limit_gb_per_s"] == 20.0


@pytest.mark.parametrize("threads", [1, 2])
def test_waiting_is_a_part_where_threads_wait(quick, threads):
    before = torch.get_num_threads()
    found = profile_generation(**TINY, threads=threads)
    names = {row["operator"] for row in found["operators"] if row["phase"] == "token"}
    assert ("waiting" in names) == (threads > 1)
    assert torch.get_num_threads() == before
    assert tables.table(found).row_count == len(found["operators"])


def test_nothing_is_recorded_afterwards(quick):
    profile_generation(**TINY, threads=1)
    assert _core.stop_recording() == []


def test_a_model_from_a_directory(quick, tmp_path, capsys):
    place = tmp_path / "modell"
    Model.from_preset("nima", vocab_size=300, max_position_embeddings=64).save_pretrained(place)
    with pytest.raises(SystemExit) as left:
        main(["profile", "generate", "--model", str(place), "--new-tokens", "5", "--markdown"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert "**profile generate modell: 472,032 parameters" in out
    assert "| products | token |" in out and "A token reads" in out and "Memory in MiB" in out


def test_what_makes_no_sense_is_refused(tmp_path):
    for given, message in (
        ({"model": tmp_path, "preset": "nima"}, "drop preset"),
        ({"preset": "nima", "format": "fp8"}, "the formats are"),
        ({**TINY, "new_tokens": 1}, "2 or more"),
        ({**TINY, "prompt_tokens": 64}, "context holds 64"),
        ({**TINY, "trace": tmp_path / "none" / "t.json"}, "no directory"),
    ):
        with pytest.raises(ConfigError, match=message):
            profile_generation(**given)


def test_the_title_of_a_markdown_profile(quick):
    assert markdown(profile_generation(**TINY, threads=1)).startswith("**profile generate nima:")
