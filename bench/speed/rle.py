"""Time masks to and from Label Studio's formats, at 1920x1080.

    python -m bench.speed.rle --out bench/results/rle_2cpu_202611.json

Brush RLE is compared with `label_studio_sdk.converter.brush` in the same run, after a check that every byte and pixel
is equal. Bitmask PNG, polygon and the queue's COCO RLE are compared with the bound of 10 ms. There are two masks:
`smooth` (an ellipse with a hole and a second part) and `ragged` (very irregular, about 83000 runs). Times are CPU time
of the process, which depends less on other work on the machine.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from label_studio_sdk.converter import brush
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.harness import percentile, repeat, report
from job_queue.mask_codec import decode_mask, encode_mask
from label_config.geometry import (
    decode_bitmask_png,
    decode_brush_rle,
    encode_bitmask_png,
    encode_brush_rle,
    mask_to_polygon_pct,
    mask_to_polygons_pct,
    polygons_pct_to_mask,
)

BoolMask = NDArray[np.bool_]

HEIGHT, WIDTH = IMAGE_HW = (1080, 1920)
BOUND_MS = 10.0


def smooth_mask() -> BoolMask:
    """Draw an ellipse with a hole, and a disc beside it."""
    drawn = np.zeros(IMAGE_HW, dtype=np.uint8)
    cv2.ellipse(drawn, (960, 540), (600, 380), 15, 0, 360, 1, -1)
    cv2.circle(drawn, (860, 500), 120, 0, -1)
    cv2.circle(drawn, (1700, 200), 150, 1, -1)
    return drawn.astype(np.bool_)


def ragged_mask() -> BoolMask:
    """Draw an ellipse in noise of about 3 pixels' grain: specks, holes and a very long border."""
    noise = np.random.default_rng(0).standard_normal(IMAGE_HW).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    rows, columns = np.indices(IMAGE_HW)
    inside = 1 - np.hypot((columns - 960) / 700, (rows - 540) / 450)
    ragged: BoolMask = 4 * inside + noise / noise.std() > 0
    return ragged


def page_bitmask(mask: BoolMask) -> str:
    """Encode a bitmask as the page does: RGBA, mask in alpha."""
    rgba = np.zeros((*mask.shape, 4), dtype=np.uint8)
    rgba[..., 3] = mask * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def iou(one: BoolMask, other: BoolMask) -> float:
    """Compute intersection over union."""
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def check_equal(mask: BoolMask) -> None:
    """Exit before any timing if two ways differ by a byte or a pixel."""
    rle = encode_brush_rle(mask)
    if rle != brush.mask2rle(mask.astype(np.uint8) * 255):
        raise SystemExit("the brush RLE differs from label_studio_sdk's; nothing was timed")
    back = {
        "sdk's reading of our brush RLE": brush.decode_rle(rle).reshape(*IMAGE_HW, 4)[..., 3] == 255,
        "brush RLE": decode_brush_rle(rle, IMAGE_HW),
        "bitmask": decode_bitmask_png(encode_bitmask_png(mask), IMAGE_HW),
        "the page's bitmask": decode_bitmask_png(page_bitmask(mask), IMAGE_HW),
        "COCO RLE": decode_mask(encode_mask(mask)),
        "exact polygon": polygons_pct_to_mask([mask_to_polygon_pct(mask, min_iou=1.0)], (WIDTH, HEIGHT)),
    }
    for name, decoded in back.items():
        if not np.array_equal(decoded, mask):
            raise SystemExit(f"{name} does not give the mask back; nothing was timed")


def time_ms(action: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return p50 and p95 of the CPU time of a call, in milliseconds."""
    times_s = repeat(action, warmup=2, repeats=repeats, clock=time.process_time)
    return {f"p{percent}_ms": round(1000 * percentile(times_s, percent), 2) for percent in (50, 95)}


def measure(mask: BoolMask, repeats: int) -> dict[str, Any]:
    """Time encoding and decoding of every format for one mask, with the facts to compare them by."""
    values, image_wh = mask.astype(np.uint8) * 255, (WIDTH, HEIGHT)
    rle, png, page_png, coco = encode_brush_rle(mask), encode_bitmask_png(mask), page_bitmask(mask), encode_mask(mask)
    ring, rings = mask_to_polygon_pct(mask), mask_to_polygons_pct(mask)
    few = max(3, repeats // 5)  # the reference takes up to a second
    ways: dict[str, tuple[Callable[[], object], Callable[[], object], int, dict[str, Any]]] = {
        "brush_rle": (
            lambda: encode_brush_rle(mask),
            lambda: decode_brush_rle(rle, IMAGE_HW),
            repeats,
            {"bytes": len(rle)},
        ),
        "brush_rle_sdk": (lambda: brush.mask2rle(values), lambda: brush.decode_rle(rle), few, {"bytes": len(rle)}),
        "bitmask_png": (
            lambda: encode_bitmask_png(mask),
            lambda: decode_bitmask_png(png, IMAGE_HW),
            repeats,
            {"bytes": len(png)},
        ),
        "bitmask_png_of_the_page": (
            lambda: page_bitmask(mask),
            lambda: decode_bitmask_png(page_png, IMAGE_HW),
            few,
            {"bytes": len(page_png)},
        ),
        "polygon_one_ring": (
            lambda: mask_to_polygon_pct(mask),
            lambda: polygons_pct_to_mask([ring], image_wh),
            repeats,
            {"corners": len(ring), "iou": round(iou(polygons_pct_to_mask([ring], image_wh), mask), 4)},
        ),
        "polygon_ring_per_part": (
            lambda: mask_to_polygons_pct(mask),
            lambda: polygons_pct_to_mask(rings, image_wh),
            repeats,
            {
                "corners": sum(map(len, rings)),
                "rings": len(rings),
                "iou": round(iou(polygons_pct_to_mask(rings, image_wh), mask), 4),
            },
        ),
        "coco_rle_of_the_queue": (
            lambda: encode_mask(mask),
            lambda: decode_mask(coco),
            repeats,
            {"bytes": len(coco["counts"])},
        ),
    }
    return {
        name: {"encode": time_ms(encode, count), "decode": time_ms(decode, count), **facts}
        for name, (encode, decode, count, facts) in ways.items()
    }


def main(
    repeats: Annotated[int, typer.Option(help="Timed calls of each kind.", min=3)] = 30,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Check that all ways agree, time them and print a table; the last line is JSON."""
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {"image_wh": [WIDTH, HEIGHT], "clock": "process CPU time"}
    shown = Table("mask", "format", "encode p50", "decode p50", "", title="Masks at 1920x1080, ms")
    over: list[str] = []
    for name, mask in (("smooth", smooth_mask()), ("ragged", ragged_mask())):
        check_equal(mask)
        ways = measure(mask, repeats)
        ours, sdk = ways["brush_rle"], ways["brush_rle_sdk"]
        speedup = {side: round(sdk[side]["p50_ms"] / ours[side]["p50_ms"], 1) for side in ("encode", "decode")}
        runs = int(np.count_nonzero(mask.ravel()[1:] != mask.ravel()[:-1])) + 1
        figures[name] = {"runs": runs, "brush_speedup": speedup, **ways}
        for way, row in ways.items():
            facts = ", ".join(f"{value} {fact}" for fact, value in row.items() if fact not in ("encode", "decode"))
            shown.add_row(name, way, f"{row['encode']['p50_ms']:.2f}", f"{row['decode']['p50_ms']:.2f}", facts)
            if not way.startswith("brush") and way != "bitmask_png_of_the_page":
                over += [f"{name} {way} {side}" for side in ("encode", "decode") if row[side]["p50_ms"] > BOUND_MS]
        shown.add_row(name, "brush, times faster", str(speedup["encode"]), str(speedup["decode"]), "", style="bold")
    Console().print(shown)
    report("masks to and from Label Studio", {**figures, "bound_ms": BOUND_MS, "over_the_bound": over}, out)


if __name__ == "__main__":
    typer.run(main)
