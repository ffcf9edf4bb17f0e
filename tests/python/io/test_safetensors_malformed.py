"""Every malformed safetensors file is one clear DataError that names the file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from omnima import _core
from omnima.errors import DataError


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def pack(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


ONE = {"a": entry(0, 8, [2])}
CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "shorter than the prefix": (b"\1\0\0", "too few"),
    "header length huge": (struct.pack("<Q", 2**63) + b"{}", "claims 9223372036854775808 bytes"),
    "header over the format's limit": (struct.pack("<Q", 10**8 + 1) + b"{}", "allows 100000000"),
    "header beyond the file": (struct.pack("<Q", 1000) + b"{}", "only 2 follow"),
    "empty header": (pack(b""), "expected an object, found the end"),
    "truncated data": (pack(ONE, bytes(7)), "cut short"),
    "no data at all": (pack(ONE), "cut short"),
    "trailing bytes": (pack(ONE, bytes(9)), "1 bytes follow the last tensor"),
    "trailing bytes without tensors": (pack({}, bytes(3)), "3 bytes follow"),
    "overflow shape": (pack({"a": entry(0, 8, [2**40, 2**40])}, bytes(8)), '"a".*overflows'),
    "overflow behind a zero": (pack({"a": entry(0, 0, [0, 2**40, 2**40])}), '"a".*overflows'),
    "dimension over 63 bits": (pack({"a": entry(0, 8, [2**64])}, bytes(8)), "63 bits"),
    "negative dimension": (pack({"a": entry(0, 8, [-2])}, bytes(8)), '"a".*negative'),
    "negative offset": (pack({"a": entry(-8, 0, [2])}, bytes(8)), '"a".*negative'),
    "reversed offsets": (pack({"a": entry(8, 0, [2])}, bytes(8)), "end .0. before they begin .8."),
    "one offset": (
        pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, bytes(8)),
        "two numbers",
    ),
    "three offsets": (
        pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, bytes(8)),
        "more than two",
    ),
    "overlap": (pack({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)), '"b".*overlaps'),
    "same bytes twice": (
        pack({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, bytes(8)),
        "overlaps",
    ),
    "hole": (pack({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, bytes(20)), '"b".*hole'),
    "hole at the start": (pack({"a": entry(4, 12, [2])}, bytes(12)), '"a".*hole'),
    "duplicate tensor": (
        pack(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            bytes(2),
        ),
        '"a" stands twice',
    ),
    "duplicate field": (
        pack(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
        '"dtype" stands twice',
    ),
    "duplicate metadata": (pack(b'{"__metadata__":{"k":"1","k":"2"}}'), '"k" stands twice'),
    "metadata not text": (pack({"__metadata__": {"k": 1}}), "expected a string"),
    "bad UTF-8": (pack(b'{"a\xff":{}}'), "not valid UTF-8"),
    "overlong UTF-8": (pack(b'{"\xc0\xaf":{}}'), "not valid UTF-8"),
    "surrogate in UTF-8": (pack(b'{"\xed\xa0\x80":{}}'), "not valid UTF-8"),
    "lone surrogate escape": (pack(rb'{"\ud800":{}}'), "lone surrogate"),
    "unknown escape": (pack(rb'{"\x41":{}}'), "unknown escape"),
    "control character": (pack(b'{"a\n":{}}'), "control character"),
    "string without end": (pack(b'{"a'), "has no end"),
    "deep JSON": (pack(b'{"a":' * 100_000), "expected|unknown key"),
    "deep arrays": (pack(b"[" * 1_000_000), "expected an object"),
    "deep shape": (
        pack(b'{"a":{"dtype":"F32","shape":' + b"[" * 100_000 + b"}}"),
        "expected a whole number",
    ),
    "too many dimensions": (
        pack({"a": entry(0, 4, [1] * 65)}, bytes(4)),
        "more than 64 dimensions",
    ),
    "unknown dtype": (pack({"a": entry(0, 8, [2], "F8_E9")}, bytes(8)), 'unknown dtype "F8_E9"'),
    "dtype times shape": (pack({"a": entry(0, 8, [3])}, bytes(8)), "ask for 12 bytes.*give 8"),
    "missing field": (
        pack({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        '"data_offsets" is missing',
    ),
    "unknown field": (pack({"a": {**ONE["a"], "x": 1}}, bytes(8)), 'unknown key "x"'),
    "fraction": (pack(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}'), "fraction"),
    "exponent": (pack(b'{"a":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}'), "exponent"),
    "leading zero": (
        pack(b'{"a":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}}'),
        "leading zero",
    ),
    "not an object": (pack(b"7"), "expected an object"),
    "missing comma": (pack(b'{"__metadata__":{"a":"b" "c":"d"}}'), "expected ','"),
    "trailing comma": (pack(b'{"__metadata__":{},}'), "expected a string"),
    "text after the header": (pack(b"{}x"), "something follows"),
    "NUL after the header": (pack(b"{}\0"), "something follows"),
    "bool that is neither": (pack({"a": entry(0, 2, [2], "BOOL")}, b"\1\2"), "other than 0 and 1"),
    "pickle": (b"\x80\x04\x95" + bytes(40), "not a safetensors file|cut short"),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    content, message = CASES[case]
    path = tmp_path / "bad ü.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        _core.read_safetensors(path)
    assert str(path) in str(caught.value)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        _core.read_safetensors(tmp_path / "absent")
    with pytest.raises(DataError, match="not a file"):
        _core.read_safetensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a file"):
        _core.read_safetensors(tmp_path / "pipe")
