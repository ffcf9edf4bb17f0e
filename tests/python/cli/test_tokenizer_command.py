"""`omnima tokenizer train|import|encode|decode|info|compare` at the command line."""

from __future__ import annotations

import errno
import io
import json
import re
import sys
from pathlib import Path

import pytest

from omnima import Tokenizer

TEXT = "The fox sees the river.\nNaïve 我 <s> too.\n"


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


def test_help(leave):
    own = {  # an option of each that others do not have, and what it says
        "train": ("--vocab-size", "a control token of your own; may be given more than once"),
        "import": ("--pattern", "rank file: a control token that follows the ranks; may be given"),
        "encode": ("--pieces", "one token a line, with its piece"),
        "decode": ("--keep-special", "write special tokens, too"),
        "info": ("--on", "measure on this text"),
        "compare": ("--on", "the text to measure both on"),
    }
    code, out, _ = leave(["tokenizer", "--help"])
    assert code == 0
    assert re.findall(r"^\W*([a-z]+) {2,}[A-Z]", out, re.MULTILINE) == list(own)
    for name, (option, meaning) in own.items():
        code, out, _ = leave(["tokenizer", name, "--help"])
        said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
        assert code == 0 and f"tokenizer {name} [OPTIONS]" in said
        assert option in said and "--json" in said
        assert set(meaning.split()) <= set(said.split())  # columns break lines anywhere
    _, out, _ = leave(["tokenize", "--help"])
    assert "omnima tokenizer encode --pieces" in " ".join(out.split())


def test_train(corpus, tmp_path, leave):
    out = tmp_path / "new"
    command = ["tokenizer", "train", corpus, "--field", "story", "--out", out, "--special", "<|u|>"]
    code, text, _ = leave([*command, "--kind", "word", "--vocab-size", 9, "--json"])
    facts = json.loads(text)
    assert code == 0 and (facts["kind"], facts["vocab_size"]) == ("word", 9)
    made = Tokenizer.from_pretrained(out)
    assert made.fingerprint == facts["fingerprint"] and made.special_tokens["<|u|>"] == 3
    code, _, err = leave(command)
    assert code == 1 and "--overwrite" in err
    code, text, _ = leave([*command, "--overwrite"])
    assert code == 0 and "bpe" in text
    for wrong, message in (
        (["--kind", "bpee"], "expected one of bpe, unigram"),
        (["--vocab-size", 99999], "expected 261 to 65536"),
        (["--kind", "word", "--code"], "code goes with kind 'bpe'"),
    ):
        code, _, err = leave([*command, "--overwrite", *wrong])
        assert code == 1 and message in err
    assert Tokenizer.from_pretrained(out).kind == "bpe"


def test_a_place_that_cannot_take_it_is_refused_before_learning(made, tmp_path, leave, monkeypatch):
    learnt = []
    monkeypatch.setattr(Tokenizer, "train", lambda *_, **__: learnt.append(1))
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    gpt2, model, run = (tmp_path / name for name in ("gpt2", "model", "run"))
    for directory, name in ((gpt2, "merges.txt"), (model, "config.json"), (run, "run.json")):
        directory.mkdir()
        (directory / name).write_text("{}")
    for directory in (model, run):
        (directory / "tokenizer.json").write_text("{}")
    for out, overwrite, message in (
        (file, [], "is a file; name another directory"),
        (file / "below" / "it", ["--overwrite"], f"{file} is a file; name another directory"),
        (tmp_path / "link", [], "is a file; name another directory"),
        (gpt2, [], "holds a tokenizer already; replace it with --overwrite"),
        (made / "bpe", [], "holds a tokenizer already; replace it with --overwrite"),
        (model, ["--overwrite"], "is the directory of a model (config.json)"),
        (run, ["--overwrite"], "is the directory of a model (run.json)"),
    ):
        for command in (["train", "tinyworld:10KB"], ["import", made / "word"]):
            code, _, err = leave(["tokenizer", *command, "--out", out, *overwrite])
            assert code == 1 and message in " ".join(err.split())

    def refuse(**where):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    command = ["tokenizer", "train", "tinyworld:10KB", "--out", tmp_path / "new" / "one"]
    code, _, err = leave(command)
    assert code == 1 and f"{tmp_path} says Permission denied" in err and not learnt
    assert file.read_text() == "mine" and not (tmp_path / "new").exists()


def test_a_model_without_a_tokenizer_and_old_files_take_one(made, tmp_path, leave):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "vocab.json").write_text("{}")
    for out, more in (("model", []), ("gpt2", ["--overwrite"])):
        command = ["tokenizer", "import", made / "word", "--out", tmp_path / out, *more]
        code, _, _ = leave(command)
        assert code == 0 and Tokenizer.from_pretrained(tmp_path / out).kind == "word"


def test_tokenize_is_encode_with_pieces(made, leave, monkeypatch):
    for more in ([], ["--json"]):
        _, old, _ = leave(["tokenize", made / "bpe", "--text", TEXT, *more])
        _, new, _ = leave(["tokenizer", "encode", made / "bpe", TEXT, "--pieces", *more])
        typed(monkeypatch, TEXT.encode())
        _, piped, _ = leave(["tokenize", made / "bpe", "--text", "-", *more])
        assert old == new == piped and "fox" in old
    typed(monkeypatch, b"abc\xff")
    code, _, err = leave(["tokenize", made / "bpe", "--text", "-"])
    assert code == 1 and "standard input: byte 3 (0xff) is not UTF-8" in err


def test_import(made, tmp_path, leave):
    out = tmp_path / "imported"
    command = ["tokenizer", "import", made / "bpe" / "tokenizer.json", "--out", out]
    code, text, _ = leave([*command, "--json"])
    facts = json.loads(text)
    assert code == 0 and facts["fingerprint"] == Tokenizer.from_pretrained(out).fingerprint
    assert (facts["begin"], facts["end"], facts["padding"]) == (1, 2, 0)
    code, text, _ = leave([*command, "--overwrite", "--eos", "<s>"])
    assert code == 0 and Tokenizer.from_pretrained(out).eos_id == 1
    code, _, err = leave([*command, "--overwrite", "--pattern", "gpt2"])
    assert code == 1 and "pattern (--pattern) goes with a rank file only" in err
    code, _, err = leave(["tokenizer", "import", tmp_path / "no", "--out", tmp_path / "x"])
    assert code == 1 and "cannot be read" in err and not (tmp_path / "x").exists()


def test_encode_and_decode(made, leave, monkeypatch):
    tokenizer = Tokenizer.from_pretrained(made / "bpe")
    ids = tokenizer.encode(TEXT)
    code, line, _ = leave(["tokenizer", "encode", made / "bpe", TEXT])
    assert code == 0 and [int(each) for each in line.split()] == ids
    typed(monkeypatch, TEXT.encode())
    code, told, _ = leave(["tokenizer", "encode", made / "bpe", "--json"])
    assert json.loads(told) == {"ids": ids, "pieces": tokenizer.pieces(ids)}
    for way in (line, told, json.dumps(ids), line.replace(" ", ", ")):
        typed(monkeypatch, way.encode())
        code, text, _ = leave(["tokenizer", "decode", made / "bpe"])
        assert code == 0 and text == TEXT
    code, text, _ = leave(["tokenizer", "decode", made / "bpe", *ids[:3], "--json"])
    assert json.loads(text) == {"text": tokenizer.decode(ids[:3])}
    options = ["--pieces", "--add-bos", "--add-eos", "--parse-special"]
    code, text, _ = leave(["tokenizer", "encode", made / "bpe", "The<pad>", *options])
    lines = [line.split("\t")[1] for line in text.splitlines()]
    assert (lines[0], lines[-2:]) == ("<s>", ["<pad>", "</s>"])
    code, text, _ = leave(["tokenizer", "decode", made / "bpe", 1, 2, "--keep-special"])
    assert text == "<s></s>"


def test_input_that_is_none_is_refused(made, leave, monkeypatch):
    typed(monkeypatch, b"abc\xff")
    code, _, err = leave(["tokenizer", "encode", made / "bpe"])
    assert code == 1 and "standard input: byte 3 (0xff) is not UTF-8" in err
    deep = "[" * 200_000
    for wrong in ("1 two", '{"id": [1]}', "[1.5]", "[[1]]", "{", "[true]", "[3", deep):
        typed(monkeypatch, wrong.encode())
        code, _, err = leave(["tokenizer", "decode", made / "bpe"])
        assert code == 1 and "is not a list of token ids: expected whole numbers" in err
        assert len(err) < 400 and "Traceback" not in err
    code, _, err = leave(["tokenizer", "decode", made / "bpe", 999999])
    assert code == 1 and "outside of the vocabulary" in err
    code, _, err = leave(["tokenizer", "info", made / "nowhere"])
    assert code == 1 and "expected the directory of a tokenizer" in err


def test_info(made, corpus, leave):
    code, text, _ = leave(["tokenizer", "info", made / "word", "--json"])
    facts = json.loads(text)
    assert code == 0 and "on" not in facts
    assert (facts["kind"], facts["byte_tokens"], facts["unknown"]) == ("word", 0, 3)
    assert facts["longest_piece"] == " river" and facts["cut_first_by"] == "gpt2"
    command = ["tokenizer", "info", made / "word", "--on", corpus, "--field", "story"]
    code, text, _ = leave([*command, "--json"])
    on = json.loads(text)["on"]
    assert (on["documents"], on["tokens"], on["tokens_per_word"]) == (30, 180, 1.2)
    assert (on["byte_share"], on["exact"]) == (0.0, 2 / 3)
    assert on["unknown_share"] == pytest.approx(10 / 180)
    assert on["bytes_per_token"] == on["bytes"] / 180 and on["mb_per_s"] > 0
    code, text, _ = leave(command)
    assert code == 0 and "bytes_per_token" in text


def test_compare(made, corpus, tmp_path, leave):
    command = ["tokenizer", "compare", made / "bpe", made / "word", "--on", corpus]
    code, text, _ = leave([*command, "--field", "story", "--json"])
    told = json.loads(text)
    assert code == 0 and (told["a"]["kind"], told["b"]["kind"]) == ("bpe", "word")
    assert told["tokens_of_b_by_a"] == told["b"]["tokens"] / told["a"]["tokens"] < 1
    assert 0 < told["a"]["byte_share"] < 1 and told["a"]["exact"] == 1.0
    code, text, _ = leave([*command, "--field", "story"])
    assert code == 0 and "B needs" in text and "fewer tokens" in text
    command[3] = command[2]
    code, text, _ = leave([*command, "--field", "story"])
    assert code == 0 and "Both need the same number of tokens." in text
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    code, _, err = leave([*command[:-1], empty])
    assert code == 1 and "empty" in err
