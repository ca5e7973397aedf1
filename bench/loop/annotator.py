"""The simulated annotator at one region: which fields are kept or corrected, and in how many seconds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.loop.team import is_right, true_fields
from demo.scenes import Scene
from demo.scenes.grammar import Region
from job_queue.field_answers import WHOLE

Item = Mapping[str, Any]

_LOOK_S = 2.5  # at a region, its mask and its fields
_TYPE_S = 4.0  # a field


@dataclass(frozen=True)
class Corrected:
    """A region as it is submitted. The annotator changed or emptied the fields in `changed`."""

    items: tuple[Item, ...]
    fields: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The seconds that a person would need."""
        return _LOOK_S + _TYPE_S * len(self.changed)


def corrected(scene: Scene, region: Region, items: Sequence[Item]) -> Corrected:
    """Return the region's items with every wrong or empty field replaced, as the page stores an edited region.

    Args:
        scene: the picture's ground truth.
        region: the region that was clicked.
        items: the items of its answer, the geometry first.
    """
    geometry, *filled = items
    given = {str(item["from_name"]): item for item in filled}
    truth = true_fields(scene, region)
    right = {
        name
        for name in truth
        if name in given and is_right(scene, region, name, given[name]["value"].get("text") or ())
    }
    extra = [name for name in given if name not in truth]  # the part of a whole object
    surplus = [name for name in extra if given[name]["value"].get("text") != [WHOLE]]
    changed = (*(name for name in truth if name not in right), *surplus)
    texts = [given[name] if name in right else _written(geometry, name, truth[name]) for name in truth]
    kept = [geometry, *texts, *(given[name] for name in extra if name not in surplus)]
    if changed and geometry.get("origin") == "prediction":
        # Label Studio marks all items of a region at its first edit.
        kept = [{**item, "origin": "prediction-changed"} for item in kept]
    return Corrected(tuple(kept), (*truth, *surplus), changed)


def _written(geometry: Item, name: str, values: Sequence[str]) -> Item:
    """Return a text as the page stores it: with the geometry of its region, and without the region's label."""
    shape = {key: value for key, value in geometry["value"].items() if not key.endswith("labels")}
    return {**geometry, "type": "textarea", "from_name": name, "value": {**shape, "text": list(values)}}
