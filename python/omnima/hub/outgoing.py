"""A model on its way into files, of whatever format: complete, checked, and which architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.hub import names
from omnima.hub.architectures import Architecture
from omnima.hub.fields import architecture_of
from omnima.hub.options import field_defaults

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """What files need of a model.

    Attributes
    ----------
    config
        Every field of the decoder's configuration.
    architecture
        The first of ours that the model is exactly.
    parameters
        By our names, but for those that serve training alone.
    """

    config: dict[str, Any]
    architecture: Architecture
    parameters: dict[str, Tensor]


def outgoing(
    config: Mapping[str, Any], parameters: Iterable[tuple[str, Tensor]], where: str
) -> Outgoing:
    """Complete and check a model; warns of NaN and infinity.

    Raises
    ------
    ConfigError
        A missing or unknown field.
    DataError
        Parameters that are missing, unexpected or of a wrong shape; `where` names the model.
    """
    from omnima import _core

    architecture = architecture_of(config)
    config = {**field_defaults(), **config, "prediction_heads": 0}
    found = names.to_be_saved(config, parameters, where)
    names.report_nonfinite(_core.nonfinite_tensors(found), "The model to save", strict=False)
    return Outgoing(config, architecture, found)


def check_dtype(dtype: str, choices: Iterable[str]) -> None:
    """Refuse a dtype that the format does not have.

    >>> check_dtype("int4", ["float32", "bfloat16"])
    Traceback (most recent call last):
        ...
    omnima.errors.ConfigError: dtype is "int4"; the choices are float32, bfloat16.
    """
    if dtype not in choices:
        raise ConfigError(f'dtype is "{dtype}"; the choices are {", ".join(choices)}.')
