"""Many curves E + A x + B y at once: least squares with coefficients that are not negative."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Singular values below this share of the largest are rounding.
_RANK = 1e-12

Values = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Curves:
    """Pairs of exponents, each with its best coefficients [E, A, B] and squared error."""

    exponents: Values
    coefficients: Values
    errors: Values

    def take(self, which: Any) -> Curves:
        """Return some of them, by position or by mask."""
        return Curves(self.exponents[which], self.coefficients[which], self.errors[which])

    def best(self) -> Curves:
        """Return the one with the least error."""
        return self.take([int(self.errors.argmin())])


def joined(parts: Sequence[Curves]) -> Curves:
    """Return the curves of all parts, one part behind the other."""
    return Curves(
        np.concatenate([each.exponents for each in parts]),
        np.concatenate([each.coefficients for each in parts]),
        np.concatenate([each.errors for each in parts]),
    )


def nonnegative(exponents: Values, designs: Values, target: Values) -> Curves:
    """Least squares with coefficients that are not negative: the best of the few subsets."""
    coefficients = np.zeros((len(designs), designs.shape[2]))
    errors = np.full(len(designs), np.inf)
    columns = [column for column in range(designs.shape[2]) if designs[:, :, column].any()]
    for count in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, count):
            part = designs[:, :, chosen]
            found = np.linalg.pinv(part, rcond=_RANK) @ target
            error = np.square(np.einsum("mpk,mk->mp", part, found) - target).sum(axis=1)
            better = (found >= 0).all(axis=1) & (error < errors)
            errors[better] = error[better]
            coefficients[better] = 0.0
            coefficients[np.ix_(better, chosen)] = found[better]
    return Curves(exponents, coefficients, errors)
