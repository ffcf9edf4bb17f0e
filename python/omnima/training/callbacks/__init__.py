"""What watches a run: `Callback` with Hugging Face's method names, and those that come with Omnima.
Imported piece by piece.
"""

from __future__ import annotations

from omnima.training.callbacks.base import EVENTS, Callback, Control, RunState

__all__ = ["EVENTS", "Callback", "Control", "RunState"]
