"""How many of a project's images nothing is learned from: enough for the gate, and nothing that was learned before.

The split goes by hash (`learning/export/splits.py`): what a small share holds out, a larger one holds out as well.
So the share may shrink as a project grows, but never grow beyond the share that the champion and its parents used.
"""

from __future__ import annotations

from collections.abc import Iterator

from learning.export.splits import Picture, sides_of
from learning.submitted.submissions import Submissions
from registry.versions import ModelVersion, Registry

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_MANY, _QUARTER = 50, 0.25  # more images tell the gate little more; more than a quarter is missed in training
_SPARE = 2  # images that look the same move to one side together, which is known only when they are exported


def held_out_share(submissions: Submissions, seed: int, images: int, *, at_most: float | None = None) -> float:
    """The smallest share that holds out fifty images, else a quarter; more only where the gate would have too few.

    Args:
        submissions: of the project.
        seed: of the split.
        images: that the gate wants at least.
        at_most: see `learned_with`; None: nothing was learned yet.

    Returns:
        The smallest share of all where no share suffices: the gate cannot judge, so most is learned from.
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


def learned_with(registry: Registry, project_id: int) -> float | None:
    """The smallest share held out from the champion, or from what it was trained on; None: all are new to it."""
    shares = [
        each.config["held_out_share"]
        for each in _line(registry)
        if each.config.get("project") == project_id and "held_out_share" in each.config
    ]
    return min(shares, default=None)


def _line(registry: Registry) -> Iterator[ModelVersion]:
    """The champion, the version that it was trained from, and so on."""
    versions = {each.name: each for each in registry.versions()}
    seen: set[str] = set()
    name = registry.champion_name()
    while name in versions and name not in seen:
        seen.add(name)
        yield versions[name]
        name = next(iter(versions[name].parents), "")
