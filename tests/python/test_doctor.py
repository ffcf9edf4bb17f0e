"""The doctor's facts: plausible, plain, and readable when rendered."""

from __future__ import annotations

import json

import pytest
import torch

from omnima import _machine

doctor = pytest.importorskip("omnima.doctor")


@pytest.fixture(scope="module")
def facts():
    return doctor.collect()


def test_facts_are_plain_and_complete(facts):
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["built_with_torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert 1 <= facts["cpu"]["usable_cores"] <= facts["cpu"]["cores"]
    assert 0 < facts["memory"]["free_bytes"] <= facts["memory"]["total_bytes"]


def test_measured_speeds_are_plausible(facts):
    speed = facts["speed"]
    assert 1 < speed["float32_gflops"] < 1e6
    assert 0.1 < speed["bfloat16_gflops"] < 1e6
    assert 0.5 < speed["read_gb_per_s"] < 1e4
    assert doctor.collect(measure=False)["speed"] is None


def test_presets_grow_and_small_ones_fit(facts):
    presets = facts["presets"]
    assert presets["nima"]["trains_here"]
    assert presets["1b"]["training_bytes"] > presets["125m"]["training_bytes"]
    assert all(row["generation_bytes"] < row["training_bytes"] for row in presets.values())


def test_there_is_one_estimate_of_memory(facts):
    from omnima import config, planning

    model = config.model_preset("35m", vocab_size=32768)
    job = planning.Job(model, rows=8, context=model.max_position_embeddings)
    planned = planning.needed_bytes(job, planning.this_machine())
    assert facts["presets"]["35m"]["training_bytes"] == pytest.approx(planned, rel=0.2)
    keys = 2 * 4 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim
    written = 4 * model.num_parameters + keys * model.max_position_embeddings
    assert facts["presets"]["35m"]["generation_bytes"] == written


def test_parameter_count_is_that_of_the_model(facts):
    from omnima import Model, config

    for name in ("nima", "1m"):
        fields = config.model_preset(name, vocab_size=512)
        model = Model.from_config(fields)
        assert fields.num_parameters == model.core.num_parameters()


def test_parameter_count_with_every_bias_and_learned_positions():
    from omnima import Model, config

    fields = config.model_preset(
        "nima",
        vocab_size=256,
        norm="layer_norm",
        positions="learned",
        activation="gelu",
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
    )
    assert fields.num_parameters == Model.from_config(fields).core.num_parameters()


def test_rendered_text_names_what_matters(facts):
    text = doctor.render(facts)
    for word in ("torch", facts["cpu"]["model"], "GFLOP/s", "GB/s", "nima", "1b"):
        assert word in text
    assert "\x1b" not in text


def test_rendered_verdicts(facts):
    small = json.loads(json.dumps(facts))
    small["gpu"] = {"name": "Some GPU", "memory_bytes": 8 << 30}
    small["speed"] = None
    small["presets"]["1b"].update(trains_here=False, generates_here=True)
    small["presets"]["355m"].update(trains_here=False, generates_here=False)
    text = doctor.render(small)
    assert "Some GPU, 8.0 GiB" in text and "writes" in text and "too large" in text


def test_gpu_facts(monkeypatch):
    class Facts:
        name, total_memory, major, minor = "Some GPU", 1 << 30, 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Facts)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert doctor._gpu() == {
        "name": "Some GPU",
        "count": 1,
        "memory_bytes": 1 << 30,
        "capability": "9.0",
    }


def test_cpu_model_with_and_without_cpuinfo(tmp_path):
    path = tmp_path / "cpuinfo"
    assert _machine.cpu_model(path)
    path.write_text("processor : 0\n")
    assert _machine.cpu_model(path)
    path.write_text("processor : 0\nmodel name : Fast One\n")
    assert _machine.cpu_model(path) == "Fast One"


def test_memory_is_bounded_by_the_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n")
    assert _machine.memory_of(meminfo, tmp_path) == {"total_bytes": 1024000, "free_bytes": 819200}
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("100000\n")
    assert _machine.memory_of(meminfo, tmp_path) == {"total_bytes": 500000, "free_bytes": 400000}
    # What lies in files, too, is given up for what does not.
    (tmp_path / "memory.stat").write_text("anon 60000\ninactive_file 30000\nactive_file 5000\n")
    assert _machine.memory_of(meminfo, tmp_path) == {"total_bytes": 500000, "free_bytes": 435000}
    (tmp_path / "memory.max").write_text("max\n")
    assert _machine.memory_of(meminfo, tmp_path)["total_bytes"] == 1024000
    assert _machine.memory_of(tmp_path / "none", tmp_path)["total_bytes"] > 0


def test_a_group_around_the_process_bounds_its_memory(tmp_path):
    """In both versions, whether the mount is the process's own group or the root of all."""
    meminfo, own = tmp_path / "meminfo", tmp_path / "own"
    meminfo.write_text("MemTotal: 1000 kB\nMemAvailable: 800 kB\n")
    slice_ = tmp_path / "two" / "a.slice"
    (slice_ / "b.service").mkdir(parents=True)
    (slice_ / "memory.max").write_text("300000\n")
    (slice_ / "memory.current").write_text("100000\n")
    (slice_ / "b.service" / "memory.max").write_text("max\n")
    own.write_text("0::/a.slice/b.service\n")
    found = _machine.memory_of(meminfo, tmp_path / "two", own)
    assert found == {"total_bytes": 300000, "free_bytes": 200000}

    group = tmp_path / "one" / "memory" / "docker" / "abc"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("400000\n")
    (group / "memory.usage_in_bytes").write_text("250000\n")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 50000\n")
    own.write_text("5:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    found = _machine.memory_of(meminfo, tmp_path / "one", own)
    assert found == {"total_bytes": 400000, "free_bytes": 200000}

    mount = tmp_path / "inside" / "memory"
    mount.mkdir(parents=True)
    (mount / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (mount / "memory.usage_in_bytes").write_text("250000\n")
    free = {"total_bytes": 1024000, "free_bytes": 819200}
    assert _machine.memory_of(meminfo, tmp_path / "inside", own) == free
    (mount / "memory.limit_in_bytes").write_text("250001\n")
    assert _machine.memory_of(meminfo, tmp_path / "inside", own)["free_bytes"] == 1
    own.write_text("0::/../../elsewhere\n")
    assert _machine.memory_of(meminfo, tmp_path / "two", own) == free
