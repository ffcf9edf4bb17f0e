"""A model from a Hugging Face directory: config.json and model.safetensors or its shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima._places import INDEX, WEIGHTS
from omnima.errors import DataError
from omnima.hub import names, quantized, rotary_layout
from omnima.hub.fields import read_config
from omnima.hub.naming import Names
from omnima.hub.stored import StoredModel
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from torch import Tensor


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
    from omnima import _core

    found, config, tensors, described = _checked(Path(directory), ahead=False)
    if described is not None:
        shapes = names.expected_shapes(config)
        for name, format in described["formats"].items():
            tensors[name] = _core.dequantized(format, tensors[name], list(shapes[name]))
    names.report_nonfinite(_core.nonfinite_tensors(tensors), str(directory), strict)
    return config, found.to_ours(lambda name: tensors[name].float(), config)


def open_pretrained(directory: str | Path) -> StoredModel:
    """Check a directory as `load_pretrained` does, and read no weights yet.

    >>> open_pretrained("SmolLM2-135M").config["hidden_size"]  # doctest: +SKIP
    576
    """
    found, config, tensors, described = _checked(Path(directory), ahead=True)
    formats = {} if described is None else dict(described["formats"])

    def read(name: str, as_stored: bool) -> Tensor:
        return tensors[name] if as_stored or name in formats else tensors[name].float()

    made = None
    if described is not None:
        theirs = {name: tensors[name] for name in formats}
        made = quantized.Quantization(
            settings={key: described.get(key) for key in quantized.SETTINGS},
            formats=formats,
            blocks=rotary_layout.to_ours(theirs, rotary_layout.places(config)),
        )
    return StoredModel(config, str(directory), found, read, formats, quantization=made)


def _checked(
    folder: Path, ahead: bool
) -> tuple[Names, dict[str, Any], dict[str, Tensor], dict[str, Any] | None]:
    """How a directory names its tensors, its configuration, the tensors as they are stored, and
    its ``quantization_config`` if it is ours.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory. Give the directory that holds config.json.")
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} has no config.json: it is not a model directory.")
    path = folder / "config.json"
    raw = read_json_object(path)
    described = quantized.read_description(raw, path)
    if described is not None:
        del raw[quantized.KEY]
    found, config = read_config(raw, path)
    tensors = _read_weights(folder, ahead)
    tensors = {key: value for key, value in tensors.items() if not names.is_known_buffer(key)}
    layers, experts = config["num_hidden_layers"], config["num_experts"]
    if max(layers, layers // config["decoder_sparse_step"] * experts) > len(tensors):
        of_experts = f" with {experts} experts" if experts else ""
        raise DataError(
            f"{path} claims {layers} layers{of_experts}, but the weights are {len(tensors)} "
            "tensors in all."
        )
    if described is not None:
        formats = described["formats"]
        quantized.check_tensors(tensors, config, formats, folder)
        _check_floats({key: each for key, each in tensors.items() if key not in formats}, folder)
        return quantized.NAMES, config, tensors, described
    tensors = with_prefix(tensors, found.names.ends)
    if config["tie_word_embeddings"]:
        _drop_tied_head(tensors, *found.names.ends, folder)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    names.check_shapes(shapes, found.names.shapes(config), str(folder))
    _check_floats(tensors, folder)
    return found.names, config, tensors, None


def _check_floats(tensors: dict[str, Tensor], folder: Path) -> None:
    import torch

    kinds = (torch.float32, torch.float16, torch.bfloat16)
    for key, value in tensors.items():
        if value.dtype not in kinds:
            raise DataError(
                f'{folder}, tensor "{key}": dtype {value.dtype} is not supported for weights; '
                "save the model in float32, float16 or bfloat16."
            )


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


def _read_weights(folder: Path, ahead: bool) -> dict[str, Tensor]:
    from omnima import _core

    if (folder / WEIGHTS).exists():
        return _core.read_safetensors(folder / WEIGHTS, ahead)
    if (folder / INDEX).exists():
        return _read_shards(folder, ahead)
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
    raise DataError(f"{folder} has no {WEIGHTS}.")


def _read_shards(folder: Path, ahead: bool) -> dict[str, Tensor]:
    from omnima import _core

    index = folder / INDEX
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f'{index}: "weight_map" must be an object of tensor names and file names.')
    tensors: dict[str, Tensor] = {}
    for shard in sorted({str(value) for value in weight_map.values()}):
        named_here = os.path.basename(shard) == shard and shard.isprintable()
        if not named_here or not shard.endswith(".safetensors"):
            raise DataError(f"{index}: {shard!r} is not the name of a safetensors file beside it.")
        for key, value in _core.read_safetensors(folder / shard, ahead).items():
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
