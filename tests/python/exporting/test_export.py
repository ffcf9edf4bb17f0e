"""Exports with their certificates: what passes, what fails, and what is left behind."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import omnima
from omnima import exporting
from omnima.errors import ConfigError
from omnima.exporting import ExportError, asking, peers, transfer
from omnima.exporting.certificate import PROMPTS
from omnima.exporting.peers import Answers, Questions

transformers = pytest.importorskip("transformers")


SMALL: dict[str, Any] = dict(
    num_hidden_layers=1, hidden_size=64, intermediate_size=96, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> omnima.Model:
    tokenizer = omnima.Tokenizer.train(["to be or not to be, that is the question"], "bpe")
    made = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size, seed=1, **SMALL)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    made.tokenizer = tokenizer
    return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools in this process: it starts faster."""
    monkeypatch.setattr(transfer, "ask", lambda kind, path, asked: peers.PEERS[kind](path, asked))


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_directory_is_certified_by_transformers(
    dtype: str, model: omnima.Model, here: None, tmp_path: Path
) -> None:
    out = tmp_path / "ä" / "out"
    found = exporting.export(model, "hf", out, dtype)
    assert found.passed and found.against == "transformers" and found.format == "hf"
    assert found.path == "out"  # and not where it lies: the file is published
    assert found.architecture == "LlamaForCausalLM" and found.version == transformers.__version__
    assert found.greedy_equal == found.encoded_equal == found.prompts == len(PROMPTS)
    assert found.template_equal is True
    assert found.difference is not None and found.difference < 1e-5
    assert found.largest_difference is not None and found.largest_difference < 1e-4
    assert found.perplexity == pytest.approx(found.perplexity_there, rel=1e-4)
    assert found.perplexity == pytest.approx(found.perplexity_given, rel=1e-2)
    assert json.loads((out / "certificate.json").read_text()) == found.as_dict()
    assert f"- transformers {found.version} reads the same model" in (out / "README.md").read_text()
    assert sorted(out.parent.iterdir()) == [out]
    again = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert str(again.dtype) == f"torch.{transfer._TORCH[dtype]}"


def test_the_tool_runs_in_a_process_of_its_own(model: omnima.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a")
    found = exporting.verify(tmp_path / "a", "transformers")
    assert found.passed and found.perplexity_given is None and found.path == str(tmp_path / "a")


def test_a_file_is_certified_by_llama_cpp(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    made = omnima.Model.from_preset("nima", vocab_size=300, seed=2, **SMALL)
    out = tmp_path / "out.gguf"
    for dtype in transfer.DTYPES["gguf"]:
        found = exporting.export(made, "gguf", out, dtype)
        assert found.passed and found.against == "llama.cpp" and found.dtype == dtype
        beside = tmp_path / "out.gguf.certificate.json"
        assert json.loads(beside.read_text()) == found.as_dict()
        assert sorted(tmp_path.iterdir()) == [out, beside]
    monkeypatch.undo()  # the last in a process of its own
    assert exporting.verify(out, "llama.cpp").dtype == "q4_0"


@pytest.mark.parametrize("fewest", ["Q4_1", "Q5_K", "F16"])
def test_a_file_is_judged_by_its_format_of_fewest_bits(tmp_path: Path, fewest: str) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    for index, kind in enumerate(["F32", fewest, "BF16" if fewest != "F16" else "F32"]):
        number = getattr(gguf.GGMLQuantizationType, kind)
        numbers, size = gguf.GGML_QUANT_SIZES[number]
        blocks = np.zeros((2, 256 // numbers * size), np.uint8)
        writer.add_tensor(f"t{index}.weight", blocks, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert transfer._dtype_of(tmp_path / "a.gguf") == fewest.lower()


def test_a_model_without_a_tokenizer_is_compared_on_drawn_ids(here: None, tmp_path: Path) -> None:
    made = omnima.Model.from_preset("nima", vocab_size=300, seed=2, **SMALL)
    found = exporting.export(made, "hf", tmp_path / "out")
    assert found.passed and found.encoded_equal is None and found.tokens == 16 * len(PROMPTS)


Tool = Callable[[str, Path, Questions], Answers | None]


def answering(**changes: Any) -> Tool:
    """transformers, with other answers."""

    def tool(kind: str, path: Path, asked: Questions) -> Answers:
        found = peers.transformers(path, asked)
        return dataclasses.replace(
            found, **{k: each(getattr(found, k)) for k, each in changes.items()}
        )

    return tool


def last_changed(rows: list[list[int]]) -> list[list[int]]:
    return [[*row[:-1], (row[-1] + 1) % 300] for row in rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": lambda all: [0 * each for each in all]}, "the logits differ by .* of their"),
        ({"logits": lambda all: [np.nan * each for each in all]}, "the logits differ by nan"),
        ({"greedy": last_changed}, "0 of 8 greedy texts are the same"),
        ({"encoded": lambda all: [*all[1:], [1]]}, "0 of 8 prompts give the same tokens"),
        ({"written": str.upper}, "the chat template makes another text of a conversation"),
    ],
)
def test_a_mismatch_fails_and_leaves_nothing(
    changes: dict[str, Any],
    message: str,
    model: omnima.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "ask", answering(**changes))
    with pytest.raises(ExportError, match=message):
        exporting.export(model, "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_texts_may_part_where_two_tokens_are_as_likely(
    model: omnima.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = omnima.Model.from_config(model.config)
    with torch.no_grad():
        for _, parameter in flat.named_parameters():
            parameter.zero_()
    monkeypatch.setattr(transfer, "ask", answering(greedy=last_changed))
    found = exporting.export(flat, "hf", tmp_path / "out")
    assert (found.passed, found.greedy_equal, found.greedy_tied) == (True, 0, len(PROMPTS))
    assert found.difference == found.largest_difference == 0 and found.same_choice == 1


def test_without_the_tool_the_certificate_says_so(
    model: omnima.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ask", lambda *_: None)
    with pytest.warns(UserWarning, match=r"not verified by it: pip install 'omnima\[hf\]'"):
        found = exporting.export(model, "hf", tmp_path / "out")
    assert found.passed is None and found.against is None
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["passed"] is None
    with pytest.raises(ConfigError, match="transformers is not installed: pip install"):
        exporting.verify(tmp_path / "out", "transformers")


def test_numbers_that_are_none_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = omnima.Model.from_preset("nima", vocab_size=300, **SMALL)
    with torch.no_grad():
        made.named_parameters()[0][1].fill_(torch.nan)
    monkeypatch.setattr(transfer, "ask", lambda *_: None)
    with pytest.warns(UserWarning, match="NaN or infinity|not verified by it"):
        exporting.export(made, "hf", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["perplexity"] is None


def test_a_new_file_has_no_certificate_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = omnima.Model.from_preset("nima", vocab_size=300, **SMALL)
    made.save_pretrained(tmp_path)
    monkeypatch.setattr(transfer, "ask", lambda *_: None)
    with pytest.warns(UserWarning, match="is not verified by it"):
        exporting.export(made, "gguf", tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf.certificate.json").exists()
    assert "a.gguf: not compared" in (tmp_path / "README.md").read_text()
    made.save_gguf(tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf.certificate.json").exists()
    assert "a.gguf: not compared" not in (tmp_path / "README.md").read_text()


def test_an_empty_directory_may_be_given(
    model: omnima.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(transfer, "ask", lambda *_: None)
    with pytest.warns(UserWarning, match=r"so \. is not verified"):
        assert exporting.export(model, "hf", ".").path == "empty"
    assert (tmp_path / "empty" / "config.json").is_file()


def test_a_tool_that_is_missing_or_dies_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Questions([[1, 2]], 1, [])
    other = tmp_path / "modules"
    other.mkdir()
    # Where the user is, as in a model's directory, nothing is run; where the user says, it is.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama_cpp.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", "modules")
    reads = "import sys; sys.stdin.read(); import absent_module_of_omnima"
    (other / "llama_cpp.py").write_text(reads)
    with pytest.raises(ExportError, match=r"llama\.cpp cannot read .*absent_module_of_omnima"):
        asking.ask("llama.cpp", tmp_path, asked)
    (other / "llama_cpp.py").write_text("import os; os.abort()")
    with pytest.raises(ExportError, match="it was ended by SIGABRT: "):
        asking.ask("llama.cpp", tmp_path, asked)
    missing = "raise ModuleNotFoundError('gone', name='llama_cpp')"
    (other / "llama_cpp.py").write_text(missing)
    assert asking.ask("llama.cpp", tmp_path, asked) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onnx"}, 'to is "onnx"; the choices are hf, gguf'),
        ({"to": "hf", "dtype": "q8_0"}, "for hf the choices are f32, f16, bf16"),
        ({"to": "hf", "out": "full"}, "is there already"),
        ({"to": "gguf", "out": "full"}, "is a directory: give the name of a file"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    options: dict[str, Any], message: str, model: omnima.Model, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    out = tmp_path / options.pop("out", "out")
    with pytest.raises(ConfigError, match=message):
        exporting.export(model, out=out, **options)


def test_a_template_that_refuses_the_conversation_is_not_compared(
    model: omnima.Model, here: None, tmp_path: Path
) -> None:
    made = omnima.Model.from_config(model.config)
    made.tokenizer = copy.copy(model.tokenizer)
    assert made.tokenizer is not None
    made.tokenizer.chat_template = "{{ raise_exception('tools only') }}"
    with pytest.warns(UserWarning, match="The chat template is not compared: .*tools only"):
        found = exporting.export(made, "hf", tmp_path / "out")
    assert found.passed and found.template_equal is None


def test_a_model_that_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    made = omnima.Model.from_preset("nima", vocab_size=300, positions="alibi")
    with pytest.raises(ConfigError, match="No architecture of transformers is exactly this model"):
        exporting.export(made, "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_verify_writes_the_other_format_aside(
    model: omnima.Model, here: None, tmp_path: Path
) -> None:
    made = omnima.Model.from_config(model.config)
    made.save_gguf(tmp_path / "a.gguf", dtype="q8_0")
    found = exporting.verify(tmp_path / "a.gguf", "transformers")
    assert found.passed and found.dtype == "f32" and found.path == str(tmp_path / "a.gguf")
    with pytest.raises(ConfigError, match='against is "vllm"; the choices are transformers'):
        exporting.verify(tmp_path / "a.gguf", "vllm")
    with pytest.raises(ConfigError, match="There is no directory"):
        exporting.verify(tmp_path / "b", "transformers")


def test_an_import_is_a_directory_with_the_same_weights(tmp_path: Path) -> None:
    made = omnima.Model.from_preset("nima", vocab_size=300, seed=2, **SMALL)
    made.save_gguf(tmp_path / "a.gguf", dtype="f32")
    folder = exporting.import_model(tmp_path / "a.gguf", tmp_path / "a")
    ids = torch.arange(12).reshape(1, 12)
    assert torch.equal(omnima.Model.from_pretrained(folder)(ids), made(ids))
    with pytest.raises(ConfigError, match="is there already"):
        exporting.import_model(tmp_path / "a.gguf", folder)
