"""Which regions of a scene are clicked: every object, and one part of each, another one in every scene."""

from __future__ import annotations

from collections.abc import Iterator

from demo.scenes import Scene, SceneObject, ScenePart


def picked_regions(scene: Scene) -> Iterator[tuple[SceneObject, ScenePart | None]]:
    """Objects in drawing order, each with its part; None for one whose parts are all hidden."""
    for thing in scene.objects:
        yield thing, thing.parts[(scene.seed + thing.idx) % len(thing.parts)] if thing.parts else None
