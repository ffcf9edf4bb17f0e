"""The loader: every window once an epoch, seeking equals running, threads change nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import _core
from omnima.errors import ConfigError, DataError

END, START = 1, 2


def write_shards(directory: Path, shards: list[list[list[int]]], width: int = 2) -> list[Any]:
    """Shards of documents as files; each document gets its end token."""
    result = []
    for index, documents in enumerate(shards):
        tokens = [token for document in documents for token in (*document, END)]
        ends = np.cumsum([len(document) + 1 for document in documents])
        paths = [str(directory / f"{index}.{kind}") for kind in ("tokens", "docs")]
        np.asarray(tokens, dtype=f"<u{width}").tofile(paths[0])
        np.asarray(ends, dtype="<u8").tofile(paths[1])
        result.append((*paths, len(tokens), len(documents)))
    return result


def numbered(count: int, length: int, shards: int) -> list[list[list[int]]]:
    """Documents whose tokens are all different."""
    ids = iter(range(10, 60_000))
    return [
        [[next(ids) for _ in range(1 + (7 * doc + length) % (2 * length))] for doc in range(count)]
        for _ in range(shards)
    ]


def make(directory: Path, documents: list[list[list[int]]], **options: Any) -> Any:
    width = options.pop("width", 2)
    directory = Path(tempfile.mkdtemp(dir=directory))  # a mapped file must not be written again
    shards = write_shards(directory, documents, width)
    values = {"rows": 3, "time": 8, "seed": 7, "end_id": END, "start_id": START, **options}
    return _core.Loader(shards=shards, width=width, **values)


def drain(loader: Any, batches: int) -> list[tuple[torch.Tensor, ...]]:
    return [loader.next() for _ in range(batches)]


def same(left: Any, right: Any) -> bool:
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


OPTIONS = {
    "count": st.integers(1, 9),
    "length": st.integers(1, 9),
    "shards": st.integers(1, 3),
    "rows": st.integers(1, 5),
    "time": st.integers(1, 12),
    "seed": st.integers(0, 2**63),
    "packing": st.sampled_from(["windows", "documents"]),
}


@settings(max_examples=60, deadline=None)
@given(**OPTIONS, epoch=st.integers(0, 3))
def test_each_epoch_visits_every_row_once(
    tmp_path_factory: pytest.TempPathFactory, count: int, length: int, shards: int, rows: int,
    time: int, seed: int, packing: str, epoch: int,
) -> None:  # fmt: skip
    documents = numbered(count, length, shards)
    loader = make(
        tmp_path_factory.mktemp("shards"), documents, rows=1, time=time, seed=seed, packing=packing
    )
    loader.seek(epoch * loader.batches_per_epoch)
    labels = torch.cat([loader.next()[1].flatten() for _ in range(loader.batches_per_epoch)])
    seen = sorted(token for token in labels.tolist() if token not in (-100, END))
    tokens = [token for shard in documents for document in shard for token in document]
    assert len(seen) == len(set(seen))
    if packing == "documents":
        assert seen == tokens
    else:
        total = sum(len(document) + 1 for shard in documents for document in shard)
        assert int((labels != -100).sum()) >= min(total, max(time, total - 2 * time))
        assert set(seen) <= set(tokens)


@settings(max_examples=60, deadline=None)
@given(**OPTIONS, position=st.integers(0, 40))
def test_seeking_equals_running_and_threads_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, count: int, length: int, shards: int, rows: int,
    time: int, seed: int, packing: str, position: int,
) -> None:  # fmt: skip
    directory = tmp_path_factory.mktemp("shards")
    documents = numbered(count, length, shards)
    options = {"rows": rows, "time": time, "seed": seed, "packing": packing}
    run = make(directory, documents, **options, prefetch=True)
    drain(run, position)
    assert run.position == position
    jump = make(directory, documents, **options, prefetch=False)
    jump.seek(position)
    assert jump.position == position
    assert same(drain(run, 3), drain(jump, 3))
    run.seek(position + 1)
    jump.seek(position + 1)
    assert same(drain(run, 2), drain(jump, 2))


@settings(max_examples=40, deadline=None)
@given(**OPTIONS)
def test_sequential_counts_every_position_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, length: int, shards: int, rows: int,
    time: int, seed: int, packing: str,
) -> None:  # fmt: skip
    documents = numbered(count, length, shards)
    loader = make(
        tmp_path_factory.mktemp("shards"), documents, rows=rows, time=time, packing=packing,
        sequential=True,
    )  # fmt: skip
    labels = torch.cat([batch[1].flatten() for batch in drain(loader, loader.batches_per_epoch)])
    kept = [token for token in labels.tolist() if token != -100]
    stream = [t for shard in documents for document in shard for t in (*document, END)]
    assert kept == stream if packing == "windows" else sorted(kept) == sorted(stream)
    for _ in range(2):
        with pytest.raises(DataError, match="read to its end"):
            loader.next()
    loader.seek(0)
    assert loader.next()[1].shape == (rows, time)


def test_inputs_are_labels_shifted_and_documents_begin_with_the_start_token(tmp_path: Path) -> None:
    loader = make(tmp_path, [[[10, 11], [12], [13, 14, 15]]], rows=1, time=9, sequential=True)
    ids, labels, segments = loader.next()
    assert segments is None
    assert labels.tolist() == [[10, 11, END, 12, END, 13, 14, 15, END]]
    assert ids.tolist() == [[START, 10, 11, START, 12, START, 13, 14, 15]]


def test_documents_are_packed_whole_with_borders(tmp_path: Path) -> None:
    documents = [[[10, 11], [12, 13, 14, 15, 16, 17], [18]]]
    loader = make(tmp_path, documents, rows=4, time=6, sequential=True, packing="documents")
    ids, labels, segments = loader.next()
    rows = {tuple(row) for row in labels.tolist()}
    assert (
        rows
        == {
            (10, 11, END, 18, END, -100),
            (12, 13, 14, 15, 16, 17),  # cut: its end token is on a row of its own
            (END, -100, -100, -100, -100, -100),
            (-100,) * 6,
        }
        or any(row[:3] == (10, 11, END) for row in rows)
    )
    for row, borders in zip(ids.tolist(), segments.tolist(), strict=True):
        assert borders == sorted(borders)
        assert row[0] in (START, 17)


def test_unequal_seeds_and_epochs_give_other_orders(tmp_path: Path) -> None:
    documents = numbered(30, 5, 2)
    one = make(tmp_path, documents, seed=1)
    two = make(tmp_path, documents, seed=2)
    batches = one.batches_per_epoch
    first = drain(one, batches)
    assert not same(first, drain(two, batches))
    assert not same(first, drain(one, batches))


def test_wide_ids_and_streams_shorter_than_a_row(tmp_path: Path) -> None:
    loader = make(tmp_path, [[[70_000, 5]]], width=4, rows=1, time=8)
    assert loader.next()[1].tolist() == [[70_000, 5, END] + [-100] * 5]


def test_a_stream_of_less_than_two_rows_is_seen_to_its_end(tmp_path: Path) -> None:
    loader = make(tmp_path, [[list(range(10, 21))]], rows=1, time=8)
    batches = drain(loader, 60)
    assert all(int((labels != -100).sum()) == 8 for _, labels, _ in batches)
    seen = {int(label) for _, labels, _ in batches for label in labels.flatten()}
    assert seen == {*range(10, 21), END}


def test_bad_options_and_damaged_files_are_named(tmp_path: Path) -> None:
    documents = [[[3, 4, 5]]]
    for bad, word in (
        ({"rows": 0}, "rows is 0"),
        ({"time": -1}, "time is -1"),
        ({"packing": "heap"}, "heap"),
        ({"width": 8}, "width is 8"),
    ):
        with pytest.raises(ConfigError, match=word):
            make(tmp_path, documents, **bad)
    loader = make(tmp_path, documents)
    with pytest.raises(ConfigError, match="position is -1"):
        loader.seek(-1)
    shards = write_shards(tmp_path, documents)
    (tmp_path / "0.tokens").write_bytes(b"12")
    with pytest.raises(DataError, match=r"0\.tokens: holds 2 bytes instead of 8"):
        _core.Loader(shards=shards, width=2, rows=1, time=1, end_id=END, start_id=START)
    (tmp_path / "0.tokens").unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        _core.Loader(shards=shards, width=2, rows=1, time=1, end_id=END, start_id=START)
