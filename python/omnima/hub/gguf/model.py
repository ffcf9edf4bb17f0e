"""A model as one GGUF file, in and out: shape, parameters and tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub import names
from omnima.hub.architectures import REGISTRY
from omnima.hub.card import update_certificates
from omnima.hub.certificates import certificate_path
from omnima.hub.config_reader import ConfigReader
from omnima.hub.fields import architecture_of
from omnima.hub.gguf.blocks import as_gguf
from omnima.hub.gguf.form import GgufForm
from omnima.hub.gguf.metadata import Pair, ramp_of, read_shape, write_shape
from omnima.hub.gguf.tokenizer import read_tokenizer, write_tokenizer
from omnima.hub.options import field_defaults
from omnima.hub.quantized import Quantization
from omnima.hub.stored import StoredModel

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.tokenizers import Tokenizer

#: The formats that a file can be written in, and their numbers under general.file_type.
DTYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
_FILE_TYPES = {**DTYPES, "q4_1": 3}
_RAMP = "rope_freqs.weight"


def load_gguf(
    path: str | Path, strict: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer | None]:
    """Read a GGUF file.

    Parameters
    ----------
    path
        The file: version 2 or 3, one of the architectures that Omnima has, numbers in F32, F16,
        BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or Q2_K to Q6_K.
    strict
        Refuse weights that hold NaN or infinity instead of warning.

    Returns
    -------
    tuple
        The decoder's configuration, its parameters by name in float32, and the tokenizer, where
        the file has one.

    Raises
    ------
    DataError
        Names the file, the key or the tensor: a malformed file, an architecture, a format or a
        tokenizer that Omnima does not have, tensors that do not fit the keys.
    """
    from omnima import _core

    stored = open_gguf(path)
    found = stored.names.to_ours(lambda name: stored.read(name, False), stored.config)
    names.report_nonfinite(_core.nonfinite_tensors(found), str(path), strict)
    return stored.config, found, stored.tokenizer


def open_gguf(path: str | Path) -> StoredModel:
    """Check a file as `load_gguf` does, and read no weights yet.

    >>> open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf").config["hidden_size"]  # doctest: +SKIP
    576
    """
    from omnima import _core

    where = str(path)
    file = _core.GgufFile(Path(path))
    file.read_ahead()
    metadata = file.metadata()
    form = _form_of(metadata, where)
    _check_whole(metadata, where)
    formats = {name: kind.lower() for name, kind, _ in file.tensors()}
    shapes = {name: tuple(shape) for name, _, shape in file.tensors()}
    ramp = file.tensor(_RAMP) if _RAMP in shapes else None
    keys = ConfigReader(metadata, Path(path), prefix=f"{form.arch}.")
    config = read_shape(keys, form, shapes, ramp)
    if config["num_hidden_layers"] > len(shapes):
        raise DataError(
            f"{where}: {form.arch}.block_count claims {config['num_hidden_layers']} layers, but "
            f"the file has {len(shapes)} tensors in all."
        )
    experts = shapes.get("blk.0.ffn_up_exps.weight", (0,))[0]
    if config["num_experts"] != experts:
        raise DataError(
            f"{where}: {form.arch}.expert_count claims {config['num_experts']} experts, but "
            f"blk.0.ffn_up_exps.weight holds {experts}."
        )
    config.update(_of_tensors(shapes, config))
    config = _checked(config, where)
    of_model = {name: shape for name, shape in shapes.items() if name != _RAMP}
    names.check_shapes(of_model, form.names.shapes(config), where)

    def read(name: str, as_stored: bool) -> Tensor:
        return file.raw(name) if as_stored and len(shapes[name]) > 1 else file.tensor(name)

    tokenizer = read_tokenizer(metadata, where)
    named = metadata.get("general.license")
    terms = named if isinstance(named, str) and named else None
    return StoredModel(config, where, form.names, read, formats, tokenizer, terms)


def _check_whole(metadata: Mapping[str, Any], where: str) -> None:
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise DataError(
            f"{where} is one of {parts} parts of a model (split.count), and Omnima reads whole "
            "files: join them with llama-gguf-split --merge of llama.cpp."
        )


def _form_of(metadata: Mapping[str, Any], where: str) -> GgufForm:
    forms = {each.gguf.arch: each.gguf for each in reversed(REGISTRY) if each.gguf is not None}
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str) or arch not in forms:
        raise DataError(
            f"{where}: the architecture {arch!r} (general.architecture) is not supported. Omnima "
            f"reads {', '.join(sorted(forms))}."
        )
    return forms[arch]


def _of_tensors(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says by having a tensor: norms of heads, and norms after attention and mlp."""
    first = "blk.0."
    fields: dict[str, Any] = {}
    if f"{first}attn_q_norm.weight" in shapes:
        whole = tuple(shapes[f"{first}attn_q_norm.weight"]) != (config["head_dim"],)
        fields |= {"qk_norm": True, "qk_norm_over_heads": whole}
    if f"{first}post_attention_norm.weight" in shapes:
        before = f"{first}attn_norm.weight" in shapes
        fields["norm_placement"] = "both" if before else "after"
    return fields


def _checked(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The configuration as the core completes it; what it refuses is the file's fault."""
    from omnima.config import ModelConfig

    try:
        return ModelConfig.from_dict(config).to_dict()
    except ConfigError as error:
        raise DataError(f"{where}: its keys make no model: {error}") from None


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

    if dtype not in DTYPES:
        raise ConfigError(f'dtype is "{dtype}"; the choices are {", ".join(DTYPES)}.')
    model_config = {**field_defaults(), **model_config, "prediction_heads": 0}
    written = architecture_of(model_config)
    if written.gguf is None:
        can = [each.name for each in REGISTRY if each.gguf is not None]
        raise ConfigError(
            f"This model is a {written.name}, for which GGUF has no architecture that Omnima knows."
            f" It writes {', '.join(can)}."
        )
    form = written.gguf
    given = names.to_be_saved(model_config, parameters, "The model given to save_gguf")
    laid = _in_blocks(given, quantization)
    kinds = {name: kind for name, (kind, _) in laid.items()}
    most = max(set(kinds.values()), key=list(kinds.values()).count) if kinds else dtype
    general: list[Pair] = [
        ("general.architecture", "str", form.arch),
        ("general.type", "str", "model"),
        *((f"general.{key}", "str", text) for key, text in (about or {}).items()),
        ("general.file_type", "u32", _FILE_TYPES[most]),
        ("general.quantization_version", "u32", 2),
    ]
    found = form.names.from_ours(
        {**given, **{name: each for name, (_, each) in laid.items()}}, model_config
    )
    formats = {
        name: kinds[part.ours[0]]
        for name, part in form.names.parts(model_config).items()
        if part.ours[0] in kinds
    }
    if model_config["rope_scaling"] == "llama3":
        found[_RAMP] = ramp_of(model_config)
    pairs = [*general, *write_shape(model_config, form)]
    if tokenizer is None:
        pairs.append(("tokenizer.ggml.model", "str", "no_vocab"))
    else:
        pairs += write_tokenizer(tokenizer, model_config["vocab_size"])
    path = Path(path)
    certified = certificate_path(path)
    of_old = certified.exists()
    certified.unlink(missing_ok=True)
    _core.write_gguf(
        path,
        pairs,
        [(name, formats.get(name) or _format(each, dtype), each) for name, each in found.items()],
    )
    if of_old:
        update_certificates(path.parent)
    return form.arch


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
