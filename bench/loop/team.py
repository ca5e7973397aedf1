"""A simulated team that uses terms that the small model was not trained on, and its true field values.

The team calls every roof a rooftop, and its pictures contain two categories that are new to the model: snowmen and
windmills. Everything else is as in `demo/scenes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from demo.scenes import COLORS, MATERIALS, Scene, SceneObject, ScenePart, make_scene
from demo.scenes.grammar import Region, detailed_facts, is_short_description
from demo.scenes.newcomers import NEWCOMERS
from demo.truth.fields import plain_fields

# Nearly half of the team's regions are affected by its own terms. The model was trained on the rest.
TEAM_CATEGORIES = ("boat", "house", "lamp", "snowman", "windmill")
RENAMED: Mapping[str, str] = {"roof": "rooftop"}
_BACK = {new: old for old, new in RENAMED.items()}


def team_scene(seed: int) -> Scene:
    """Draw a picture of the team's world."""
    return make_scene(seed, categories=TEAM_CATEGORIES)


def is_changed(scene: Scene, region: Region) -> bool:
    """Whether the team's terms affect the region: a newcomer, a part of one, or a roof."""
    owner = region if isinstance(region, SceneObject) else scene.objects[region.object_idx]
    if owner.category in NEWCOMERS:
        return True
    return isinstance(region, ScenePart) and region.name in RENAMED


def true_fields(scene: Scene, region: Region) -> dict[str, tuple[str, ...]]:
    """Return the team's true field values, by control of `label_config/bitmask.xml`."""
    return {name: tuple(map(in_team_words, values)) for name, values in plain_fields(scene, region).items()}


def is_right(scene: Scene, region: Region, control: str, values: Sequence[str]) -> bool:
    """Whether the team's annotator would keep a field's value: true, and with the team's names."""
    text = " ".join(values).strip()
    words = re.findall(r"[a-z]+", text.lower())
    if any(word in RENAMED for word in words):
        return False
    plain = _in_plain_words(text)
    if control == "attribute":
        attributes = {value.strip().lower() for value in values}
        return attributes & set(COLORS) == {region.color} and attributes & set(MATERIALS) == {region.material}
    if control == "short_description":
        return is_short_description(scene, region, plain)
    if control == "detailed_description":
        facts = detailed_facts(scene, region, plain)
        return facts["category"] and facts["color"] and facts["relation"]
    return text.lower() == " ".join(true_fields(scene, region).get(control, ())).lower()


def in_team_words(text: str) -> str:
    """Replace names of the demo world by the team's names."""
    return re.sub(r"[a-z]+", lambda word: RENAMED.get(word[0], word[0]), text)


def _in_plain_words(text: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda word: _BACK.get(word[0].lower(), word[0]), text)
