"""Models out of the house, with proof: exports, imports and their certificates."""

from __future__ import annotations

from omnima.exporting.asking import ExportError
from omnima.exporting.certificate import Certificate
from omnima.exporting.transfer import export, import_model, verify

__all__ = ["Certificate", "ExportError", "export", "import_model", "verify"]
