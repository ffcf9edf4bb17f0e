"""These tests need a GPU and an extension that was built for one."""

from __future__ import annotations

import pytest
import torch

from omnima import _core

WHY_NOT = (
    "there is no GPU that torch can use"
    if not torch.cuda.is_available()
    else ""
    if _core.has_gpu_kernels()
    else "the extension was built without OMNIMA_CUDA"
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip before any fixture is made."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
