"""A model into one GGUF file, as llama.cpp's converters lay it out."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.hub.architectures import REGISTRY, Architecture
from omnima.hub.card import update_certificates
from omnima.hub.certificates import certificate_path
from omnima.hub.gguf.blocks import as_gguf
from omnima.hub.gguf.form import GgufForm
from omnima.hub.gguf.metadata import RAMP, Pair, ramp_of, write_shape
from omnima.hub.gguf.tokenizer import write_tokenizer
from omnima.hub.outgoing import Outgoing, check_dtype, outgoing
from omnima.hub.quantized import Quantization

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.tokenizers import Tokenizer

#: The formats that a file can be written in, and their numbers under general.file_type.
DTYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
_FILE_TYPES = {**DTYPES, "q4_1": 3}


def save_gguf(
    model_config: Mapping[str, Any],
    parameters: Iterable[tuple[str, Tensor]],
    path: str | Path,
    tokenizer: Tokenizer | None = None,
    dtype: str = "f16",
    about: Mapping[str, str] | None = None,
    quantization: Quantization | None = None,
) -> str:
    """Write a GGUF file as llama.cpp's converters lay it out.

    Parameters
    ----------
    model_config
        All fields of a decoder's configuration.
    parameters
        Names (those of Hugging Face's Llama) and tensors; those that serve training alone are left
        out.
    path
        Replaced at once: never left half written. The certificate of an old file is removed.
    tokenizer
        Goes into the file; without one llama.cpp takes ids only. Normalization of text (NFC, as of
        Qwen2) has no key there: llama.cpp cuts text as it is.
    dtype
        "f32", "f16", "bf16", "q8_0" or "q4_0": of the matrices; vectors are float32. A matrix whose
        rows are no whole blocks of 32 numbers is written as f16.
    about
        Texts under "general.": name, license, …
    quantization
        Of a quantized model: its matrices are written in the types that hold their numbers (q8_0,
        q4_0, q4_1; f32 where groups are no whole blocks), all others as `dtype`.

    Returns
    -------
    str
        The architecture written, by GGUF's name.

    Raises
    ------
    ConfigError
        A dtype that is unknown, or a model that GGUF cannot say or llama.cpp computes otherwise.
    DataError
        A quantized model whose parameters are no longer what its blocks say.
    """
    from omnima import _core

    check_dtype(dtype, DTYPES)
    model = outgoing(model_config, parameters, "The model given to save_gguf")
    if model.config["reward_head"]:
        raise ConfigError(
            "A reward model has no head for tokens, and llama.cpp cannot run it: save it as a "
            "directory."
        )
    form = _form_of(model.architecture)
    blocks = _in_blocks(model.parameters, quantization)
    tensors = _tensors(model, form, blocks, dtype)
    kinds = [kind for kind, _ in blocks.values()]
    pairs: list[Pair] = [
        ("general.architecture", "str", form.arch),
        ("general.type", "str", "model"),
        *((f"general.{key}", "str", text) for key, text in (about or {}).items()),
        ("general.file_type", "u32", _FILE_TYPES[max(kinds, key=kinds.count, default=dtype)]),
        ("general.quantization_version", "u32", 2),
        *write_shape(model.config, form),
        *write_tokenizer(tokenizer, model.config["vocab_size"]),
    ]
    with _certificate_removed(Path(path)):
        _core.write_gguf(Path(path), pairs, tensors)
    return form.arch


def _form_of(architecture: Architecture) -> GgufForm:
    if architecture.gguf is None:
        can = [each.name for each in REGISTRY if each.gguf is not None]
        raise ConfigError(
            f"This model is a {architecture.name}, for which GGUF has no architecture that Omnima "
            f"knows. It writes {', '.join(can)}."
        )
    return architecture.gguf


def _tensors(
    model: Outgoing, form: GgufForm, blocks: Mapping[str, tuple[str, Tensor]], dtype: str
) -> list[tuple[str, str, Tensor]]:
    """Name, type and numbers of each tensor of the file."""
    ours = {**model.parameters, **{name: each for name, (_, each) in blocks.items()}}
    found = form.names.from_ours(ours, model.config)
    types = {
        name: blocks[part.ours[0]][0]
        for name, part in form.names.parts(model.config).items()
        if part.ours[0] in blocks
    }
    if model.config["rope_scaling"] == "llama3":
        found[RAMP] = ramp_of(model.config)
    return [(name, types.get(name) or _format(each, dtype), each) for name, each in found.items()]


@contextlib.contextmanager
def _certificate_removed(path: Path) -> Iterator[None]:
    """Remove the certificate of the file that is replaced; the card beside it then says so."""
    certified = certificate_path(path)
    of_old = certified.exists()
    certified.unlink(missing_ok=True)
    yield
    if of_old:
        update_certificates(path.parent)


def _in_blocks(
    given: Mapping[str, Tensor], quantization: Quantization | None
) -> dict[str, tuple[str, Tensor]]:
    """The type and the tensor of each quantized parameter, by name."""
    if quantization is None:
        return {}
    quantization.check_unchanged(given)
    return {
        name: as_gguf(format, quantization.blocks[name]) or ("f32", given[name])
        for name, format in quantization.formats.items()
    }


def _format(tensor: Tensor, dtype: str) -> str:
    if tensor.dim() < 2:
        return "f32"
    if dtype in ("q8_0", "q4_0") and tensor.shape[-1] % 32:
        warnings.warn(
            f"Rows of {tensor.shape[-1]} numbers are no whole blocks of 32: such matrices are "
            f"written as f16 instead of {dtype}.",
            stacklevel=3,
        )
        return "f16"
    return dtype
