"""The errors Omnima raises on purpose: each says what was wrong, where, and what to do."""

from __future__ import annotations


class OmnimaError(Exception):
    """Base of every error that Omnima raises on purpose."""


class ConfigError(OmnimaError, ValueError):
    """A configuration field that is unknown, out of bounds or inconsistent with another."""


class DataError(OmnimaError, ValueError):
    """Input text, data or a file that does not hold what it should; names file, line or field."""


class CheckpointError(OmnimaError, RuntimeError):
    """A checkpoint that is missing, damaged or does not fit the run that asks for it."""


class NonFiniteError(OmnimaError, ArithmeticError):
    """A loss or a gradient that is NaN or infinite; the weights were not changed."""


class CallbackError(OmnimaError, RuntimeError):
    """A callback raised; names it and its line, and says what was saved."""


class QueueFullError(OmnimaError, RuntimeError):
    """More requests wait than may wait at once; try again later."""
