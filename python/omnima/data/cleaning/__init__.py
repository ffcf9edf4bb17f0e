"""Cleaning as a described pipeline: steps in a recipe, every step counted, the whole recorded."""

from __future__ import annotations

from omnima.data.cleaning.pipeline import RECIPES, Cleaning, clean, clean_once
from omnima.data.cleaning.record import Cleaned, cleaned_record

__all__ = ["RECIPES", "Cleaned", "Cleaning", "clean", "clean_once", "cleaned_record"]
