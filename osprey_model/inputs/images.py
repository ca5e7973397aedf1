"""Images in any form (PIL, numpy, torch, a path) -> one 8-bit RGB PIL image. This module does not import torch.

Transparent pixels are blended with white and 16-bit greys are scaled, as a browser shows them. EXIF orientation is not
applied: masks refer to the pixels as stored, as in the released code. A caller whose masks refer to the upright image,
as Label Studio's do, must rotate the image first (`worker/images/decoding.py` does).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_SIXTEEN_BIT = 65_535
_ACCEPTED = (
    "expected one image: PIL, a path, uint8 (or uint16, or float 0..1) values as a numpy array (H, W), (H, W, C) "
    "or a torch tensor (C, H, W), C = 1, 3 or 4"
)


class BadImage(ValueError):
    """An image cannot be read, or an array is not an image."""


def as_image(image: Any) -> Image.Image:
    """Convert one image to 8-bit RGB.

    Args:
        image: a PIL image of any mode, a path, or an array. Arrays are uint8, uint16 (65535 is white), float 0..1, or
            other integers 0..255. Channels are last in numpy and first in torch; the other order is accepted where only
            that one fits.

    Raises:
        BadImage: the file is damaged, or the array has another shape or range; the message describes what was given.
        FileNotFoundError: there is no file at the path.
    """
    if isinstance(image, str | Path):
        return _from_path(Path(image))
    if isinstance(image, Image.Image):
        return _loaded(image, "the image")
    if hasattr(image, "detach"):  # torch
        tensor = image.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return to_rgb(Image.fromarray(_to_height_width_channels(values, channels_first=True)))
    if isinstance(image, np.ndarray):
        return to_rgb(Image.fromarray(_to_height_width_channels(image, channels_first=False)))
    raise BadImage(f"{_ACCEPTED}; got {type(image).__name__}")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded PIL image of any mode to 8-bit RGB, as a browser shows it."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_to_uint8(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # PIL converts grey with premultiplied alpha (La) only to LA.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_path(path: Path) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"there is no image file at {path}; check the path")
    try:
        opened = Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(f"{path} is not an image that can be read: {error}; replace the file") from error
    with opened:
        return _loaded(opened, str(path))


def _loaded(image: Image.Image, what: str) -> Image.Image:
    width, height = image.size
    if not width or not height:
        raise BadImage(f"expected an image with pixels, got size {width}x{height}")
    try:
        image.load()  # PIL reads a file's pixels only now
        return to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImage(f"{what} is damaged or truncated: {error}; replace the file") from error


def _to_height_width_channels(values: NDArray[Any], *, channels_first: bool) -> NDArray[np.uint8]:
    """Convert an array to uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."""
    shape = values.shape
    if values.ndim == 3:
        first, last = shape[0] in _CHANNELS, shape[-1] in _CHANNELS
        if first and (channels_first or not last):
            values, last = values.transpose(1, 2, 0), True
        if not last:
            raise BadImage(f"{_ACCEPTED}; got shape {shape}")
        values = values[..., 0] if values.shape[-1] == 1 else values
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise BadImage(f"{_ACCEPTED}; got shape {shape}")
    return np.ascontiguousarray(_to_uint8(values))


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise BadImage(f"{_ACCEPTED}; got values of type {values.dtype}")
    low, high = values.min(), values.max()
    full_scale = 1.0 if values.dtype.kind == "f" else float(_SIXTEEN_BIT if values.dtype == np.uint16 else 255)
    if not (low >= 0 and high <= full_scale):  # NaN fails both comparisons
        raise BadImage(
            f"expected {values.dtype} values of 0..{full_scale:g}, got {low}..{high}; pass the image's own pixels, "
            "not normalised ones"
        )
    return np.rint(values.astype(np.float64) * (255 / full_scale)).astype(np.uint8)


def _grey_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert grey values (H, W) of PIL's modes I, I;16 and F; the largest 16-bit value becomes white."""
    floats = np.nan_to_num(values.astype(np.float64))
    top = float(floats.max(initial=0.0))
    if values.dtype.kind == "f" and top <= 1.0:
        full_scale = 1.0
    else:
        full_scale = 255.0 if values.dtype.kind == "f" and top <= 255 else max(float(_SIXTEEN_BIT), top)
    return np.clip(np.rint(floats / full_scale * 255), 0, 255).astype(np.uint8)


def content_key(image: Any) -> str:
    """Return a hash of an image's pixels.

    Raises:
        BadImage: the image cannot be read.
    """
    pixels = np.ascontiguousarray(as_image(image))
    digest = hashlib.blake2b(pixels.data, digest_size=20)
    digest.update(str(pixels.shape).encode())
    return digest.hexdigest()
