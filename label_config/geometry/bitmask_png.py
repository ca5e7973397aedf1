"""Label Studio's Bitmask data URL <-> bool mask: a PNG of the image's size, mask in alpha, RGB zero.

The page writes RGBA. We write the same picture with a palette of two entries, transparent and opaque black, one
bit per pixel: at 1920x1080 3 ms and 6 kB instead of 37 ms and 14 kB.
"""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BoolMask = NDArray[np.bool_]

_PREFIX = "data:image/png;base64,"
_THRESHOLD = 128  # an edge painted by hand is anti-aliased
_BLACK_TWICE, _CLEAR_THEN_OPAQUE = bytes(6), b"\x00\xff"


def encode_bitmask_png(mask: BoolMask) -> str:
    """The data URL of a bool mask of shape (H, W).

    Raises:
        ValueError: `mask` is not two-dimensional bool, or holds no pixel.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(_BLACK_TWICE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", bits=1, transparency=_CLEAR_THEN_OPAQUE)
    return _PREFIX + base64.b64encode(buffer.getvalue()).decode("ascii")


def decode_bitmask_png(url: str, image_hw: tuple[int, int] | None = None) -> BoolMask:
    """The bool mask of shape (H, W): alpha of at least one half, or brightness where a PNG has no alpha.

    Raises:
        ValueError: no PNG data URL, not decodable, or not of the size `image_hw`.
    """
    if not url.startswith(_PREFIX):
        raise ValueError(f"expected a bitmask that starts with {_PREFIX!r}, got {url[:40]!r}")
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        width, height = image.size
        # Before any pixel is decoded: a few bytes of PNG can claim a gigapixel.
        if image_hw is not None and (height, width) != image_hw:
            raise ValueError(f"expected a bitmask of {image_hw[1]}x{image_hw[0]} pixels, got {width}x{height}")
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        alpha = np.asarray(image.convert("RGBA").getchannel("A") if has_alpha else image.convert("L"))
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the bitmask is not a PNG that can be decoded: {error}") from error
    mask: BoolMask = alpha >= _THRESHOLD
    return mask
