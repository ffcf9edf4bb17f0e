"""Where a model's weights live and are computed with, and where an optimizer's state may lie."""

from __future__ import annotations

import os
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


def check_offload(place: str | None, device: str) -> None:
    """Refuse a place where an optimizer's state cannot lie.

    Parameters
    ----------
    place
        None, "cpu" or a directory.
    device
        Where the weights are.

    Raises
    ------
    ConfigError
        The state is there already, or the directory is none, or cannot be written.
    """
    if place is None:
        return
    if place == "cpu":
        if device == "cpu":
            raise ConfigError(
                "offload_optimizer is 'cpu', which is for a GPU: training on the CPU, the "
                "optimizer's state is in the machine's memory already. Leave it out, or name a "
                "directory of a fast disk."
            )
        return
    if not os.path.isdir(place):
        raise ConfigError(
            f"offload_optimizer is {place!r}: expected none, cpu or an existing directory: "
            "create it first, on a fast disk, or name the run's own directory."
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"offload_optimizer is {place!r}, which is not writable.")
