"""Real measurements of tiny shapes: the contract of the command, workers, and peers that fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnima.benchmarking import bench, benchmark, rounds, shape_of
from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.benchmarking.systems import TRAINERS
from omnima.benchmarking.worker import Worker, peak_memory, serve
from omnima.cli.app import main

TINY = ["--preset", "nima", "--vocab-size", "300", "--context", "16", "--batch-size", "2"]
QUICK = ["--rounds", "1", "--seconds", "0.01"]
ROW = {"system", "precision", "tokens_per_s", "seconds", "peak_memory_bytes", "share_of_limit"}


@pytest.fixture(autouse=True)
def threads_as_before():
    """A worker that answers in this process sets torch's threads."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def omnima(*arguments):
    words = [sys.executable, "-m", "omnima", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_train_keeps_its_contract():
    done = omnima("bench", "train", *TINY, *QUICK, "--peers", "torch-eager", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert result["task"] == "train" and {"rows", "machine"} <= result.keys()
    found = [(each["system"], each["precision"]) for each in result["rows"]]
    assert found == [
        (system, precision)
        for precision in ("bf16", "fp32")
        for system in ("omnima", "torch-eager")
    ]
    for each in result["rows"]:
        assert each.keys() >= ROW
        assert each["tokens_per_s"] == pytest.approx(32 / each["seconds"])
        assert each["peak_memory_bytes"] > 50e6 and 0 < each["share_of_limit"] < 2
        assert 0 < each["first_step_seconds"] < each["start_seconds"]
    assert result["rows"][0]["omnima_ratio"] == 1 and result["skipped"] == []
    machine = result["machine"]
    assert machine["fp32_gflops"] > 0 and machine["bf16_gflops"] > 0 and machine["threads"] >= 1
    assert machine["read_gb_per_s"] > 0 and machine["level"] and machine["cpu"]


def test_tokenize_keeps_its_contract(capsys):
    words = ["bench", "tokenize", "--data", "tinyworld:100KB", "--vocab-size", "512", *QUICK]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert [each["system"] for each in result["rows"]] == ["omnima", "sentencepiece", "tokenizers"]
    for each in result["rows"]:
        assert each.keys() >= ROW and each["mb_per_s"] > 0 and each["tokens_per_s"] > 0
        assert each["share_of_limit"] is None and each["precision"] is None
    ours, _, theirs = result["rows"]  # the same files: the same tokens
    assert ours["tokens_per_s"] * ours["seconds"] == pytest.approx(
        theirs["tokens_per_s"] * theirs["seconds"]
    )


@pytest.fixture()
def told(monkeypatch):
    """Measure no machine, and say what was said."""
    limits = {"fp32_gflops": 1.0, "bf16_gflops": 1.0, "read_gb_per_s": 1.0}
    monkeypatch.setattr(rounds, "measured_limits", lambda threads: limits)
    return []


def test_a_peer_that_fails_is_named_and_ours_goes_on(monkeypatch, told, capsys):
    monkeypatch.setitem(TRAINERS, "litgpt", ("litgpt_model", "torch"))
    monkeypatch.setitem(TRAINERS, "transformers", ("transformers_llama", "no_such_package_here"))
    with pytest.raises(SystemExit) as left:
        peers = ["--peers", "litgpt,transformers", "--precision", "fp32,bf16"]
        main(["bench", "evaluate", *TINY, *QUICK, *peers, "--markdown"])
    out, err = capsys.readouterr()
    assert left.value.code == 0 and "skipped: litgpt" in err
    assert "| omnima | fp32 |" in out and "| omnima | bf16 |" in out and "| litgpt" not in out
    assert "skipped: litgpt fp32: ModuleNotFoundError: No module named 'litgpt'" in out
    assert out.count("skipped: transformers") == 1


def test_a_gate_that_is_broken_leaves_with_1(told, tmp_path, capsys):
    gate = tmp_path / "gate.json"
    rule = {"peer": "torch-eager", "precision": "fp32", "at_least": 1e9}
    for at_least, code in ((1e9, 1), (1e-9, 0)):
        gate.write_text(json.dumps([{**rule, "at_least": at_least}]))
        with pytest.raises(SystemExit) as left:
            peers = ["--peers", "torch-eager", "--precision", "fp32"]
            main(["bench", "evaluate", *TINY, *QUICK, *peers, "--gate", str(gate)])
        out, err = capsys.readouterr()
        assert left.value.code == code and ("gate: fp32" in err) == bool(code)
        assert "torch-eager" in out


def test_peers_that_do_not_fit_together_are_measured_in_waves(monkeypatch, told):
    few = {"free_bytes": 1, "total_bytes": 1}
    monkeypatch.setattr("omnima._machine.memory_of", lambda *paths: dict(few))
    result = benchmark(
        "evaluate",
        preset="nima",
        vocab_size=300,
        context=16,
        batch_size=2,
        precision="fp32",
        peers=["torch-eager", "transformers"],
        rounds=2,
        seconds=0.01,
        say=told.append,
    )
    assert [each["system"] for each in result["rows"]] == ["omnima", "torch-eager", "transformers"]
    assert told.count("omnima fp32: starting") == 2
    assert result["rows"][0]["steps"] >= 4


def test_our_own_failure_is_an_error(monkeypatch, told):
    monkeypatch.setitem(TRAINERS, "omnima", ("no_such_file", "torch"))
    run = bench._Steps("train", rounds.Turns.of(1, 0.01, 1, told.append), shape_of("nima"))
    with pytest.raises(SystemFailed):
        run.measure("bf16", ["omnima"], {"task": "train", "kind": "", "oops": 1})


def test_a_peer_that_fails_in_its_turn_is_left_out(monkeypatch, told):
    asked = WorkerProcess.ask

    def ask(self, request):
        if request["do"] == "job":
            self.peer = request["system"] != "omnima"
        if request["do"] == "turn" and self.peer:
            raise SystemFailed("gone")
        return asked(self, request)

    monkeypatch.setattr(WorkerProcess, "ask", ask)
    result = benchmark(
        "evaluate",
        preset="nima",
        vocab_size=300,
        context=16,
        batch_size=1,
        precision="fp32",
        peers="torch-eager",
        rounds=2,
        seconds=0.01,
        threads=1,
    )
    assert [each["system"] for each in result["rows"]] == ["omnima"]
    assert result["skipped"] == [{"system": "torch-eager", "reason": "gone", "precision": "fp32"}]


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("system", ["omnima", "torch-eager", "transformers"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_system_steps_on_the_same_shape(task, system, precision):
    shape = shape_of("nima", vocab_size=300, context=16, batch_size=2)
    job = {"task": task, "system": system, "precision": precision, "shape": shape.as_dict()}
    requests = [{"do": "job", "threads": 1, "seed": 0, **job}, {"do": "turn", "seconds": 0.01}]
    answers = io.StringIO()
    serve(io.StringIO("\n".join(map(json.dumps, [*requests, {"do": "end"}]))), answers)
    started, turn, end = map(json.loads, answers.getvalue().splitlines())
    assert started["first_step_seconds"] > 0 and abs(started["parameters"] / 473_000 - 1) < 0.02
    assert len(turn["seconds"]) >= 1 and end["peak_memory_bytes"] > 0


def test_a_worker_tells_what_fails():
    answers = io.StringIO()
    serve(io.StringIO('{"do": "job"}\n{"do": "end"}\n'), answers)
    assert json.loads(answers.getvalue()) == {"error": "KeyError: 'task'"}
    assert Worker().answer({"do": "limits", "threads": 1}).keys() >= {"fp32_gflops"}


def test_the_peak_of_memory(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmPeak:\t9 kB\nVmHWM:\t  100 kB\n")
    assert peak_memory(status) == 100 * 1024
    status.write_text("Name:\tx\n")
    assert peak_memory(status) == peak_memory(Path("/nowhere")) > 1e6


def test_a_process_that_ends_says_why():
    with WorkerProcess() as worker, pytest.raises(SystemFailed, match="KeyError"):
        worker.ask({"do": "job"})
    with WorkerProcess() as worker:
        worker._process.kill()
        with pytest.raises(SystemFailed, match="signal 9: out of memory"):
            worker.ask({"do": "end"})
    with WorkerProcess() as worker:
        assert worker._process.stdin is not None
        worker._process.stdin.write("not JSON\n")
        assert worker._process.stdin is not None
        with pytest.raises(SystemFailed, match="JSONDecodeError"):
            worker.ask({"do": "end"})
    with pytest.raises(KeyboardInterrupt), WorkerProcess() as worker:
        raise KeyboardInterrupt
