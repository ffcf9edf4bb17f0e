"""Sphinx: four rooms of Markdown, and a reference generated from the package and its commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "Omnima"
author = "the Omnima authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = True
napoleon_google_docstring = False
suppress_warnings = ["myst.xref_missing", "ref.python"]


def write_reference() -> None:
    """Write the pages of the reference from what the package offers today."""
    os.environ.setdefault("COLUMNS", "100")
    from reference_pages import architectures_page, commands_page, python_page

    (HERE / "reference").mkdir(exist_ok=True)
    (HERE / "reference" / "commands.md").write_text(commands_page(), encoding="utf-8")
    (HERE / "reference" / "python.md").write_text(python_page(), encoding="utf-8")
    architectures = HERE / "reference" / "architectures.md"
    architectures.write_text(architectures_page(), encoding="utf-8")


write_reference()
