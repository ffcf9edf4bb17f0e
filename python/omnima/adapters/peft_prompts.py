"""Virtual tokens in PEFT's files: the embeddings of a prompt, the keys and values of a prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnima.adapters.options import AdapterOptions
from omnima.adapters.sites import Module
from omnima.errors import DataError
from omnima.hub import rotary_layout

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
#: The only tensor of such files, and our name of a prompt's.
EMBEDDINGS = "prompt_embeddings"
#: What says how they began, or the shape that the model has anyway. The tensor of a prefix that a
#: network made (prefix_projection) is what it made.
HARMLESS = {
    *("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
    *("tokenizer_kwargs", "encoder_hidden_size", "prefix_projection", "init_weights"),
}


def site_name(layer: int) -> str:
    """What the parameters of a layer's prefix are called after."""
    return f"layers.{layer}"


def key_module(layer: int) -> str:
    """Our projection to the keys of a layer."""
    return f"model.layers.{layer}.self_attn.k_proj"


def from_files(
    tensors: Mapping[str, Tensor],
    options: AdapterOptions,
    config: Mapping[str, Any],
    modules: Mapping[str, Module],
    where: str,
) -> dict[str, Tensor]:
    """Our parameters from the tensors of a file; DataError where they do not fit the model."""
    import torch

    layers, width = config["num_hidden_layers"], _width(config)
    is_prompt = options.kind == "prompt"
    shape = (options.virtual_tokens, config["hidden_size"] if is_prompt else layers * 2 * width)
    if set(tensors) != {EMBEDDINGS}:
        raise DataError(
            f"{where} holds {', '.join(sorted(tensors)) or 'nothing'}; expected is {EMBEDDINGS}."
        )
    whole = tensors[EMBEDDINGS].to(torch.float32)
    if tuple(whole.shape) != shape:
        raise DataError(
            f'{where}, "{EMBEDDINGS}": its shape is {tuple(whole.shape)}, but the model and the '
            f"adapter's config ask for {shape}: is it of another model?"
        )
    if is_prompt:
        return {EMBEDDINGS: whole}
    found = {}
    for layer, part in enumerate(whole.view(len(whole), layers, 2 * width).unbind(1)):
        keys, values = part[:, :width], part[:, width:]
        order = _key_order(layer, config, modules)
        found[f"{site_name(layer)}.prefix"] = torch.cat([keys[:, order], values], 1)
    return found


def to_files(
    parameters: Sequence[tuple[str, Tensor]],
    options: AdapterOptions,
    config: Mapping[str, Any],
    modules: Mapping[str, Module],
) -> dict[str, Tensor]:
    """The tensors of a file: the inverse of `from_files`."""
    import torch

    tensors = [each.detach().cpu() for _, each in parameters]
    if options.kind == "prompt":
        return {EMBEDDINGS: tensors[0].clone()}
    parts = []
    for layer, each in enumerate(tensors):
        keys, values = each[:, : _width(config)], each[:, _width(config) :]
        theirs = torch.empty_like(keys)
        theirs[:, _key_order(layer, config, modules)] = keys
        parts += [theirs, values]
    return {EMBEDDINGS: torch.cat(parts, 1)}


def described(options: AdapterOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's keys."""
    is_prompt = options.kind == "prompt"
    heads = config["num_attention_heads"] if is_prompt else config["num_key_value_heads"]
    begins = {"prompt_tuning_init": "RANDOM"} if is_prompt else {"prefix_projection": False}
    return {
        "peft_type": "PROMPT_TUNING" if is_prompt else "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "num_virtual_tokens": options.virtual_tokens,
        "token_dim": config["hidden_size"] if is_prompt else _width(config),
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": config["num_hidden_layers"],
        "modules_to_save": None,
        **begins,
    }


def _width(config: Mapping[str, Any]) -> int:
    width: int = config["num_key_value_heads"] * config["head_dim"]
    return width


def _key_order(layer: int, config: Mapping[str, Any], modules: Mapping[str, Module]) -> list[int]:
    """Where the files have each of our numbers of the keys of a layer."""
    alone = [each for each in modules.values() if each.parts == (key_module(layer),)]
    if alone:
        return alone[0].order(config) or list(range(_width(config)))
    places, size = rotary_layout.places(config), config["head_dim"]
    heads = range(config["num_key_value_heads"])
    return [head * size + place for head in heads for place in places]
