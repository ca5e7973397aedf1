"""The background behind the objects, and the light and camera effects over the whole picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from demo.scenes.palette import BACKGROUND_TONES, Rgb
from demo.scenes.textures import Pixels


def paint_background(image_wh: tuple[int, int], px: float, rng: np.random.Generator) -> Pixels:
    """Paint a (H, W, 3) background of a random kind and tone, values 0 to 255."""
    upper, lower = BACKGROUND_TONES[int(rng.integers(len(BACKGROUND_TONES)))]
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    y, x = np.mgrid[: image_wh[1], : image_wh[0]].astype(np.float32) / np.float32(px)
    share = kind(x, y, image_wh[1] / px, rng)
    grain = _clouds(image_wh, int(rng.integers(3, 9)), rng) * 7.0
    return _between(upper, lower, np.clip(share, 0.0, 1.0)) + grain[..., None]


def expose(canvas: Pixels, rng: np.random.Generator) -> Image.Image:
    """Add uneven light, brightness, tint, noise and sometimes a slight blur."""
    height, width = canvas.shape[:2]
    direction = float(rng.uniform(0.0, 2 * np.pi))
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    strength, brightness = rng.uniform(0.03, 0.14), rng.uniform(0.93, 1.07)
    light = np.float32(brightness) + np.float32(strength) * (
        x * np.float32(np.cos(direction)) + y * np.float32(np.sin(direction))
    )
    tint = rng.uniform(0.97, 1.03, 3).astype(np.float32)
    noise = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(1.5, 5.0))
    lit = canvas * light[..., None]
    lit *= tint
    lit += noise[..., None]
    image = Image.fromarray(np.clip(lit, 0.0, 255.0).astype(np.uint8))
    blur_px = float(rng.uniform(0.4, 0.8)) * height / 384
    return image.filter(ImageFilter.GaussianBlur(blur_px)) if rng.random() < 0.3 else image


def _between(first: Rgb, second: Rgb, share: Pixels) -> Pixels:
    """Interpolate between two colours, (H, W, 3)."""
    start, end = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return start + (end - start) * share[..., None]


def _clouds(image_wh: tuple[int, int], cells: int, rng: np.random.Generator) -> Pixels:
    """Draw smooth random values around 0."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(image_wh, Image.Resampling.BICUBIC), np.float32)


def _horizon(x: Pixels, y: Pixels, height: float, rng: np.random.Generator) -> Pixels:
    """Draw a sky over rolling ground."""
    line = height * float(rng.uniform(0.35, 0.6)) + float(rng.uniform(4, 14)) * np.sin(x / float(rng.uniform(50, 120)))
    ground = np.clip(y - line + 0.5, 0.0, 1.0)
    sky = 0.35 * (1.0 - np.clip(y / height, 0.0, 1.0))
    share: Pixels = ground * (0.75 + 0.25 * np.sin(y / 3.1 + x / 11.0)) + (1.0 - ground) * (0.35 - sky)
    return share


def _room(x: Pixels, y: Pixels, height: float, rng: np.random.Generator) -> Pixels:
    """Draw a wall with faint stripes over a floor of boards."""
    line = height * float(rng.uniform(0.5, 0.7))
    wall = 0.16 * (np.sin(x / float(rng.uniform(5, 9))) > 0.2)
    board = (y - line) % float(rng.uniform(26, 40)) < 2.0
    return np.where(y < line, wall, 0.85 + 0.15 * board).astype(np.float32)


def _carpet(x: Pixels, y: Pixels, height: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Draw a weave of two tones."""
    pitch = float(rng.uniform(4.0, 7.0))
    return (0.5 + 0.22 * np.sin(x / pitch + y / (3 * pitch)) + 0.22 * np.sin(y / pitch - x / (3 * pitch))).astype(
        np.float32
    )


def _tiles(x: Pixels, y: Pixels, height: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Draw large tiles with joints."""
    side = float(rng.uniform(56, 90))
    joint = (x % side < 2.0) | (y % side < 2.0)
    tile = 0.14 * ((np.floor(x / side) + np.floor(y / side)) % 2)
    return np.where(joint, 1.0, tile + 0.1).astype(np.float32)


def _plain(x: Pixels, y: Pixels, height: float, rng: np.random.Generator) -> Pixels:
    """Draw one slow gradient, like paper."""
    slope = float(rng.uniform(-0.3, 0.3))
    share: Pixels = np.clip(0.5 + (y / height - 0.5) * 0.8 + slope * np.sin(x / 300.0), 0.0, 1.0).astype(np.float32)
    return share


_KINDS: tuple[Callable[[Pixels, Pixels, float, np.random.Generator], Pixels], ...] = (
    _horizon,
    _room,
    _carpet,
    _tiles,
    _plain,
)
