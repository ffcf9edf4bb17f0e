"""Datasets in the layout of the Hugging Face hub, read offline from directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnima.data import open_source
from omnima.errors import ConfigError, DataError, OmnimaError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A dataset as the hub lays it out: a split a folder."""
    root = tmp_path / "my set"
    for split, count in (("train", 30), ("test", 5)):
        (root / split).mkdir(parents=True)
        rows = [json.dumps({"text": f"{split} {number}", "n": number}) for number in range(count)]
        (root / split / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return root


def documents(spec: str, **options: object) -> list[str]:
    return list(open_source(spec, **options).documents())  # type: ignore[arg-type]


def test_splits_stream_from_a_directory(directory: Path) -> None:
    assert documents(f"hf:{directory}") == [f"train {number}" for number in range(30)]
    assert documents(f"hf:{directory}?split=test") == [f"test {number}" for number in range(5)]
    source = open_source(f"hf:{directory}")
    assert list(source.documents()) == list(source.documents())
    assert len(source.files()) == 2 and source.size() is None
    before = source.fingerprint()
    (directory / "test" / "rows.jsonl").write_text('{"text": "other", "n": 1}\n')
    assert open_source(f"hf:{directory}").fingerprint() != before


def test_slices_and_saved_datasets(directory: Path, tmp_path: Path) -> None:
    sliced = f"hf:{directory}?split=train[:10%25]&streaming=false"
    assert documents(sliced) == ["train 0", "train 1", "train 2"]
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"body": ["a", "b"]}).save_to_disk(saved)
    assert documents(f"hf:{saved}", field="body") == ["a", "b"]
    several = tmp_path / "several"
    parts = {"dev": datasets.Dataset.from_dict({"text": ["c"]})}
    datasets.DatasetDict(parts).save_to_disk(several)
    assert documents(f"hf:{several}?split=dev") == ["c"]
    with pytest.raises(DataError, match="no such split; there are 'dev'"):
        documents(f"hf:{several}")


def test_bad_names_options_columns_and_rows(directory: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'spilt'"):
        open_source("hf:a/b?spilt=test")
    with pytest.raises(ConfigError, match="no name"):
        open_source("hf:")
    with pytest.raises(ConfigError, match="streaming is true or false"):
        open_source("hf:a/b?streaming=maybe")
    with pytest.raises(DataError, match=r"no column 'txt'; did you mean 'text'"):
        documents(f"hf:{directory}", field="txt")
    with pytest.raises(DataError, match="row 1: column 'n' is a int, not text"):
        documents(f"hf:{directory}", field="n")
    source = open_source(f"hf:{directory}", field="n", on_error="skip")
    assert list(source.documents()) == [] and source.skipped == 30
    with pytest.raises(DataError, match="failed to open it"):
        documents(f"hf:{directory}?split=valid")
    with pytest.raises(DataError, match="failed to find it"):
        open_source("hf:nobody/nothing-of-that-name").identity()


def test_a_broken_row_ends_with_its_place(directory: Path) -> None:
    with (directory / "train" / "rows.jsonl").open("a") as file:
        file.write('{"text": ')
    with pytest.raises(DataError, match=r"\(train\): the library `datasets` failed after row"):
        documents(f"hf:{directory}")


def test_without_the_library_the_message_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(OmnimaError, match=r'pip install "omnima\[data\]"'):
        documents(f"hf:{directory}")
