"""The command line's edges: help, values after one flag, errors, JSON; nothing here trains."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import warnings

import pytest

from omnima.cli.app import main, spread_values
from omnima.cli.output import print_facts, print_json
from omnima.cli.writing import check_way, fit_history, read_prompts
from omnima.errors import ConfigError, DataError
from omnima.training.recipe import Recipe


def test_help_is_quick_and_names_every_command():
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "omnima", "--help"], capture_output=True, text=True, check=True
        )
        taken.append(time.perf_counter() - start)
    for name in ("train", "eval", "generate", "tokenize", "info", "doctor", "bench", "profile"):
        assert name in done.stdout
    assert min(taken) < 1.0  # 0.25 s on an idle machine; the tests may share theirs


def test_help_of_every_command(leave):
    for name in ("train", "eval", "generate", "tokenize", "info", "doctor", "bench", "profile"):
        code, out, _ = leave([name, "--help"])
        assert code == 0 and "--json" in out


def test_flags_of_training_stand_under_headings(leave):
    fields = Recipe.schema().values()
    headings = {field.group for field in fields}
    assert "" not in headings and {"Data", "Model", "Optimizer", "Schedule", "Records"} < headings
    for name in ("train", "plan"):
        code, out, _ = leave([name, "--help"])
        shown = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭")]
        assert code == 0 and shown[0] == "Options" and set(shown[1:]) == headings
        assert len(shown) == len(set(shown))


def test_version(leave):
    code, out, _ = leave(["--version"])
    assert code == 0 and out.strip().count(".") == 2


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        (["train", "--data", "a", "b", "-x"], ["train", "--data", "a", "--data", "b", "-x"]),
        (["train", "--data=a", "b"], ["train", "--data=a", "--data", "b"]),
        (["train", "--data", "a", "--data", "b"], ["train", "--data", "a", "--data", "b"]),
        (["eval", "dir", "--data", "a", "b"], ["eval", "dir", "--data", "a", "--data", "b"]),
        (["generate", "dir", "--prompt", "a"], ["generate", "dir", "--prompt", "a"]),
        (["train", "--data", "a", "--", "b"], ["train", "--data", "a", "--", "b"]),
        ([], []),
    ],
)
def test_several_values_after_one_flag(given, spread):
    assert spread_values(given) == spread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "1m", "--steps", "1"], "No text"),
        (["train", "--data", "x", "--steps", "1"], "No size"),
        (["train", "--data", "x", "--preset", "1m"], "No budget"),
        (
            ["train", "--data", "x", "--preset", "1m", "--steps", "1", "--minutes", "1"],
            "exactly one",
        ),
        (["train", "--data", "x", "--preset", "1m", "--params", "1M", "--steps", "1"], "drop one"),
        (["train", "--data", "x", "--params", "big", "--steps", "1"], "such as 500k"),
        (["train", "--data", "x", "--preset", "1m", "--steps", "1"], "--out my-model"),
        (["train", "--config", "/nowhere/räzept.yaml"], "/nowhere/räzept.yaml cannot be read"),
        (["generate", "d"], "No prompt"),
        (["generate", "d", "--prompt", "a", "--prompts-file", "b"], "stands alone"),
        (["generate", "d", "--interactive", "--json"], "talks to a person"),
        (["generate", "/nowhere/modell", "--prompt", "a"], "no directory /nowhere/modell"),
        (["info", "/nowhere/modell"], "no directory /nowhere/modell"),
        (["eval", "/nowhere/modell", "--data", "x"], "no directory /nowhere/modell"),
        (["profile", "tokenize"], "the tasks are train, evaluate, generate"),
        (["profile", "train", "--steps", "0"], "steps is 0"),
        (["profile", "train", "--precision", "bf16,fp32"], "of one precision"),
        (["profile", "train", "--vocab-size", "0"], "vocab_size is 0"),
        (["profile", "train", "--trace", "trace.txt"], "end in .json or .json.gz"),
        (["profile", "train", "--trace", "/nowhere/t.json"], "no directory /nowhere"),
        (["profile", "generate", "--steps", "2"], "--steps says nothing to profile generate"),
        (["profile", "train", "--new-tokens", "2"], "--new-tokens says nothing to profile train"),
        (["profile", "generate", "--model", "m", "--preset", "1m"], "drop preset"),
        (["profile", "generate", "--preset", "1m", "--format", "fp8"], "the formats are f32, bf16"),
        (["profile", "generate", "--preset", "1m", "--format", "f32,f32,int9"], "int9"),
        (["profile", "generate", "--preset", "1m", "--trace", "t.txt"], "end in .json or .json.gz"),
        (["bench", "fly"], "the tasks are train, evaluate, tokenize, lora, sft, dpo, prefill, "),
        (["bench", "decode"], "give --model, a directory"),
        (["bench", "decode", "--model", "/nowhere/modell"], "no directory /nowhere/modell"),
        (["bench", "decode", "--model", "m", "--preset", "1m"], "--preset says nothing to bench"),
        (["bench", "train", "--model", "m"], "--model says nothing to bench train"),
        (["bench", "batch", "--model", "m", "--peers", "jax"], "the peers are transformers, llama"),
        (["bench", "batch", "--model", "m", "--format", "fp8"], "the formats are f32, bf16, int8"),
        (["bench", "batch", "--model", "m", "--rounds", "0"], "rounds is 0, but must be"),
        (["bench", "train", "--preset", "2m"], "bench-13.9m"),
        (["bench", "train", "--preset", "1m", "--params", "1M"], "drop one"),
        (["bench", "train", "--params", "big"], "such as 500k"),
        (["bench", "train", "--peers", "jax"], "the peers are torch-eager, torch-compile"),
        (["bench", "tokenize", "--peers", "litgpt"], "the peers are sentencepiece, tokenizers"),
        (["bench", "train", "--precision", "fp8"], "the precisions are bf16, fp32"),
        (["bench", "train", "--batch-size", "0"], "batch_size is 0"),
        (["bench", "train", "--context", "-1"], "context is -1"),
        (["bench", "train", "--threads", "0"], "threads is 0"),
        (["bench", "train", "--rounds", "0"], "rounds is 0, but must be"),
        (["bench", "tokenize", "--kind", "word"], "expected bpe or unigram"),
        (["bench", "train", "--gate", "/nowhere/gate.json"], "/nowhere/gate.json cannot be read"),
    ],
)
def test_errors_are_one_line_on_standard_error(arguments, message, leave):
    code, out, err = leave([*arguments, "--json"])
    assert code == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_warnings_are_one_line_without_the_code_they_come_from(leave, monkeypatch):
    told = []

    def warn(*given):
        for kind in (UserWarning, FutureWarning):
            told.append(warnings.formatwarning("It was\n not verified.", kind, "code.py", 7))
        raise ConfigError("no")

    monkeypatch.setattr("omnima.evaluation.inventory.describe_directory", warn)
    before = warnings.formatwarning
    assert leave(["info", "m"])[0] == 1
    assert told == ["warning: It was not verified.\n", "FutureWarning: It was not verified.\n"]
    assert warnings.formatwarning is before


@pytest.mark.parametrize(
    "arguments", [["train", "--steps", "many"], ["train", "--stepz", "1"], ["nothing"], ["eval"]]
)
def test_a_wrong_command_line_leaves_with_2(arguments, leave):
    code, out, err = leave(arguments)
    assert code == 2 and out == "" and err


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("OMNIMA_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        main(["train", "--data", "x"])


def test_json_holds_no_number_that_json_lacks(capsys):
    print_json({"a": float("inf"), "b": [1, float("nan")], "c": "\ud800é", "d": ("x",), "e": print})
    out = capsys.readouterr().out
    read = json.loads(out, parse_constant=pytest.fail)
    assert read["a"] is None and read["b"] == [1, None] and out.count("\n") == 1


def test_facts_for_people(capsys):
    print_facts({"a": 1234567, "part": {"b": None, "c": True, "d": [1, 2]}, "e": 0.5, "f": 2e3})
    print_facts({"g": 1e-5, "h": 0.0})
    out = capsys.readouterr().out
    assert "1,234,567" in out and "  d  1, 2" in out and "0.5000" in out and " 2,000\n" in out
    assert "g  1e-05\n" in out and "h  0.0000\n" in out


def test_prompts_come_from_a_file(tmp_path):
    path = tmp_path / "prömpts"
    path.write_text("one\n\ntwo\n", encoding="utf-8")
    assert read_prompts(str(path)) == ["one", "two"]
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_prompts(str(path))
    path.write_text("\n")
    with pytest.raises(DataError, match="no line"):
        read_prompts(str(path))
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(str(tmp_path / "none"))
    check_way("a", None, False, True)


def test_history_drops_its_oldest_lines():
    class Letters:
        bos_id = None

        def encode(self, text, add_bos=False):
            return list(text)

    assert fit_history(Letters(), "aaaa\nbb\n", "cc", 100) == "aaaa\nbb\ncc"
    assert fit_history(Letters(), "aaaa\nbb\n", "cc", 6) == "bb\ncc"
    assert fit_history(Letters(), "aaaa\nbb\n", "cc", 1) == "cc"


def test_a_reader_that_leaves_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "omnima", "--version"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert b"Traceback" not in done.stderr


def test_interactive_asks_on_standard_error(monkeypatch, capsys):
    from omnima.cli import writing

    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/new\nagain\n"))
    told = []

    def write(model, tokenizer, prompts, sampling, show=None):
        told.extend(prompts)
        return [{"text": " yes"}]

    class Model:
        context = 64

    class Letters:
        bos_id = None

        def encode(self, text, add_bos=False):
            return list(text)

    monkeypatch.setattr(writing, "write_all", write)
    writing.converse(Model(), Letters(), {"max_new_tokens": 8}, "first")
    assert told == ["first", "first yes\nhello", "again"]
    assert "> " in capsys.readouterr().err
