"""Decide whether a fine-tune is due, by the corrected regions since the last one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from learning.corrections.store import Store
from registry.versions import Registry


@dataclass(frozen=True, slots=True)
class Due:
    """A project with enough new corrections for a fine-tune."""

    project_id: int
    corrected_regions: int


def due_projects(store: Store, registry: Registry, at_least: int) -> Iterator[Due]:
    """Yield the projects with at least this many corrected regions since their last fine-tune."""
    for project_id in store.projects():
        found = store.corrections_since(project_id, trained_revision(registry, project_id))
        if found.corrected_regions >= at_least:
            yield Due(project_id, found.corrected_regions)


def trained_revision(registry: Registry, project_id: int) -> int:
    """Return the store revision that the latest fine-tune of a project contains; 0 if there is none."""
    revisions = [
        each.config.get("store_revision", 0) for each in registry.versions() if each.config.get("project") == project_id
    ]
    return max(revisions, default=0)
