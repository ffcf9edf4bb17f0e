"""What is known of an activation by its name; needs no torch."""

from __future__ import annotations


def is_gated(activation: str) -> bool:
    """Whether an activation multiplies by a gate, which is a matrix of its own.

    >>> is_gated("geglu"), is_gated("gelu")
    (True, False)
    """
    return activation in ("swiglu", "geglu", "geglu_tanh")
