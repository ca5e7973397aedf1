"""An image in any accepted form becomes the same RGB image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.inputs.images import BadImage, as_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]
OPAQUE = np.concatenate([RGB, np.full((7, 9, 1), 255, np.uint8)], axis=-1)


@pytest.mark.parametrize(
    "given",
    [
        RGB,
        RGB.astype(np.int64),
        RGB.astype(np.uint16) * 257,
        RGB / 255,
        RGB.transpose(2, 0, 1),
        OPAQUE,
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB / 255).permute(2, 0, 1),
        Image.fromarray(RGB),
        Image.fromarray(OPAQUE),
    ],
    ids=lambda given: f"{type(given).__name__}-{getattr(given, 'dtype', '')}-{tuple(getattr(given, 'shape', ()))}",
)
def test_colour_in_every_form(given: Any) -> None:
    """Channels last or first, 8 and 16 bit, floats and an opaque alpha give the same RGB image."""
    image = as_image(given)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), RGB)


@pytest.mark.parametrize(
    "given",
    [
        GREY,
        GREY[..., None],
        GREY[None],
        torch.from_numpy(GREY.copy()),
        torch.from_numpy(GREY.copy())[None],
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32) * 257),
        Image.fromarray((GREY / 255).astype(np.float32)),
    ],
)
def test_grey_in_every_form(given: Any) -> None:
    """One channel, and PIL's 16- and 32-bit modes, give the same grey image."""
    assert np.array_equal(np.asarray(as_image(given)), np.repeat(GREY[..., None], 3, axis=-1))


def test_other_modes_of_pil() -> None:
    """Palette, CMYK and 1-bit images are converted; transparent pixels become white, also in a palette."""
    solid = Image.new("RGB", (4, 4), (10, 200, 30))
    assert as_image(solid.convert("P", palette=Image.Palette.ADAPTIVE)).getpixel((0, 0)) == (10, 200, 30)
    assert as_image(solid.convert("CMYK")).getpixel((0, 0)) == (10, 200, 30)
    assert as_image(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    assert as_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert as_image(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert as_image(Image.new("LA", (2, 2), (0, 0)).convert("La")).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    """An image whose EXIF orientation asks for a rotation is not rotated, because masks refer to stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(as_image(tmp_path / "turned.png")), RGB)
    assert np.array_equal(np.asarray(as_image(Image.open(tmp_path / "turned.png"))), RGB)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((2, 5, 5, 3), np.uint8), r"got shape \(2, 5, 5, 3\)"),
        (np.zeros((5, 6, 2), np.uint8), r"got shape \(5, 6, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got shape \(0, 5, 3\)"),
        (torch.zeros(5), r"got shape \(5,\)"),
        (RGB.astype(np.float32), r"expected float32 values of 0\.\.1, got 0\.0\.\.249\.0; pass the image's own pixels"),
        (RGB / 255 - 0.5, "not normalised ones"),
        (np.full((4, 4), np.nan), "nan"),
        (RGB > 100, "got values of type bool"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image(given: Any, said: str) -> None:
    """Batches, odd numbers of channels, no pixels and normalised values raise an error that describes the input."""
    with pytest.raises(BadImage, match=said):
        as_image(given)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing, a truncated and a non-image file raise an error, by path and through PIL, which reads pixels late."""
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nothing\.png"):
        as_image(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadImage, match=r"text\.png is not an image that can be read"):
        as_image(tmp_path / "text.png")
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for suffix in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        noise.save(buffer, suffix)
        half = buffer.getvalue()[: len(buffer.getvalue()) // 2]
        (tmp_path / "half").write_bytes(half)
        with pytest.raises(BadImage, match="half is damaged or truncated"):
            as_image(tmp_path / "half")
        with pytest.raises(BadImage, match="the image is damaged or truncated"):
            as_image(Image.open(io.BytesIO(half)))
