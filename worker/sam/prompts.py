"""Check the points and the box of a prompt and clip them to the image's pixels. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from job_queue.errors import OspreyError

BoxPx = tuple[float, float, float, float]


class InvalidPrompt(OspreyError, ValueError):
    """The points, the box or the previous logits cannot be a prompt on this image."""


def checked_points(
    points_px: Sequence[tuple[float, float]], labels: Sequence[int], image_hw: tuple[int, int]
) -> tuple[NDArray[np.float64], list[int]]:
    """Return the points as (N, 2) on pixels of the image, with their labels.

    Of several points on one pixel only the last one counts, because an Alt+click there corrects the click before.

    Raises:
        InvalidPrompt: a point is outside the image or not finite, or the labels do not fit the points.
    """
    if len(points_px) != len(labels):
        raise InvalidPrompt(f"expected one label per point, got {len(points_px)} points and {len(labels)} labels")
    if any(label not in (0, 1) for label in labels):
        raise InvalidPrompt(f"point labels are 1 (include) or 0 (exclude), got {list(labels)}")
    points_N2: NDArray[np.float64] = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    height, width = image_hw
    # A click on the far edge arrives as 100 %, one past the last pixel; it is moved onto the last pixel.
    inside_N = ((points_N2 >= 0) & (points_N2 <= (width, height))).all(axis=1)
    if not inside_N.all():
        x_px, y_px = points_N2[~inside_N][0]
        raise InvalidPrompt(f"the click at ({x_px:g}, {y_px:g}) is outside the {width}x{height} px image")
    points_N2 = np.minimum(points_N2, (width - 1, height - 1))
    last = {(int(x), int(y)): idx for idx, (x, y) in enumerate(points_N2)}
    kept = sorted(last.values())
    return points_N2[kept], [int(labels[idx]) for idx in kept]


def checked_box(box_px_xyxy: BoxPx, image_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Return the box with its corners in order, cut at the image's border.

    Raises:
        InvalidPrompt: the box covers no pixel of the image.
    """
    height, width = image_hw
    corners_22 = np.sort(np.asarray(box_px_xyxy, dtype=np.float64).reshape(2, 2), axis=0)
    cut_22 = np.clip(corners_22, 0, (width, height))
    if not np.isfinite(corners_22).all() or not (cut_22[1] > cut_22[0]).all():
        raise InvalidPrompt(
            f"the box {tuple(box_px_xyxy)} (x, y, x, y) covers no pixel of the {width}x{height} px image"
        )
    return cut_22.reshape(4)


def refuse_without_inclusion(labels: Sequence[int], has_box: bool, has_logits: bool) -> None:
    """Check that a prompt includes something: a positive point, a box or earlier logits.

    Raises:
        InvalidPrompt: it includes nothing.
    """
    if 1 not in labels and not has_box and not has_logits:
        came = f"{len(labels)} negative point(s) alone" if labels else "no prompt at all"
        raise InvalidPrompt(f"expected a positive point, a box or the logits of an earlier mask, got {came}")
