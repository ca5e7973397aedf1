"""The regions of a scene that are clicked: every object, and one part of each that depends on the seed."""

from __future__ import annotations

from collections.abc import Iterator

from demo.scenes import Scene, SceneObject, ScenePart


def picked_regions(scene: Scene) -> Iterator[tuple[SceneObject, ScenePart | None]]:
    """Yield objects in drawing order, each with one part; None for an object whose parts are all hidden."""
    for thing in scene.objects:
        yield thing, thing.parts[(scene.seed + thing.idx) % len(thing.parts)] if thing.parts else None
