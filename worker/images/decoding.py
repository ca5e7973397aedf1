"""Image bytes -> the upright RGB picture that Label Studio's page shows, or a named error."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from job_queue.errors import ImageCorrupt, ImageUnavailable
from osprey_model.inputs.images import to_rgb

# What browsers show, plus the scientific TIFF. EPS, PSD and the like would start other programs or libraries.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF")


def decode_image(data: bytes, what: str, max_pixels: int) -> Image.Image:
    """Return the first frame as upright 8-bit RGB, with transparency over white.

    Args:
        data: the encoded image.
        what: the name of the image in an error text.
        max_pixels: largest width x height that is decoded.

    Raises:
        ImageCorrupt: not a supported image, or a damaged one.
        ImageUnavailable: more than `max_pixels` pixels.
    """
    # Our limit is checked below. Pillow's own limit would only warn, at 90 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    readable = [name for name in _FORMATS if name in Image.OPEN]  # AVIF and WEBP depend on how Pillow was built
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=readable)
    except Exception as error:  # broken bytes make Pillow's readers raise errors of many types
        raise ImageCorrupt(
            f"{what} is not an image that can be read ({_looks_like(data)}); replace the file"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageUnavailable(
            f"{what} has {width}x{height} pixels, more than the limit of {max_pixels}; scale it down or raise "
            "OSPREY_IMAGE_MAX_PIXELS"
        )
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        raise ImageCorrupt(f"{what} is damaged ({type(error).__name__}: {error}); replace the file") from error


def _looks_like(data: bytes) -> str:
    if not data:
        return "it is empty"
    if data[:256].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it is a web page or SVG text"
    return f"{len(data)} bytes that start with {data[:8]!r}"
