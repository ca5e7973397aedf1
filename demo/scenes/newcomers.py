"""Two categories that osprey-nano was not trained on, for the simulation of the learning loop.

The simulated team annotates them. They follow the rules of `catalog.py`, but no training scene contains them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo.scenes.catalog import PartPlan, Parts
from demo.scenes.shapes import box, ellipse, poly


def _windmill(rng: np.random.Generator) -> Parts:
    turn = float(rng.uniform(-12.0, 12.0))
    blades = tuple(
        PartPlan("blade", ellipse(0.45 + 0.24 * dx, 0.3 + 0.24 * dy, 0.235, 0.085, angle + turn), "second")
        for angle, dx, dy in ((45.0, 0.7, 0.7), (135.0, -0.7, 0.7), (225.0, -0.7, -0.7), (315.0, 0.7, -0.7))
    )
    return (
        PartPlan("tower", poly((0.3, 0.26), (0.6, 0.26), (0.76, 1.0), (0.14, 1.0)), "main"),
        PartPlan("door", box(0.35, 0.74, 0.55, 1.0, 0.05), "third"),
        *blades,
        PartPlan("hub", ellipse(0.45, 0.3, 0.075), ("yellow", "black", "white")),
    )


def _snowman(rng: np.random.Generator) -> Parts:
    slant = float(rng.uniform(-0.03, 0.03))
    eyes = tuple(PartPlan("eye", ellipse(x + slant, 0.34, 0.045), ("black", "blue")) for x in (0.36, 0.52))
    return (
        PartPlan("body", ellipse(0.44, 0.76, 0.34, 0.26), "main"),
        PartPlan("head", ellipse(0.44 + slant, 0.37, 0.22), "second", eyes),
        PartPlan("nose", poly((0.44 + slant, 0.38), (0.44 + slant, 0.46), (0.74 + slant, 0.42)), ("orange", "red")),
        PartPlan(
            "hat",
            box(0.3 + slant, 0.0, 0.58 + slant, 0.18) | box(0.2 + slant, 0.16, 0.68 + slant, 0.24),
            "third",
        ),
    )


NEWCOMERS: dict[str, Callable[[np.random.Generator], Parts]] = {"snowman": _snowman, "windmill": _windmill}
