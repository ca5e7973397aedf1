"""Claims about Label Studio's bitmask data URLs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
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


def data_url(pixels: np.ndarray) -> str:
    """The data URL of the picture of an array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_alpha_is_cut_at_one_half():
    """Anti-aliased edges of a brush edit: alpha 128 is inside, 127 outside, colours mean nothing."""
    rgba = np.full((1, 4, 4), 200, dtype=np.uint8)
    rgba[0, :, 3] = (0, 127, 128, 255)
    assert decode_bitmask_png(data_url(rgba)).tolist() == [[False, False, True, True]]


def test_png_without_alpha_is_read_by_brightness():
    """Some tools write grey masks; those are read by brightness."""
    assert decode_bitmask_png(data_url(np.array([[0, 255]], dtype=np.uint8))).tolist() == [[False, True]]


@pytest.mark.parametrize("mode", ["P", "LA", "1"])
def test_other_kinds_of_png_are_read(mode):
    """Palette with opacities, grey with alpha, and black and white without: each by alpha, else by brightness."""
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
    """Anything but a decodable PNG data URL is refused."""
    with pytest.raises(ValueError, match="bitmask"):
        decode_bitmask_png(url)


def test_truncated_png_is_refused():
    """A PNG that ends early is an error, not a half mask."""
    url = data_url(np.random.default_rng(0).integers(0, 255, (50, 50, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="decoded"):
        decode_bitmask_png(url[:2000])
