"""Whether it is time for a fine-tune: corrected regions since the version that was trained last.

Neighbours: `learning/schedule.py` asks by the clock, `learning/jobs.py` enqueues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from learning.corrections.store import Store
from registry.versions import Registry


@dataclass(frozen=True, slots=True)
class Due:
    """A project with new corrections."""

    project_id: int
    corrected_regions: int


def due_projects(store: Store, registry: Registry, at_least: int) -> Iterator[Due]:
    """The projects with at least so many regions that people corrected since their last fine-tune."""
    for project_id in store.projects():
        found = store.corrections_since(project_id, trained_revision(registry, project_id))
        if found.corrected_regions >= at_least:
            yield Due(project_id, found.corrected_regions)


def trained_revision(registry: Registry, project_id: int) -> int:
    """Up to which revision of the store a project has been trained on; 0: never."""
    revisions = [
        each.config.get("store_revision", 0) for each in registry.versions() if each.config.get("project") == project_id
    ]
    return max(revisions, default=0)
