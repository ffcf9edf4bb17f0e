"""OLMo 2 (2025): Llama with norms after attention and mlp, and queries and keys normed whole."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, read_llama, without, without_window, write_llama
from omnima.hub.architectures.shared import plain_heads
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.naming import Names

#: Our norms of a block: theirs.
_NORMS = {
    "attention_output_layernorm": "post_attention_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}
NAMES = Names(block=lambda module: _NORMS.get(module, module))
_OF_OLMO = {"norm_placement": "after", "qk_norm": True, "qk_norm_over_heads": True}
FIXED = {**BLOCKS, **_OF_OLMO}


def read_olmo(reader: ConfigReader, **options: Any) -> dict[str, Any]:
    """The fields that OLMo 2 and 3 share."""
    config = read_llama(reader, eps=("rms_norm_eps", 1e-5), **options)
    without(reader, config, "OLMo", "mlp_bias")
    return {**config, **_OF_OLMO}


def _objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    return "there it has no biases" if config["attention_bias"] else None


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return write_llama(config, leave_out="mlp_bias head_dim")


OLMO2 = Architecture(
    name="Olmo2ForCausalLM",
    model_type="olmo2",
    read=lambda reader: without_window(reader, read_olmo(reader), "OLMo 2"),
    write=write,
    fixed=FIXED,
    free=SCALING | {"attention_bias"},
    fits=plain_heads,
    names=NAMES,
    gguf=GgufForm("olmo2", FIXED, objection=_objection),
)
