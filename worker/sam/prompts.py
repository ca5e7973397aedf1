"""Clicks and boxes checked and put on pixels of the image, before SAM sees them. Numpy only.

Next on the path: `worker/sam/segmenter.py`.
"""

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
    """The points as (N, 2) on pixels of the image, with their labels.

    Of several points on one pixel the last one counts: who clicks and then Alt+clicks there has thought again.

    Raises:
        InvalidPrompt: a point outside the image or not finite, or labels that do not fit.
    """
    if len(points_px) != len(labels):
        raise InvalidPrompt(f"expected one label per point, got {len(points_px)} points and {len(labels)} labels")
    if any(label not in (0, 1) for label in labels):
        raise InvalidPrompt(f"point labels are 1 (include) or 0 (exclude), got {list(labels)}")
    points_N2: NDArray[np.float64] = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    height, width = image_hw
    # A click on the far edge arrives as 100 %: that is one past the last pixel, and meant as it.
    inside_N = ((points_N2 >= 0) & (points_N2 <= (width, height))).all(axis=1)
    if not inside_N.all():
        x_px, y_px = points_N2[~inside_N][0]
        raise InvalidPrompt(f"the click at ({x_px:g}, {y_px:g}) is outside the {width}x{height} px image")
    points_N2 = np.minimum(points_N2, (width - 1, height - 1))
    last = {(int(x), int(y)): idx for idx, (x, y) in enumerate(points_N2)}
    kept = sorted(last.values())
    return points_N2[kept], [int(labels[idx]) for idx in kept]


def checked_box(box_px_xyxy: BoxPx, image_hw: tuple[int, int]) -> NDArray[np.float64]:
    """The box with its corners in order, cut at the image's border.

    Raises:
        InvalidPrompt: it covers no pixel of the image.
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
    """A prompt must say what to include.

    Raises:
        InvalidPrompt: it does not.
    """
    if 1 not in labels and not has_box and not has_logits:
        came = f"{len(labels)} negative point(s) alone" if labels else "no prompt at all"
        raise InvalidPrompt(f"expected a positive point, a box or the logits of an earlier mask, got {came}")
