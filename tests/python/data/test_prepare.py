"""Token shards: the same however they came about, reused, resumed, mended."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnima.data import Piece, PrepareProgress, Source, TokenData, open_source, prepare
from omnima.errors import ConfigError, DataError


class Bytes:
    """A byte tokenizer that counts its calls and can fail at one of them."""

    vocab_size, bos_id, eos_id = 259, 256, 257
    fingerprint = "bytes"

    def __init__(self, fail_at: int = -1) -> None:
        self.texts = 0
        self.fail_at = fail_at

    def encode_batch(self, texts: list[str], threads: int = 0) -> list[Any]:
        self.texts += len(texts)
        if 0 <= self.fail_at <= self.texts:
            raise KeyboardInterrupt
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def ids(data: TokenData) -> tuple[bytes, bytes]:
    return data.tokens("train").tobytes(), data.tokens("val").tobytes()


def test_every_document_is_on_one_side_with_its_end(tmp_path: Path) -> None:
    source = open_source("tinyworld:300KB")
    seen: list[PrepareProgress] = []
    data = prepare(source, Bytes(), tmp_path, 0.1, 3, seen.append)
    texts = list(source.documents())
    found: list[str] = []
    for side in ("train", "val"):
        tokens = data.tokens(side)  # type: ignore[arg-type]
        ends = np.flatnonzero(tokens == 257)
        starts = [0, *(ends[:-1] + 1)]
        found += [
            tokens[a:b].astype(np.uint8).tobytes().decode()
            for a, b in zip(starts, ends, strict=True)
        ]
        assert tokens[-1] == 257
    assert sorted(found) == sorted(texts)
    assert data.train_documents + data.val_documents == len(texts)
    assert data.train_bytes + data.val_bytes == sum(map(len, texts))
    assert data.train_tokens == data.train_bytes + data.train_documents
    assert 0.05 < data.val_documents / len(texts) < 0.15
    assert seen[-1].documents == len(texts) and seen[-1].total_bytes == 300_000
    assert TokenData.open(data.directory).val_tokens == data.val_tokens
    assert not set(found[: data.train_documents]) & set(found[data.train_documents :])


def test_the_floor_is_the_entropy_of_the_held_out_documents(tmp_path: Path) -> None:
    source = open_source("tinyworld:300KB")
    data = prepare(source, Bytes(), tmp_path, 0.1, 3)
    tokens = data.tokens("val")
    held = {text + "\0" for text in bytes(
        np.where(tokens == 257, 0, tokens).astype(np.uint8)).decode().split("\0")}  # fmt: skip
    nats = -sum(p.log_probability or 0 for p in source.pieces() if p.text + "\0" in held)
    assert data.entropy_floor == pytest.approx(nats / data.val_tokens, rel=1e-6)
    assert data.entropy_floor_bits_per_byte == pytest.approx(
        nats / math.log(2) / data.val_bytes, rel=1e-6
    )
    plain = tmp_path / "a.txt"
    plain.write_text("x" * 1000)
    assert prepare(open_source(plain), Bytes(), tmp_path, 0.1).entropy_floor is None
    assert prepare(source, Bytes(), tmp_path, 0.0).entropy_floor_bits_per_byte is None


def test_shards_of_any_size_hold_the_same(tmp_path: Path) -> None:
    source = open_source("tinyworld:200KB")
    one = prepare(source, Bytes(), tmp_path / "one", 0.1)
    many = prepare(source, Bytes(), tmp_path / "many", 0.1, shard_bytes=20_000)
    assert len(many.manifest["shards"]) > 5
    assert ids(one) == ids(many)
    batch = one.loader("val", 4, 64, sequential=True).next()
    again = many.loader("val", 4, 64, sequential=True).next()
    assert all(bool((a == b).all()) for a, b in zip(batch[:2], again[:2], strict=True))
    one.verify()
    many.verify()


def test_no_more_than_a_few_chunks_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("omnima.data.prepare")  # the name is the function's as well
    monkeypatch.setattr(module, "CHUNK_BYTES", 20_000)
    flow = {"read": 0, "encoded": 0, "most held": 0}

    class Counting(Bytes):
        def encode_batch(self, texts: list[str], threads: int = 0) -> list[Any]:
            ids = super().encode_batch(texts, threads)
            flow["encoded"] += sum(map(len, texts))
            return ids

    class Counted(Source):
        def identity(self) -> str:
            return "counted"

        def pieces(self) -> Iterator[Piece]:
            flow.update(read=0, encoded=0)
            for piece in open_source("tinyworld:400KB").pieces():
                flow["read"] += len(piece.text)
                flow["most held"] = max(flow["most held"], flow["read"] - flow["encoded"])
                yield piece

    data = prepare(Counted(), Counting(), tmp_path, 0.1)
    assert data.train_bytes + data.val_bytes == flow["read"] > 400_000
    assert flow["most held"] < 3 * 20_000


def test_reused_when_unchanged_rebuilt_when_changed(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("some text\n" * 100)
    tokenizer = Bytes()
    first = ids(prepare(open_source(path), tokenizer, tmp_path / "cache", 0.2))
    calls = tokenizer.texts
    assert ids(prepare(open_source(path), tokenizer, tmp_path / "cache", 0.2)) == first
    os.utime(path, (1, 1))  # touched only
    prepare(open_source(path), tokenizer, tmp_path / "cache", 0.2)
    assert tokenizer.texts == calls
    path.write_text("other text\n" * 100)
    second = prepare(open_source(path), tokenizer, tmp_path / "cache", 0.2)
    assert tokenizer.texts > calls and ids(second) != first
    assert prepare(open_source(path), tokenizer, tmp_path / "cache", 0.3).directory != (
        second.directory
    )


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    source = open_source("tinyworld:200KB")
    whole = prepare(source, Bytes(), tmp_path / "whole", 0.1, shard_bytes=20_000)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, Bytes(fail_at=200), tmp_path / "cut", 0.1, shard_bytes=20_000)
    tokenizer = Bytes()
    data = prepare(source, tokenizer, tmp_path / "cut", 0.1, shard_bytes=20_000)
    assert ids(data) == ids(whole)
    assert 0 < tokenizer.texts < len(list(source.documents()))
    assert data.manifest["totals"] == whole.manifest["totals"]


def test_damage_is_said_and_mended(tmp_path: Path) -> None:
    source = open_source("tinyworld:200KB")
    data = prepare(source, Bytes(), tmp_path, 0.1, shard_bytes=20_000)
    good = ids(data)
    victim = data.directory / "train-00003.tokens"
    content = bytearray(victim.read_bytes())
    content[10] ^= 1
    del data
    victim.write_bytes(content)
    tokenizer = Bytes()
    with pytest.warns(UserWarning, match=r"train-00003\.tokens was changed .* made again"):
        mended = prepare(source, tokenizer, tmp_path, 0.1, shard_bytes=20_000)
    assert ids(mended) == good and tokenizer.texts < mended.train_documents
    victim.unlink()
    with pytest.raises(DataError, match="is gone"):
        mended.verify()
    with pytest.warns(UserWarning, match="is gone"):
        prepare(source, tokenizer, tmp_path, 0.1, shard_bytes=20_000)
    victim.write_bytes(b"short")
    with pytest.warns(UserWarning, match="holds 5 bytes instead of"):
        prepare(source, tokenizer, tmp_path, 0.1, shard_bytes=20_000)
    (mended.directory / "manifest.json").write_text("{ cut")
    assert ids(prepare(source, tokenizer, tmp_path, 0.1, shard_bytes=20_000)) == good


def test_thorough_check_finds_what_samples_miss(tmp_path: Path) -> None:
    data = prepare(open_source("tinyworld:1MB"), Bytes(), tmp_path, 0.1)
    victim = data.directory / "train-00000.tokens"
    content = bytearray(victim.read_bytes())
    content[6000] ^= 1
    victim.write_bytes(content)
    with pytest.raises(DataError, match="sha256"):
        data.verify()


def test_one_long_document_is_split_by_position(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "".join(f"{number} é\n" for number in range(2000))
    path.write_text(text, encoding="utf-8")
    data = prepare(open_source(path), Bytes(), tmp_path, 0.1)
    cut = int(len(text) * (1 - 0.1))
    assert data.split == "position"
    assert data.tokens("train").astype(np.uint8).tobytes().decode() == text[:cut]
    assert data.tokens("val")[:-1].astype(np.uint8).tobytes().decode() == text[cut:]
    assert data.tokens("val")[-1] == 257 and data.train_bytes == len(text[:cut].encode())
    for packing in ("windows", "documents"):
        loader = data.loader("train", 2, 32, packing=packing, sequential=True)  # type: ignore[arg-type]
        total = sum(int((loader.next()[1] != -100).sum()) for _ in range(loader.batches_per_epoch))
        assert total == data.train_tokens
    forced = prepare(open_source("tinyworld:30KB"), Bytes(), tmp_path, 0.5, split="position")
    assert abs(forced.train_bytes - forced.val_bytes) < 1000 and forced.entropy_floor is None


class Changing(Source):
    """A source whose file changes while it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def identity(self) -> str:
        return "changing"

    def files(self) -> list[Path]:
        return [self.path]

    def pieces(self) -> Iterator[Piece]:
        yield Piece("one")
        self.path.write_text(self.path.read_text() + "more")


def test_bad_wishes_and_bad_data_are_errors(tmp_path: Path) -> None:
    source = open_source("tinyworld:30KB")
    with pytest.raises(ConfigError, match="val_fraction is 1"):
        prepare(source, Bytes(), tmp_path, 1)
    with pytest.raises(ConfigError, match="split is 'odd'"):
        prepare(source, Bytes(), tmp_path, 0.1, split="odd")  # type: ignore[arg-type]
    endless = Bytes()
    endless.eos_id = endless.bos_id = None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="neither an end nor a begin"):
        prepare(source, endless, tmp_path)
    narrow = Bytes()
    narrow.encode_batch = lambda texts: [np.array([70_000])] * len(texts)  # type: ignore
    with pytest.raises(DataError, match="70000, which is beyond its vocab_size"):
        prepare(source, narrow, tmp_path)
    with pytest.raises(DataError, match="no finished token shards"):
        TokenData.open(tmp_path)
    changing = tmp_path / "changing.txt"
    changing.write_text("x")
    with pytest.raises(DataError, match="changed while"):
        prepare(Changing(changing), Bytes(), tmp_path, 0.0)
    blank = tmp_path / "blank.txt"
    blank.write_text("<|endoftext|>\n")
    for fraction in (0.0, 0.1):
        with pytest.raises(DataError, match="no document"):
            prepare(open_source(blank, on_error="skip"), Bytes(), tmp_path, fraction)
    data = prepare(source, Bytes(), tmp_path, 0.0)
    with pytest.raises(DataError, match="val split is empty"):
        data.loader("val", 1, 8)
    with pytest.raises(ConfigError, match="split is 'test'"):
        data.loader("test", 1, 8)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="packing is 'heap'"):
        data.loader("train", 1, 8, packing="heap")  # type: ignore[arg-type]
    assert data.tokens("val").size == 0


def test_skipped_records_are_told_again_on_reuse(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{}\n' * 30)
    first = open_source(path, on_error="skip")
    assert prepare(first, Bytes(), tmp_path, 0.1).skipped == 30
    again = open_source(path, on_error="skip")
    assert prepare(again, Bytes(), tmp_path, 0.1).skipped == again.skipped == 30
