"""A model in files that are checked but not read: its numbers go straight into the parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError
from omnima.hub import names
from omnima.hub.naming import Names
from omnima.hub.quantized import Quantization

if TYPE_CHECKING:
    from torch import Tensor

    from omnima import _core
    from omnima.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """What `open_pretrained` and `open_gguf` give."""

    #: The decoder's configuration, complete.
    config: dict[str, Any]
    #: Names the files in errors.
    where: str
    #: How they name our parameters.
    names: Names
    #: A tensor by its name there: as it is stored (blocks as bytes) where told True, else one that
    #: arithmetic can be done with.
    read: Callable[[str, bool], Tensor]
    #: The formats of tensors that are read as bytes.
    formats: Mapping[str, str]
    #: Waits for the tokenizer in the same file, if there is one.
    finish_tokenizer: Callable[[], Tokenizer | None] = lambda: None
    #: The license that the same file names.
    license: str | None = None
    #: Of a model that we quantized.
    quantization: Quantization | None = None
    #: A look for NaN and infinity that goes on already.
    looking: _core.FiniteLook | None = None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer in the same file, if there is one.

        Raises
        ------
        DataError
            For damaged lists.
        """
        return self.finish_tokenizer()

    def look(self) -> _core.FiniteLook:
        """Begin to look for NaN and infinity in all tensors as they are stored."""
        from omnima import _core

        tensors = []
        for name, part in self.names.parts(self.config).items():
            stored = self.read(name, part.layout.moves_rows)
            tensors.append((name, stored, format_of(stored, self.formats.get(name))))
        return _core.FiniteLook(tensors)

    def fill(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        strict: bool = False,
        hold: Callable[[str, Tensor, str], None] | None = None,
    ) -> None:
        """Write the numbers into a model's parameters, in one pass from the files.

        Parameters
        ----------
        parameters
            All of a model's of this configuration, by name: float32, on any device. With `hold`
            some may be left out.
        strict
            Refuse weights that hold NaN or infinity instead of warning.
        hold
            Takes those that are left out, one after the other: the name, the tensor as it is
            stored, and its format.

        Raises
        ------
        DataError
            Damaged weights, with `strict`; a parameter that the files do not have.
        """
        from omnima import _core

        room = dict(parameters)
        damaged = []
        for name, theirs, found in self.names.pieces(self.read, self.config):
            finite = True
            for ours, stored in found.items():
                if ours in room or hold is None:
                    finite &= _fill(room.pop(ours), self.formats.get(name), stored)
                else:
                    hold(ours, stored, format_of(stored, self.formats.get(name)))
            if not finite:
                damaged.append(name)
            _core.forget(theirs)
        if room:
            raise DataError(f"{self.where}: no tensor holds {names.some(sorted(room))}.")
        names.report_nonfinite(damaged, self.where, strict)

    def lying(
        self,
        dtype: str = "auto",
        strict: bool = False,
        activations: str = "float32",
        device: str = "cpu",
    ) -> LyingModel:
        """What writes with the weights as they lie in the files, which stay mapped into memory, and
        what it reads.

        Parameters
        ----------
        dtype
            "auto": as they are stored. "bfloat16": matrices rounded to it, in memory of their own.
        strict
            Refuse weights that hold NaN or infinity instead of warning.
        activations
            What matrices are multiplied with: "float32", "bf16" where they are in bfloat16, or
            "int8" where their format allows it.
        device
            Where to write: "cpu", or a GPU, to which the weights are copied.

        Raises
        ------
        ConfigError
            That GPU cannot write with this model.
        DataError
            Damaged weights, with `strict`.
        """
        from omnima import _core

        parameters: dict[str, Tensor] = {}
        formats: dict[str, str] = {}
        look = self.looking or self.look()
        for name, theirs, found in self.names.pieces(self.read, self.config, in_heads_order=False):
            format = format_of(theirs, self.formats.get(name))
            for ours, stored in found.items():
                if dtype == "bfloat16" and stored.dim() > 1:
                    parameters[ours] = _in_bfloat16(stored, format)
                    continue
                parameters[ours] = stored
                if not stored.is_floating_point():
                    formats[ours] = format
        order = self.names.head_order(self.config)
        engine = _core.Engine(self.config, parameters, formats, activations, order, device)
        _ = self.tokenizer  # its thread needs the core with which this one would help the look
        names.report_nonfinite(look.found(), self.where, strict)
        mapped = device == "cpu" and dtype != "bfloat16"
        return LyingModel(engine, parameters, formats, order, device, mapped)


@dataclasses.dataclass(frozen=True)
class LyingModel:
    """A model that writes with its weights as they lie.

    Attributes
    ----------
    engine
        That reads them.
    parameters, formats
        What it reads; of bytes, in which format.
    order
        Which row of a head of queries or keys each of ours is; empty: the same.
    device
        Where it writes.
    mapped
        Whether it reads the matrices in the mapped files, and not in memory of its own.
    """

    engine: _core.Engine
    parameters: Mapping[str, Tensor]
    formats: Mapping[str, str]
    order: Sequence[int]
    device: str
    mapped: bool

    @property
    def bytes_to_come(self) -> int:
        """See :attr:`omnima.Model.bytes_to_come`."""
        import torch

        if self.device != "cpu":
            return 0
        all_bytes = sum(each.nbytes for each in self.parameters.values())
        halves = (each for each in self.parameters.values() if each.dtype == torch.bfloat16)
        copies = sum(compact_bytes(each) for each in halves if each.dim() > 1)
        return copies + (all_bytes if self.mapped else 0)

    def carrier(self, config: Any, is_holdable: Callable[[str], bool]) -> _core.Decoder:
        """A decoder of this configuration for adapters to stand at: its matrices, where they are
        holdable, are these, and all else of it is left unwritten.
        """
        from omnima import _core

        held = {
            name: format_of(each, self.formats.get(name))
            for name, each in self.parameters.items()
            if is_holdable(name)
        }
        decoder = _core.Decoder(config, None, "cpu", held)
        for name in held:
            decoder.hold(name, self._blocks_of(name))
        return decoder

    def _blocks_of(self, name: str) -> Tensor:
        """The bytes of a matrix, uint8 ``[outputs, bytes of a row]``, rows as ours lie."""
        import torch

        blocks = self.parameters[name].contiguous().view(torch.uint8)
        if not self.order or not name.endswith(("q_proj.weight", "k_proj.weight")):
            return blocks
        heads = blocks.view(-1, len(self.order), blocks.shape[1])
        return heads.index_select(1, torch.tensor(self.order)).view(blocks.shape)


def compact_bytes(halves: Tensor) -> int:
    """Bytes of the copy in 12 bits a number that the engine makes of a matrix in bfloat16."""
    return halves.nbytes // 4 * 3


def format_of(stored: Tensor, of_bytes: str | None) -> str:
    """The format of a tensor as a file holds it; `of_bytes` is that of bytes."""
    import torch

    kinds = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
    found = kinds.get(stored.dtype, of_bytes)
    assert found is not None
    return found


def numbers_of(stored: Tensor, format: str) -> Tensor:
    """A tensor of a file as numbers, which blocks of `format` become."""
    from omnima import _core

    if stored.is_floating_point():
        return stored
    numbers, size = _core.block_of(format)
    shape = [*stored.shape[:-1], stored.shape[-1] // size * numbers]
    return _core.dequantized(format, stored.contiguous(), shape)


def _in_bfloat16(stored: Tensor, format: str) -> Tensor:
    import torch

    return numbers_of(stored, format).to(torch.bfloat16)


def _fill(parameter: Tensor, format: str | None, stored: Tensor) -> bool:
    """Whether all numbers are finite. `format` is that of bytes."""
    import torch

    from omnima import _core

    found = format_of(stored, format)
    if parameter.device.type == "cpu":
        return _core.fill_parameter(parameter, found, stored)
    here = torch.empty(parameter.shape)
    finite = _core.fill_parameter(here, found, stored)
    with torch.no_grad():
        parameter.copy_(here)
    return finite
