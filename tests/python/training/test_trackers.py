"""TensorBoard, Weights & Biases and MLflow: what they hold, read back with their own libraries."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnima.errors import CallbackError, ConfigError
from omnima.training import Run, TrainConfig, Trainer
from omnima.training.callbacks import Callback
from omnima.training.callbacks.trackers import flat_metrics, remembered
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe

Make = Callable[..., Recipe]
SECRET = "http://127.0.0.1:9/secret"


def quiet(wanted: Recipe, *callbacks: Any, **how: Any) -> Run:
    return train(wanted, display=Display(silent=True), callbacks=callbacks, **how)


def losses(run: Run) -> dict[int, float]:
    return {each["step"]: pytest.approx(each["loss"], rel=1e-6) for each in run.history}


class Stops(Callback):
    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        if state.global_step == 6:
            raise RuntimeError("enough")


def interrupted_and_resumed(wanted: Recipe) -> Run:
    """A run that broke after step 6, whose newest checkpoint is of step 6, and its second part."""
    with pytest.raises(CallbackError):
        quiet(wanted, Stops())
    return quiet(wanted, resume=True)


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_reads_what_was_written(small: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = small(
        track="tensorboard", norms_every=4, samples_every=4, sample_tokens=4, alert_webhook=SECRET
    )
    run = interrupted_and_resumed(wanted)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert {each.step: each.value for each in events.Scalars("loss")} == losses(run)
    assert [each.step for each in events.Scalars("norms/layers.1/update")] == [4, 8]
    held_out = [each["val_loss"] for each in run.history if each["val_loss"] is not None]
    assert [each.value for each in events.Scalars("val_loss")] == pytest.approx(held_out)
    final = events.Scalars("summary/val_loss")[0].value
    assert final == pytest.approx(run.summary["val_loss"])
    texts = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    assert [each.step for each in texts["sample/0/text_summary"]] == [4, 8]
    config = texts["config/text_summary"][0].tensor_proto.string_val[0].decode()
    assert '"batch_size": 2' in config and "secret" not in config


# --- Weights & Biases -----------------------------------------------------------------------------


def wandb_chunks(data: bytes) -> Iterator[bytes]:
    """The messages of an offline run's file: a LevelDB log, blocks of 32 KiB after 7 bytes."""
    at, message = 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


def wandb_history(folder: Path) -> list[dict[str, Any]]:
    """The metrics of an offline run's file, read as wandb's own messages."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    (path,) = folder.glob("run-*.wandb")
    for message in wandb_chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_wandb_reads_what_was_written(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = interrupted_and_resumed(small(track="wandb", track_project="cats", norms_every=4))
    wandb.teardown()  # its own process writes the last records only then for certain
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    name = remembered(run.path, "wandb")
    assert name is not None and all(each.name.endswith(name) for each in folders)
    rows = [row for folder in folders for row in wandb_history(folder)]
    assert {row["_step"]: row["loss"] for row in rows if "loss" in row} == losses(run)
    assert [row["_step"] for row in rows if "norms/layers.0/weight" in row] == [4, 8]


# --- MLflow ---------------------------------------------------------------------------------------


def test_mlflow_reads_what_was_written(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    wanted = small(
        track="mlflow", norms_every=4, samples_every=4, sample_tokens=4, alert_webhook=SECRET
    )
    run = interrupted_and_resumed(wanted)
    client = MlflowClient(tracking_uri=(run.path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("omnima")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == remembered(run.path, "mlflow")
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert {each.step: each.value for each in history} == losses(run)
    norms = client.get_metric_history(found.info.run_id, "norms/layers.0/update")
    assert [each.step for each in norms] == [4, 8]
    params = found.data.params
    assert params["batch_size"] == "2" and params["model.num_hidden_layers"] == "2"
    assert not any("secret" in value for value in params.values())
    artifacts = client.list_artifacts(found.info.run_id, "samples")
    assert [Path(each.path).name for each in artifacts] == [
        "step-00000004.txt",
        "step-00000008.txt",
    ]


def test_mlflow_says_how_a_run_ended(small: Make, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())

    class Asked(Callback):
        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(CallbackError):
        quiet(small(track="mlflow", out=str(tmp_path / "broken")), Stops())
    with pytest.raises(KeyboardInterrupt):
        quiet(small(track="mlflow", out=str(tmp_path / "asked")), Asked())
    client = MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("omnima")
    ends = {
        each.info.run_name: each.info.status
        for each in client.search_runs([experiment.experiment_id])
    }
    assert ends == {"broken": "FAILED", "asked": "KILLED"}


# --- choosing them --------------------------------------------------------------------------------


def test_a_package_that_is_missing_is_said_before_anything_is_read(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'wandb is not installed: pip install "omnima\[track\]"'):
        quiet(small(track="wandb", data=["/nowhere"]))


def test_trackers_are_named_in_every_way(small: Make, tmp_path: Path) -> None:
    both = ("tensorboard", "mlflow")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**small(track=both).values(), "track": list(both)}))
    assert Recipe.from_layers({}, config=path).train.track == both
    assert small(track="tensorboard, mlflow").train.track == both
    assert Recipe.from_layers({}, ["track=tensorboard,mlflow"], path).train.track == both
    assert Recipe.from_layers({"track": ["mlflow"]}, config=path).train.track == ("mlflow",)
    assert TrainConfig(steps=1, track=["tensorboard"]).track == ("tensorboard",)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="track is 'tensorbord', but must be one of"):
        small(track="tensorbord")


def test_a_damaged_memory_of_names_is_said(tmp_path: Path) -> None:
    (tmp_path / "trackers.json").write_text("[")
    with pytest.raises(ConfigError, match="trackers.json is damaged"):
        remembered(tmp_path, "wandb")


def test_numbers_that_trackers_cannot_hold_are_left_out() -> None:
    record = {"step": 3, "loss": float("nan"), "val_loss": None, "lr": 1, "deep": {"a": {"b": 2.5}}}
    assert flat_metrics(record) == {"lr": 1.0, "deep/a/b": 2.5}


def test_the_trainer_takes_them_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from omnima import Model, Tokenizer

    tokenizer = Tokenizer.train(["abc"], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    config = {"steps": 1, "track": "tensorboard", "out": str(tmp_path)}
    kinds = [type(each).__name__ for each in Trainer(model, tokenizer, "a", config).callbacks]
    assert kinds == ["TensorBoardCallback"]
