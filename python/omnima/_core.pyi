# Generated from the extension by tools/make_stubs.py (make stubs); do not edit.
"""
The C++ core of Omnima. Its public face is the package omnima.
"""
from __future__ import annotations
__all__: list[str] = ['built_with_torch']
built_with_torch: str = ...
