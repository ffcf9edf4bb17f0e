"""A model as a Hugging Face directory: its files written aside and put in place together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omnima._durable import sync_directory, write_durably
from omnima._places import INDEX, WEIGHTS
from omnima._sizes import read_size
from omnima.errors import ConfigError
from omnima.hub.certificates import OF_DIRECTORY
from omnima.hub.fields import write_config
from omnima.hub.outgoing import check_dtype, outgoing
from omnima.hub.quantized import KEY, NAMES, Quantization

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: transformers' own.
MAX_SHARD_SIZE = "50GB"
_CONFIG = "config.json"
OF_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_ASIDE = ".saving-"


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
    max_shard_size: int | str = MAX_SHARD_SIZE,
    quantization: Quantization | None = None,
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
        Made if absent. All files are written aside first and put in place at the end, config.json
        last: one that a kill has left is the old model, or none (without config.json), never a
        mixture. A certificate of the old weights is removed.
    tokenizer
        Its files are written too, and its special ids go into the configs.
    dtype
        "float32", "float16" or "bfloat16" (half the size, 11 and 8 bits of precision).
    max_shard_size
        Bytes of tensors in one file, or a size such as "5GB". A model above it becomes several
        files ``model-00001-of-0000N.safetensors`` with an index, as transformers writes them.
    quantization
        Of a quantized model: its blocks are written in the place of those parameters, under our
        own names, and only Omnima loads the directory. `dtype` is that of all others.

    Returns
    -------
    str
        The architecture written: the first of `omnima.hub.architectures` that the model is exactly,
        or OmnimaForCausalLM where no architecture of transformers is; that loads here only.

    Raises
    ------
    ConfigError
        For an unknown dtype or size, a missing or unknown field.
    DataError
        When parameters are missing, unexpected or of a wrong shape, or no longer what the blocks
        say.
    """
    import torch

    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    check_dtype(dtype, kinds)
    most = _size_of(max_shard_size)
    model = outgoing(model_config, parameters, "The model given to save_pretrained")
    model_config, written, tensors = model.config, model.architecture, model.parameters
    if quantization is None:
        tensors = written.names.from_ours(tensors, model_config)
    else:
        quantization.check_unchanged(tensors)
        tensors = NAMES.from_ours({**tensors, **quantization.blocks}, model_config)
    if written.name == "OmnimaForCausalLM" and quantization is None:
        warnings.warn(
            "No architecture of transformers is exactly this model, so the directory is written as "
            'model_type "omnima": it loads in Omnima only. For other tools take rms_norm, rotary '
            "and swiglu (Llama; with qk_norm Qwen3, with sliding_window Mistral), or layer_norm, "
            "learned (rotary: GPT-NeoX), gelu_tanh and both biases (GPT-2), or another one of the "
            "architectures that the documentation lists.",
            stacklevel=2,
        )
    with _put_in_place(Path(directory), tokenizer is not None) as aside:
        _write_weights(aside, tensors, kinds[dtype], most)
        if tokenizer is not None:
            tokenizer.save_pretrained(aside)
        ids = _special_ids(tokenizer)
        _write_json(aside / "generation_config.json", {"_from_model_config": True, **ids})
        described = write_config(model_config, written, ids, dtype)
        if quantization is not None:
            described[KEY] = quantization.config(
                [
                    name
                    for name in tensors
                    if name.endswith(".weight") and name not in quantization.blocks
                ]
            )
        _write_json(aside / _CONFIG, described)
    return written.name


def _size_of(given: int | str) -> int:
    size = read_size(given) if isinstance(given, str) else given
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(
            f"max_shard_size is {given!r}: give a number of bytes, or a size such as 5GB."
        )
    return size


@contextlib.contextmanager
def _put_in_place(folder: Path, with_tokenizer: bool) -> Iterator[Path]:
    """A directory to write a model into, whose files then replace those of `folder` at once.

    From the first file that is replaced to the last there is no config.json, so that what a kill
    leaves in between is not taken for a model. Old weights go, and with a new tokenizer the chat
    templates of the old one.
    """
    from omnima.tokenizers import chat_files

    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(left)  # of a save that was killed
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder))
    try:
        yield aside
        sync_directory(aside)
        old = [each for each in folder.iterdir() if OF_WEIGHTS.fullmatch(each.name)]
        if with_tokenizer:
            old += [folder / chat_files.FILE, *(folder / chat_files.FOLDER).glob("*.jinja")]
        old.append(folder / OF_DIRECTORY)
        new = [path.relative_to(aside) for path in sorted(aside.rglob("*")) if path.is_file()]
        _check_places([*old, *(folder / name for name in new)], folder)
        (folder / _CONFIG).unlink(missing_ok=True)
        sync_directory(folder)
        for path in old:
            path.unlink(missing_ok=True)
        for name in new:
            if str(name) != _CONFIG:
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(aside / name, folder / name)
        sync_directory(folder)
        os.replace(aside / _CONFIG, folder / _CONFIG)
        sync_directory(folder)
    finally:
        shutil.rmtree(aside)


def _check_places(paths: list[Path], folder: Path) -> None:
    """Refuse what cannot be replaced, before anything of the old model is gone."""
    for path in paths:
        parent = path.parent
        if path.is_dir() or (parent != folder and parent.exists() and not parent.is_dir()):
            place, kind = (path, "directory") if path.is_dir() else (parent, "file")
            raise ConfigError(
                f"{place} is a {kind}, and lies where the model's files go: move it away. Nothing "
                "has changed there."
            )


def _write_weights(
    folder: Path, tensors: Mapping[str, Tensor], kind: torch.dtype, most: int
) -> None:
    import torch

    from omnima import _core

    def stored(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.uint8 else tensor.to(kind)

    sizes = {
        name: each.numel() * (each if each.dtype == torch.uint8 else kind).itemsize
        for name, each in tensors.items()
    }
    shards = split(sizes, most)
    where: dict[str, str] = {}
    for number, chosen in enumerate(shards, start=1):
        file = WEIGHTS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        where |= dict.fromkeys(chosen, file)
        converted = {name: stored(tensors[name]).contiguous() for name in chosen}
        _core.write_safetensors(folder / file, converted, {"format": "pt"})
    if len(shards) > 1:
        count = sum(each.numel() for each in tensors.values())
        about = {"total_parameters": count, "total_size": sum(sizes.values())}
        _write_json(folder / INDEX, {"metadata": about, "weight_map": where})


def split(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Share tensors out to files, in order: a file is full when the next would exceed `most`.

    One that is larger than that has a file of its own.

    >>> split({"a": 2, "b": 3, "c": 9, "d": 1}, 4)
    [['a'], ['c'], ['b', 'd']]
    """
    shards: list[list[str]] = []
    current: list[str] = []
    used = 0
    for name, size in sizes.items():
        if size > most:
            shards.append([name])
            continue
        if used + size > most:
            shards.append(current)
            current, used = [], 0
        current.append(name)
        used += size
    return [*shards, current] if current else shards


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
