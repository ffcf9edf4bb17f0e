"""What a model directory can have wrong, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import _core, hub
from omnima.errors import ConfigError, DataError
from omnima.hub.names import expected_shapes

BASE: dict[str, Any] = {
    **{field.name: field.default for field in _core.DecoderConfig.fields()},
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 16,
    "norm": "rms_norm",
    "norm_eps": 1e-5,
    "positions": "rotary",
    "rope_theta": 10000.0,
    "activation": "swiglu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "dropout": 0.25,
    "initializer_range": 0.02,
    "depth_scaled_init": False,
}
GPT2 = {
    **BASE,
    "norm": "layer_norm",
    "positions": "learned",
    "activation": "gelu_tanh",
    "attention_bias": True,
    "mlp_bias": True,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def parameters(config: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(config)
    return [(name, torch.randn(shape, generator=generator)) for name, shape in shapes.items()]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    hub.save_pretrained(BASE, parameters(BASE), tmp_path / "mödel")
    return tmp_path / "mödel"


@pytest.fixture
def gpt2_model(tmp_path: Path) -> Path:
    hub.save_pretrained(GPT2, parameters(GPT2), tmp_path / "gpt2")
    return tmp_path / "gpt2"


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = _core.read_safetensors(folder / "model.safetensors")
    edit(tensors)
    _core.write_safetensors(folder / "model.safetensors", tensors)


KIN: dict[str, dict[str, Any]] = {
    "llama": BASE,
    "gpt2": GPT2,
    "gpt2-dropouts": {**GPT2, "embedding_dropout": 0.125, "attention_dropout": 0.5},
    "llama-drops": {**BASE, "layer_drop": 0.25, "embedding_dropout": 0.0, "attention_dropout": 0.1},
    "mistral": {**BASE, "sliding_window": 4},
    "qwen3": {**BASE, "qk_norm": True, "attention_bias": True},
    "qwen3-windows": {**BASE, "qk_norm": True, "sliding_window": 4, "sliding_window_pattern": 2},
    **{
        kind: {**BASE, "rope_scaling": kind, "rope_factor": 2.0, "rope_original_context": 8}
        for kind in ("linear", "dynamic", "yarn", "llama3")
    },
}
NEOX = {**GPT2, "positions": "rotary", "parallel_residual": True, "tie_word_embeddings": False}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 6, "router_z_loss_coef": 0.5}
KIN["mixtral"] = {**BASE, **EXPERTS, "expert_capacity": 1.5}
KIN["mixtral-window"] = {**BASE, **EXPERTS, "sliding_window": 4}
KIN["qwen3_moe"] = {
    **BASE,
    **EXPERTS,
    "qk_norm": True,
    "norm_topk_prob": False,
    "num_experts_per_tok": 1,
    "decoder_sparse_step": 2,
}
KIN["gpt_neox"] = NEOX
KIN["gpt_neox-in-turn"] = {**NEOX, "parallel_residual": False, "activation": "gelu"}
KIN["gpt_neox-tied"] = {**NEOX, "tie_word_embeddings": True, "embedding_dropout": 0.0}
KIN["yarn-own"] = {**KIN["yarn"], "rope_beta_fast": 16.0, "rope_attention_factor": 1.25}
KIN["llama3-own"] = {**KIN["llama3"], "rope_low_freq_factor": 2.0, "rope_high_freq_factor": 8.0}


@pytest.mark.parametrize("config", KIN.values(), ids=KIN)
@pytest.mark.filterwarnings("error:No architecture")
def test_every_field_comes_back(config: dict[str, Any], tmp_path: Path) -> None:
    hub.save_pretrained(config, parameters(config), tmp_path)
    found, tensors = hub.load_pretrained(tmp_path)
    assert found == config
    assert all(torch.equal(tensors[name], value) for name, value in parameters(config))


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "none"},
        {"norm": "layer_norm", "attention_bias": True},
        {"norm_placement": "after"},
        {"norm_placement": "both", "embedding_multiplier": 3.0},
        {"attention_scale": 0.3},
        {"rope_local_theta": 100.0, "sliding_window": 8},
        {"activation": "gelu", "mlp_bias": True},
        {**GPT2, "num_key_value_heads": 1},
        {**GPT2, "mlp_bias": False},
        {**GPT2, "qk_norm": True},
        {"attention_softcap": 50.0, "logit_softcap": 30.0},
        {"parallel_residual": True, "activation": "geglu"},
        {**EXPERTS, "shared_expert_intermediate_size": 6},
        {**EXPERTS, "decoder_sparse_step": 2},
        {**EXPERTS, "qk_norm": True, "sliding_window": 4, "sliding_window_pattern": 2},
        {"sliding_window": 8, "sliding_window_pattern": 2},
        {"positions": "alibi", "activation": "relu2", "attention_dropout": 0.1},
    ],
)
def test_other_combinations_are_saved_for_omnima_and_it_is_said(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    config = {**BASE, **changes}
    with pytest.warns(UserWarning, match="loads in Omnima only"):
        assert hub.save_pretrained(config, parameters(config), tmp_path) == "OmnimaForCausalLM"
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["model_type"] == "omnima" and "loads in Omnima only" in raw["note"]
    found, tensors = hub.load_pretrained(tmp_path)
    assert found == config
    assert all(torch.equal(tensors[name], value) for name, value in parameters(config))


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("mixtral", {"attention_bias": True}, "attention_bias.*Mixtral has none"),
        ("mixtral", {"mlp_bias": True}, "mlp_bias.*Mixtral has none"),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise.*must be 0"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, "mlp_only_layers.*must be empty"),
        (
            "qwen3_moe",
            {
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "layer_types.*Qwen3-MoE has none",
        ),
    ],
)
def test_mixtures_that_would_give_other_results_are_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    hub.save_pretrained(KIN[kind], parameters(KIN[kind]), tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        hub.load_pretrained(tmp_path)


def test_directories_from_before_the_options_load(tmp_path: Path) -> None:
    config = {**BASE, "positions": "none"}
    with pytest.warns(UserWarning, match="loads in Omnima only"):
        hub.save_pretrained(config, parameters(config), tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    for name in ("qk_norm", "rope_scaling", "sliding_window", "attention_dropout"):
        del raw[name]
    path.write_text(json.dumps(raw))
    assert hub.load_pretrained(tmp_path)[0] == config


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
    ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.*factor is missing"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}}, "mscale"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate"),
    ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "supported: default, linear"),
    ({"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "rope_scaling"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rope_parameters"),
    ({"sliding_window": 8}, "sliding_window.*is this Mistral"),
    ({"sliding_window": 8, "use_sliding_window": True}, "sliding_window"),
    ({"sliding_window": "8"}, "sliding_window.*whole number"),
    ({"sliding_window": 8, "layer_types": ["chunked_attention"] * 2}, "layer_types.*every n-th"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ({"layer_types": 3}, "layer_types"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ({"num_local_experts": 8}, "num_local_experts"),
    ({"num_experts": True}, "num_experts"),
    ({"attention_bias": "yes"}, "attention_bias.*true or false"),
    ({"attention_bias": "qkv"}, "attention_bias"),
    ({"hidden_size": "8"}, "hidden_size.*whole number"),
    ({"hidden_size": True}, "hidden_size.*whole number"),
    ({"hidden_size": None}, "hidden_size.*missing"),
    ({"hidden_size": 0}, "hidden_size.*between"),
    ({"vocab_size": 10**12}, "vocab_size.*between"),
    ({"hidden_size": 9, "head_dim": None}, "not a multiple"),
    ({"num_hidden_layers": 10**6}, "claims 1000000 layers"),
    ({"num_attention_heads": 3, "num_key_value_heads": 2}, "equal groups"),
    ({"rms_norm_eps": [1]}, "rms_norm_eps.*a number"),
    ({"architectures": ["FalconForCausalLM"]}, "Falcon.*LlamaForCausalLM, MistralForCausalLM"),
    ({"architectures": ["LlamaForCausalLM", "GPT2LMHeadModel"]}, "not supported"),
    ({"architectures": "LlamaForCausalLM"}, "not supported"),
    ({"architectures": [["LlamaForCausalLM"]]}, "not supported"),
    ({"architectures": None, "model_type": "mamba"}, "'mamba'"),
    ({"architectures": None, "model_type": None}, "not supported"),
    ({"architectures": None, "model_type": []}, "not supported"),
    ({"vocab_size": 12}, r'"model.embed_tokens.weight": its shape is \(11, 8\).*\(12, 8\)'),
    (
        {"attention_bias": True},
        "Missing: model.layers.0.self_attn.q_proj.bias.* and 0 more|Missing",
    ),
    ({"num_hidden_layers": 1}, "Unexpected: model.layers.1"),
    ({"tie_word_embeddings": True}, "lm_head.weight.*differs"),
    ({"omnima": {"dropout": "much"}}, "dropout"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps.*a number"),
    ({"rope_parameters": [8.0]}, "rope_parameters.*an object"),
    ({"rope_parameters": {"rope_type": ["linear"], "factor": 2.0}}, "rope_parameters.*supported"),
    ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor. is 0, but must lie"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 1e308}}, "factor. is 1e.308, but"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_would_change_results_is_refused_by_name(
    fields: dict[str, Any], message: str, model: Path
) -> None:
    change(model, **fields)
    with pytest.raises(DataError, match=message) as caught:
        hub.load_pretrained(model)
    assert str(model) in str(caught.value)


def test_experts_that_no_tensor_holds_are_refused_before_they_are_named(tmp_path: Path) -> None:
    config = {**BASE, "num_experts": 2, "router_z_loss_coef": 0.0, "moe_intermediate_size": 12}
    hub.save_pretrained(config, parameters(config), tmp_path)
    change(tmp_path, num_local_experts=1 << 24)
    with pytest.raises(DataError, match="claims 2 layers with 16777216 experts, but the weights"):
        hub.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"activation_function": "relu"},
        {"n_head": 3},
    ],
)
def test_what_would_change_results_of_gpt2_is_refused(
    fields: dict[str, Any], gpt2_model: Path
) -> None:
    change(gpt2_model, **fields)
    with pytest.raises(DataError, match=next(iter(fields))):
        hub.load_pretrained(gpt2_model)


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": None},
        {"sliding_window": None},
        {"sliding_window": 8, "use_sliding_window": False},
        {"sliding_window": 128},
        {"rope_scaling": {"rope_type": "default"}},
        {"layer_types": ["full_attention"] * 2},
        {"rope_parameters": None},
        {"hidden_act": "swish"},
        {"num_experts": 1},
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_changes_nothing_is_accepted(fields: dict[str, Any], model: Path) -> None:
    change(model, **fields)
    assert hub.load_pretrained(model)[0] == BASE


def test_unknown_fields_are_said_aloud(model: Path) -> None:
    change(model, telepathy=True)
    with pytest.warns(UserWarning, match="unknown fields telepathy"):
        hub.load_pretrained(model)


@pytest.mark.filterwarnings("error")
def test_dropouts_of_others_are_taken_over(model: Path, gpt2_model: Path) -> None:
    raw = json.loads((gpt2_model / "config.json").read_text())
    del raw["omnima"]
    (gpt2_model / "config.json").write_text(json.dumps({**raw, "attn_pdrop": 0.5}))
    config = hub.load_pretrained(gpt2_model)[0]
    assert [config[name] for name in ("dropout", "attention_dropout")] == [0.25, 0.5]
    raw = json.loads((model / "config.json").read_text())
    del raw["omnima"]
    (model / "config.json").write_text(json.dumps({**raw, "attention_dropout": 0.5}))
    config = hub.load_pretrained(model)[0]
    assert [config[name] for name in ("dropout", "attention_dropout")] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must hold a JSON object, not list"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', '"a" stands twice'),
        (b"\xff{}", "not valid UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b" " * (65 << 20), "larger than"),
    ],
)
def test_a_malformed_config_is_refused(content: bytes, message: str, model: Path) -> None:
    (model / "config.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        hub.load_pretrained(model)


def test_directories_that_are_no_models(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match="is not a directory"):
        hub.load_pretrained(tmp_path / "absent")
    with pytest.raises(DataError, match="no config.json"):
        hub.load_pretrained(tmp_path)
    (model / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has no model.safetensors"):
        hub.load_pretrained(model)
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match="only as pickles .pytorch_model.bin.*save_pretrained"):
        hub.load_pretrained(model)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, '"weight_map" must be'),
        ({"a": "../model.safetensors"}, "not the name of a safetensors file"),
        ({"a": "/etc/passwd"}, "not the name of a safetensors file"),
        ({"a": "model.bin"}, "not the name of a safetensors file"),
        ({"a": "a\0.safetensors"}, "not the name of a safetensors file"),
        ({"a": "\ud800.safetensors"}, "not the name of a safetensors file"),
        ({"a": "shard.safetensors"}, "the index does not put it there"),
        ({"b": "shard.safetensors", "a": "shard.safetensors"}, "in no shard: a"),
        ({"a": "absent.safetensors"}, "cannot be opened"),
    ],
)
def test_a_bad_index_is_refused(weight_map: Any, message: str, model: Path) -> None:
    (model / "model.safetensors").unlink()
    _core.write_safetensors(model / "shard.safetensors", {"b": torch.ones(1)})
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(DataError, match=message):
        hub.load_pretrained(model)


def test_tensors_missing_unexpected_or_of_a_strange_type(model: Path) -> None:
    rewrite(model, lambda tensors: tensors.update(extra=torch.ones(1)))
    with pytest.raises(DataError, match="Unexpected: extra"):
        hub.load_pretrained(model)

    def without_head(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["extra"], tensors["lm_head.weight"]

    rewrite(model, without_head)
    with pytest.raises(DataError, match="Missing: lm_head.weight.*is tie_word_embeddings right"):
        hub.load_pretrained(model)
    whole = {"lm_head.weight": torch.ones(11, 8, dtype=torch.int64)}
    rewrite(model, lambda tensors: tensors.update(whole))
    with pytest.raises(DataError, match='"lm_head.weight": dtype torch.int64'):
        hub.load_pretrained(model)


def test_a_tied_head_that_equals_the_embedding_is_dropped(gpt2_model: Path) -> None:
    rewrite(
        gpt2_model,
        lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"]}),
    )
    assert "lm_head.weight" not in hub.load_pretrained(gpt2_model)[1]


def test_weights_that_are_not_finite_warn_or_are_refused(model: Path) -> None:
    rewrite(model, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.warns(UserWarning, match="NaN or infinity in model.norm.weight"):
        hub.load_pretrained(model)
    with pytest.raises(DataError, match="NaN or infinity in model.norm.weight"):
        hub.load_pretrained(model, strict=True)


def test_saving_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='dtype is "int4"; the choices are float32, float16'):
        hub.save_pretrained(BASE, parameters(BASE), tmp_path, dtype="int4")
    with pytest.raises(ConfigError, match="missing: head_dim, unknown: head_size"):
        config = {("head_size" if key == "head_dim" else key): BASE[key] for key in BASE}
        hub.save_pretrained(config, [], tmp_path)
    with pytest.raises(DataError, match="Missing: .* and [0-9]+ more"):
        hub.save_pretrained(BASE, [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_parameters_that_require_gradients_are_saved(tmp_path: Path) -> None:
    leaves = [(name, value.requires_grad_()) for name, value in parameters(GPT2)]
    hub.save_pretrained(GPT2, leaves, tmp_path)
    assert not any(value.requires_grad for value in hub.load_pretrained(tmp_path)[1].values())
