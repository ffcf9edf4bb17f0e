"""A model as a Hugging Face directory, out and in.

It holds config.json, generation_config.json, model.safetensors and the tokenizer's files.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omnima._durable import write_durably
from omnima.errors import ConfigError, DataError
from omnima.hub import names
from omnima.hub.fields import architecture_of, read_config, write_config
from omnima.hub.options import field_defaults
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class SavesItself(Protocol):
    """What a directory needs of a tokenizer."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int | None: ...

    @property
    def pad_id(self) -> int | None: ...

    def save_pretrained(self, directory: str | Path, /) -> object:
        """Write the tokenizer's files into a directory."""


def save_pretrained(
    model_config: Mapping[str, Any],
    parameters: Iterable[tuple[str, Tensor]],
    directory: str | Path,
    tokenizer: SavesItself | None = None,
    dtype: str = "float32",
) -> str:
    """Write a model as a directory that transformers and all that read its format can load.

    Parameters
    ----------
    model_config
        All fields of a decoder's configuration.
    parameters
        Names (those of Hugging Face's Llama) and tensors. Prediction heads, which serve training
        alone, are left out, and the model that is read back has none.
    directory
        Made if absent. Each file is replaced at once, so none is ever left half written.
    tokenizer
        Its files are written too, and its special ids go into the configs.
    dtype
        "float32" or "bfloat16" (half the size, 8 bits of precision).

    Returns
    -------
    str
        The architecture written: the first of `omnima.hub.architectures` that the model is exactly,
        or OmnimaForCausalLM where no architecture of transformers is; that loads here only.

    Raises
    ------
    ConfigError
        For an unknown dtype, a missing or unknown field.
    DataError
        When parameters are missing, unexpected or of a wrong shape.
    """
    import torch

    from omnima import _core

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in kinds:
        raise ConfigError(f'dtype is "{dtype}"; the choices are {", ".join(kinds)}.')
    written = architecture_of(model_config)
    model_config = {**field_defaults(), **model_config, "prediction_heads": 0}
    tensors = {key: value.detach() for key, value in parameters if not names.is_training_only(key)}
    names.check_tensors(
        tensors, names.expected_shapes(model_config), "The model given to save_pretrained"
    )
    names.report_nonfinite(_core.nonfinite_tensors(tensors), "The model to save", strict=False)
    tensors = written.from_ours(tensors, model_config)
    if written.name == "OmnimaForCausalLM":
        warnings.warn(
            "No architecture of transformers is exactly this model, so the directory is written as "
            'model_type "omnima": it loads in Omnima only. For other tools take rms_norm, rotary '
            "and swiglu (Llama; with qk_norm Qwen3, with sliding_window Mistral), or layer_norm, "
            "learned (rotary: GPT-NeoX), gelu_tanh and both biases (GPT-2), or another one of the "
            "architectures that the documentation lists.",
            stacklevel=2,
        )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    ids = _special_ids(tokenizer)
    _write_json(folder / "config.json", write_config(model_config, written, ids, dtype))
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    converted = {key: value.to(kinds[dtype]) for key, value in tensors.items()}
    _core.write_safetensors(folder / _WEIGHTS, converted, {"format": "pt"})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return written.name


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_durably(path, (text + "\n").encode("utf-8"))


def _special_ids(tokenizer: SavesItself | None) -> dict[str, int | None]:
    """Written even when null: the formats' own defaults (Llama: 1 and 2) would be wrong."""
    ids = {}
    for kind in ("bos", "eos", "pad"):
        value = getattr(tokenizer, f"{kind}_id", None)
        ids[f"{kind}_token_id"] = value if isinstance(value, int) and value >= 0 else None
    return ids


def load_pretrained(
    directory: str | Path, strict: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a directory of one of `omnima.hub.architectures`.

    Parameters
    ----------
    directory
        Holds config.json and model.safetensors (or its shards with their index).
    strict
        Refuse weights that hold NaN or infinity instead of warning.

    Returns
    -------
    tuple
        The decoder's configuration, complete, and its parameters by name: float32, whatever the
        file held (float32, float16, bfloat16).

    Raises
    ------
    DataError
        Names the file, the field or the tensor: an unsupported architecture or feature, a missing,
        unexpected or misshapen tensor, a malformed file, or a directory that holds pickles only.
    """
    import torch

    from omnima import _core

    folder = Path(directory)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory. Give the directory that holds config.json.")
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} has no config.json: it is not a model directory.")
    path = folder / "config.json"
    found, config = read_config(read_json_object(path), path)
    tensors = _read_weights(folder)
    tensors = {key: value for key, value in tensors.items() if not names.is_known_buffer(key)}
    if config["num_hidden_layers"] > len(tensors):
        raise DataError(
            f"{path} claims {config['num_hidden_layers']} layers, but the weights are "
            f"{len(tensors)} tensors in all."
        )
    tensors = with_prefix(tensors, found.ends)
    if config["tie_word_embeddings"]:
        _drop_tied_head(tensors, *found.ends, folder)
    names.check_tensors(tensors, found.shapes(config), str(folder))
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    for key, value in tensors.items():
        if value.dtype not in kinds:
            raise DataError(
                f'{folder}, tensor "{key}": dtype {value.dtype} is not supported for weights; '
                "save the model in float32, float16 or bfloat16."
            )
    names.report_nonfinite(_core.nonfinite_tensors(tensors), str(folder), strict)
    tensors = {key: value.float() for key, value in tensors.items()}
    return config, found.to_ours(tensors, config)


def with_prefix(tensors: dict[str, Tensor], ends: tuple[str, str]) -> dict[str, Tensor]:
    """Give files of a model without a head the prefix that models with one have.

    `ends` are the names of embedding and head. The first files of GPT-2 were such.

    >>> list(with_prefix({"h.0.ln_1.weight": 0}, ("transformer.wte.weight", "lm_head.weight")))
    ['transformer.h.0.ln_1.weight']
    """
    prefix = ends[0].partition(".")[0] + "."
    if any(name.startswith(prefix) for name in tensors):
        return tensors
    return {name if name == ends[1] else prefix + name: each for name, each in tensors.items()}


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from omnima import _core

    if (folder / _WEIGHTS).exists():
        return _core.read_safetensors(folder / _WEIGHTS)
    if (folder / _INDEX).exists():
        return _read_shards(folder)
    pickles = sorted(
        entry.name for entry in folder.iterdir() if entry.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    if pickles:
        raise DataError(
            f"{folder} holds its weights only as pickles ({', '.join(pickles)}), which can "
            "run code when read, so Omnima never opens them. Convert it where you trust it: "
            "transformers.AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR) "
            "writes model.safetensors."
        )
    raise DataError(f"{folder} has no {_WEIGHTS}.")


def _read_shards(folder: Path) -> dict[str, Tensor]:
    from omnima import _core

    index = folder / _INDEX
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f'{index}: "weight_map" must be an object of tensor names and file names.')
    tensors: dict[str, Tensor] = {}
    for shard in sorted({str(value) for value in weight_map.values()}):
        if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
            raise DataError(f"{index}: {shard!r} is not the name of a safetensors file beside it.")
        for key, value in _core.read_safetensors(folder / shard).items():
            if weight_map.get(key) != shard:
                raise DataError(
                    f'{folder / shard}, tensor "{key}": the index does not put it there.'
                )
            tensors[key] = value
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise DataError(f"{folder}: tensors of the index are in no shard: {names.some(absent)}.")
    return tensors


def _drop_tied_head(
    tensors: dict[str, Tensor], embedding: str, head_name: str, folder: Path
) -> None:
    """A tied model needs no lm_head; one unlike the embedding means a wrong config."""
    import torch

    head = tensors.get(head_name)
    if head is None or embedding not in tensors:
        return
    if not torch.equal(head, tensors[embedding]):
        raise DataError(
            f'{folder}: config.json says tie_word_embeddings, but "{head_name}" differs from '
            f'"{embedding}". One of the two is wrong; set tie_word_embeddings to false if '
            "the head is meant."
        )
    del tensors[head_name]
