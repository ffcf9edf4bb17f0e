"""`omnima tokenizer train|import|encode|decode|info|compare` at the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from omnima import Tokenizer
from omnima.cli.app import main

TEXT = "The fox sees the river.\nNaïve 我 <s> too.\n"


def leave(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def typed(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cörpus") / "text.jsonl"
    lines = [f"The {a} sees the {b}." for a in ("fox", "hen") for b in ("river", "moon", "café")]
    path.write_text("".join(json.dumps({"story": line}) + "\n" for line in lines * 5))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    documents = ["The fox sees the river.", "The hen sees the moon."] * 20
    for kind in ("bpe", "word"):
        Tokenizer.train(documents, kind).save_pretrained(directory / kind)
    return directory


def test_help(capsys):
    names = ("train", "import", "encode", "decode", "info", "compare")
    code, out, _ = leave(["tokenizer", "--help"], capsys)
    assert code == 0 and all(name in out for name in names)
    for name in names:
        code, out, _ = leave(["tokenizer", name, "--help"], capsys)
        assert code == 0 and "--json" in out


def test_train(corpus, tmp_path, capsys):
    out = tmp_path / "new"
    command = ["tokenizer", "train", corpus, "--field", "story", "--out", out, "--special", "<|u|>"]
    code, text, _ = leave([*command, "--kind", "word", "--vocab-size", 9, "--json"], capsys)
    facts = json.loads(text)
    assert code == 0 and (facts["kind"], facts["vocab_size"]) == ("word", 9)
    made = Tokenizer.from_pretrained(out)
    assert made.fingerprint == facts["fingerprint"] and made.special_tokens["<|u|>"] == 3
    code, _, err = leave(command, capsys)
    assert code == 1 and "--overwrite" in err
    code, text, _ = leave([*command, "--overwrite"], capsys)
    assert code == 0 and "bpe" in text
    for wrong, message in (
        (["--kind", "bpee"], "expected one of bpe, unigram"),
        (["--vocab-size", 99999], "expected 261 to 65536"),
        (["--kind", "word", "--code"], "code goes with kind 'bpe'"),
    ):
        code, _, err = leave([*command, "--overwrite", *wrong], capsys)
        assert code == 1 and message in err
    assert Tokenizer.from_pretrained(out).kind == "bpe"


def test_import(made, tmp_path, capsys):
    out = tmp_path / "imported"
    command = ["tokenizer", "import", made / "bpe" / "tokenizer.json", "--out", out]
    code, text, _ = leave([*command, "--json"], capsys)
    facts = json.loads(text)
    assert code == 0 and facts["fingerprint"] == Tokenizer.from_pretrained(out).fingerprint
    assert (facts["begin"], facts["end"], facts["padding"]) == (1, 2, 0)
    code, text, _ = leave([*command, "--overwrite", "--eos", "<s>"], capsys)
    assert code == 0 and Tokenizer.from_pretrained(out).eos_id == 1
    code, _, err = leave([*command, "--overwrite", "--pattern", "gpt2"], capsys)
    assert code == 1 and "pattern goes with a rank file only" in err
    code, _, err = leave(["tokenizer", "import", tmp_path / "no", "--out", tmp_path / "x"], capsys)
    assert code == 1 and "cannot be read" in err and not (tmp_path / "x").exists()


def test_encode_and_decode(made, capsys, monkeypatch):
    tokenizer = Tokenizer.from_pretrained(made / "bpe")
    ids = tokenizer.encode(TEXT)
    code, line, _ = leave(["tokenizer", "encode", made / "bpe", TEXT], capsys)
    assert code == 0 and [int(each) for each in line.split()] == ids
    typed(monkeypatch, TEXT.encode())
    code, told, _ = leave(["tokenizer", "encode", made / "bpe", "--json"], capsys)
    assert json.loads(told) == {"ids": ids, "pieces": tokenizer.pieces(ids)}
    for way in (line, told, json.dumps(ids), line.replace(" ", ", ")):
        typed(monkeypatch, way.encode())
        code, text, _ = leave(["tokenizer", "decode", made / "bpe"], capsys)
        assert code == 0 and text == TEXT
    code, text, _ = leave(["tokenizer", "decode", made / "bpe", *ids[:3], "--json"], capsys)
    assert json.loads(text) == {"text": tokenizer.decode(ids[:3])}
    options = ["--pieces", "--add-bos", "--add-eos", "--parse-special"]
    code, text, _ = leave(["tokenizer", "encode", made / "bpe", "The<pad>", *options], capsys)
    lines = [line.split("\t")[1] for line in text.splitlines()]
    assert (lines[0], lines[-2:]) == ("<s>", ["<pad>", "</s>"])
    code, text, _ = leave(["tokenizer", "decode", made / "bpe", 1, 2, "--keep-special"], capsys)
    assert text == "<s></s>"


def test_input_that_is_none_is_refused(made, capsys, monkeypatch):
    typed(monkeypatch, b"abc\xff")
    code, _, err = leave(["tokenizer", "encode", made / "bpe"], capsys)
    assert code == 1 and "standard input: byte 3 (0xff) is not UTF-8" in err
    for wrong in ("1 two", '{"id": [1]}', "[1.5]", "[[1]]", "{", "[true]", "[3"):
        typed(monkeypatch, wrong.encode())
        code, _, err = leave(["tokenizer", "decode", made / "bpe"], capsys)
        assert code == 1 and "are no token ids: expected whole numbers" in err
    code, _, err = leave(["tokenizer", "decode", made / "bpe", 999999], capsys)
    assert code == 1 and "outside of the vocabulary" in err
    code, _, err = leave(["tokenizer", "info", made / "nowhere"], capsys)
    assert code == 1 and "expected the directory of a tokenizer" in err


def test_info(made, corpus, capsys):
    code, text, _ = leave(["tokenizer", "info", made / "word", "--json"], capsys)
    facts = json.loads(text)
    assert code == 0 and "on" not in facts
    assert (facts["kind"], facts["byte_tokens"], facts["unknown"]) == ("word", 0, 3)
    assert facts["longest_piece"] == " river" and facts["cut_first_by"] == "gpt2"
    command = ["tokenizer", "info", made / "word", "--on", corpus, "--field", "story"]
    code, text, _ = leave([*command, "--json"], capsys)
    on = json.loads(text)["on"]
    assert (on["documents"], on["tokens"], on["tokens_per_word"]) == (30, 180, 1.2)
    assert (on["byte_share"], on["exact"]) == (0.0, 2 / 3)
    assert on["unknown_share"] == pytest.approx(10 / 180)
    assert on["bytes_per_token"] == on["bytes"] / 180 and on["mb_per_s"] > 0
    code, text, _ = leave(command, capsys)
    assert code == 0 and "bytes_per_token" in text


def test_compare(made, corpus, tmp_path, capsys):
    command = ["tokenizer", "compare", made / "bpe", made / "word", "--on", corpus]
    code, text, _ = leave([*command, "--field", "story", "--json"], capsys)
    told = json.loads(text)
    assert code == 0 and (told["a"]["kind"], told["b"]["kind"]) == ("bpe", "word")
    assert told["tokens_of_b_by_a"] == told["b"]["tokens"] / told["a"]["tokens"] < 1
    assert 0 < told["a"]["byte_share"] < 1 and told["a"]["exact"] == 1.0
    code, text, _ = leave([*command, "--field", "story"], capsys)
    assert code == 0 and "B needs" in text and "fewer tokens" in text
    command[3] = command[2]
    code, text, _ = leave([*command, "--field", "story"], capsys)
    assert code == 0 and "Both need as many tokens." in text
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    code, _, err = leave([*command[:-1], empty], capsys)
    assert code == 1 and "empty" in err
