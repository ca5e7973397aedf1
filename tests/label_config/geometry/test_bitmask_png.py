"""Claims about Label Studio's bitmask data URLs."""

from __future__ import annotations

import base64
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from label_config.geometry import decode_bitmask_png, encode_bitmask_png

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_round_trip(mask):
    """Any mask comes back exactly, and a reader that converts to RGBA sees it in alpha over black."""
    url = encode_bitmask_png(mask)
    assert np.array_equal(decode_bitmask_png(url, mask.shape), mask)
    rgba = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))
    assert np.array_equal(rgba[..., 3], mask * 255)
    assert not rgba[..., :3].any()


@given(MASKS)
def test_our_own_form_is_read_as_pillow_reads_it(mask):
    """A PNG that was written here is read without Pillow if its size is known; both readers give the same mask."""
    url = encode_bitmask_png(mask)
    assert np.array_equal(decode_bitmask_png(url, mask.shape), decode_bitmask_png(url))


@given(MASKS, st.data())
def test_a_damaged_one_of_ours_gives_no_other_mask(mask, data):
    """One changed byte anywhere gives an error or, where no pixel depends on it, the same mask."""
    png = bytearray(base64.b64decode(encode_bitmask_png(mask).split(",")[1]))
    place = data.draw(st.integers(0, len(png) - 1))
    png[place] ^= data.draw(st.integers(1, 255))
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    try:
        read = decode_bitmask_png(url, mask.shape)
    except ValueError:
        return
    assert np.array_equal(read, mask)


def test_damaged_pixels_that_still_inflate_are_an_error():
    """Pillow alone silently reads some damaged bytes as another mask; their checksum detects them."""
    mask = np.ones((9, 33), dtype=np.bool_)
    mask[4, 9] = False
    png = base64.b64decode(encode_bitmask_png(mask).split(",")[1])
    misread = 0
    for place in range(png.index(b"IDAT") + 4, len(png) - 16):
        damaged = bytearray(png)
        damaged[place] ^= 255
        url = "data:image/png;base64," + base64.b64encode(damaged).decode()
        for size in (mask.shape, None):
            with pytest.raises(ValueError, match="not a PNG that can be decoded"):
                decode_bitmask_png(url, size)
        try:
            with Image.open(io.BytesIO(bytes(damaged))) as image:
                misread += not np.array_equal(np.asarray(image.convert("RGBA"))[..., 3] > 0, mask)
        except (OSError, SyntaxError):
            continue
    assert misread


def test_more_pixels_than_announced_are_not_inflated():
    """Our form around a gigabyte of zeros is refused after as many bytes as its size needs."""
    url = encode_bitmask_png(np.ones((2, 2), dtype=np.bool_))
    png = base64.b64decode(url.split(",")[1])
    head, pixels = png[: png.index(b"IDAT") - 4], zlib.compress(bytes(2**26))
    idat = struct.pack(">I", len(pixels)) + b"IDAT" + pixels + struct.pack(">I", zlib.crc32(b"IDAT" + pixels))
    bomb = "data:image/png;base64," + base64.b64encode(head + idat + png[-12:]).decode()
    tracemalloc.start()
    try:
        assert not decode_bitmask_png(bomb, (2, 2)).any()
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def data_url(pixels: np.ndarray) -> str:
    """The data URL of the picture of an array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_alpha_is_cut_at_one_half():
    """Anti-aliased edges of a brush edit: alpha 128 is inside, 127 outside, and colours are ignored."""
    rgba = np.full((1, 4, 4), 200, dtype=np.uint8)
    rgba[0, :, 3] = (0, 127, 128, 255)
    assert decode_bitmask_png(data_url(rgba)).tolist() == [[False, False, True, True]]


def test_png_without_alpha_is_read_by_brightness():
    """Grey masks, which some tools write, are read by brightness."""
    assert decode_bitmask_png(data_url(np.array([[0, 255]], dtype=np.uint8))).tolist() == [[False, True]]


@pytest.mark.parametrize("mode", ["P", "LA", "1"])
def test_other_kinds_of_png_are_read(mode):
    """Palette with opacities and grey with alpha are read by alpha, black and white without alpha by brightness."""
    alpha = np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)
    buffer = io.BytesIO()
    if mode == "P":
        image = Image.fromarray((alpha > 0).astype(np.uint8) * 2)
        image.putpalette(bytes((1, 2, 3)) * 3)
        image.save(buffer, "PNG", transparency=bytes((0, 255, 200)))
    elif mode == "LA":
        Image.merge("LA", [Image.new("L", (3, 2), 9), Image.fromarray(alpha)]).save(buffer, "PNG")
    else:
        Image.fromarray(alpha).convert("1").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    assert decode_bitmask_png(url).tolist() == (alpha > 0).tolist()


def test_another_size_is_refused_before_decoding():
    """A bitmask of another size than its image is an error."""
    with pytest.raises(ValueError, match="7x5 pixels, got 6x4"):
        decode_bitmask_png(encode_bitmask_png(np.ones((4, 6), dtype=np.bool_)), (5, 7))


@pytest.mark.parametrize("url", ["", "http://x/y.png", "data:image/png;base64,!!", "data:image/png;base64,AAAA"])
def test_what_is_no_png_is_refused(url):
    """Everything except a decodable PNG data URL is refused."""
    with pytest.raises(ValueError, match="bitmask"):
        decode_bitmask_png(url)


def test_truncated_png_is_refused():
    """A PNG that ends early is an error, not a half mask."""
    url = data_url(np.random.default_rng(0).integers(0, 255, (50, 50, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="decoded"):
        decode_bitmask_png(url[:2000])
