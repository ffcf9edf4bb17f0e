"""GGUF files beside the `gguf` package: values bit for bit, files both ways; and malformed ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnima import _core
from omnima.errors import ConfigError, DataError

gguf = pytest.importorskip("gguf")

READ = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
WRITTEN = "F32 F16 BF16 Q8_0 Q4_0".split()


def same_bits(ours: torch.Tensor, theirs: Any) -> bool:
    """Equal bits, but that a NaN may be any NaN."""
    a, b = ours.numpy().ravel(), theirs.ravel()
    nan = np.isnan(b)
    equal = a.view(np.uint32)[~nan] == b.view(np.uint32)[~nan]
    return bool(equal.all() and np.isnan(a[nan]).all())


@pytest.mark.parametrize("name", READ)
def test_any_bytes_are_the_numbers_of_the_gguf_package(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 256, (67, 4 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(raw, kind)
    ours = _core.dequantized(name.lower(), torch.from_numpy(raw.ravel()), [67, 4 * numbers])
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_are_written_as_the_gguf_package_writes_them(name: str) -> None:
    random = np.random.default_rng(1)
    spread = np.exp(6 * random.standard_normal((200, 1)))
    numbers = (random.standard_normal((200, 128)) * spread).astype(np.float32)
    numbers[3] = 0
    numbers[4, :32] = -1.5
    numbers[5, ::2] = 65504 * 1.7  # beyond the halves
    with np.errstate(all="ignore"):
        theirs = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name])
    ours = _core.quantized(name.lower(), torch.from_numpy(numbers))
    assert np.array_equal(ours.numpy(), theirs.view(np.uint8).ravel())


def test_what_is_only_read_and_what_is_unknown() -> None:
    with pytest.raises(DataError, match="reads q6_k but does not write it"):
        _core.quantized("q6_k", torch.zeros(256))
    with pytest.raises(ConfigError, match='no number format "q9"; there are f32, f16'):
        _core.quantized("q9", torch.zeros(256))
    with pytest.raises(DataError, match="does not lie in blocks of q8_0, which hold 32"):
        _core.quantized("q8_0", torch.zeros(4, 31))
    with pytest.raises(DataError, match="A tensor of 64 numbers in q8_0 is given as 34 bytes"):
        _core.dequantized("q8_0", torch.zeros(34, dtype=torch.uint8), [64])


PAIRS: list[tuple[str, str, Any]] = [
    ("general.architecture", "str", "llama"),
    ("a.u8", "u8", 255),
    ("a.i8", "i8", -3),
    ("a.u16", "u16", 65535),
    ("a.i16", "i16", -300),
    ("a.u32", "u32", 2**32 - 1),
    ("a.i32", "i32", -(2**31)),
    ("a.u64", "u64", 2**64 - 1),
    ("a.i64", "i64", -(2**63)),
    ("a.f32", "f32", 0.25),
    ("a.f64", "f64", 1e300),
    ("a.bool", "bool", True),
    ("a.texts", "[str]", ["ä", "", "x"]),
    ("a.numbers", "[i32]", [-1, 2]),
    ("a.many", "[u64]", [2**63, 1]),
    ("a.floats", "[f32]", [0.5, -2.0]),
    ("a.bools", "[bool]", [True, False]),
]


def write(path: Path, tensors: dict[str, tuple[str, torch.Tensor]]) -> Path:
    _core.write_gguf(path, PAIRS, [(name, kind, each) for name, (kind, each) in tensors.items()])
    return path


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    matrix, vector = torch.randn(3, 64), torch.randn(7)
    path = write(tmp_path / "ä.gguf", {"m": ("q8_0", matrix), "v": ("f32", vector)})
    theirs = gguf.GGUFReader(path)
    assert theirs.fields["a.u64"].contents() == 2**64 - 1
    assert theirs.fields["a.texts"].contents() == ["ä", "", "x"]
    assert theirs.fields["a.bools"].contents() == [True, False]
    assert [tensor.name for tensor in theirs.tensors] == ["m", "v"]
    expected = gguf.quants.dequantize(theirs.tensors[0].data, theirs.tensors[0].tensor_type)
    ours = _core.GgufFile(path)
    assert same_bits(ours.tensor("m"), expected) and torch.equal(ours.tensor("v"), vector)
    assert ours.metadata() == {key: value for key, _, value in PAIRS}
    assert ours.types() == {key: kind for key, kind, _ in PAIRS}
    assert ours.tensors() == [("m", "Q8_0", [3, 64]), ("v", "F32", [7])] and ours.version == 3
    assert np.array_equal(ours.raw("m").numpy().ravel(), theirs.tensors[0].data.ravel())


def test_we_read_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("a.list", [1, 2, 3])
    writer.add_custom_alignment(64)
    matrix = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    writer.add_tensor("m", matrix)
    writer.add_tensor("h", matrix.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = _core.GgufFile(path)
    assert ours.metadata()["a.list"] == [1, 2, 3]
    assert torch.equal(ours.tensor("m"), torch.from_numpy(matrix))
    assert torch.equal(ours.tensor("h"), torch.from_numpy(matrix.astype(np.float16)).float())
    with pytest.raises(DataError, match='there is no tensor "x"'):
        ours.tensor("x")


def test_an_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"v": ("f32", torch.ones(4))})
    before = path.read_bytes()
    for tensors, pairs, message in (
        ([("v", "f32", torch.ones(4))] * 2, PAIRS, "is given twice"),
        ([], [("k", "u7", 3)], 'no type of values "u7"'),
        ([("v", "q8_0", torch.ones(4))], PAIRS, "does not lie in blocks"),
    ):
        with pytest.raises(DataError, match=message):
            _core.write_gguf(path, pairs, tensors)
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "t", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    sizes = b"".join(struct.pack("<Q", each % 2**64) for each in dims)
    return text(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", kind, offset)


def file(
    pairs: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: int = 0,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    header = magic + struct.pack("<I", version)
    header += struct.pack("<QQ", *(counts or (len(tensors), len(pairs))))
    header += b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + bytes(data)


U32 = struct.pack("<I", 7)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "magic": (file(magic=b"GGML"), 'does not begin with "GGUF"'),
    "cut in the head": (b"GGUF\3\0\0", "too early: it was cut short.* Fetch or save it again"),
    "version 1": (file(version=1), "its version is 1; Omnima reads 2 and 3"),
    "big-endian": (file(version=3 << 24), "big-endian"),
    "2^40 keys": (file(counts=(0, 2**40)), "claims 1099511627776 keys"),
    "2^40 tensors": (file(counts=(2**40, 0)), "claims 1099511627776 tensors"),
    "a key too few": (file((pair("a", 4, U32),), counts=(0, 2)), "key number 1"),
    "gigabyte key": (file((struct.pack("<Q", 2**30) + bytes(8),)), "1073741824 bytes.* Fetch"),
    "2^63 text": (file((struct.pack("<Q", 2**63) + bytes(8),)), "text claims 9223372036854775808"),
    "empty key": (file((pair("", 4, U32),)), "empty or too long"),
    "long key": (file((pair("k" * 65536, 4, U32),)), "empty or too long"),
    "key twice": (file((pair("a", 4, U32),) * 2), 'key "a": it stands twice'),
    "key no UTF-8": (file((pair(b"\xff", 4, U32),)), "not valid UTF-8"),
    "value no UTF-8": (file((pair("a", 8, text(b"\xc3")),)), 'key "a": a text is not valid UTF-8'),
    "unknown type": (file((pair("a", 13, U32),)), "unknown type of value 13"),
    "truth 2": (file((pair("a", 7, b"\2"),)), "neither 0 nor 1"),
    "array of arrays": (
        file((pair("a", 9, struct.pack("<IQ", 9, 1)),)), "arrays of arrays"
    ),
    "2^40 elements": (
        file((pair("a", 9, struct.pack("<IQ", 4, 2**40)),)), "claims 1099511627776 elements.* Fetch"
    ),
    "2^62 texts": (
        file((pair("a", 9, struct.pack("<IQ", 8, 2**62)),)), "array claims 4611686018427387904"
    ),
    "alignment 0": (
        file((pair("general.alignment", 4, struct.pack("<I", 0)),)), "alignment 0 is not a power"
    ),
    "alignment 48": (
        file((pair("general.alignment", 4, struct.pack("<I", 48)),)), "alignment 48 is not"
    ),
    "alignment 2^31": (
        file((pair("general.alignment", 4, struct.pack("<I", 2**31)),)), "alignment 2147483648"
    ),
    "alignment text": (file((pair("general.alignment", 8, text("x")),)), "must be a U32 number"),
    "no dimensions": (file((), (tensor(dims=()),), 32), 'tensor "t": it has 0 dimensions'),
    "5 dimensions": (file((), (tensor(dims=(1,) * 5),), 32), "it has 5 dimensions"),
    "dimension 0": (file((), (tensor(dims=(4, 0)),), 32), "dimension 1 is 0"),
    "dimension -1": (file((), (tensor(dims=(-1,)),), 32), "dimension 0 is 18446744073709551615"),
    "overflow": (file((), (tensor(dims=(2**40, 2**40)),), 32), "its shape overflows"),
    "bytes overflow": (file((), (tensor(dims=(2**62,)),), 32), "overflows: more bytes"),
    "2^40 numbers": (file((), (tensor(dims=(2**40,)),), 32), "holds only 32 bytes of data"),
    "unknown tensor type": (file((), (tensor(kind=77),), 32), "unknown type 77"),
    "half a block": (file((), (tensor(dims=(31,), kind=8),), 64), "no whole blocks of Q8_0"),
    "empty name": (file((), (tensor(name=""),), 32), "its name is empty"),
    "name twice": (
        file((), (tensor(), tensor(offset=32)), 64), 'tensor "t": it stands twice'
    ),
    "truncated": (file((), (tensor(dims=(64,)),), 100), "it was cut short"),
    "trailing": (file((), (tensor(),), 40), "24 bytes follow the last tensor"),
    "trailing without tensors": (file((), (), 1), "1 bytes follow the last tensor"),
    "offset not aligned": (file((), (tensor(offset=8),), 64), "no multiple of the alignment 32"),
    "offset outside": (file((), (tensor(offset=2**62),), 32), "belong to no tensor"),
    "offset 2^63": (file((), (tensor(offset=2**63),), 32), "lies beyond any file"),
    "overlap": (
        file((), (tensor("a", (16,)), tensor("b", offset=32)), 96), "overlaps another one"
    ),
    "hole": (file((), (tensor("a"), tensor("b", offset=64)), 96), r"\(a hole\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_named(name: str, tmp_path: Path) -> None:
    content, message = MALFORMED[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        _core.GgufFile(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        _core.GgufFile(tmp_path)
    with pytest.raises(DataError, match="cannot be opened"):
        _core.GgufFile(tmp_path / "absent.gguf")


def test_a_type_that_is_known_but_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(file((), (tensor(dims=(32,), kind=20),), 32))
    found = _core.GgufFile(path)
    with pytest.raises(DataError, match='tensor "t": it is of type IQ4_NL.*it reads f32 f16'):
        found.tensor("t")


def test_every_cut_and_every_changed_byte_is_an_error_or_a_file(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "a.gguf", {"m": ("q8_0", torch.randn(2, 32)), "v": ("f32", torch.ones(3))}
    ).read_bytes()
    path, read = tmp_path / "b.gguf", 0
    random = np.random.default_rng(0)
    cuts = [whole[:end] for end in range(0, len(whole), 7)]
    changes = []
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] = random.integers(256)
        changes.append(bytes(changed))
    for content in cuts + changes:
        path.write_bytes(content)
        try:
            found = _core.GgufFile(path)
            for name, _, shape in found.tensors():
                read += tuple(found.tensor(name).shape) == tuple(shape)
        except DataError as error:
            assert "b.gguf" in str(error)
    assert read > 100
