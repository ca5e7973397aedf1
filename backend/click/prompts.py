"""The context of a smart tool -> `Prompt`: where the annotator clicked, in pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job_queue.contracts import PromptPoint
from label_config.geometry.coordinates import pct_to_px, rectangle_bounds_px
from label_config.reader import LabelConfig

_POINT_TYPES = ("keypoint", "keypointlabels")
_BOX_TYPES = ("rectangle", "rectanglelabels")
_MIN_BOX_SIDE_PX = 2.0  # a shorter drag is a click

Box = tuple[float, float, float, float]


class PromptError(ValueError):
    """The context does not come from a smart tool of Label Studio; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The points or the box of a click, in pixels of the upright image.

    `points` and `box_px_xyxy` are never both given: Label Studio groups prompts by their type. `label` is the
    output label that the tool carries or that is active in the page (also the label of a selected region), None
    without one. `item_ids` are the ids of the pending points, oldest first.
    """

    image_wh: tuple[int, int]
    item_ids: tuple[str, ...]
    points: tuple[PromptPoint, ...] = ()
    box_px_xyxy: Box | None = None
    label: str | None = None

    @property
    def positives(self) -> tuple[PromptPoint, ...]:
        """The points that belong to the object."""
        return tuple(point for point in self.points if point.positive)

    def without_items(self, failed: frozenset[str]) -> Prompt:
        """Leave out points that were answered with a failure, unless all of them were."""
        kept = [idx for idx, item_id in enumerate(self.item_ids) if item_id not in failed]
        if self.box_px_xyxy is not None or not kept or len(kept) == len(self.points):
            return self
        return Prompt(
            self.image_wh,
            tuple(self.item_ids[idx] for idx in kept),
            tuple(self.points[idx] for idx in kept),
            None,
            self.label,
        )


def read_prompt(context: Mapping[str, Any], config: LabelConfig) -> Prompt | None:
    """Read the prompt of an interactive request; None for an empty context (the last pending prompt was removed).

    Of several boxes (auto-accept off) the last one counts, because the page shows one suggestion at a time.

    Raises:
        PromptError: an item is malformed, or none is a point or a box.
    """
    items = context.get("result")
    if items is None or items == []:
        return None
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise PromptError(f"expected context.result to be a list of result items, got {type(items).__name__}")
    items = [_checked(item) for item in items if _is_for_image(item, config)]
    points = [item for item in items if item["type"] in _POINT_TYPES]
    boxes = [item for item in items if item["type"] in _BOX_TYPES]
    label = _label(items, config)
    if points:
        image_wh = _image_wh(points[-1])
        return Prompt(
            image_wh,
            tuple(str(item["id"]) for item in points),
            tuple(_point(item, image_wh) for item in points),
            None,
            label,
        )
    if boxes:
        item = boxes[-1]
        image_wh = _image_wh(item)
        box = _box(item, image_wh)
        if min(box[2] - box[0], box[3] - box[1]) < _MIN_BOX_SIDE_PX:
            middle = PromptPoint((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            return Prompt(image_wh, (str(item["id"]),), (middle,), None, label)
        return Prompt(image_wh, (str(item["id"]),), (), box, label)
    types = sorted({item["type"] for item in items})
    raise PromptError(f"no click and no box for image {config.image_name!r} in the request, only {types}")


def _is_for_image(item: Any, config: LabelConfig) -> bool:
    return not isinstance(item, Mapping) or item.get("to_name") == config.image_name


def _checked(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping) or not isinstance(item.get("value"), Mapping) or not item.get("id"):
        raise PromptError(f"expected a result item with id, type and value, got {item!r:.120}")
    if not isinstance(item.get("type"), str):
        raise PromptError(f"expected the type of prompt {item['id']!r} to be a string, got {item.get('type')!r}")
    return item


def _image_wh(item: Mapping[str, Any]) -> tuple[int, int]:
    width, height = item.get("original_width"), item.get("original_height")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise PromptError(
            f"expected the image size with prompt {item['id']!r}, got {width!r} x {height!r}; "
            "the image may not have been loaded in the page yet"
        )
    return width, height


def _point(item: Mapping[str, Any], image_wh: tuple[int, int]) -> PromptPoint:
    x_px, y_px = pct_to_px((_number(item, "x"), _number(item, "y")), image_wh)
    # A click on the very border would lie outside every mask.
    x_px, y_px = min(max(x_px, 0.0), image_wh[0] - 0.5), min(max(y_px, 0.0), image_wh[1] - 0.5)
    return PromptPoint(float(x_px), float(y_px), item.get("is_positive", True) is not False)


def _box(item: Mapping[str, Any], image_wh: tuple[int, int]) -> Box:
    value = {name: _number(item, name) for name in ("x", "y", "width", "height")}
    rotation = item["value"].get("rotation")
    value["rotation"] = 0.0 if rotation is None else _number(item, "rotation")
    return rectangle_bounds_px(value, image_wh)


def _number(item: Mapping[str, Any], name: str) -> float:
    number = item["value"].get(name)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise PromptError(f"expected value.{name} of prompt {item['id']!r} to be a finite number, got {number!r}")
    return float(number)


def _label(items: Sequence[Mapping[str, Any]], config: LabelConfig) -> str | None:
    """Return the label that the tool or the page put on the prompt, if the output control lists it."""
    for item in reversed(items):
        for key in (item["type"], "labels"):
            labels = item["value"].get(key)
            if isinstance(labels, list) and labels and labels[0] in config.output.labels:
                return str(labels[0])
    return None
