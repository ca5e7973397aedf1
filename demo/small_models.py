"""Paths of the two small models that this project trains on drawn scenes and ships."""

from __future__ import annotations

from pathlib import Path

_CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"

OSPREY_NANO = _CHECKPOINTS / "osprey-nano"
SAM_NANO = _CHECKPOINTS / "sam-nano"
