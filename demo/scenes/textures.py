"""The six materials as pixel patterns. Periods are at least 8 px of a 512x384 picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from demo.scenes.palette import Tone

Pixels = NDArray[np.float32]


def paint(material: str, tone: Tone, size_hw: tuple[int, int], px: float, rng: np.random.Generator) -> Pixels:
    """Paint a (H, W, 3) picture of `material` in `tone`, values 0 to 255.

    Args:
        px: size of one pixel of a 512x384 picture in this picture.
    """
    turn = float(rng.uniform(-0.25, 0.25))
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32) / np.float32(px)
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))
    return MATERIALS[material](tone, along, across, rng)


def _mix(first: tuple[int, int, int], second: tuple[int, int, int], share: Pixels) -> Pixels:
    """Interpolate from `first` where `share` is 0 to `second` where it is 1."""
    start, end = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return start + (end - start) * share[..., None]


def _soft_step(distance_px: Pixels) -> Pixels:
    """Return 0 below -0.5 px and 1 above 0.5 px: an anti-aliased edge."""
    return np.clip(distance_px + 0.5, 0.0, 1.0)


def _plastic(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    glint = np.clip(1.0 - np.hypot(along - along.mean() * 0.6, across - across.mean() * 0.5) / 45.0, 0.0, 1.0)
    return _mix(tone.base, (255, 255, 255), 0.16 * glint * glint)


def _wooden(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:
    period = float(rng.uniform(10.0, 13.0))
    wave = 4.0 * np.sin(along / 17.0 + float(rng.uniform(0, 6.3))) + 2.0 * np.sin(along / 7.3)
    phase = (across + wave) % period
    line = _soft_step(1.6 - np.abs(phase - period / 2))
    return _mix(tone.base, tone.dark, 0.9 * line)


def _metal(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:
    period = float(rng.uniform(34.0, 46.0))
    phase = 2 * np.pi * (along + 0.6 * across) / period + float(rng.uniform(0, 6.3))
    sheen = np.sin(phase).astype(np.float32)
    pixels = _mix(tone.base, (255, 255, 255), 0.72 * np.clip(sheen, 0.0, 1.0) ** 3)
    return pixels * (1.0 - np.float32(0.32) * np.clip(-sheen, 0.0, 1.0)[..., None])


def _striped(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    period = float(rng.uniform(15.0, 19.0))
    phase = (along + float(rng.uniform(0.0, period))) % period
    return _mix(tone.base, tone.light, _soft_step(period * 0.18 - np.abs(phase - period / 2)))


def _dotted(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:
    period = float(rng.uniform(15.0, 18.0))
    row = np.floor(across / period)
    shifted = along + row % 2 * (period / 2)
    distance = np.hypot(shifted % period - period / 2, across % period - period / 2)
    return _mix(tone.base, tone.light, _soft_step(period * 0.29 - distance))


def _checkered(tone: Tone, along: Pixels, across: Pixels, rng: np.random.Generator) -> Pixels:
    cell = float(rng.uniform(9.0, 12.0))
    wave = np.sin(np.pi * along / cell) * np.sin(np.pi * across / cell)
    return _mix(tone.base, tone.light, 0.85 * np.clip(wave * cell / 2 + 0.3, 0.0, 1.0))


MATERIALS: dict[str, Callable[[Tone, Pixels, Pixels, np.random.Generator], Pixels]] = {
    "checkered": _checkered,
    "dotted": _dotted,
    "metal": _metal,
    "plastic": _plastic,
    "striped": _striped,
    "wooden": _wooden,
}
