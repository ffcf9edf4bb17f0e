"""Gemma 3 (Kamath et al. 2025), its text: Gemma 2 with normed queries and keys instead of capped
scores, and with rotary positions of their own where there is a window.
"""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import Architecture, Config
from omnima.hub.architectures.gemma2 import (
    FREE,
    SANDWICH,
    fits,
    read_sandwich,
    sandwich_names,
    write_sandwich,
)
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import WINDOW, GgufForm, windows_every
from omnima.hub.gguf.form import scales_embeddings as scaled
from omnima.hub.options import LOCAL, read_local_rotary, write_local_rotary


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    reader.account_for("attn_logit_softcapping")
    cap = reader.raw.get("attn_logit_softcapping")
    if cap is not None:
        raise reader.refusal("attn_logit_softcapping", cap, "transformers takes no heed of it")
    local = read_local_rotary(reader, theta=1e6, local_theta=1e4)
    config = read_sandwich(reader, pattern=6, theta=1e6, keep_window=True)
    windows = config["sliding_window"] > 0
    return {**config, "qk_norm": True, "rope_local_theta": local if windows else 0.0}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = write_local_rotary(write_sandwich(config), config)
    return {**fields, LOCAL: fields["rope_parameters"]["sliding_attention"]["rope_theta"]}


def _objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    if config["logit_softcap"]:
        return "there it has no capped logits"
    if config["rope_local_theta"] not in (0, 1e4):
        return "there the rotary base of windows is 10000"
    return windows_every(6)(config)


GEMMA3 = Architecture(
    name="Gemma3ForCausalLM",
    model_type="gemma3_text",
    read=read,
    write=write,
    fixed={**SANDWICH, "qk_norm": True},
    free=FREE | {"rope_local_theta"},
    fits=fits,
    names=sandwich_names("self_attn.q_norm", "self_attn.k_norm"),
    gguf=GgufForm(
        "gemma3",
        {**SANDWICH, "sliding_window_pattern": 6, "rope_local_theta": 1e4},
        keys=(WINDOW,),
        objection=_objection,
        derived=scaled,
    ),
)
