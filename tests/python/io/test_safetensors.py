"""Safetensors: what Omnima writes the safetensors package reads, and the other way round."""

from __future__ import annotations

import math
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omnima import _core
from omnima.errors import DataError, OmnimaError

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.bool,
]  # fmt: skip


def sample() -> dict[str, torch.Tensor]:
    values = torch.arange(6).reshape(2, 3)
    tensors = {
        str(dtype): (values % 2 if dtype == torch.bool else values).to(dtype) for dtype in DTYPES
    }
    return {
        **tensors,
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 4),
        'quo"te\\ü\n😀': torch.ones(1),
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    _core.write_safetensors(path, sample(), {"format": "pt", "note": 'a "b"\n'})
    assert same(load_file(path), sample())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "note": 'a "b"\n'}
    assert same(_core.read_safetensors(path), sample())
    assert _core.read_safetensors_metadata(path)["note"] == 'a "b"\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["ours.safetensors"]


def test_we_read_what_the_package_writes(tmp_path: Path) -> None:
    save_file(sample(), tmp_path / "theirs.safetensors", {"format": "pt"})
    assert same(_core.read_safetensors(tmp_path / "theirs.safetensors"), sample())


def test_empty_set_and_unaligned_data(tmp_path: Path) -> None:
    _core.write_safetensors(tmp_path / "none", {})
    assert _core.read_safetensors(tmp_path / "none") == {}
    header = b'{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
    header += b'"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}'
    data = b"\7" + torch.tensor([2.5]).numpy().tobytes()
    (tmp_path / "odd").write_bytes(len(header).to_bytes(8, "little") + header + data)
    read = _core.read_safetensors(tmp_path / "odd")
    assert read["f"].item() == 2.5 and read["b"].item() == 7


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=12).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
def test_round_trip_of_any_names_and_shapes(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    tensors = {name: torch.ones(shape, dtype=dtype) for name, (dtype, shape) in wanted.items()}
    _core.write_safetensors(path, tensors)
    assert same(_core.read_safetensors(path), tensors)
    assert same(load_file(path), tensors)


def test_strided_and_grad_tensors_are_written_by_value(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3).requires_grad_()
    _core.write_safetensors(tmp_path / "x", {"t": base.t()})
    assert torch.equal(_core.read_safetensors(tmp_path / "x")["t"], base.detach().t())


def test_read_tensors_outlive_the_file_and_never_change_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    _core.write_safetensors(path, {"a": torch.ones(1000)})
    before = path.read_bytes()
    tensor = _core.read_safetensors(path)["a"]
    tensor.add_(1)
    assert path.read_bytes() == before
    _core.write_safetensors(path, {"a": torch.zeros(1000)})
    path.unlink()
    assert tensor.sum() == 2000


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(DataError, match="ComplexFloat"):
        _core.write_safetensors(path, {"c": torch.ones(1, dtype=torch.complex64)})
    with pytest.raises(DataError, match="__metadata__"):
        _core.write_safetensors(path, {"__metadata__": torch.ones(1)})
    with pytest.raises(DataError, match="not a dense tensor"):
        _core.write_safetensors(path, {"s": torch.ones(1).to_sparse()})
    with pytest.raises(OmnimaError, match="No such file or directory"):
        _core.write_safetensors(tmp_path / "no" / "x", {"a": torch.ones(1)})
    (tmp_path / "folder").mkdir()
    with pytest.raises(OmnimaError, match="renamed"):
        _core.write_safetensors(tmp_path / "folder", {"a": torch.ones(1)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    _core.write_safetensors(path, {"a": torch.ones(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OmnimaError, match="Free some space.*unchanged"):
            _core.write_safetensors(path, {"a": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(_core.read_safetensors(path)["a"], torch.ones(10))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nonfinite_weights_are_named() -> None:
    good = {str(dtype): torch.ones(5, dtype=dtype) for dtype in DTYPES}
    bad = {
        f"{dtype} {value}": torch.tensor([1, value], dtype=dtype)
        for dtype in DTYPES[:4]
        for value in (math.nan, math.inf, -math.inf)
    }
    assert _core.nonfinite_tensors({**good, **bad}) == sorted(bad)


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    _core.write_safetensors(path, {"a": torch.full((300_000,), -1.0)})
    code = f"""
        import itertools
        import torch
        from omnima import _core
        for i in itertools.count():
            _core.write_safetensors({str(path)!r}, {{"a": torch.full((300_000,), float(i))}})
            print(i, flush=True)
    """
    for writes in (1, 2, 5):  # of which the child has told, so that it is killed while writing
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        with child, child.stdout:
            told = [int(child.stdout.readline()) for _ in range(writes)][-1]
            child.kill()
        assert child.returncode == -signal.SIGKILL
        values = _core.read_safetensors(path)["a"]
        assert values.eq(values[0]).all()
        assert values[0] >= told
