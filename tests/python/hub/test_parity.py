"""Models of transformers come in and go out again with identical logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import hub

transformers = pytest.importorskip("transformers")

LLAMAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 16},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
}
for kind, more in {
    "linear": {},
    "dynamic": {},
    "yarn": {"original_max_position_embeddings": 32, "beta_fast": 8.0},
    "llama3": {
        "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0
    },
}.items():  # fmt: skip
    LLAMAS[kind] = {
        "rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0, **more}
    }
MISTRALS: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": 5, "num_key_value_heads": 2},
}
QWENS: dict[str, dict[str, Any]] = {
    "plain": {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True},
    "windows": {
        "sliding_window": 6, "use_sliding_window": True, "max_window_layers": 0, "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}  # fmt: skip
GPT2S: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "gelu": {"activation_function": "gelu"},
    "inner": {"n_inner": 40},
    "dropout": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def family(name: str, **fields: Any) -> Any:
    """A maker of small models of a family, with the family's own fields and then a case's."""

    def make(**changes: Any) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, **{**fields, **changes},
        )  # fmt: skip
        written = name.removesuffix("Text")
        return getattr(transformers, f"{written}ForCausalLM")(config).eval()

    return make


llama = family("Llama")
mistral = family("Mistral", pad_token_id=0)
qwen3 = family("Qwen3", num_key_value_heads=4)
gpt_neox = family("GPTNeoX", rotary_pct=1.0)
# Those of one case or two, by their fields.
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "Qwen2": {"plain": {}, "grouped": {"num_key_value_heads": 2}},
    "Gemma": {"plain": {"head_dim": 12}, "biased": {"head_dim": 8, "attention_bias": True}},
    "Gemma2": {
        "plain": {"head_dim": 8, "num_key_value_heads": 2},
        "scaled": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 31},
        "uncapped": {
            "head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None
        },
    },
    "Gemma3Text": {
        "plain": {"head_dim": 8, "num_key_value_heads": 2},
        "windows": {"head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2},
    },
    "SmolLM3": {
        "plain": {"num_key_value_heads": 2, "no_rope_layer_interval": 2},
        "biased": {"attention_bias": True, "mlp_bias": True, "no_rope_layers": [1, 0]},
    },
    "Phi3": {
        "partial": {
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5
            },
        },
    },
    "Olmo2": {"plain": {}, "grouped": {"num_key_value_heads": 2, "attention_bias": True}},
    "Olmo3": {"plain": {"sliding_window": 5}},
    "StableLm": {"plain": {}, "biased": {"use_qkv_bias": True, "num_key_value_heads": 2}},
    "Starcoder2": {
        "plain": {"num_key_value_heads": 2},
        "window": {"sliding_window": 5, "use_bias": False},
    },
    "Arcee": {"plain": {}, "biased": {"mlp_bias": True}},
    "Nemotron": {
        "plain": {"num_key_value_heads": 2},
        "biased": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    },
}  # fmt: skip


def mixtral(**changes: Any) -> Any:
    torch.manual_seed(0)
    fields = dict(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        num_local_experts=4,
    )  # fmt: skip
    config = transformers.MixtralConfig(**{**fields, **changes})
    return transformers.MixtralForCausalLM(config).eval()


def qwen3_moe(**changes: Any) -> Any:
    torch.manual_seed(0)
    fields = dict(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, head_dim=8,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
    )  # fmt: skip
    config = transformers.Qwen3MoeConfig(**{**fields, **changes})
    return transformers.Qwen3MoeForCausalLM(config).eval()


NEOXES: dict[str, dict[str, Any]] = {
    "parallel": {},
    "in-turn": {"use_parallel_residual": False, "hidden_act": "gelu_new"},
    "tied": {"tie_word_embeddings": True, "hidden_dropout": 0.1, "attention_dropout": 0.2},
}
FAMILIES = {
    "llama": (llama, LLAMAS),
    "mistral": (mistral, MISTRALS),
    "qwen3": (qwen3, QWENS),
    "gpt_neox": (gpt_neox, NEOXES),
    "mixtral": (mixtral, {"plain": {}, "window": {"sliding_window": 5}}),
    "qwen3_moe": (
        qwen3_moe,
        {
            "plain": {},
            "normed": {"norm_topk_prob": True, "decoder_sparse_step": 2},
            "window": {"use_sliding_window": True, "sliding_window": 5},
        },
    ),
}


def gpt2(**changes: Any) -> Any:
    torch.manual_seed(0)
    fields = dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    config = transformers.GPT2Config(**{**fields, **changes})
    return transformers.GPT2LMHeadModel(config).eval()


def randomise(model: Any) -> None:
    """Biases and norms start as zeros and ones, which would hide a mix-up."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(40).reshape(2, 20)).logits


FAMILIES["gpt2"] = (gpt2, GPT2S)
for other, cases in OTHERS.items():
    FAMILIES[other.lower()] = (family(other, num_key_value_heads=4, pad_token_id=0), cases)
NAMES = [
    f"{family} {variant}" for family, (_, variants) in FAMILIES.items() for variant in variants
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error::UserWarning:omnima")
def test_in_and_out_again_gives_identical_logits(name: str, tmp_path: Path) -> None:
    family, variant = name.split()
    make, variants = FAMILIES[family]
    model = make(**variants[variant])
    randomise(model)
    model.save_pretrained(tmp_path / "theirs")
    config, tensors = hub.load_pretrained(tmp_path / "theirs")
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    written = hub.save_pretrained(config, list(tensors.items()), tmp_path / "ours")
    assert written == type(model).__name__
    again, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(again) is type(model)
    assert torch.equal(logits(again.eval()), logits(model))
    assert hub.load_pretrained(tmp_path / "ours")[0] == config


def test_llama_names_and_values_are_kept(tmp_path: Path) -> None:
    model = llama(num_key_value_heads=2)
    model.save_pretrained(tmp_path)
    config, tensors = hub.load_pretrained(tmp_path)
    state = model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert config["num_key_value_heads"] == 2 and config["activation"] == "swiglu"


def test_gpt2_projections_are_turned_and_split(tmp_path: Path) -> None:
    model = gpt2()
    randomise(model)
    model.save_pretrained(tmp_path)
    config, tensors = hub.load_pretrained(tmp_path)
    fused = model.transformer.h[1].attn.c_attn
    block = "model.layers.1.self_attn"
    assert torch.equal(tensors[f"{block}.k_proj.weight"], fused.weight[:, 32:64].t())
    assert torch.equal(tensors[f"{block}.v_proj.bias"], fused.bias[64:])
    assert "lm_head.weight" not in tensors and config["tie_word_embeddings"]
    assert config["norm"] == "layer_norm" and config["dropout"] == 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_load_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = llama().to(dtype)
    model.save_pretrained(tmp_path)
    for name, tensor in hub.load_pretrained(tmp_path)[1].items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].float())


def test_saving_in_bfloat16(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "a")
    config, tensors = hub.load_pretrained(tmp_path / "a")
    hub.save_pretrained(config, tensors.items(), tmp_path / "b", dtype="bfloat16")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    rounded = hub.load_pretrained(tmp_path / "b")[1]
    assert all(torch.equal(rounded[name], tensors[name].bfloat16().float()) for name in tensors)


def test_shards_are_read(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    tensors = hub.load_pretrained(tmp_path)[1]
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())


def test_old_gpt2_files_without_prefix_and_with_buffers(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    gpt2().save_pretrained(tmp_path)
    expected = hub.load_pretrained(tmp_path)[1]
    raw = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in raw.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    old["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, tmp_path / "model.safetensors")
    found = hub.load_pretrained(tmp_path)[1]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_special_ids_go_into_both_configs(tmp_path: Path) -> None:
    class Words:
        bos_id, eos_id, pad_id = 1, 2, None

        def save_pretrained(self, directory: str | Path, /) -> None:
            (Path(directory) / "words.txt").write_text("a b")

    llama().save_pretrained(tmp_path / "a")
    config, tensors = hub.load_pretrained(tmp_path / "a")
    hub.save_pretrained(config, tensors.items(), tmp_path / "b", tokenizer=Words())
    for name in ("config.json", "generation_config.json"):
        raw = json.loads((tmp_path / "b" / name).read_text())
        assert [raw[f"{kind}_token_id"] for kind in ("bos", "eos", "pad")] == [1, 2, None]
    assert (tmp_path / "b" / "words.txt").exists()
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert model.generation_config.eos_token_id == 2 and model.config.pad_token_id is None
    hub.save_pretrained(config, tensors.items(), tmp_path / "c")
    assert json.loads((tmp_path / "c" / "config.json").read_text())["eos_token_id"] is None
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "c")
