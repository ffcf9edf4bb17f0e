"""A model whose matrices are held in blocks alone, as QLoRA has it: what learns is an adapter."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub.names import expected_shapes
from omnima.hub.quantized import Quantization
from omnima.hub.stored import numbers_of
from omnima.quantization.plan import TARGETS, plan

if TYPE_CHECKING:
    import torch

    from omnima import _core

#: Matrices that a product meets row by row; experts are no such.
_HOLDABLE = re.compile(
    r"model\.layers\.\d+\.(self_attn|mlp|mlp\.shared_expert)\.(q|k|v|o|gate|up|down)_proj\.weight"
    r"|model\.embed_tokens\.weight|lm_head\.weight"
)
#: Embedding and head keep 16 bits a number.
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")
_OF_16_BITS = "bf16"
#: What matrices can be held in.
CHOICES = (*TARGETS, _OF_16_BITS)
_NUMBERS_AT_ONCE = 1 << 22  # of a matrix that is being quantized: its rows stand alone


@dataclasses.dataclass(frozen=True)
class Holding:
    """In which formats a model's matrices are held.

    Attributes
    ----------
    settings
        As those of :class:`omnima.hub.quantized.Quantization`.
    formats
        By the parameters' names; all others are numbers.
    """

    settings: Mapping[str, Any]
    formats: Mapping[str, str]

    def holder(self, decoder: _core.Decoder) -> Callable[[str, torch.Tensor, str], None]:
        """What gives a decoder the blocks of matrices as files have them: of `StoredModel.fill`."""

        def hold(name: str, stored: torch.Tensor, format: str) -> None:
            wanted = self.formats[name]
            if not stored.is_floating_point() and format == wanted:
                decoder.hold(name, stored.clone())
            else:
                decoder.hold(name, blocks_of(numbers_of(stored, format), wanted, name))

        return hold

    def of(self, decoder: _core.Decoder) -> Quantization | None:
        """What a model keeps that a decoder with these blocks belongs to; numbers of 16 bits are
        numbers, and no quantization.
        """
        if self.settings["to"] == _OF_16_BITS:
            return None
        return Quantization(
            self.settings, self.formats, {name: blocks for name, _, blocks in decoder.held}
        )


def is_holdable(name: str) -> bool:
    """Whether a parameter can be held in blocks while an adapter learns beside it.

    >>> is_holdable("lm_head.weight"), is_holdable("model.layers.0.mlp.experts.0.up_proj.weight")
    (True, False)
    """
    return _HOLDABLE.fullmatch(name) is not None


def holding(config: Mapping[str, Any], to: str) -> Holding:
    """In what a model that has numbers is held: ``"nf4"``, ``"int8"``, ``"int4"`` or ``"bf16"``.

    The linear layers of the blocks are rounded to the nearest level, in groups of 64; embedding and
    head to bfloat16. Experts stay numbers. With ``"bf16"`` all that can be held is rounded to that.

    >>> from omnima.config import model_preset
    >>> found = holding(model_preset("nima", vocab_size=64).to_dict(), "nf4")
    >>> found.formats["model.embed_tokens.weight"]
    'bf16'
    """
    if to == _OF_16_BITS:
        names = [name for name in expected_shapes(dict(config)) if is_holdable(name)]
        return Holding({"to": to}, dict.fromkeys(names, _OF_16_BITS))
    chosen = plan(config, to, "rtn", ends="none")
    formats = {name: each for name, each in chosen.formats.items() if is_holdable(name)}
    ends = [name for name in chosen.kept if name in _ENDS]
    formats |= dict.fromkeys(ends, _OF_16_BITS)
    settings = {
        "to": to,
        "method": chosen.method,
        "group_size": chosen.group_size,
        "zero_point": chosen.zero_point,
    }
    return Holding(settings, formats)


def as_stored(quantization: Quantization | None, where: str, to: str | None = None) -> Holding:
    """In what a quantized model has its matrices.

    Raises
    ------
    ConfigError
        It has numbers, or other blocks than those asked for by `to`.
    """
    if quantization is None:
        raise ConfigError(
            f"{where} was not quantized by Omnima, so that it has no blocks to hold: say in which "
            f"it is to be held, {', '.join(CHOICES)}."
        )
    found = quantization.settings.get("to")
    if to is not None and to != found:
        raise ConfigError(
            f"{where} is quantized to {found} already, not to {to}: leave it so, or take the model "
            "that it was made of."
        )
    formats = {name: each for name, each in quantization.formats.items() if is_holdable(name)}
    return Holding(quantization.settings, formats)


def blocks_of(numbers: torch.Tensor, format: str, name: str) -> torch.Tensor:
    """The blocks of a matrix, uint8 ``[outputs, bytes of a row]``, each number rounded to the
    nearest level.

    Parameters
    ----------
    numbers
        ``[outputs, inputs]``, of any floating type.
    format
        One of a format that rtn makes, or ``"bf16"``.
    name
        Of the matrix, for the error.

    Raises
    ------
    DataError
        NaN or infinity among the numbers.
    """
    import torch

    from omnima import _core

    rows, inputs = numbers.shape
    made = torch.empty((rows, _core.row_bytes(format, inputs)), dtype=torch.uint8)
    at_once = max(1, _NUMBERS_AT_ONCE // inputs)
    for first in range(0, rows, at_once):
        part = numbers[first : first + at_once]
        wide = part.to(torch.float32)
        if _core.nonfinite_tensors({name: wide}):
            raise DataError(
                f'The parameter "{name}" holds NaN or infinity: the model is damaged, and is not '
                "quantized."
            )
        if format == _OF_16_BITS:
            made[first : first + at_once] = part.to(torch.bfloat16).contiguous().view(torch.uint8)
        else:
            made[first : first + at_once] = _core.quantize_matrix("rtn", format, wide)
    return made


def held_decoder(
    decoder: _core.Decoder, formats: Mapping[str, str], blocks: Mapping[str, torch.Tensor]
) -> _core.Decoder:
    """A decoder like one with numbers, whose matrices are these blocks; it copies all else."""
    import torch

    from omnima import _core

    made = _core.Decoder(decoder.config, None, "cpu", dict(formats))
    before = dict(decoder.named_parameters())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(before[name])
    for name in formats:
        made.hold(name, blocks[name].contiguous())
    return made
