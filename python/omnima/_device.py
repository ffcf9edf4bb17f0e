"""Where a model's weights live and are computed with."""

from __future__ import annotations

import re

from omnima.errors import ConfigError

_NAME = re.compile(r"cpu|cuda(?::(\d+))?")


def check_device(device: str) -> str:
    """Return the device if torch can use it here.

    Raises
    ------
    ConfigError
        The name is none of `cpu`, `cuda` and `cuda:1` (one of several), or there is no such GPU.
    """
    import torch

    match = _NAME.fullmatch(device)
    if match is None:
        raise ConfigError(f"device is {device!r}, but must be cpu, cuda or one GPU such as cuda:1.")
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        build = "is a build without CUDA" if torch.version.cuda is None else "finds no usable GPU"
        raise ConfigError(
            f"device is {device!r}, but torch {torch.__version__} {build}. Take device cpu, or see "
            "`omnima doctor` for what this machine offers."
        )
    if match[1] and int(match[1]) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {device!r}, but this machine has {torch.cuda.device_count()} GPUs, counted "
            "from cuda:0."
        )
    return device
