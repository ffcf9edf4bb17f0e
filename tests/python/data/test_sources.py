"""Sources: what is read from where, and errors that name file, line and mend."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from omnima.data import base, open_source
from omnima.data.sources import parse_size
from omnima.data.text import character_border
from omnima.errors import ConfigError, DataError


def documents(spec: object, **options: object) -> list[str]:
    return list(open_source(spec, **options).documents())  # type: ignore[arg-type]


def test_a_text_file_is_one_document_unless_it_holds_separators(tmp_path: Path) -> None:
    whole = tmp_path / "späte stories.txt"
    whole.write_text("\ufeffOne\nstory…\n\n\nstill the same\r\n", encoding="utf-8", newline="")
    assert documents(whole) == ["One\nstory…\n\n\nstill the same\r\n"]
    parts = tmp_path / "parts.txt"
    parts.write_text("a\nb\n<|endoftext|>\nc\fd <|endoftext|> e\n<|endoftext|>\n<|endoftext|>")
    assert documents(str(parts)) == ["a\nb\n", "c", "d <|endoftext|> e\n"]
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(b"zipped"))
    assert documents(packed) == ["zipped"]
    assert open_source(packed).size() is None and open_source(parts).size() == parts.stat().st_size


def test_a_line_that_matches_begins_a_new_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("Preface.\nCHAPTER I\nOne.\n  CHAPTER II\nTwo CHAPTER.\n<|endoftext|>\nEnd\n")
    pattern = r"^\s*(CHAPTER) [IV]+$"
    source = open_source(book, document_break=pattern)
    chapters = ["Preface.\n", "CHAPTER I\nOne.\n", "  CHAPTER II\nTwo CHAPTER.\n", "End\n"]
    assert list(source.documents()) == chapters
    assert source.fingerprint() != open_source(book).fingerprint()
    monkeypatch.setattr("omnima.data.text.PIECE_BYTES", 8)  # headings on every border of blocks
    assert list(source.documents()) == chapters
    assert [text for text in open_source([book, book], document_break=pattern)] == chapters * 2
    with pytest.raises(
        ConfigError, match=r"document_break is '\(', which is no regular expression"
    ):
        open_source(book, document_break="(")


def test_long_files_come_in_pieces_and_are_whole_as_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnima.data.text.PIECE_BYTES", 16)
    text = (
        "".join(f"line {number} é€😀\n" for number in range(20)) + "🙂" * 30 + "\n<|endoftext|>\nz"
    )
    path = tmp_path / "long.txt"
    path.write_text(text, encoding="utf-8")
    pieces = list(open_source(path).pieces())
    assert len(pieces) > 5 and sum(piece.last for piece in pieces) == 2
    assert "\n".join(documents(path)) == text.replace("\n<|endoftext|>\n", "\n\n")


def test_character_border_never_splits_a_character() -> None:
    encoded = "aé€😀".encode()
    for cut in range(1, len(encoded) + 1):
        border = character_border(encoded[:cut])
        assert encoded[:border].decode() == "aé€😀"[: len(encoded[:border].decode())]


def test_directories_and_globs_are_sorted_and_mixed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "no.txt").write_text("hidden")
    (tmp_path / "b.md").write_text("B")
    (tmp_path / "a.txt").write_text("A")
    (tmp_path / "sub" / "c.jsonl").write_text('{"text": "C"}\n')
    (tmp_path / "sub" / "d.py").write_text("D")
    (tmp_path / "image.png").write_bytes(b"\x89")
    assert documents(tmp_path) == ["A", "B", "C", "D"]
    assert documents(str(tmp_path / "*.*t*")) == ["A"]
    assert documents(str(tmp_path / "**" / "*.[jp]*[ly]")) == ["C", "D"]
    mixed = open_source([tmp_path / "b.md", "tinyworld:2KB", tmp_path / "a.txt"])
    texts = list(mixed.documents())
    assert texts[0] == "B" and texts[-1] == "A" and len(texts) > 3
    assert mixed.size() == 2002
    assert len(mixed.files()) == 2 and mixed.identity().startswith("chain")
    assert open_source([mixed]) is mixed


def test_nothing_there_says_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "shakespeare.txt").write_text("x")
    with pytest.raises(DataError, match=r"Did you mean 'shakespeare\.txt'"):
        open_source(tmp_path / "shakespear.txt")
    with pytest.raises(DataError, match="Did you mean 'tinyworld'"):
        open_source("tinywrld")
    with pytest.raises(DataError, match="no directory"):
        open_source(tmp_path / "none" / "x.txt")
    with pytest.raises(DataError, match="no file matches"):
        open_source(str(tmp_path / "*.md"))
    with pytest.raises(DataError, match="list of sources is empty"):
        open_source([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no text"):
        open_source(tmp_path / "empty")
    with pytest.raises(ConfigError, match="on_error"):
        open_source("tinyworld", on_error="ignore")  # type: ignore[arg-type]


def test_text_that_is_not_utf8_or_empty_is_named_or_skipped(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\nb\xe9d\nfine\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 2: byte 0xe9 at column 2 .*iconv"):
        documents(bad)
    source = open_source(bad, on_error="skip")
    assert list(source.documents()) == ["good\nfine\n"] and source.skipped == 1
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(DataError, match="is empty"):
        documents(empty)
    both = open_source([empty, bad, empty], on_error="skip")
    assert list(both.documents()) == ["good\nfine\n"] and both.skipped == 3
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n\t" * 700_000)  # longer than a block
    with pytest.raises(DataError, match=r"blank\.txt: the file holds nothing but white space"):
        documents(blank)
    with_blank = open_source([blank, bad], on_error="skip")
    assert list(with_blank.documents()) == ["good\nfine\n"] and with_blank.skipped == 2
    late = tmp_path / "late.txt"
    late.write_text("\n" * 3_000_000 + "late")
    assert "".join(documents(late)) == late.read_text()  # not a character is lost
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(gzip.compress(b"zipped" * 1000)[:-9])
    with pytest.raises(DataError, match="not a whole gzip"):
        documents(cut)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": ', "not JSON"),
        (b'["text"]', "JSON list where an object"),
        (b'{"txt": "x"}', "did you mean 'txt'"),
        (b'{"text": 3}', "is a int, not text"),
        (b'{"text": ""}', "is empty"),
        (b'{"text": "\xff"}', "0xff at column 11 is not UTF-8"),
        (rb'{"text": "a\ud800"}', "field 'text': invalid Unicode at position 1"),
        (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "not JSON that can be read"),
        (b'{"text": ' + b"[" * 100_000, "not JSON that can be read"),
    ],
)
def test_bad_json_lines_are_named_or_skipped(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n' + line + b'\n{"text": "two"}')
    with pytest.raises(DataError, match=rf"x\.jsonl, line 3: .*{message}"):
        documents(path)
    source = open_source(path, on_error="skip")
    assert list(source.documents()) == ["one", "two"] and source.skipped == 1


def test_a_list_of_texts_is_read_as_lines(tmp_path: Path) -> None:
    poem = tmp_path / "poem.jsonl"
    poem.write_text(json.dumps({"lines": ["one", "two"]}) + "\n" + '{"lines": ["three", 4]}\n')
    source = open_source(poem, field="lines", on_error="skip")
    assert list(source.documents()) == ["one\ntwo"] and source.skipped == 1
    with pytest.raises(DataError, match="line 2: field 'lines' is a list, not text"):
        list(open_source(poem, field="lines").documents())


def test_json_lines_with_another_field_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"body": "one"}\n{"body": "two"}\n'))
    assert documents(path, field="body") == ["one", "two"]
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        documents(empty)


def test_squad_gives_each_passage_once(tmp_path: Path) -> None:
    path = tmp_path / "squad.json.gz"
    passages = [{"context": text, "qas": []} for text in ("one", "two", "one")]
    content = {"data": [{"paragraphs": passages}]}
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert documents(path) == ["one", "two"]
    bad = tmp_path / "bad.json"
    content = {"data": [{"paragraphs": [{"context": "a\udc00"}]}]}
    bad.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"paragraphs\[0\]: invalid Unicode at position 1"):
        documents(bad)
    content = {"data": [{"paragraphs": [{"context": 3}]}, {"title": "none"}]}
    bad.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"data\[0\]\.paragraphs\[0\]: no text under 'context'"):
        documents(bad)
    source = open_source(bad, on_error="skip")
    assert list(source.documents()) == [] and source.skipped == 2
    for text, message in (
        (b"{", "line 1: not JSON"),
        (b"[]", "SQuAD's layout"),
        (b'{"data": []}', "no passage"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "cannot be read"),
    ):
        bad.write_bytes(text)
        with pytest.raises(DataError, match=message):
            documents(bad)
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        documents(path)


def test_the_standard_library_is_a_corpus_of_code(tmp_path: Path) -> None:
    source = open_source("pystdlib")
    names = {path.name for path in source.files()}
    assert "argparse.py" in names and "test_argparse.py" not in names
    assert "def " in next(source.documents())
    from omnima.data.pystdlib import PystdlibSource

    (tmp_path / "bad.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "empty.py").touch()
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
    with pytest.raises(DataError, match=r"bad\.py: cannot be decoded"):
        list(PystdlibSource(root=tmp_path).documents())
    skipping = PystdlibSource("skip", tmp_path)
    assert list(skipping.documents()) == ["# coding: latin-1\nx = 'é'\n"]
    assert skipping.skipped == 1


def test_fingerprints_follow_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    source = open_source(path)
    first = source.fingerprint()
    assert source.fingerprint() == first == open_source(path).fingerprint()
    path.write_text("two, longer")
    assert source.fingerprint() != first
    assert open_source("tinyworld:1MB").fingerprint() != open_source("tinyworld").fingerprint()
    assert base.hash_file(path) == base.hash_file(path)


def test_sizes_of_tinyworld() -> None:
    assert parse_size("500kb") == 500_000 and parse_size("2M") == 2_000_000
    assert parse_size("7") == 7 and parse_size("0.5 GB") == 500_000_000
    for bad in ("", "big", "0MB", "-1MB", "5XB"):
        with pytest.raises(ConfigError, match="write it as in tinyworld:4MB"):
            parse_size(bad)
    source = open_source("tinyworld:20KB")
    assert 20_000 <= sum(map(len, source.documents())) < 22_000
