"""The three labeling configs that the project ships, ready to paste into a Label Studio project."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

BITMASK = _FOLDER / "bitmask.xml"  # the one to take
POLYGON = _FOLDER / "polygon.xml"
BRUSH = _FOLDER / "brush.xml"
