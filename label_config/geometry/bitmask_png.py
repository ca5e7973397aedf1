"""Label Studio's Bitmask data URL <-> bool mask: a PNG of the image's size, mask in alpha, RGB zero.

The page writes RGBA. We write the same picture with a palette of two entries, transparent and opaque black, one bit
per pixel (PNG specification: https://www.w3.org/TR/png-3/). numpy packs the bits and zlib deflates them at its fastest
level: Pillow's writer is three times slower, and a higher level five times, for a size 10 % smaller
(`bench/speed/rle.py`). A PNG that was written here is read the same way, with its checksums; Pillow reads all others.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BoolMask = NDArray[np.bool_]

_PREFIX = "data:image/png;base64,"
_THRESHOLD = 128  # of alpha, because edges painted by hand are anti-aliased
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLACK_TWICE, _CLEAR_THEN_OPAQUE = bytes(6), b"\x00\xff"
_ONE_BIT_PALETTE = bytes((1, 3, 0, 0, 0))  # bit depth, colour type, and the only compression, filter set, no interlace


def encode_bitmask_png(mask: BoolMask) -> str:
    """Encode a bool mask of shape (H, W) as a data URL.

    Raises:
        ValueError: `mask` is not two-dimensional bool, or holds no pixel.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    height, width = mask.shape
    rows = np.zeros(_rows_shape((height, width)), dtype=np.uint8)  # each row starts with its filter type, 0: none
    rows[:, 1:] = np.packbits(mask, axis=1)
    png = _head((height, width)) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), level=1)) + _END
    return _PREFIX + base64.b64encode(png).decode("ascii")


def decode_bitmask_png(url: str, image_hw: tuple[int, int] | None = None) -> BoolMask:
    """Decode a data URL to the bool mask of shape (H, W): alpha (brightness, if there is no alpha) of at least half.

    Raises:
        ValueError: the text is not a PNG data URL, cannot be decoded, or does not have the size `image_hw`.
    """
    if not url.startswith(_PREFIX):
        raise ValueError(f"expected a bitmask that starts with {_PREFIX!r}, got {url[:40]!r}")
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        if image_hw is not None and (ours := _read_ours(data, image_hw)) is not None:
            return ours
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        width, height = image.size
        # Check the size before decoding, because a few bytes of PNG can claim a gigapixel.
        if image_hw is not None and (height, width) != image_hw:
            raise ValueError(f"expected a bitmask of {image_hw[1]}x{image_hw[0]} pixels, got {width}x{height}")
        # Pillow silently decodes damaged pixels to wrong ones; only `verify` compares their checksums.
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        alpha = _alpha(image)
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the bitmask is not a PNG that can be decoded: {error}") from error
    return alpha >= _THRESHOLD


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


_END = _chunk(b"IEND", b"")


def _rows_shape(mask_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of the rows of packed bits, each with a leading byte for its filter type."""
    return mask_hw[0], 1 + (mask_hw[1] + 7) // 8


def _head(mask_hw: tuple[int, int]) -> bytes:
    """Return all bytes of our PNG of a mask of that size before its pixels."""
    height, width = mask_hw
    header = _chunk(b"IHDR", struct.pack(">II", width, height) + _ONE_BIT_PALETTE)
    return _SIGNATURE + header + _chunk(b"PLTE", _BLACK_TWICE) + _chunk(b"tRNS", _CLEAR_THEN_OPAQUE)


def _read_ours(data: bytes, image_hw: tuple[int, int]) -> BoolMask | None:
    """Decode an intact PNG that `encode_bitmask_png` wrote; return None for any other, which Pillow then reads."""
    head = _head(image_hw)
    pixels = data[len(head) + 8 : -len(_END) - 4]
    # Compare all other bytes: the head, the chunk's length, name and checksum, and the end.
    if data != head + _chunk(b"IDAT", pixels) + _END:
        return None
    shape = _rows_shape(image_hw)
    inflate, num_bytes = zlib.decompressobj(), shape[0] * shape[1]
    try:
        raw = inflate.decompress(pixels, num_bytes + 1)  # the limit protects against decompression bombs
    except zlib.error:
        return None
    if len(raw) != num_bytes or not inflate.eof or inflate.unused_data:
        return None
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    return None if rows[:, 0].any() else np.unpackbits(rows[:, 1:], axis=1, count=image_hw[1]).view(np.bool_)


def _alpha(image: Image.Image) -> NDArray[np.uint8]:
    """Return alpha, or brightness if the picture has no alpha, from 0 to 255."""
    transparency = image.info.get("transparency")
    if image.mode == "P" and isinstance(transparency, bytes):  # one opacity for each entry of the palette
        opacities = np.full(256, 255, dtype=np.uint8)
        opacities[: len(transparency)] = np.frombuffer(transparency[:256], dtype=np.uint8)
        alpha: NDArray[np.uint8] = opacities[np.asarray(image)]
        return alpha
    if image.mode in ("RGBA", "LA", "PA"):
        return np.asarray(image.getchannel("A"))
    return np.asarray(image.convert("RGBA").getchannel("A") if transparency is not None else image.convert("L"))
