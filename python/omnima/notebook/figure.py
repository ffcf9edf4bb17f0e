"""Figures that a notebook shows by themselves, made when they are asked for."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

from omnima.errors import OmnimaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches. It is in no list of pyplot's: it goes when nobody
    holds it, and needs no screen.

    Raises
    ------
    OmnimaError
        matplotlib is not installed; the message holds the command that installs it.
    """
    figure: Figure = _shown_figure()(figsize=(width, height), layout="constrained")
    return figure


def _shown_figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OmnimaError(
            'Drawing needs matplotlib: pip install "omnima[plot]" (or pip install matplotlib).'
        ) from error
    return _class_of(Figure)


@functools.cache
def _class_of(figure: Any) -> Any:
    class Picture(figure):  # type: ignore[misc]
        """A figure that a notebook shows also where pyplot was never imported."""

        def _repr_png_(self) -> bytes:
            written = io.BytesIO()
            self.savefig(written, format="png", dpi=100)
            return written.getvalue()

    return Picture
