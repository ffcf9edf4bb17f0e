"""Gemma (Mesnard et al. 2024): Llama with scaled embeddings, GeGLU and norms kept less one."""

from __future__ import annotations

import math
from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import read_llama, without, without_window, write_llama
from omnima.hub.architectures.shared import refuse
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm, plain_scale
from omnima.hub.gguf.form import scales_embeddings as scaled
from omnima.hub.layouts import LessOne
from omnima.hub.naming import Names

ACTIVATIONS = {"gelu_pytorch_tanh": "geglu_tanh"}
#: In Gemma's first files "gelu" stands for the one by tanh, as transformers reads it.
_FIRST_ACTIVATIONS = {**ACTIVATIONS, "gelu": "geglu_tanh"}
BLOCKS = {"norm": "rms_norm", "positions": "rotary", "activation": "geglu_tanh"}


def read_gemma(reader: ConfigReader, **options: Any) -> dict[str, Any]:
    """The fields that all of Gemma share."""
    refuse(reader, "use_bidirectional_attention", bool, False, "tokens see only those before them")
    config = without(reader, read_llama(reader, **options), "Gemma", "mlp_bias")
    return {
        **config,
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, True),
        "head_dim": reader.take("head_dim", int, 256),
        "embedding_multiplier": math.sqrt(config["hidden_size"]),
    }


def write_gemma(config: Config) -> dict[str, Any]:
    """The same fields for config.json."""
    return {**write_llama(config, leave_out="mlp_bias"), "hidden_act": "gelu_pytorch_tanh"}


def scales_embeddings(config: Config) -> bool:
    """Whether embeddings are multiplied by the root of their width, as all of Gemma's are."""
    return bool(config["embedding_multiplier"] == math.sqrt(config["hidden_size"]))


def read_scale(reader: ConfigReader, head_dim: int) -> float:
    """What scores are multiplied by, said as the number whose root divides them; 0: as usual."""
    scalar = reader.take("query_pre_attn_scalar", float, 256.0)
    if scalar <= 0:
        raise reader.refusal("query_pre_attn_scalar", scalar, "it must be greater than 0")
    return 0.0 if scalar == head_dim else float(scalar**-0.5)


def scalar_of(config: Config) -> int | None:
    """The whole number whose root divides the scores; None where there is none."""
    scale = config["attention_scale"]
    scalar = config["head_dim"] if scale == 0 else round(scale**-2)
    exact = scale == 0 or (scalar > 0 and float(scalar) ** -0.5 == scale)
    return int(scalar) if exact else None


def norms(*modules: str) -> dict[str, LessOne]:
    """The layouts of norms of a block, and of the last norm."""
    return {module: LessOne() for module in (*modules, "model.norm")}


def objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    return "there it has no biases" if config["attention_bias"] else plain_scale(config)


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    if reader.raw.get("hidden_activation") is not None:
        reader.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    reader.account_for("hidden_activation")
    config = read_gemma(reader, activations=_FIRST_ACTIVATIONS)
    return without_window(reader, config, "Gemma's first version")


GEMMA = Architecture(
    name="GemmaForCausalLM",
    model_type="gemma",
    read=read,
    write=write_gemma,
    fixed=BLOCKS,
    free=SCALING | {"attention_bias", "embedding_multiplier"},
    fits=scales_embeddings,
    names=Names(layouts=norms("input_layernorm", "post_attention_layernorm")),
    gguf=GgufForm("gemma", BLOCKS, objection=objection, derived=scaled),
)
