"""Reading and writing beside other engines: the contract of the command, what it refuses, and peers
that are not there.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys

import pytest
import torch

from omnima import Model
from omnima.benchmarking import benchmark_generation, formats, markdown, rounds
from omnima.benchmarking.copies import Copies, _put
from omnima.benchmarking.process import SystemFailed
from omnima.benchmarking.systems import WRITERS, module_of
from omnima.benchmarking.timing import Timing
from omnima.benchmarking.work import DEFAULTS, work_of
from omnima.config import ModelConfig
from omnima.errors import ConfigError, OmnimaError

VOCABULARY, CONTEXT = 300, 64
QUICK = ["--rounds", "1", "--seconds", "0.01", "--threads", "1"]
# Those of `bench train`, and what writing has beside them.
ROW = {
    "system", "precision", "tokens_per_s", "seconds", "peak_memory_bytes", "share_of_limit",
    "omnima_ratio", "memory_ratio", "first_step_seconds", "start_seconds", "steps", "spread",
    "gflops_per_s", "parameters",
    "format", "ms_per_token", "first_token_seconds", "weight_bytes", "read_gb_per_s",
    "read_limit_gb_per_s", "same_tokens", "absent",
}  # fmt: skip
PEERS = ("transformers", "llama.cpp", "ctranslate2")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    place = tmp_path_factory.mktemp("größer") / "modell"
    model = Model.from_preset("nima", vocab_size=VOCABULARY, max_position_embeddings=CONTEXT)
    model.save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(**changes):
    return ModelConfig.from_dict(
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            **changes,
        }
    )


def test_decode_keeps_its_contract(directory):
    words = ["bench", "decode", "--model", str(directory), "--new-tokens", "12", *QUICK]
    words += ["--prompt-tokens", "5", "--peers", "transformers,llama.cpp,ctranslate2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "omnima", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert result.keys() == {"task", "shape", "rows", "skipped", "machine"}
    assert result["task"] == "decode"
    assert result["shape"] == {
        "name": "modell",
        "parameters": result["rows"][0]["parameters"],
        "sequences": 1,
        "prompt_tokens": 5,
        "new_tokens": 12,
    }
    rows = {row["system"]: row for row in result["rows"]}
    assert list(rows) == ["omnima", *PEERS] and len(result["rows"]) == 4
    assert all(row.keys() == ROW for row in rows.values())
    assert all(row["precision"] == "f32" for row in rows.values())
    for system, row in rows.items():
        if row["absent"] is None:
            assert row["tokens_per_s"] == pytest.approx(11 / row["seconds"])
            assert row["ms_per_token"] == pytest.approx(1e3 / row["tokens_per_s"])
            assert row["first_token_seconds"] > 0 and row["peak_memory_bytes"] > 50e6
            assert row["weight_bytes"] > 0 and row["read_limit_gb_per_s"] > 0
            assert row["share_of_limit"] > 0  # this model lies in the caches: above 1, too
        else:
            assert row["tokens_per_s"] is None and row["omnima_ratio"] is None
            assert {"system": system, "reason": row["absent"]}.items() <= next(
                each for each in result["skipped"] if each["system"] == system
            ).items()
    assert rows["omnima"]["absent"] is None and rows["omnima"]["omnima_ratio"] == 1
    assert rows["omnima"]["same_tokens"] == 12
    # The same weights: in float32 the texts are the same.
    assert rows["transformers"]["same_tokens"] == 12
    assert rows["transformers"]["format"] == "float32"
    for package, system in (("llama_cpp", "llama.cpp"), ("ctranslate2", "ctranslate2")):
        if importlib.util.find_spec(package) is None:
            assert f"{package} is not installed" in rows[system]["absent"]


@pytest.fixture()
def in_no_process(monkeypatch):
    """Measure no machine, and let the cheapest stand for it."""
    limits = {"fp32_gflops": 1.0, "bf16_gflops": 1.0, "read_gb_per_s": 1.0}
    monkeypatch.setattr(rounds, "measured_limits", lambda threads: dict(limits))
    return limits


@pytest.mark.parametrize(
    ("task", "tokens"), [("prefill", CONTEXT - 1), ("decode", 31), ("batch", 3 * 31)]
)
def test_every_task_counts_its_tokens(directory, in_no_process, task, tokens):
    found = benchmark_generation(
        task,
        directory,
        sequences=3 if task == "batch" else None,
        peers="none",
        rounds=1,
        seconds=0.01,
        threads=1,
    )
    (row,) = found["rows"]
    assert row["tokens_per_s"] * row["seconds"] == pytest.approx(tokens)
    text = markdown(found)
    assert f"**{task} modell: " in text and "| omnima | f32 | f32 |" in text


def test_absent_peers_stand_in_their_rows(directory, in_no_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(WRITERS, "llama.cpp", ("llama_cpp_writer", "no_such_package_here"))
    monkeypatch.setitem(WRITERS, "ctranslate2", ("ctranslate2_writer", "torch"))
    monkeypatch.setitem(WRITERS, "transformers", ("no_such_module", "torch"))
    monkeypatch.setitem(formats.COPIES["ctranslate2"], "f32", "ct2-no_such_type")
    found = benchmark_generation(
        "decode",
        directory,
        prompt_tokens=2,
        new_tokens=4,
        rounds=1,
        seconds=0.01,
        threads=1,
        cache=tmp_path,
        say=print,
    )
    reasons = {row["system"]: row["absent"] for row in found["rows"]}
    assert reasons["omnima"] is None
    assert "no_such_package_here is not installed" in reasons["llama.cpp"]
    assert reasons["ctranslate2"].startswith("its copy of the model cannot be made: ")
    assert len(found["skipped"]) == len(found["rows"]) - 1 - (reasons["transformers"] is None)
    text = markdown(found)
    assert "| llama.cpp | f32 | absent |" in text and "skipped: llama.cpp" in text
    assert [path.name for path in tmp_path.glob("*/*")] == ["hf"]  # and nothing half made
    assert "transformers f32: its copy of the model (hf)" in capsys.readouterr().out


def test_a_format_that_a_peer_lacks_is_said():
    assert formats.copy_of("transformers", "int8") is None
    assert formats.copy_of("ctranslate2", "int4") is None
    assert formats.copy_of("llama.cpp", "int4") == "gguf-q4_0"


def test_formats_that_are_not_there_are_refused_with_those_that_are(directory):
    with pytest.raises(ConfigError, match="the formats are f32, bf16, int8, int4"):
        benchmark_generation("decode", directory, format="fp8")
    assert set(formats.OURS) == set(formats.FORMATS)


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("decode", {"sequences": 0}, "sequences is 0"),
        ("decode", {"new_tokens": 1}, "must be 2 or more"),
        ("prefill", {"new_tokens": 9}, "drop new_tokens"),
        ("decode", {"prompt_tokens": 60, "new_tokens": 5}, "context holds 64"),
        ("write", {}, "the tasks are prefill, decode, batch"),
        ("decode", {"peers": "jax"}, "the peers are transformers, llama.cpp, ctranslate2"),
        ("decode", {"seconds": math.inf}, "seconds is inf, but must be a number above 0"),
        ("decode", {"threads": 10**6}, "threads is 1000000, but must be from 1 to 1024"),
        ("decode", {"cache": __file__}, "cannot be written to: .* is a file"),
    ],
)
def test_what_makes_no_sense_is_refused(directory, task, given, message):
    with pytest.raises(ConfigError, match=message):
        benchmark_generation(task, directory, **given)


@pytest.mark.parametrize("format", formats.FORMATS)
def test_our_engine_writes_in_every_format(directory, tmp_path, format):
    kind = formats.OURS[format][0]
    copy = {} if kind is None else {"copy": str(Copies(directory, tmp_path).get(kind))}
    write, told = module_of("decode", "omnima").build(
        {"model": str(directory), "precision": format, "threads": 1, **copy}
    )
    assert (
        write([[3, 4]], 5)
        == formats.open_in(str(directory), format)[0]
        .generate([3, 4], max_new_tokens=5, temperature=0.0)
        .ids
    )
    bits = {"f32": 32, "bf16": 16, "int8": 8.5, "int4": 4.5}[format]
    exact = Model.from_pretrained(directory).num_parameters * bits / 8
    assert told["weight_bytes"] == pytest.approx(exact, rel=0.03)  # norms are float32 in GGUF


def test_work_is_the_products_of_the_tokens():
    small = config()
    work = work_of("prefill", "m", small, None, 10, None)
    assert (work.sequences, work.prompt_tokens, work.new_tokens) == (1, 10, 1)
    parts = small.parameter_parts
    layers = parts["attention"] + parts["mlp"]
    # Norms are counted with the layers' weights: a few tenths of a percent here.
    pairs = 4 * 2 * 2 * (10 * 11 / 2) * small.head_dim
    assert work.flops == pytest.approx(2 * 10 * layers + 2 * VOCABULARY * 32 + pairs, rel=0.02)
    assert work.tokens == 10 and work.passes == 1
    batch = work_of("batch", "m", small, 3, 4, 5)
    assert batch.tokens == 12 and batch.passes == 4
    assert len(batch.prompts()) == 3 and batch.prompts()[0] != batch.prompts()[1]
    assert batch.touched(4 * batch.parameters) == 4 * batch.parameters
    untied = work_of("decode", "m", config(tie_word_embeddings=False), 1, 4, 5)
    table = VOCABULARY * 32
    assert untied.touched(4 * untied.parameters) == 4 * (untied.parameters - table)
    long = work_of("decode", "m", config(max_position_embeddings=4096), None, None, None)
    assert (long.sequences, long.prompt_tokens, long.new_tokens) == DEFAULTS["decode"]


def test_a_step_of_writing_leaves_out_the_first_token():
    calls = []

    def write(prompts, new_tokens):
        calls.append(new_tokens)
        total = sum(range(200_000 * (new_tokens > 1)))
        return [total] * new_tokens

    timing = Timing(write, "decode", [[1]], 4)
    assert len(timing.work()) == 4 and timing.once() > 0
    assert calls[:3] == [4, 1, 4]
    facts = timing.facts()
    assert facts["first_token_seconds"] > 0 and len(facts["ids"]) == 4
    prefill = Timing(write, "prefill", [[1]], 1)
    prefill.work()
    assert prefill.once() > 0 and calls[-1] == 1


def test_tokens_too_few_to_time_are_said(monkeypatch):
    timing = Timing(lambda prompts, count: [0] * count, "decode", [[1]], 2)
    monkeypatch.setattr(timing, "_seconds", lambda count: 1.0)
    with pytest.raises(OmnimaError, match="more --new-tokens"):
        timing.once()


def test_a_late_call_is_not_what_is_timed(monkeypatch):
    timing = Timing(lambda prompts, count: [0] * count, "decode", [[1]], 2)
    taken = iter([3.0, 2.0, 1.0, 4.0])  # one token, two tokens, and both again
    monkeypatch.setattr(timing, "_seconds", lambda count: next(taken))
    assert timing.once() == 1.0
    assert timing.facts()["first_token_seconds"] == 1.0


def test_our_writer_writes_the_models_likeliest_tokens(directory):
    write, told = module_of("decode", "omnima").build(
        {"model": str(directory), "precision": "f32", "threads": 1}
    )
    model = Model.from_pretrained(directory)
    assert write([[3, 4]], 5) == model.generate([3, 4], max_new_tokens=5, temperature=0.0).ids
    assert told["weight_bytes"] == 4 * model.num_parameters


def test_copies_are_made_once_and_anew_when_the_model_changes(tmp_path, directory):
    copies = Copies(directory, tmp_path)
    made = copies.get("gguf-q8_0")
    assert made.read_bytes()[:4] == b"GGUF"
    before = made.stat().st_mtime_ns
    assert Copies(directory, tmp_path).get("gguf-q8_0").stat().st_mtime_ns == before
    with pytest.raises(SystemFailed, match='dtype is "q9"'):
        copies.get("gguf-q9")
    with pytest.raises(SystemFailed, match='dtype is "q9"'):
        copies.get("gguf-q9")  # not tried again
    (directory / "generation_config.json").touch()
    assert Copies(directory, tmp_path)._place != copies._place


def test_another_run_may_have_made_the_copy_meanwhile(tmp_path):
    made, path = tmp_path / "made", tmp_path / "there"
    for each in (made, path):
        each.mkdir()
        (each / "file").write_text(each.name)
    _put(made, path)
    assert (path / "file").read_text() == "there"
    with pytest.raises(FileNotFoundError):
        _put(tmp_path / "nothing", tmp_path / "nowhere")


def test_a_model_of_no_other_tools_kind_has_no_copy(tmp_path):
    place = tmp_path / "own"
    model = Model.from_preset("nima", vocab_size=64, positions="relative")
    model.save_pretrained(place)
    with pytest.raises(SystemFailed, match="no architecture of transformers"):
        Copies(place, tmp_path / "cache").get("hf")


@pytest.mark.parametrize("system", ["llama.cpp", "ctranslate2"])
def test_an_installed_peer_writes_our_tokens(system, tmp_path, directory):
    pytest.importorskip(WRITERS[system][1])
    if system == "ctranslate2":
        pytest.skip("its converter wants a tokenizer beside the model")
    kind = str(formats.copy_of(system, "f32"))
    prompts = [[3, 4, 5], [6, 7, 8]]
    job = {"copy": str(Copies(directory, tmp_path).get(kind)), "copy_kind": kind, "threads": 1}
    write, told = module_of("batch", system).build(
        {**job, "precision": "f32", "prompts": prompts, "new_tokens": 6}
    )
    model = Model.from_pretrained(directory)
    ours = model.generate(prompts[0], max_new_tokens=6, temperature=0.0).ids
    assert write(prompts, 6) == ours and write(prompts, 6) == ours
    assert told["weight_bytes"] > 0
