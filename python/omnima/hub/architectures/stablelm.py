"""StableLM (Bellagente et al. 2024): Llama with LayerNorm, of whose heads a part turns."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import read_llama, without, without_window, write_llama
from omnima.hub.architectures.shared import plain_heads, refuse
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.options import PARTIAL

_FIXED = {"norm": "layer_norm", "positions": "rotary", "activation": "swiglu"}


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    refuse(reader, "qk_layernorm", bool, False, "a LayerNorm of each head's own")
    refuse(reader, "use_parallel_residual", bool, False, "with one norm for both parts")
    config = read_llama(reader, share=(PARTIAL, 0.25), eps=("layer_norm_eps", 1e-5))
    without(reader, config, "StableLM, but for use_qkv_bias,", "attention_bias", "mlp_bias")
    biased = reader.take("use_qkv_bias", bool, False)
    return {
        **without_window(reader, config, "StableLM"),
        "norm": "layer_norm",
        "attention_bias": biased,
        "attention_output_bias": not biased,
        "dropout": reader.take("hidden_dropout", float, config["dropout"]),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = write_llama(config, leave_out="attention_bias mlp_bias head_dim rms_norm_eps")
    fields["rope_parameters"][PARTIAL] = config[PARTIAL]
    return {
        **fields,
        PARTIAL: config[PARTIAL],
        "layer_norm_eps": config["norm_eps"],
        "use_qkv_bias": config["attention_bias"],
        "qk_layernorm": False,
        "use_parallel_residual": False,
        "hidden_dropout": config["dropout"],
    }


STABLELM = Architecture(
    name="StableLmForCausalLM",
    model_type="stablelm",
    read=read,
    write=write,
    fixed=_FIXED,
    free=SCALING | {PARTIAL, "attention_bias", "attention_output_bias"},
    fits=lambda config: (
        config["attention_bias"] != config["attention_output_bias"] and plain_heads(config)
    ),
    gguf=GgufForm("stablelm", _FIXED),
)
