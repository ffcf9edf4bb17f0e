"""Models out of the house, with proof: exports, imports and their certificates."""

from __future__ import annotations

from omnima.exporting.asking import ExportError
from omnima.exporting.certificate import Certificate
from omnima.exporting.merging import Merged, merge, merge_into
from omnima.exporting.transfer import export, import_model, verify

__all__ = [
    "Certificate",
    "ExportError",
    "Merged",
    "export",
    "import_model",
    "merge",
    "merge_into",
    "verify",
]
