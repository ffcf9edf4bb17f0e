"""What commands that open a model share: its name, `--activations`, `--device` and `--strict`."""

from __future__ import annotations

from typing import Any

import typer

MODEL = "a directory, a GGUF file or a name on the Hugging Face hub: owner/name[@revision]"
TOKENIZER = "of a tokenizer or a model: " + MODEL
CACHE = "of keys and values: fp32, bf16 or int8 (half and a quarter of the memory, rounded)"
ACTIVATIONS = (
    "what matrices are multiplied with: float32; faster and rounded: int8 for quantized matrices, "
    "bf16 for those in bfloat16"
)


def model_argument() -> Any:
    """The model of a command."""
    return typer.Argument(..., metavar="MODEL", help=MODEL)


def tokenizer_argument() -> Any:
    """The tokenizer of a command, which may be a model's."""
    return typer.Argument(..., metavar="MODEL", help=TOKENIZER)


def activations_option() -> Any:
    """What the matrices of a quantized model are multiplied with."""
    return typer.Option("float32", help=ACTIVATIONS)


def device_option() -> Any:
    """Where a model computes."""
    return typer.Option("cpu", help="where to compute: cpu, cuda or one GPU: cuda:1")


def cache_option() -> Any:
    """The number format of a sequence's keys and values."""
    return typer.Option("fp32", help=CACHE)


def strict_option() -> Any:
    """Whether damaged weights are refused."""
    return typer.Option(False, "--strict", help="refuse weights with NaN or infinity, not warn")
