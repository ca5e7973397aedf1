"""Decide how many of a project's images are held out: enough for the gate, and none that was trained on before.

The split is by hash (`learning/export/splits.py`), so a larger share also holds out every image of a smaller one. The
share may therefore shrink as a project grows. It must not exceed the share that the champion and its ancestors were
trained with.
"""

from __future__ import annotations

from collections.abc import Iterator

from learning.export.splits import Picture, sides_of
from learning.submitted.submissions import Submissions
from registry.versions import ModelVersion, Registry

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_MANY, _QUARTER = 50, 0.25  # more images help the gate little; training misses more than a quarter
_SPARE = 2  # similar images move to one side together, which is known only after the export


def held_out_share(submissions: Submissions, seed: int, images: int, *, at_most: float | None = None) -> float:
    """Return the share of images to hold out.

    - Normally it is the smallest share that holds out 50 images, but at most a quarter.
    - If a quarter is too few for the gate, it is the smallest share that is enough, up to a half.
    - If no share is enough, the gate cannot judge, so it is the smallest share and most images are trained on.

    Args:
        submissions: of the project.
        seed: of the split.
        images: minimum number of images for the gate.
        at_most: result of `trained_share`; None: the project was not trained on yet.
    """
    pictures = [Picture(name, image.task_id or 0, image.url) for name, image in submissions.images.items()]
    counts = {
        share: list(sides_of(pictures, share, seed).values()).count("held_out")
        for share in SHARES
        if at_most is None or share <= at_most
    }
    modest = [share for share in counts if share <= _QUARTER]
    many = next((share for share in modest if counts[share] >= _MANY), modest[-1] if modest else None)
    if many is not None and counts[many] >= images + _SPARE:
        return many
    least = SHARES[0] if at_most is None else min(SHARES[0], at_most)
    return next((share for share, count in counts.items() if count >= images + _SPARE), least)


def trained_share(registry: Registry, project_id: int) -> float | None:
    """Return the smallest share that the champion and its ancestors held out of a project; None: never trained on."""
    shares = [
        each.config["held_out_share"]
        for each in _champion_and_ancestors(registry)
        if each.config.get("project") == project_id and "held_out_share" in each.config
    ]
    return min(shares, default=None)


def _champion_and_ancestors(registry: Registry) -> Iterator[ModelVersion]:
    """Yield the champion, the version that it was trained from, and so on."""
    versions = {each.name: each for each in registry.versions()}
    seen: set[str] = set()
    name = registry.champion_name()
    while name in versions and name not in seen:
        seen.add(name)
        yield versions[name]
        name = next(iter(versions[name].parents), "")
