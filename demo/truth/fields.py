"""True field values of a region, in the words that the small model was trained on."""

from __future__ import annotations

from demo.scenes import Scene, ScenePart
from demo.scenes.grammar import Region, detailed_description, short_description


def plain_fields(scene: Scene, region: Region) -> dict[str, tuple[str, ...]]:
    """Return values by control of `label_config/bitmask.xml`; a whole object has no `part`."""
    owner = scene.objects[region.object_idx] if isinstance(region, ScenePart) else region
    fields = {
        "category": (owner.category,),
        "attribute": (region.color, region.material),
        "short_description": (short_description(scene, region),),
        "detailed_description": (detailed_description(scene, region),),
    }
    if isinstance(region, ScenePart):
        fields["part"] = (region.name,)
    return fields
