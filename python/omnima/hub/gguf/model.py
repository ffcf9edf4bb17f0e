"""A model out of one GGUF file: shape, parameters and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub import names
from omnima.hub.architectures import REGISTRY
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.gguf.metadata import RAMP, read_shape
from omnima.hub.gguf.tokenizer import begin_tokenizer
from omnima.hub.stored import StoredModel

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.tokenizers import Tokenizer


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


def open_gguf(path: str | Path, look: bool = False) -> StoredModel:
    """Check a file as `load_gguf` does, and read no weights yet.

    With `look`, NaN and infinity are looked for in all weights from now on, beside the caller.

    >>> open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf").config["hidden_size"]  # doctest: +SKIP
    576
    """
    from omnima import _core

    where = str(path)
    file = _core.GgufFile(Path(path), beside=look)
    file.read_ahead()
    metadata = file.metadata(lists=False)
    form = _form_of(metadata, where)
    _check_whole(metadata, where)
    finish_tokenizer = begin_tokenizer(metadata, where)
    looking = file.look() if look else None
    tensors = file.tensors()
    formats = {name: kind.lower() for name, kind, _ in tensors}
    shapes = {name: tuple(shape) for name, _, shape in tensors}
    ramp = file.tensor(RAMP) if RAMP in shapes else None
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
    of_model = {name: shape for name, shape in shapes.items() if name != RAMP}
    names.check_shapes(of_model, form.names.shapes(config), where)

    def read(name: str, as_stored: bool) -> Tensor:
        return file.raw(name) if as_stored and len(shapes[name]) > 1 else file.tensor(name)

    named = metadata.get("general.license")
    terms = named if isinstance(named, str) and named else None
    return StoredModel(
        config,
        where,
        form.names,
        read,
        formats,
        finish_tokenizer,
        license=terms,
        looking=looking,
    )


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
