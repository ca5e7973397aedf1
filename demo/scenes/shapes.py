"""Outlines as polygons. Unit: the object's height is 1, x runs to the right and y down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]  # (points, 2), closed implicitly

_CURVE_STEPS = 36


@dataclass(frozen=True)
class Shape:
    """The union of `polygons` without the `holes`."""

    polygons: tuple[Polygon, ...]
    holes: tuple[Polygon, ...] = ()

    def __or__(self, other: Shape) -> Shape:
        return Shape(self.polygons + other.polygons, self.holes + other.holes)

    def mapped(self, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Shape:
        """Map every point p to p @ matrix + offset."""
        return Shape(
            tuple(polygon @ matrix + offset for polygon in self.polygons),
            tuple(hole @ matrix + offset for hole in self.holes),
        )


def poly(*points: tuple[float, float]) -> Shape:
    """Make a polygon through `points`."""
    return Shape((np.asarray(points, dtype=np.float64),))


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Shape:
    """Make a rectangle, its corners rounded by `radius`."""
    if radius <= 0:
        return poly((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    quarter = np.linspace(0.0, np.pi / 2, 7)
    corners = (
        (x1 - radius, y1 - radius),
        (x0 + radius, y1 - radius),
        (x0 + radius, y0 + radius),
        (x1 - radius, y0 + radius),
    )
    arcs = [
        np.stack([cx + radius * np.cos(quarter + turn), cy + radius * np.sin(quarter + turn)], axis=1)
        for (cx, cy), turn in zip(corners, np.arange(4) * np.pi / 2, strict=True)
    ]
    return Shape((np.concatenate(arcs),))


def ellipse(cx: float, cy: float, rx: float, ry: float | None = None, tilt_deg: float = 0.0) -> Shape:
    """Make an ellipse (a circle without `ry`), turned clockwise by `tilt_deg`."""
    return arc(cx, cy, rx, rx if ry is None else ry, 0.0, 360.0, tilt_deg)


def arc(cx: float, cy: float, rx: float, ry: float, start_deg: float, stop_deg: float, tilt_deg: float = 0.0) -> Shape:
    """Make the segment of an ellipse between two angles (0 right, 90 down), closed by its chord."""
    angle = np.radians(np.linspace(start_deg, stop_deg, _CURVE_STEPS + 1))
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    return Shape((np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1),))


def ring(cx: float, cy: float, rx: float, ry: float, thickness: float) -> Shape:
    """Make an ellipse with a concentric hole, `thickness` wide all round."""
    return Shape(ellipse(cx, cy, rx, ry).polygons, ellipse(cx, cy, rx - thickness, ry - thickness).polygons)


def petals(cx: float, cy: float, count: int, distance: float, radius: float) -> Shape:
    """Make `count` circles around a centre and a disc that joins them."""
    shape = ellipse(cx, cy, distance)
    for turn in np.arange(count) * 2 * np.pi / count:
        shape |= ellipse(cx + distance * float(np.cos(turn)), cy + distance * float(np.sin(turn)), radius)
    return shape
