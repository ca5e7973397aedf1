"""The simulated annotator at one region: what is left, what is written over, how long a person would take. Pure.

Neighbours: `bench/loop/team.py` knows the truth, `bench/loop/annotating.py` clicks and submits.
"""

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
    """A region as it is submitted. Of `fields` the annotator had to write or empty those in `changed`."""

    items: tuple[Item, ...]
    fields: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """What a person would take for it."""
        return _LOOK_S + _TYPE_S * len(self.changed)


def corrected(scene: Scene, region: Region, items: Sequence[Item]) -> Corrected:
    """The region's items with every wrong or empty field written over, as the page stores an edited region.

    Args:
        scene: what is to be seen.
        region: what was clicked.
        items: of one region, its geometry first.
    """
    geometry, *filled = items
    given = {str(item["from_name"]): item for item in filled}
    truth = true_fields(scene, region)
    right = {
        name
        for name in truth
        if name in given and is_right(scene, region, name, given[name]["value"].get("text") or ())
    }
    extra = [name for name in given if name not in truth]  # what part a whole object is
    surplus = [name for name in extra if given[name]["value"].get("text") != [WHOLE]]
    changed = (*(name for name in truth if name not in right), *surplus)
    texts = [given[name] if name in right else _written(geometry, name, truth[name]) for name in truth]
    kept = [geometry, *texts, *(given[name] for name in extra if name not in surplus)]
    if changed and geometry.get("origin") == "prediction":
        # Label Studio marks all items of a region at its first edit.
        kept = [{**item, "origin": "prediction-changed"} for item in kept]
    return Corrected(tuple(kept), (*truth, *surplus), changed)


def _written(geometry: Item, name: str, values: Sequence[str]) -> Item:
    """A text as the page stores it: with the geometry of its region, and without the region's label."""
    shape = {key: value for key, value in geometry["value"].items() if not key.endswith("labels")}
    return {**geometry, "type": "textarea", "from_name": name, "value": {**shape, "text": list(values)}}
