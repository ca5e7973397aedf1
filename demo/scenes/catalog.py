"""The demo world's categories, with their named parts and sub-parts.

A category is a function `Generator -> tuple[PartPlan, ...]` in drawing order. A part's `paint` is "main" (the object's
colour and material), "second" or "third" (the object's other two colours, plain plastic), or a tuple of colour names,
of which the first that no neighbour has is used. Lengths are in object heights. Every part is thick enough to be
visible in a small image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo.scenes.shapes import Shape, arc, box, ellipse, petals, poly, ring

Paint = str | tuple[str, ...]


@dataclass(frozen=True)
class PartPlan:
    """One named part before it is painted. `subparts` lie on top of it."""

    name: str
    shape: Shape
    paint: Paint
    subparts: tuple[PartPlan, ...] = ()


Parts = tuple[PartPlan, ...]


def _wheel(cx: float, cy: float, radius: float) -> PartPlan:
    hub = PartPlan("hub", ellipse(cx, cy, radius * 0.52), ("white", "yellow"))
    return PartPlan("wheel", ellipse(cx, cy, radius), ("black", "brown", "white"), (hub,))


def _house(rng: np.random.Generator) -> Parts:
    ridge = float(rng.uniform(0.0, 0.2))
    pane = PartPlan("pane", box(0.64, 0.63, 0.82, 0.79), ("blue", "yellow"))
    knob = PartPlan("knob", ellipse(0.35, 0.82, 0.07), ("yellow", "black"))
    return (
        PartPlan("wall", box(0.06, 0.42, 0.94, 1.0), "main"),
        PartPlan("roof", poly((-0.03, 0.47), (0.5 - ridge, 0.0), (0.5 + ridge, 0.0), (1.03, 0.47)), "second"),
        PartPlan("door", box(0.15, 0.6, 0.45, 1.0, 0.05), "third", (knob,)),
        PartPlan("window", box(0.57, 0.56, 0.89, 0.86, 0.02), ("white", "black", "pink"), (pane,)),
    )


def _car(rng: np.random.Generator) -> Parts:
    hood = float(rng.uniform(-0.06, 0.06))
    cabin = poly((0.32, 0.48), (0.58 + hood, 0.02), (1.32 + hood, 0.02), (1.6, 0.48))
    window = poly((0.62, 0.41), (0.73 + hood, 0.2), (1.16 + hood, 0.2), (1.29, 0.41))
    return (
        PartPlan("cabin", cabin, "second"),
        PartPlan("window", window, ("white", "blue", "yellow")),
        PartPlan("body", box(0.0, 0.43, 1.9, 0.85, 0.14), "main"),
        _wheel(0.46, 0.8, 0.22),
        _wheel(1.42, 0.8, 0.22),
    )


def _tree(rng: np.random.Generator) -> Parts:
    if rng.random() < 0.5:
        crown = (
            ellipse(0.4, 0.27, 0.28) | ellipse(0.22, 0.45, 0.22) | ellipse(0.58, 0.45, 0.22) | ellipse(0.4, 0.5, 0.25)
        )
    else:
        crown = poly((0.4, 0.0), (0.68, 0.38), (0.12, 0.38)) | poly((0.4, 0.2), (0.82, 0.72), (-0.02, 0.72))
    return (
        PartPlan("trunk", box(0.31, 0.6, 0.49, 1.0, 0.02), ("brown", "black", "white")),
        PartPlan("crown", crown, "main"),
        PartPlan("apple", ellipse(0.29, 0.5, 0.085), ("red", "yellow", "orange")),
        PartPlan("apple", ellipse(0.53, 0.44 + float(rng.uniform(0.0, 0.1)), 0.085), ("red", "yellow", "orange")),
    )


def _boat(rng: np.random.Generator) -> Parts:
    top = float(rng.uniform(0.0, 0.08))
    return (
        PartPlan("mast", box(0.49, 0.0, 0.65, 0.66), ("brown", "black", "white")),
        PartPlan("sail", poly((0.68, top), (1.12, 0.56), (0.68, 0.56)), "second"),
        PartPlan("flag", poly((0.48, 0.02), (0.48, 0.26), (0.12, 0.14)), "third"),
        PartPlan("hull", poly((0.0, 0.62), (1.2, 0.62), (0.98, 1.0), (0.2, 1.0)), "main"),
    )


def _flower(rng: np.random.Generator) -> Parts:
    center = PartPlan("center", ellipse(0.38, 0.28, 0.115), ("yellow", "brown"))
    count = int(rng.integers(5, 8))
    return (
        PartPlan("stem", box(0.31, 0.48, 0.45, 0.8), ("green", "brown", "yellow")),
        PartPlan("leaf", ellipse(0.6, 0.62, 0.18, 0.085, -30.0), ("green", "brown", "yellow")),
        PartPlan("blossom", petals(0.38, 0.28, count, 0.17, 0.125), "main", (center,)),
        PartPlan("pot", poly((0.13, 0.74), (0.63, 0.74), (0.55, 1.0), (0.21, 1.0)), "second"),
    )


def _fish(rng: np.random.Generator) -> Parts:
    spread = float(rng.uniform(0.3, 0.38))
    pupil = PartPlan("pupil", ellipse(1.33, 0.42, 0.088), ("black", "white"))
    return (
        PartPlan("tail", poly((0.5, 0.52), (0.0, 0.52 - spread), (0.1, 0.52), (0.0, 0.52 + spread)), "second"),
        PartPlan("fin", poly((0.66, 0.3), (0.82, 0.0), (1.2, 0.02), (1.26, 0.3)), "third"),
        PartPlan("body", ellipse(0.98, 0.54, 0.64, 0.38), "main"),
        PartPlan("eye", ellipse(1.32, 0.42, 0.145), ("white", "yellow", "orange"), (pupil,)),
    )


def _lamp(rng: np.random.Generator) -> Parts:
    top = float(rng.uniform(0.12, 0.24))
    return (
        PartPlan("pole", box(0.31, 0.46, 0.45, 0.88), "second"),
        PartPlan("base", box(0.1, 0.84, 0.66, 1.0, 0.06), "third"),
        PartPlan("shade", poly((top, 0.0), (0.76 - top, 0.0), (0.76, 0.5), (0.0, 0.5)), "main"),
    )


def _mug(rng: np.random.Generator) -> Parts:
    taper = float(rng.uniform(0.0, 0.1))
    return (
        PartPlan("handle", ring(0.8, 0.54, 0.33, 0.28, 0.14), "second"),
        PartPlan("body", poly((0.0, 0.12), (0.82, 0.12), (0.82 - taper, 1.0), (taper, 1.0)), "main"),
        PartPlan("rim", ellipse(0.41, 0.13, 0.42, 0.12), "third"),
    )


def _robot(rng: np.random.Generator) -> Parts:
    head_top = float(rng.uniform(0.0, 0.04))
    eyes = tuple(PartPlan("eye", ellipse(x, 0.18, 0.07), ("yellow", "white")) for x in (0.31, 0.51))
    return (
        PartPlan("leg", box(0.2, 0.76, 0.37, 1.0, 0.03), "second"),
        PartPlan("leg", box(0.45, 0.76, 0.62, 1.0, 0.03), "second"),
        PartPlan("arm", box(0.0, 0.4, 0.15, 0.76, 0.06), "second"),
        PartPlan("arm", box(0.67, 0.4, 0.82, 0.76, 0.06), "second"),
        PartPlan("body", box(0.13, 0.34, 0.69, 0.82, 0.05), "main"),
        PartPlan("head", box(0.18, head_top, 0.64, 0.36, 0.08), "third", eyes),
    )


def _bird(rng: np.random.Generator) -> Parts:
    lift = float(rng.uniform(-18.0, 6.0))
    eye = PartPlan("eye", ellipse(1.12, 0.24, 0.098), ("black", "white"))
    return (
        PartPlan("tail", poly((0.34, 0.54), (0.0, 0.3), (0.02, 0.68), (0.34, 0.74)), "second"),
        PartPlan("beak", poly((1.18, 0.06), (1.6, 0.3), (1.18, 0.52)), ("orange", "yellow", "red")),
        PartPlan("body", ellipse(0.7, 0.64, 0.5, 0.36), "main"),
        PartPlan("head", ellipse(1.08, 0.26, 0.24), "second", (eye,)),
        PartPlan("wing", ellipse(0.58, 0.62, 0.27, 0.15, lift), "third"),
    )


def _chair(rng: np.random.Generator) -> Parts:
    lean = float(rng.uniform(0.0, 0.06))
    return (
        PartPlan("leg", box(0.06, 0.62, 0.22, 1.0), "third"),
        PartPlan("leg", box(0.54, 0.62, 0.7, 1.0), "third"),
        PartPlan("back", box(0.04 + lean, 0.0, 0.72 - lean, 0.54, 0.07), "main"),
        PartPlan("seat", box(0.0, 0.5, 0.76, 0.68, 0.05), "second"),
    )


def _rocket(rng: np.random.Generator) -> Parts:
    nose = float(rng.uniform(0.0, 0.06))
    glass = PartPlan("glass", ellipse(0.32, 0.46, 0.066), ("blue", "black"))
    return (
        PartPlan("flame", poly((0.18, 0.8), (0.46, 0.8), (0.32, 1.04)), ("orange", "yellow", "red")),
        PartPlan("fin", poly((0.18, 0.46), (-0.08, 0.92), (0.18, 0.86)), "third"),
        PartPlan("fin", poly((0.46, 0.46), (0.72, 0.92), (0.46, 0.86)), "third"),
        PartPlan("body", box(0.13, 0.26, 0.51, 0.86, 0.05), "main"),
        PartPlan("nose", poly((0.1, 0.3), (0.32, nose), (0.54, 0.3)), "second"),
        PartPlan("window", ellipse(0.32, 0.46, 0.115), ("white", "yellow", "pink"), (glass,)),
    )


def _mushroom(rng: np.random.Generator) -> Parts:
    width = float(rng.uniform(0.15, 0.2))
    return (
        PartPlan("stem", box(0.52 - width, 0.5, 0.52 + width, 1.0, 0.06), "second"),
        PartPlan("gill", ellipse(0.52, 0.5, 0.42, 0.16), "third"),
        PartPlan("cap", arc(0.52, 0.5, 0.52, 0.5, 180.0, 360.0), "main"),
    )


def _clock(rng: np.random.Generator) -> Parts:
    turn = float(rng.uniform(-50.0, 50.0))
    hand = PartPlan("hand", ellipse(0.48, 0.54, 0.185, 0.072, turn), ("black", "white"))
    return (
        PartPlan("bell", ellipse(0.22, 0.14, 0.14), "second"),
        PartPlan("bell", ellipse(0.74, 0.14, 0.14), "second"),
        PartPlan("foot", box(0.08, 0.84, 0.3, 1.05, 0.02), "third"),
        PartPlan("foot", box(0.66, 0.84, 0.88, 1.05, 0.02), "third"),
        PartPlan("body", box(0.0, 0.16, 0.96, 0.92, 0.14), "main"),
        PartPlan("face", ellipse(0.48, 0.54, 0.24), ("white", "yellow", "pink"), (hand,)),
    )


def _bus(rng: np.random.Generator) -> Parts:
    first = 0.12 + float(rng.uniform(-0.02, 0.04))
    windows = tuple(
        PartPlan("window", box(x, 0.16, x + 0.33, 0.46, 0.04), ("white", "blue", "yellow"))
        for x in (first, first + 0.42, first + 0.84)
    )
    return (
        PartPlan("body", box(0.0, 0.03, 1.9, 0.85, 0.1), "main"),
        *windows,
        PartPlan("door", box(1.45, 0.18, 1.75, 0.84, 0.03), "third"),
        _wheel(0.44, 0.82, 0.2),
        _wheel(1.18, 0.82, 0.2),
    )


def _guitar(rng: np.random.Generator) -> Parts:
    waist = float(rng.uniform(0.15, 0.19))
    return (
        PartPlan("body", ellipse(0.25, 0.77, 0.25, 0.22) | ellipse(0.25, 0.53, waist, 0.16), "main"),
        PartPlan("neck", box(0.19, 0.14, 0.31, 0.6), "second"),
        PartPlan("head", box(0.14, 0.0, 0.36, 0.17, 0.03), "third"),
        PartPlan("hole", ellipse(0.25, 0.72, 0.08), ("black", "brown")),
    )


CATALOG: dict[str, Callable[[np.random.Generator], Parts]] = {
    "bird": _bird,
    "boat": _boat,
    "bus": _bus,
    "car": _car,
    "chair": _chair,
    "clock": _clock,
    "fish": _fish,
    "flower": _flower,
    "guitar": _guitar,
    "house": _house,
    "lamp": _lamp,
    "mug": _mug,
    "mushroom": _mushroom,
    "robot": _robot,
    "rocket": _rocket,
    "tree": _tree,
}
