"""Quantized models in Hugging Face directories: blocks as uint8 tensors, and what they are in
``quantization_config``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub import names
from omnima.hub.naming import Names
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "omnima"
#: Of `quantization_config`: a directory of a newer one is refused.
VERSION = 1
KEY = "quantization_config"
SETTINGS = ("to", "method", "group_size", "zero_point")
# Our own names of the parameters, whatever the architecture: nobody else reads the blocks. Rows of
# queries and keys lie as in the files of others all the same.
NAMES = Names()


@dataclasses.dataclass(frozen=True)
class Quantization:
    """What a quantized model keeps beside its parameters, which hold the numbers of the blocks.

    Attributes
    ----------
    settings
        ``to``, ``method``, ``group_size`` and ``zero_point``.
    formats
        The format of each quantized parameter, by name.
    blocks
        Its blocks, uint8 ``[outputs, bytes of a row]``.
    """

    settings: Mapping[str, Any]
    formats: Mapping[str, str]
    blocks: Mapping[str, Tensor]

    def config(self, kept: list[str]) -> dict[str, Any]:
        """The contents of ``quantization_config``."""
        modules = sorted({name.rpartition(".")[0] for name in kept})
        return {
            "quant_method": METHOD,
            "version": VERSION,
            **self.settings,
            "formats": dict(self.formats),
            "modules_to_not_convert": modules,
        }

    def said(self) -> str:
        """What a card says of it.

        >>> settings = {"to": "int4", "method": "gptq", "group_size": 64, "zero_point": True}
        >>> Quantization(settings, {}, {}).said()
        'int4 by gptq, groups of 64'
        """
        size = self.settings.get("group_size")
        groups = f"groups of {size}" if size else "a scale a row"
        return f"{self.settings.get('to')} by {self.settings.get('method')}, {groups}"

    def check_unchanged(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuse parameters that no longer hold the numbers of the blocks.

        Raises
        ------
        DataError
            Names one that was trained, or grown, since.
        """
        import torch

        from omnima import _core

        for name, format in self.formats.items():
            found = parameters[name].detach().cpu()
            blocks = self.blocks[name]
            same = len(found) == len(blocks) and torch.equal(
                _core.dequantized(format, blocks.contiguous(), list(found.shape)), found
            )
            if not same:
                raise DataError(
                    f'The parameter "{name}" was changed since the model was quantized. Set '
                    "model.quantization = None to save it as numbers, or to quantize it anew."
                )


def stored_bytes(quantization: Quantization, parameters: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors of a saved model; what is not in blocks is float32."""
    blocks = quantization.blocks
    return sum(
        blocks[name].numel() if name in blocks else each.numel() * each.element_size()
        for name, each in parameters.items()
        if not names.is_training_only(name)
    )


def read_description(raw: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The checked ``quantization_config`` of a config.json that we wrote; None: it has none.

    Raises
    ------
    DataError
        It is of a newer version, or damaged.
    """
    found = raw.get(KEY)
    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        return None  # what others wrote is refused where all of config.json is read
    version = found.get("version")
    if type(version) is not int or version < 1:
        raise DataError(f'{path}: "{KEY}.version" is {version!r}, but must be a whole number.')
    if version > VERSION:
        raise DataError(
            f"{path}: the model was quantized by a newer Omnima ({KEY}.version is {version}; this "
            f"one reads up to {VERSION}). Upgrade Omnima, or quantize the original model here."
        )
    formats = found.get("formats")
    if (
        not isinstance(formats, dict)
        or not formats
        or not all(isinstance(each, str) for each in formats.values())
    ):
        raise DataError(f'{path}: "{KEY}.formats" must name the format of each quantized tensor.')
    return found


def is_quantized(path: Path) -> bool:
    """Whether that is a directory of a model that we quantized; damaged ones are not."""
    file = path / "config.json"
    try:
        return file.is_file() and read_description(read_json_object(file), file) is not None
    except DataError:  # who reads it says what is wrong
        return False


def check_tensors(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    formats: Mapping[str, str],
    folder: Path,
) -> None:
    """Refuse tensors that are not what ``quantization_config`` says.

    Raises
    ------
    DataError
        Names the tensor: missing, unexpected, or of another shape or type.
    """
    import torch

    from omnima import _core

    shapes = names.expected_shapes(config)
    for name, format in formats.items():
        if name not in shapes or len(shapes[name]) != 2:
            raise DataError(f'{folder}: "{KEY}.formats" names "{name}", which is no matrix.')
        try:
            rows, inputs = shapes[name]
            shapes[name] = (rows, _core.row_bytes(format, inputs))
        except ConfigError as error:
            raise DataError(f'{folder}, tensor "{name}": {error}') from None
        if name in tensors and tensors[name].dtype != torch.uint8:
            raise DataError(
                f'{folder}, tensor "{name}": its dtype is {tensors[name].dtype}, but blocks of '
                f"{format} are uint8. The files do not belong together: quantize the model anew."
            )
    found = {name: tuple(each.shape) for name, each in tensors.items()}
    names.check_shapes(found, shapes, str(folder))
