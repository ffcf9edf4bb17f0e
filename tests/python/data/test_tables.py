"""CSV, TSV and Parquet: what is read, and one clear message for each bad input."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnima.data import open_source, tables
from omnima.errors import DataError, OmnimaError


def documents(spec: object, **options: object) -> list[str]:
    return list(open_source(spec, **options).documents())  # type: ignore[arg-type]


def test_the_named_column_with_quotes_line_breaks_and_any_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffid,text\n1,"one, ""two""\nthree"\n\n2,four\n', encoding="utf-8")
    assert documents(path) == ['one, "two"\nthree', "four"]
    european = tmp_path / "rows2.csv"
    european.write_text("id;body\n1;a, b\n", encoding="utf-8")
    assert documents(european, field="body") == ["a, b"]
    packed = tmp_path / "rows.tsv.gz"
    packed.write_bytes(gzip.compress("text\tid\nté\t1\n".encode()))
    assert documents(packed) == ["té"]
    assert documents(tmp_path / "rows.*sv*") == ['one, "two"\nthree', "four", "té"]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)
        .filter(str.strip)
        .filter(lambda text: not text.isspace()),
        min_size=1,
    )
)
def test_whatever_csv_wrote_is_read_back(tmp_path_factory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text"])
        writer.writerows(enumerate(texts))
    assert documents(path) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"text\n", "no row below the header"),
        (b"id,txt\n1,a\n", r"no column 'text'; did you mean 'txt'\? there are 'id', 'txt'"),
        (b'id,"text\n', "line 1: not a header"),
        (b"id,text\n1,a,b\n", "line 2: 3 cells under 2 columns"),
        (b"id,text\n1,ok\n2,b\xe9d\n", "line 3: byte 0xe9 at character 2 of the cell is not UTF-8"),
        (b"id,text\n1,\n", "line 2: column 'text' is empty"),
        (b'id,text\n1,ok\n2,"cut', "line 3: not a row of a table"),
        (b'id,text\n1,"a"b\n', "line 2: not a row of a table"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        documents(path)
    assert str(path) in str(raised.value)


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'id,text\n1,one\n2,b\xe9d\n3,"a"b\n4,a,b\n5,\n6,two\n7,"cut')
    source = open_source(path, on_error="skip")
    assert list(source.documents()) == ["one", "two"] and source.skipped == 5


def test_cells_are_long_but_not_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text\n" + "a" * 300_000 + "\n")  # more than the csv module's own limit
    assert len(documents(path)[0]) == 300_000
    monkeypatch.setattr(tables, "MAX_CELL", 1 << 10)
    with pytest.raises(DataError, match="a line is longer than"):
        documents(path)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"text\n" + b"one\n" * 1000)[:-9])
    with pytest.raises(DataError, match="not a whole gzip"):
        documents(cut)


def parquet(path: Path, **columns: object) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def test_parquet_columns_of_any_text_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setattr(tables, "_ROWS", 2)
    texts = [f"text {number} é" for number in range(10)]
    plain = parquet(tmp_path / "a.parquet", id=list(range(10)), text=texts)
    assert documents(plain) == texts
    assert documents(tmp_path) == texts
    large = parquet(tmp_path / "b.parquet", text=pa.array(texts, pa.large_string()))
    coded = parquet(tmp_path / "c.parquet", text=pa.array(texts).dictionary_encode())
    assert documents([large, coded]) == texts * 2
    size = open_source(plain).size()
    assert size is not None and size > 0


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    path = parquet(tmp_path / "x.parquet", txt=["a"], n=[1])
    with pytest.raises(DataError, match=r"no column 'text'; did you mean 'txt'"):
        documents(path)
    with pytest.raises(DataError, match="row 1: column 'n' is a int, not text"):
        documents(path, field="n")
    holes = parquet(tmp_path / "holes.parquet", text=["a", None, " ", "b"])
    with pytest.raises(DataError, match="row 2: column 'text' is a NoneType"):
        documents(holes)
    source = open_source(holes, on_error="skip")
    assert list(source.documents()) == ["a", "b"] and source.skipped == 2
    raw = pa.array([b"good", b"b\xe9d"]).view(pa.string())
    foreign = parquet(tmp_path / "foreign.parquet", text=raw)
    with pytest.raises(DataError, match="row 2: byte 0xe9 at position 1 is not UTF-8"):
        documents(foreign)
    empty = parquet(tmp_path / "empty.parquet", text=pa.array([], pa.string()))
    with pytest.raises(DataError, match="no rows"):
        documents(empty)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut\.parquet: not a whole Parquet file"):
        documents(cut)


def test_without_pyarrow_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OmnimaError, match=r'pip install "omnima\[data\]"'):
        open_source(path).size()
    with pytest.raises(OmnimaError, match=r'pip install "omnima\[data\]"'):
        documents(path)
