"""Models in and out of GGUF: every architecture that has a form there, exactly; what has none is
refused with its reason.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core
from omnima.config import ModelConfig
from omnima.errors import ConfigError, DataError
from omnima.hub import load_gguf, open_gguf, save_gguf
from omnima.hub.architectures import REGISTRY
from omnima.hub.gguf.metadata import ramp_of
from omnima.hub.names import expected_shapes
from omnima.tokenizers import Tokenizer

SHAPE: dict[str, Any] = dict(
    vocab_size=70, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, norm_eps=1e-6,
    tie_word_embeddings=False,
)  # fmt: skip
LAYER_NORM = {"norm": "layer_norm", "num_key_value_heads": 4, "head_dim": 8}
BIASED = {"attention_bias": True, "mlp_bias": True}
SANDWICH = {
    "norm_placement": "both",
    "activation": "geglu_tanh",
    "embedding_multiplier": math.sqrt(32),
    "head_dim": 16,
    "tie_word_embeddings": True,
}
EXPERTS = {"num_experts": 4, "router_z_loss_coef": 0.0, "moe_intermediate_size": 48}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama biased": ("llama", BIASED),
    "llama tied": ("llama", {"tie_word_embeddings": True, "head_dim": 12}),
    "llama linear": (
        "llama", {"rope_scaling": "linear", "rope_factor": 2.0, "rope_original_context": 32}
    ),
    "llama yarn": (
        "llama",
        {
            "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 16,
            "rope_beta_fast": 16.0, "rope_attention_factor": 1.25,
        },
    ),
    "llama 3": (
        "llama",
        {
            "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 8192,
            "rope_theta": 500000.0, "max_position_embeddings": 16384,
        },
    ),
    "mixtral": ("llama", EXPERTS),
    "qwen 2": ("qwen2", {"attention_bias": True, "attention_output_bias": False}),
    "qwen 3": ("qwen3", {"qk_norm": True, "head_dim": 16}),
    "qwen 3 experts": (
        "qwen3moe",
        {**EXPERTS, "qk_norm": True, "moe_intermediate_size": 24, "num_experts_per_tok": 3},
    ),
    "gemma": ("gemma", {**SANDWICH, "norm_placement": "before"}),
    "gemma 2": (
        "gemma2",
        {
            **SANDWICH, "sliding_window": 8, "sliding_window_pattern": 2,
            "attention_softcap": 50.0, "logit_softcap": 30.0,
        },
    ),
    "gemma 3": (
        "gemma3",
        {
            **SANDWICH, "qk_norm": True, "sliding_window": 8, "sliding_window_pattern": 6,
            "rope_local_theta": 1e4, "rope_theta": 1e6,
        },
    ),
    "smollm 3": ("smollm3", {"no_rope_layer_interval": 4, "num_hidden_layers": 5}),
    "phi 3": ("phi3", {"partial_rotary_factor": 0.75, "head_dim": 8}),
    "olmo 2": (
        "olmo2", {"norm_placement": "after", "qk_norm": True, "qk_norm_over_heads": True}
    ),
    "stablelm": ("stablelm", {**LAYER_NORM, "partial_rotary_factor": 0.25}),
    "starcoder 2": (
        "starcoder2", {**LAYER_NORM, **BIASED, "num_key_value_heads": 2, "activation": "gelu_tanh"}
    ),
    "arcee": ("arcee", {"activation": "relu2"}),
    "nemotron": (
        "nemotron", {**LAYER_NORM, "activation": "relu2", "partial_rotary_factor": 0.5}
    ),
    "gpt-2": ("gpt2", {**LAYER_NORM, **BIASED, "positions": "learned", "activation": "gelu_tanh"}),
    "pythia": (
        "gptneox",
        {
            **LAYER_NORM, **BIASED, "activation": "gelu", "partial_rotary_factor": 0.25,
            "parallel_residual": True,
        },
    ),
    "neox in turn": ("gptneox", {**LAYER_NORM, **BIASED, "activation": "gelu"}),
}  # fmt: skip


def complete(changes: dict[str, Any]) -> dict[str, Any]:
    return ModelConfig(**{**SHAPE, **changes}).to_dict()


def parameters(config: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [(name, torch.randn(shape)) for name, shape in expected_shapes(config).items()]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_exactly(name: str, tmp_path: Path) -> None:
    arch, changes = MODELS[name]
    config = complete(changes)
    given = parameters(config)
    assert save_gguf(config, given, tmp_path / "model.gguf", dtype="f32") == arch
    found, tensors, tokenizer = load_gguf(tmp_path / "model.gguf")
    assert found == config and tokenizer is None
    assert tensors.keys() == dict(given).keys()
    assert all(torch.equal(tensors[name], value) for name, value in given)


def test_every_form_is_tried() -> None:
    forms = {each.gguf.arch for each in REGISTRY if each.gguf is not None}
    assert forms == {arch for arch, _ in MODELS.values()}


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0", "q4_0"])
def test_numbers_are_rounded_as_the_format_says(dtype: str, tmp_path: Path) -> None:
    config = complete({"intermediate_size": 64, "norm_eps": 1e-5})
    given = parameters(config)
    save_gguf(config, given, tmp_path / "model.gguf", dtype=dtype)
    found, tensors, _ = load_gguf(tmp_path / "model.gguf")
    assert found == config
    apart = {"f16": 2e-3, "bf16": 1e-2, "q8_0": 2e-2, "q4_0": 0.4}[dtype]
    for name, value in given:
        exact = value.dim() < 2
        assert (tensors[name] - value).abs().max() <= (0 if exact else apart), name


def test_matrices_that_are_no_whole_blocks_are_halves(tmp_path: Path) -> None:
    config = complete({})
    with pytest.warns(UserWarning, match="Rows of 48 numbers are no whole blocks of 32"):
        save_gguf(config, parameters(config), tmp_path / "model.gguf", dtype="q8_0")
    kinds = {name: kind for name, kind, _ in _core.GgufFile(tmp_path / "model.gguf").tensors()}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "none"}, "OmnimaForCausalLM, for which GGUF has no architecture"),
        ({"sliding_window": 8}, "no windows .with max_position_embeddings 8"),
        (
            {"rope_scaling": "dynamic", "rope_factor": 2.0, "rope_original_context": 32},
            "no word for dynamic",
        ),
        ({"qk_norm": True, "attention_bias": True}, "qwen3: there it has no biases"),
        ({"no_rope_layer_interval": 2}, "smollm3: there every 4th layer"),
        ({**EXPERTS, "qk_norm": True, "norm_topk_prob": False}, "weights of experts sum to 1"),
        ({**EXPERTS, "qk_norm": True, "decoder_sparse_step": 2}, "experts in every layer"),
        ({**SANDWICH, "sliding_window": 8, "sliding_window_pattern": 3}, "every 2-th layer"),
        ({**SANDWICH, "attention_scale": 0.3}, "OmnimaForCausalLM"),
        ({**SANDWICH, "attention_scale": 100**-0.5}, "attention_scale is not"),
        ({**SANDWICH, "qk_norm": True, "logit_softcap": 30.0}, "no capped logits"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = complete(changes)
    with pytest.raises(ConfigError, match=message):
        save_gguf(config, parameters(config), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q5_k.*f32, f16, q4_0, q8_0, bf16"):
        save_gguf(complete({}), [], tmp_path / "model.gguf", dtype="q5_k")


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with keys changed; None takes one away."""
    file = _core.GgufFile(path)
    types = file.types()
    metadata = {**file.metadata(), **{key.replace("__", "."): new for key, new in changes.items()}}
    pairs = [
        (key, "[str]" if value == ["gpt-2"] else types.get(key, "u32"), value)
        for key, value in metadata.items()
        if value is not None
    ]
    tensors = [(name, kind.lower(), file.tensor(name)) for name, kind, _ in file.tensors()]
    _core.write_gguf(path, pairs, tensors)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "falcon"}, "'falcon' .general.architecture. is not supported"),
        ({"general__architecture": None}, "architecture None"),
        ({"llama__embedding_length": None}, '"llama.embedding_length" is missing'),
        ({"llama__embedding_length": 40}, "the configuration asks for"),
        ({"llama__block_count": 10**6}, "claims 1000000 layers"),
        ({"llama__block_count": 1}, "Unexpected: blk.1"),
        ({"llama__attention__head_count": 0}, "head_count. is 0, but must lie between 1"),
        ({"llama__attention__head_count_kv": 3}, "its keys make no model: .*multiple"),
        ({"llama__rope__dimension_count": 99}, "99 numbers of a head of 8"),
        ({"llama__context_length": 0}, "context_length. is 0, but must lie"),
        (
            {"llama__expert_count": 1 << 24, "llama__expert_used_count": 2},
            "claims 16777216 experts, but .* holds 0",
        ),
        ({"split__count": 3}, "is one of 3 parts of a model .*llama-gguf-split --merge"),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = complete({})
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, dtype="f32")
    with pytest.raises(DataError, match=message) as caught:
        load_gguf(rewritten(path, **changes))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1e30, math.nan, math.inf])
def test_a_stretch_that_is_none_is_refused(factor: float, tmp_path: Path) -> None:
    config, path = complete(MODELS["llama linear"][1]), tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, dtype="f32")
    with pytest.raises(DataError, match=r'"llama\.rope\.scaling\.factor" is .* must (lie|be)'):
        load_gguf(rewritten(path, llama__rope__scaling__factor=factor))


def test_other_ramps_of_frequencies_are_refused(tmp_path: Path) -> None:
    config = complete(MODELS["llama 3"][1])
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, dtype="f32")
    file = _core.GgufFile(path)
    assert torch.equal(file.tensor("rope_freqs.weight"), ramp_of(config))
    for ramp, message in (
        (torch.tensor([1.0, 3.0, 2.0, 8.0]), "not those of Llama 3's scaling"),
        (torch.ones(3), r"rope_freqs.weight has the shape \(3,\)"),
    ):
        pairs = [(key, file.types()[key], value) for key, value in file.metadata().items()]
        tensors = [
            (name, "f32", ramp if name == "rope_freqs.weight" else file.tensor(name))
            for name, _, _ in file.tensors()
        ]
        _core.write_gguf(tmp_path / "other.gguf", pairs, tensors)
        with pytest.raises(DataError, match=message):
            load_gguf(tmp_path / "other.gguf")


def byte_level(directory: Path) -> Tokenizer:
    """A byte-level tokenizer of a few merges, cut as GPT-2's."""
    from omnima.tokenizers.stages import pre_tokenizer_json

    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in alphabet]
    letters = {byte: chr(byte) for byte in alphabet}
    letters |= {byte: chr(256 + number) for number, byte in enumerate(rest)}
    pieces = ["<|endoftext|>", "<|im_start|>", *(letters[byte] for byte in range(256)), "th", "the"]
    directory.mkdir()
    (directory / "tokenizer.json").write_text(
        json.dumps(
            {
                "added_tokens": [
                    {"id": 0, "content": pieces[0], "special": True},
                    {"id": 1, "content": pieces[1], "special": True},
                ],
                "pre_tokenizer": pre_tokenizer_json("gpt2"),
                "model": {
                    "type": "BPE",
                    "vocab": {piece: number for number, piece in enumerate(pieces)},
                    "merges": ["t h", "th e"],
                },
            }
        )
    )
    return Tokenizer.from_pretrained(directory)


def test_a_model_of_a_file_computes_and_writes_what_it_did(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    model = omnima.Model.from_config(complete({"vocab_size": 260}), seed=3)
    model.tokenizer = tokenizer
    path = tmp_path / "model.gguf"
    save_gguf(model.config.to_dict(), model.named_parameters(), path, tokenizer, dtype="f32")
    found = omnima.Model.from_pretrained(path)
    ids = torch.arange(20).reshape(2, 10)
    assert torch.equal(found(ids), model(ids)) and found.config == model.config
    options = {"max_new_tokens": 12, "temperature": 0}
    assert found.generate("the", **options).ids == model.generate("the", **options).ids


def test_a_tokenizer_comes_back_and_spare_rows_are_named(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    tokenizer.chat_template = {"default": "{{ messages | length }}ü", "tool_use": "T"}
    config = complete({"vocab_size": 264})
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, tokenizer, dtype="f32", about={"name": "small"})
    file = _core.GgufFile(path)
    assert file.metadata()["general.name"] == "small"
    assert file.metadata()["tokenizer.ggml.pre"] == "gpt-2"
    found = load_gguf(path)[2]
    assert found is not None and found.vocab_size == 264
    for text in ("the other théâtre", "<|im_start|>then\n\n 1234  x"):
        assert found.encode(text) == tokenizer.encode(text)
        assert found.encode(text, parse_special=True) == tokenizer.encode(text, parse_special=True)
    assert (found.bos_id, found.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert found.chat_template == tokenizer.chat_template
    assert found.apply_chat_template([{"role": "user"}], tokenize=False) == "1ü"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__model": "rwkv"}, "tokenizer of the kind 'rwkv'"),
        ({"tokenizer__ggml__pre": "viking"}, "cut as by 'viking'"),
        ({"tokenizer__ggml__pre": ["gpt-2"]}, r"cut as by \['gpt-2'\]"),
        ({"tokenizer__ggml__tokens": None}, "tokens is missing"),
        ({"tokenizer__ggml__merges": ["t zz"]}, "the merge 't zz'"),
        ({"tokenizer__ggml__token_type": [1, 2]}, "one whole number a token"),
        ({"tokenizer__ggml__eos_token_id": 999}, "eos_token_id is 999"),
        ({"tokenizer__ggml__tokens": ["a"] * 260}, "holds a token twice"),
    ],
)
def test_damaged_tokenizers_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    config = complete({"vocab_size": 260})
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, tokenizer, dtype="f32")
    with pytest.raises(DataError, match=message):
        load_gguf(rewritten(path, **changes))


def test_a_tokenizer_is_built_beside_the_load(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    config = complete({"vocab_size": 260})
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, tokenizer, dtype="f32")
    found = open_gguf(path).tokenizer  # used at once
    assert found is not None
    assert found.description.merges.tolist() == tokenizer.description.merges.tolist()
    assert found.description.pieces == tokenizer.description.pieces
    assert found.fingerprint == tokenizer.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        found.description.merges[0, 0] = 1
    # What is wrong with it is said when it is asked for, every time, and not before.
    damaged = rewritten(path, tokenizer__ggml__merges=["t zz"])
    stored = open_gguf(damaged)
    for _ in range(2):
        with pytest.raises(DataError, match=r"gguf: the merge 't zz' .* that are there\.$"):
            _ = stored.tokenizer
    with pytest.raises(DataError, match="the merge 't zz'"):
        omnima.Model.from_pretrained(damaged, dtype="auto")
    # Nobody asks for it: another error comes first, and the thread is waited for.
    with pytest.raises(DataError, match="block_count claims 99 layers"):
        open_gguf(rewritten(path, llama__block_count=99))
    del stored


def test_padding_by_the_end_is_no_padding(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    config = complete({"vocab_size": 260})
    path = tmp_path / "model.gguf"
    save_gguf(config, parameters(config), path, tokenizer, dtype="f32")
    found = load_gguf(rewritten(path, tokenizer__ggml__padding_token_id=0))[2]
    assert found is not None and found.eos_id == 0 and found.pad_id is None
    named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(named))
    assert Tokenizer.from_pretrained(tmp_path / "tokenizer").pad_id is None


def test_cuts_of_which_some_stay_whole_are_written_as_they_are(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer")
    config = complete({"vocab_size": 260})
    for pattern, whole, pre in (("llama3", True, "llama-bpe"), ("qwen2", False, "qwen2")):
        changed = dataclasses.replace(tokenizer.description, pattern=pattern, whole_first=whole)
        save_gguf(config, parameters(config), tmp_path / "a.gguf", Tokenizer(changed))
        assert _core.GgufFile(tmp_path / "a.gguf").metadata()["tokenizer.ggml.pre"] == pre
    other = dataclasses.replace(tokenizer.description, pattern="llama3", whole_first=False)
    with pytest.raises(ConfigError, match="cut by 'llama3' cannot be written"):
        save_gguf(config, parameters(config), tmp_path / "a.gguf", Tokenizer(other))


def test_tokenizers_that_llama_cpp_cuts_otherwise_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["to be or not to be"], "unigram")
    config = complete({"vocab_size": tokenizer.vocab_size})
    with pytest.raises(ConfigError, match="kind 'unigram'.* cannot be written"):
        save_gguf(config, parameters(config), tmp_path / "model.gguf", tokenizer)
