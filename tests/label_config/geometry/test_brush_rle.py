"""Claims about Label Studio's brush RLE."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from label_config.geometry import decode_brush_rle, encode_brush_rle

brush = pytest.importorskip(
    "label_studio_sdk.converter.brush", reason="the reference encoder comes with the worker extra"
)

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_bytes_equal_the_reference(mask):
    """Any mask is encoded byte for byte as label_studio_sdk encodes it, and decoded back exactly."""
    rle = encode_brush_rle(mask)
    assert rle == brush.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(decode_brush_rle(rle, mask.shape), mask)


@pytest.mark.parametrize("height_width", [(128, 128), (127, 129), (300, 511), (257, 256)])
@pytest.mark.parametrize("fill", ["empty", "full", "stripes", "corner"])
def test_long_runs_equal_the_reference(height_width, fill):
    """Runs of more than 65536 values are split as the reference splits them."""
    mask = np.zeros(height_width, dtype=np.bool_)
    if fill == "full":
        mask[:] = True
    elif fill == "stripes":
        mask[::3] = True
    elif fill == "corner":
        mask[-1, -1] = True
    rle = encode_brush_rle(mask)
    assert rle == brush.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(decode_brush_rle(rle, mask.shape), mask)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(4))), st.randoms())
def test_decodes_literals_as_the_page_writes_them(rgba, rand):
    """A stream of mixed literal and run packets, as a browser writes anti-aliased strokes, gives alpha >= 128."""
    rle = pack_with_literals(rgba.ravel().tolist(), rand)
    assert np.array_equal(brush.decode_rle(rle).reshape(rgba.shape), rgba)  # our writer speaks the format
    assert np.array_equal(decode_brush_rle(rle, rgba.shape[:2]), rgba[..., 3] >= 128)


def pack_with_literals(values: list[int], rand: random.Random) -> list[int]:
    """The values in packets of random kind and length, with run sizes other than the usual."""
    sizes = (2, 5, 9, 16)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    done = 0
    while done < len(values):
        size_idx = rand.randrange(4)
        longest = min(1 << sizes[size_idx], len(values) - done)
        run = 1
        while done + run < len(values) and values[done + run] == values[done] and run < longest:
            run += 1
        is_run = rand.random() < 0.5
        count = run if is_run else rand.randint(1, longest)
        bits += f"{int(is_run)}{size_idx:02b}{count - 1:0{sizes[size_idx]}b}"
        bits += "".join(f"{value:08b}" for value in values[done : done + (1 if is_run else count)])
        done += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_image_of_another_size_is_refused():
    """A mask of another image size is an error that names both, never a shifted mask."""
    rle = encode_brush_rle(np.ones((4, 6), dtype=np.bool_))
    with pytest.raises(ValueError, match="another size"):
        decode_brush_rle(rle, (6, 5))


@pytest.mark.parametrize(
    ("rle", "message"),
    [([], "header"), ([1, 2, 3], "header"), ([0, 0, 0, 256], "0 to 255"), (["a"], "integers"), ([-1], "0 to 255")],
)
def test_no_rle_is_refused(rle, message):
    """A list that is not a byte stream is refused, and the message has the reason."""
    with pytest.raises(ValueError, match=message):
        decode_brush_rle(rle, (4, 6))


@given(MASKS, st.data())
def test_truncated_stream_is_refused_or_complete(mask, data):
    """A stream cut anywhere is refused; if only padding was cut, the mask is complete."""
    rle = encode_brush_rle(mask)
    cut = data.draw(st.integers(0, len(rle) - 1))
    try:
        decoded = decode_brush_rle(rle[:cut], mask.shape)
    except ValueError:
        return
    assert np.array_equal(decoded, mask)


def test_only_bool_masks_are_encoded():
    """A mask of numbers is refused, because 0/1 and 0/255 could be confused."""
    with pytest.raises(ValueError, match="bool mask"):
        encode_brush_rle(np.zeros((2, 2), dtype=np.uint8))  # type: ignore[arg-type]
