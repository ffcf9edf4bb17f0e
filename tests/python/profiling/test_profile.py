"""The profile adds up, its trace opens, and its table says whose time it is."""

from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnima import _core
from omnima.cli.app import main
from omnima.errors import ConfigError
from omnima.profiling import markdown, operator_rows, profile, record, tables, write_trace
from omnima.profiling.memory import forget_peak, memory_by_kind, resident_memory
from omnima.profiling.operators import own_times

LIMITS = {"fp32_gflops": 100.0, "bf16_gflops": 400.0, "read_gb_per_s": 20.0}
TINY = {"preset": "nima", "vocab_size": 512, "context": 64, "batch_size": 4}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


@dataclasses.dataclass
class Span:
    name: str
    begin: int
    end: int
    thread: int = 0
    team: int = 1
    flops: float = 0.0
    bytes: float = 0.0


SPANS = [
    Span("step", 0, 10_000_000),
    Span("pass.forward", 1_000_000, 5_000_000, 0, 2),
    Span("linear.forward", 2_000_000, 4_000_000, 0, 2, flops=2e8, bytes=1e6),
    Span("linear.forward", 1_000_000, 5_000_000, 1, 2, flops=2e8, bytes=1e6),
    Span("optimizer", 8_000_000, 9_000_000, bytes=1e7),
]


@pytest.fixture()
def quick(monkeypatch):
    monkeypatch.setattr(record, "measured_limits", lambda threads: dict(LIMITS))


def test_own_time_leaves_out_what_lies_inside():
    assert own_times(SPANS) == [5_000_000, 2_000_000, 2_000_000, 4_000_000, 1_000_000]
    neighbours = [Span("a", 0, 4), Span("b", 0, 2), Span("c", 2, 4), Span("d", 4, 5)]
    assert own_times(neighbours) == [0, 2, 2, 1]


def test_rows_add_up_to_the_step():
    rows = operator_rows(SPANS, 1, 10.0, LIMITS, "fp32")
    assert sum(row.ms for row in rows) == pytest.approx(10.0)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    found = {(row.operator, row.phase): row for row in rows}
    linear = found["linear", "forward"]
    assert linear.calls == 2 and linear.thread_ms == 6.0 and linear.ms == 3.0
    assert linear.gflops_per_s == pytest.approx(4e8 / 3e-3 / 1e9)
    assert linear.bound == "products" and linear.share_of_roofline == pytest.approx(4 / 3)
    update = found["optimizer", "update"]
    assert update.bound == "memory" and update.share_of_roofline == pytest.approx(0.5)
    assert update.gflops_per_s is None and update.gb_per_s == pytest.approx(10.0)
    assert found["autograd and small operators", "forward"].gb_per_s is None
    assert rows[-1].operator.startswith("rest") and rows[-1].ms == pytest.approx(5.0)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_operators_cover_the_step(quick, tmp_path, precision):
    path = tmp_path / "trace.json"
    # One thread: on a busy machine several wait for each other, which is in no operator.
    alone = [profile(**TINY, precision=precision, steps=3, threads=1) for _ in range(3)]
    assert max(each["covered"] for each in alone) >= 0.9
    found = profile(**TINY, precision=precision, steps=3, trace=path)
    assert 0.3 < found["covered"] < 1.02
    assert sum(row["share"] for row in found["operators"]) == pytest.approx(1, abs=0.02)
    names = {(row["operator"], row["phase"]) for row in found["operators"]}
    operators = ("linear", "attention", "norm", "swiglu", "embedding")
    assert names >= {(name, phase) for name in operators for phase in ("forward", "backward")}
    assert ("linear_cross_entropy", "forward") in names
    assert names >= {("optimizer", "update"), ("gradient norm", "update"), ("data", "data")}
    memory = found["memory"]
    parameters = memory["weights"] // 4
    assert memory["optimizer_state"] == 8 * parameters and memory["gradients"] >= 4 * parameters
    assert memory["bf16_copy"] == (2 * parameters if precision == "bf16" else 0)
    assert 0 < memory["process"] <= memory["peak"]
    check_trace(json.loads(path.read_text()), found["threads_side_by_side"])
    text = markdown(found)
    assert "| linear | backward |" in text and str(path) in text
    assert tables.table(found).row_count == len(found["operators"])


def check_trace(trace, threads):
    """What the viewers need: complete events in microseconds, with process and thread."""
    events = trace["traceEvents"]
    assert {each["ph"] for each in events} == {"X", "M"}
    spans = [each for each in events if each["ph"] == "X"]
    assert all(each["dur"] >= 0 and each["ts"] >= 0 and each["pid"] == 1 for each in spans)
    assert len({each["tid"] for each in spans}) >= threads
    assert [each["name"] for each in spans].count("step") == 3
    work = next(each for each in spans if each["name"] == "linear.forward")["args"]
    assert work["GFLOP"] > 0 and work["MB"] > 0


def test_the_scopes_count_the_products_of_the_model(quick):
    seen = []

    def spy(spans, steps, wall_ms, limits, precision):
        seen.extend(spans)
        return operator_rows(spans, steps, wall_ms, limits, precision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "operator_rows", spy)
        found = profile("evaluate", **TINY, steps=1, threads=1)
    from omnima.benchmarking import shape_of

    assert sum(each.flops for each in seen) == pytest.approx(shape_of(**TINY).flops("evaluate"))
    assert found["memory"]["gradients"] == 0
    assert "side by side" not in markdown({**found, "threads_side_by_side": 1})


def test_nothing_is_recorded_afterwards(quick):
    profile(**TINY, steps=1)
    assert _core.stop_recording() == []


def test_profile_keeps_its_contract(tmp_path):
    path = tmp_path / "größer trace.json.gz"
    words = ["profile", "train", *FLAGS, "--steps", "3", "--trace", str(path), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "omnima", *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    keys = {"task", "precision", "steps", "step_ms", "operators", "memory", "machine", "trace"}
    assert result.keys() >= keys and result["task"] == "train" and result["trace"] == str(path)
    row = {"operator", "phase", "calls", "ms", "share", "gflops_per_s", "share_of_roofline"}
    assert all(each.keys() >= row for each in result["operators"])
    check_trace(json.loads(gzip.decompress(path.read_bytes())), 1)


@pytest.mark.parametrize("way", [[], ["--markdown"]])
def test_the_command_prints_tables(quick, capsys, way):
    with pytest.raises(SystemExit) as left:
        main(["profile", "train", "--params", "60k", "--vocab-size", "300", "--context=16", *way])
    out = capsys.readouterr().out
    assert left.value.code == 0 and "linear_cross_entropy" in out and "Memory in MiB" in out
    assert ("| --- |" in out) == bool(way)


def test_traces_have_a_place(tmp_path):
    for path in (tmp_path / "trace", tmp_path / "none" / "trace.json"):
        with pytest.raises(ConfigError, match="The trace"):
            write_trace(path, SPANS)
    written = json.loads(write_trace(tmp_path / "t.json", SPANS).read_text())
    assert len(written["traceEvents"]) == 1 + 2 + len(SPANS)


def test_memory_where_the_system_says_little(tmp_path, monkeypatch):
    assert resident_memory() > 1e6 and resident_memory(Path("/nowhere")) == 0
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmRSS:\t 7 kB\n")
    assert resident_memory(status) == 7 * 1024
    status.write_text("Name:\tx\n")
    assert resident_memory(status) == 0
    forget_peak(Path("/nowhere"))
    forget_peak(status)
    assert status.read_text() == "5"

    def refuse(*given, **named):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    forget_peak(status)
    kinds = memory_by_kind(10, 2, "fp32", "train", 100, 1000)
    assert kinds["gradients"] == 80 and kinds["activations_peak"] == 1000 - 100 - 40 - 80 - 80
