"""`bench quantize`: the contract of the command, what it refuses, and a peer that is not there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from omnima import Model, Tokenizer
from omnima.benchmarking import benchmark_quantize, markdown, quantizing
from omnima.benchmarking.systems import QUANTIZERS, module_of
from omnima.errors import ConfigError, DataError
from omnima.quantization.text import perplexity, rows_of

ROW = {
    "system", "precision", "method", "group_size", "bits_per_weight", "bytes", "perplexity_before",
    "perplexity_after", "change", "seconds", "peak_memory_bytes", "absent",
}  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    place = tmp_path_factory.mktemp("größer") / "modell"
    tokenizer = Tokenizer.train(["abc"], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    model.tokenizer = tokenizer
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"The king had {i} sons and {i * i} cows.\n" for i in range(200)))
    return path


@pytest.fixture
def no_limits(monkeypatch):
    limits = {"fp32_gflops": 1.0, "bf16_gflops": 1.0, "read_gb_per_s": 1.0}
    monkeypatch.setattr(quantizing, "measured_limits", lambda threads: dict(limits))


def test_quantize_keeps_its_contract(directory, text):
    words = ["bench", "quantize", "--model", str(directory), "--data", str(text), "--json"]
    words += ["--format", "int8,int4", "--method", "rtn,gptq", "--group-size", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "omnima", *words, "--threads", "1", "--peers", "llama.cpp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found.keys() == {"task", "shape", "rows", "skipped", "machine"}
    assert found["task"] == "quantize" and found["shape"]["name"] == "modell"
    assert all(row.keys() == ROW for row in found["rows"])
    ours = [row for row in found["rows"] if row["system"] == "omnima"]
    assert [(row["precision"], row["method"]) for row in ours] == [
        ("int8", "rtn"), ("int8", "gptq"), ("int4", "rtn"), ("int4", "gptq"),
    ]  # fmt: skip
    model = Model.from_pretrained(directory)
    _, measured = rows_of(str(text), model.tokenizer, 64)
    for row in ours:
        assert row["absent"] is None and row["group_size"] == 32
        assert row["bits_per_weight"] == pytest.approx(8 * row["bytes"] / model.num_parameters)
        assert row["peak_memory_bytes"] > 50e6 and row["seconds"] > 0
        assert row["perplexity_before"] == pytest.approx(perplexity(model, measured), rel=1e-5)
        assert row["change"] == row["perplexity_after"] / row["perplexity_before"] - 1
    report = model.quantize("int4", "gptq", 32, calibration=str(text))
    assert ours[3]["perplexity_after"] == pytest.approx(report.perplexity_after, rel=1e-5)
    assert ours[3]["bytes"] == report.bytes
    theirs = [row for row in found["rows"] if row["system"] == "llama.cpp"]
    assert {row["precision"] for row in theirs} == {"int8", "int4"}
    for row in theirs:
        assert (row["absent"] is None) == (row["bytes"] is not None)
        if row["absent"]:
            assert row["absent"] in [each["reason"] for each in found["skipped"]]


def test_every_method_stands_in_the_table(directory, text, no_limits, monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "llama.cpp", ("llama_cpp_quantizer", "no_such_package_here"))
    found = benchmark_quantize(directory, format="nf4", data=text, threads=1)
    assert [row["method"] for row in found["rows"]] == ["rtn", "gptq", "awq", None]
    assert "no_such_package_here is not installed" in found["rows"][-1]["absent"]
    shown = markdown(found)
    assert "**quantize modell: " in shown and "tokens of text.txt**" in shown
    assert "| omnima | nf4 | gptq | 64 |" in shown and "| llama.cpp | nf4 |  | absent |" in shown


def test_a_peer_that_fails_says_why(directory, text, no_limits, monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "llama.cpp", ("no_such_module", "torch"))
    found = benchmark_quantize(directory, format="int8", data=text, threads=1, say=print)
    ours, theirs = found["rows"]
    assert ours["absent"] is None and theirs["method"] == "q8_0"
    assert theirs["absent"] == found["skipped"][0]["reason"] != ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "int3"}, "the formats are int8, int4, nf4"),
        ({"method": "magic"}, "the methods are rtn, gptq, awq"),
        ({"group_size": 48}, "group_size is 48"),
        ({"peers": "ctranslate2"}, "the peers are llama.cpp"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(directory, text, given, message):
    with pytest.raises(ConfigError, match=message):
        benchmark_quantize(directory, data=text, **given)


def test_models_and_texts_that_cannot_be_read_are_refused(tmp_path, directory):
    with pytest.raises(DataError, match=r"nothing\.txt"):
        benchmark_quantize(directory, data=tmp_path / "nothing.txt")
    Model.from_preset("nima", vocab_size=64).save_pretrained(tmp_path / "silent")
    with pytest.raises(DataError, match="tokenizer"):
        benchmark_quantize(tmp_path / "silent")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "m", "--rounds", "2"], "--rounds says nothing to bench quantize"),
        (["--model", "m", "--new-tokens", "2"], "--new-tokens says nothing"),
        (["--model", "m", "--gate", "g"], "--gate says nothing"),
        ([], "give --model"),
    ],
)
def test_flags_of_other_tasks_are_refused(flags, says):
    done = subprocess.run(
        [sys.executable, "-m", "omnima", "bench", "quantize", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and says in done.stderr


def test_llama_cpp_makes_files_that_we_read(directory, tmp_path):
    pytest.importorskip("llama_cpp")
    Model.from_pretrained(directory).save_gguf(tmp_path / "f32.gguf", dtype="f32")
    job = {"copy": str(tmp_path / "f32.gguf"), "to": str(tmp_path / "made.gguf"), "threads": 1}
    told = module_of("quantize", "llama.cpp").quantize({**job, "kind": "q8_0"})
    assert told["bytes"] < (tmp_path / "f32.gguf").stat().st_size / 3
    assert Model.from_pretrained(tmp_path / "made.gguf").num_parameters > 0
