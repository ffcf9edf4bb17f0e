"""The small parts of training: records on disk, the run's directory, the display, signals, the
plot.
"""

from __future__ import annotations

import io
import os
import signal
import time

import pytest

from omnima.data import PrepareProgress
from omnima.errors import CheckpointError, ConfigError
from omnima.training.display import Display, describe, format_bytes, format_seconds
from omnima.training.records import Records, read_records
from omnima.training.run import Run, perplexity
from omnima.training.rundir import RunDirectory
from omnima.training.signals import Interrupts

STATE = {"step": 3, "of": 9, "loss": 2.5, "val_loss": 2.75, "floor": 1.5, "tokens_per_s": 1234.0}


def test_records_drop_what_a_resumed_run_does_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = Records(path)
    for step in (1, 2, 3):
        records.add({"step": step, "loss": float("nan") if step == 2 else 1.0})
    records.close()
    with open(path, "a") as file:
        file.write('{"step": 4, "lo')
    assert [each["step"] for each in read_records(path)] == [1, 2, 3]
    assert read_records(path)[1]["loss"] is None
    again = Records(path, keep_until=2)
    again.add({"step": 3})
    again.close()
    assert [each["step"] for each in read_records(path)] == [1, 2, 3]
    assert again.history == read_records(path)


def test_a_directory_belongs_to_one_run(tmp_path):
    out = tmp_path / "my rün"
    first = RunDirectory(out)
    first.claim({"lr": 0.1}, {"lr": 0.1})
    with pytest.raises(ConfigError, match="Another process"):
        RunDirectory(out).claim({}, {})
    first.release()
    (out / "metrics.jsonl").touch()  # it has begun
    with pytest.raises(ConfigError, match="already holds a run.*--resume"):
        RunDirectory(out).claim({}, {})
    with pytest.raises(ConfigError, match=r"lr: 0\.1 there, 0\.2 here"):
        RunDirectory(out).claim({}, {"lr": 0.2}, resume=True)
    with pytest.raises(ConfigError, match="contradict"):
        RunDirectory(out).claim({}, {}, resume=True, overwrite=True)
    again = RunDirectory(out)
    again.claim({"lr": 0.1}, {"lr": 0.1}, resume=True)
    again.release()
    (out / "checkpoints").mkdir()
    (out / "notes.txt").write_text("mine")
    new = RunDirectory(out)
    new.claim({"lr": 0.2}, {"lr": 0.2}, overwrite=True)
    new.release()
    assert not (out / "checkpoints").exists() and (out / "notes.txt").exists()


def test_what_a_refused_run_left_is_replaced(tmp_path):
    refused = RunDirectory(tmp_path / "run")
    refused.claim({"lr": 0.1}, {"lr": 0.1})
    refused.release()
    (refused.tokenizer).mkdir()
    (refused.data).mkdir()
    again = RunDirectory(refused.path)
    again.claim({"lr": 0.2}, {"lr": 0.2})
    again.release()
    assert "0.2" in again.config.read_text() and again.data.exists()
    assert not again.tokenizer.exists()
    (refused.path / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"already holds a run \(config.yaml\)"):
        again.claim({}, {})


def test_a_damaged_identity_is_an_error(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.claim({}, {})
    directory.release()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        RunDirectory(tmp_path).claim({}, {}, resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run").claim({}, {})


def test_the_quiet_display_writes_lines_now_and_then():
    stream = io.StringIO()
    with Display(stream) as display:
        display.note("hello")
        display.show(STATE, 0.3, 61.0)
        display.show(STATE, 0.4, 60.0)
        display.show(STATE, 1.0, 0.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "hello" and len(lines) == 3
    assert "loss 2.5000  held-out 2.7500  floor 1.5000  1,234 tokens/s" in lines[1]
    assert lines[1].endswith("left 1:01")


def test_the_live_display_shows_the_same():
    stream = io.StringIO()
    with Display(stream, live=True) as display:
        display.show(STATE, 0.3, None)
        display.note("above [the] line")
    assert "step 3/9" in stream.getvalue() and "above [the] line" in stream.getvalue()


@pytest.mark.parametrize("live", [False, True])
def test_tokenization_is_shown(live):
    stream = io.StringIO()
    with Display(stream, live=live) as display:
        display.preparing(PrepareProgress(7, 8_000_000, 3_000_000, 16_000_000))
        display.preparing(PrepareProgress(9, 17_000_000, 4_000_000, None))
    text = stream.getvalue()
    assert "tokenizing  " in text
    assert live or text.startswith(" 50%  tokenizing  8 MB  7 documents  3,000,000 tokens")


def test_a_silent_display_says_nothing():
    stream = io.StringIO()
    with Display(stream, silent=True) as display:
        display.note("hello")
        display.show(STATE, 1.0, None)
    assert stream.getvalue() == ""


def test_words_for_numbers():
    assert [format_bytes(n) for n in (5, 5e3, 5e6, 5e9)] == ["5 B", "5 kB", "5 MB", "5.0 GB"]
    assert [format_seconds(s) for s in (None, 5, 3600)] == ["?", "0:05", "1:00:00"]
    assert describe({"step": 1, "loss": 1.0, "memory": 1e6}) == "step 1  loss 1.0000  1 MB"
    assert perplexity(0.0) == 1.0 and perplexity(1e4) == float("inf")


def test_the_first_signal_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_unfinished_run_cannot_be_loaded(tmp_path):
    with pytest.raises(CheckpointError, match="no finished run"):
        Run.load(tmp_path)


def test_precision_is_chosen_by_speed_and_says_why(monkeypatch):
    from omnima.training import precision

    for bf16, chosen in ((10.0, "bf16"), (18.0, "bf16"), (18.5, "fp32"), (40.0, "fp32")):
        took = {"fp32": 20.0, "bf16": bf16}
        monkeypatch.setattr(precision, "measure_formats", lambda *_, took=took: took)
        choice = precision.choose_precision(None, 64)
        assert choice.precision == chosen and choice.milliseconds == took
        for part in (f"precision {chosen}", f"{bf16:.1f} ms in bf16", "20.0 ms in fp32", "1.1x"):
            assert part in choice.reason
        assert f"{20 / bf16:.2f}x" in choice.reason


def test_precision_is_measured_on_a_stand_in_in_little_time():
    from omnima.config import model_preset
    from omnima.training.precision import choose_precision, measure_formats

    config = model_preset("1m", vocab_size=512)
    began = time.perf_counter()
    took = measure_formats(config, 64)
    assert set(took) == {"fp32", "bf16"} and all(0 < each < 10_000 for each in took.values())
    assert time.perf_counter() - began < 20
    choice = choose_precision(config, 4096)  # measured on at most 256 tokens
    gain = choice.milliseconds["fp32"] / choice.milliseconds["bf16"]
    assert abs(gain - 1.1) < 1e-3 or choice.precision == ("bf16" if gain > 1.1 else "fp32")


def test_a_large_model_is_measured_on_fewer_steps(monkeypatch):
    from omnima.config import model_preset
    from omnima.training import precision

    turns = []

    class Step:
        def run_batches(self, batch):
            turns.append(batch[0][0].shape)

    monkeypatch.setattr(precision, "_stand_in", lambda *given: Step())
    config = model_preset("nima", vocab_size=512)
    precision.measure_formats(config, 32)
    assert turns == [(4, 32)] * 8
    turns.clear()
    monkeypatch.setattr(precision, "_ENOUGH", 0.0)
    precision.measure_formats(config, 32)
    assert len(turns) == 4


def test_a_damaged_precision_record_is_an_error(tmp_path):
    from omnima.training.precision import PrecisionChoice

    path = tmp_path / "precision.json"
    for text in ("{", '{"a": 1}', "[]"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="precision.json does not say"):
            PrecisionChoice.read(path)


def test_blocks_that_compute_twice_change_nothing(tmp_path):
    from omnima.training.launch import train
    from omnima.training.recipe import Recipe

    weights = []
    for layers in (0, 1, 50):
        out = tmp_path / str(layers)
        flags = {"data": ["tinyworld:20k"], "preset": "nima", "steps": 3, "context": 32}
        flags |= {"batch_size": 2, "checkpoint_layers": layers, "samples": 0, "out": str(out)}
        train(Recipe.from_layers({**flags, "precision": "fp32", "model": {"dropout": 0.1}}))
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


def test_terms_of_the_loss_are_trained_with_and_not_evaluated(tmp_path):
    from omnima.training.launch import train
    from omnima.training.recipe import Recipe

    found = {}
    for name, more in (
        ("plain", {}),
        ("terms", {"label_smoothing": 0.2, "z_loss": 0.01}),
    ):
        flags = {"data": ["tinyworld:20k"], "preset": "nima", "steps": 1, "context": 32, "lr": 0.0}
        flags |= {"precision": "fp32", "samples": 0, "out": str(tmp_path / name), **more}
        found[name] = train(Recipe.from_layers(flags)).summary
    assert found["terms"]["val_loss"] == found["plain"]["val_loss"]
    assert found["terms"]["train_loss"] > found["plain"]["train_loss"]
