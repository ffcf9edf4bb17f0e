"""Checkpoints: whole or not at all, damaged ones skipped aloud, kills and full disks survived."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from omnima.errors import CheckpointError, ConfigError, OmnimaError
from omnima.training import checkpoint as module
from omnima.training.checkpoint import CheckpointStore, latest_checkpoint, open_checkpoint


def writer(text: str = "x", size: int = 1) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "model").mkdir()
        (path / "model" / "weights.bin").write_bytes(text.encode() * size)
        (path / "optimizer.bin").write_bytes(b"state" + text.encode())

    return write


def names(store: CheckpointStore) -> list[str]:
    return sorted(entry.name for entry in store.folder.iterdir() if entry.name != ".lock")


def test_saved_and_found_again_with_all_it_was_given(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "läuf 1") as store:
        assert store.latest() is None and store.best() is None
        saved = store.save(100, writer("a"), {"seed": 1, "position": [3, 4]}, metric=2.5)
        assert store.latest() == saved
    found = latest_checkpoint(tmp_path / "läuf 1")
    assert found is not None
    assert (found.step, found.meta, found.metric) == (100, {"seed": 1, "position": [3, 4]}, 2.5)
    assert found.path.name == "step-00000100"
    assert found.part("model").is_dir()
    assert found.part("optimizer.bin").read_bytes() == b"statea"
    with pytest.raises(CheckpointError, match='has no "random.bin"; it holds model/weights.bin'):
        found.part("random.bin")


def test_latest_of_a_run_that_never_saved(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, keep_last=2, keep_best=1) as store:
        for step, metric in [(1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, 2.5)]:
            store.save(step, writer(), {}, metric)
        assert names(store) == ["step-00000002", "step-00000004", "step-00000005"]
        best = store.best()
        assert best is not None and best.step == 2


def test_without_keeping_the_best_only_the_last_stay(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, keep_last=1, keep_best=False) as store:
        for step in (1, 2, 3):
            store.save(step, writer(), {}, float(step))
        assert names(store) == ["step-00000003"]


def test_steps_over_eight_digits_are_in_order(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, keep_last=1, keep_best=0) as store:
        store.save(99_999_999, writer(), {})
        store.save(100_000_000, writer(), {})
        assert names(store) == ["step-100000000"]


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    said: list[str] = []
    with CheckpointStore(tmp_path, warn=said.append) as store:
        store.save(1, writer(), {}, metric=float("nan"))
        assert store.best() is None and "nan" in said[0]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save(1, writer("a"), {})
        store.save(1, writer("b"), {})
        assert names(store) == ["step-00000001"]
        assert store.latest().part("optimizer.bin").read_bytes() == b"stateb"  # type: ignore[union-attr]


def truncate(path: Path) -> None:
    (path / "model" / "weights.bin").write_bytes(b"")


def flip(path: Path) -> None:
    (path / "optimizer.bin").write_bytes(b"statd2")


def lose(path: Path) -> None:
    (path / "optimizer.bin").unlink()


def lose_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def cut_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def edit_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": 2', '"step": 3'))


def later_format(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, '"model/weights.bin" has 0 bytes, but was saved with 1'),
        (flip, 'the bytes of "optimizer.bin" have changed'),
        (lose, '"optimizer.bin" is missing'),
        (lose_manifest, "has no manifest.json"),
        (cut_manifest, "not valid JSON"),
        (edit_manifest, "the manifest has changed"),
        (later_format, "has format 2"),
    ],
)
def test_damaged_checkpoints_are_skipped_aloud(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    said: list[str] = []
    with CheckpointStore(tmp_path, warn=said.append) as store:
        store.save(1, writer("1"), {}, metric=2.0)
        damage(store.save(2, writer("2"), {}, metric=1.0).path)
        found = store.latest()
        assert found is not None and found.step == 1
        assert len(said) == 1 and message in said[0] and "step-00000002" in said[0]
        best = store.best()
        assert best is not None and best.step == 1
    with pytest.warns(UserWarning, match="Skipped a damaged checkpoint"):
        assert latest_checkpoint(tmp_path) == found


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointStore(tmp_path) as store:
        saved = store.save(1, writer(), {})

    def refuse(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "_digest", refuse)
    with pytest.raises(
        CheckpointError, match=r'"model/weights.bin" cannot be read: Input/output error'
    ):
        saved.verify()


def test_damaged_checkpoints_ahead_do_not_crowd_out_those_of_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    with CheckpointStore(tmp_path, keep_last=3, keep_best=0, warn=said.append) as store:
        for step in (4, 8, 10):
            store.save(step, writer(), {})
        for step in (8, 10):
            flip(store.folder / f"step-{step:08d}")
        assert store.latest().step == 4  # type: ignore[union-attr]
    with CheckpointStore(tmp_path, keep_last=2, keep_best=0, warn=said.append) as store:
        assert store.save(5, writer(), {}).step == store.latest().step == 5  # type: ignore[union-attr]
        assert [name[-2:] for name in names(store)] == ["04", "05", "08", "10"]
        store.save(11, writer(), {})
        assert [name[-2:] for name in names(store)] == ["10", "11"]


def test_a_second_store_is_refused(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(
            CheckpointError, match=f"in use by another training run .process {os.getpid()}"
        ):
            CheckpointStore(tmp_path)
        code = f"from omnima.training.checkpoint import CheckpointStore as S; S({str(tmp_path)!r})"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert child.returncode == 1 and f"(process {os.getpid()})" in child.stderr
        store.save(1, writer(), {})
    with pytest.raises(CheckpointError, match="closed"):
        store.save(2, writer(), {})
    CheckpointStore(tmp_path).close()


def test_full_disk_keeps_the_last_good_and_removes_the_partial(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save(1, writer("a"), {})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
        try:
            with pytest.raises(
                CheckpointError, match=r"step-00000002 could not be saved.*step-00000001"
            ):
                store.save(2, writer("b", 100_000), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert names(store) == ["step-00000001"]
        store.save(2, writer("b", 100_000), {})
        assert store.latest().step == 2  # type: ignore[union-attr]


def test_full_disk_at_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_durably", full)
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(CheckpointError, match="No space left.*there was none before"):
            store.save(1, writer(), {})
        assert names(store) == []


def test_errors_of_the_writer_leave_nothing(tmp_path: Path) -> None:
    def raising(error: BaseException) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            (path / "half").write_text("x")
            raise error

        return write

    with CheckpointStore(tmp_path) as store:
        for error, kind in [
            (KeyboardInterrupt(), KeyboardInterrupt),
            (KeyError("k"), KeyError),
            (ConfigError("c"), ConfigError),
            (OmnimaError("disk full"), CheckpointError),
        ]:
            with pytest.raises(kind):
                store.save(1, raising(error), {})
            assert names(store) == []


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    def link(path: Path) -> None:
        (path / "link").symlink_to(tmp_path)
        (path / "file").symlink_to(tmp_path / "elsewhere")

    with CheckpointStore(tmp_path) as store:
        with pytest.raises(CheckpointError, match="not a plain file"):
            store.save(1, link, {})
        with pytest.raises(CheckpointError, match="wrote no files"):
            store.save(1, lambda path: None, {})
        with pytest.raises(CheckpointError, match="manifest.json is the store's own"):
            store.save(1, lambda path: (path / "manifest.json").touch(), {})
        with pytest.raises(CheckpointError, match="meta of step 1 is not plain JSON"):
            store.save(1, writer(), {"x": object()})
        with pytest.raises(CheckpointError, match="meta of step 1 is not plain JSON"):
            store.save(1, writer(), {"x": float("nan")})
        with pytest.raises(ConfigError, match="step is -1"):
            store.save(-1, writer(), {})
        assert names(store) == []
    with pytest.raises(ConfigError, match="keep_last is 0"):
        CheckpointStore(tmp_path, keep_last=0)


def test_leftovers_of_a_killed_save_are_mended(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        first = store.save(1, writer("1"), {}).path
        second = store.save(2, writer("2"), {}).path
        folder = store.folder
    shutil.copytree(first, folder / ".saving-step-00000003")
    shutil.copytree(first, folder / ".deleted-step-00000000")
    shutil.copytree(second, folder / ".replaced-step-00000002")
    first.rename(folder / ".replaced-step-00000001")
    with CheckpointStore(tmp_path) as store:
        assert names(store) == ["step-00000001", "step-00000002"]
        for path in (first, second):
            open_checkpoint(path).verify()


CHILD = """
    import sys
    from pathlib import Path
    from omnima.training.checkpoint import CheckpointStore
    with CheckpointStore(sys.argv[1], keep_last=2) as store:
        found = store.latest()
        step = found.step if found else 0
        print("ready", step, flush=True)
        def write(path):
            (path / "model").mkdir()
            for part in range(4):
                (path / "model" / f"{part}.bin").write_bytes(step.to_bytes(4, "little") * 50_000)
        while True:
            step += 1
            store.save(step, write, {"step": step}, metric=1 / step)
            store.save(step, write, {"step": step}, metric=1 / step)
            print(step, flush=True)
"""


def test_killed_at_random_moments_the_latest_is_always_valid(tmp_path: Path) -> None:
    moments = random.Random(0)
    confirmed = 0
    interrupted = 0
    for kill in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        ready = child.stdout.readline().split()
        assert ready[0] == "ready" and int(ready[1]) >= confirmed
        # Counted in the child's own saves, not in seconds: a slow disk must not empty the test.
        began = time.monotonic()
        lines = [child.stdout.readline() for _ in range(kill % 3)]
        one_save = (time.monotonic() - began) / len(lines) if lines else 0.1
        time.sleep(moments.uniform(0.0, 1.5 * one_save))
        child.kill()
        lines += child.stdout.read().splitlines()
        child.stdout.close()
        child.wait()
        if lines:
            confirmed = int(lines[-1])
        said: list[str] = []
        folder = tmp_path / "checkpoints"
        interrupted += any(entry.name.startswith((".s", ".r", ".d")) for entry in folder.iterdir())
        with CheckpointStore(tmp_path, keep_last=2, warn=said.append) as store:
            found = store.latest()
            assert not said
            assert all(name.startswith("step-") for name in names(store))
        if confirmed:
            assert found is not None and found.step >= confirmed
            value = found.step.to_bytes(4, "little") * 50_000
            assert all(
                (found.path / f"model/{part}.bin").read_bytes() == value for part in range(4)
            )
            assert json.loads((found.path / "manifest.json").read_text())["step"] == found.step
    assert confirmed > 0 and interrupted > 0
