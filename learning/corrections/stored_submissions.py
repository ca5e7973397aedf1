"""Read `Submissions` from the correction store: the same as from Label Studio, without a request to it."""

from __future__ import annotations

from job_queue.contracts import ImageRef
from job_queue.errors import OspreyError
from learning.corrections.store import Store
from learning.submitted.submissions import Submissions


class NotCollected(OspreyError):
    """The correction store has no data of the project."""


def submissions_of_store(store: Store, project_id: int) -> Submissions:
    """Return every stored region of the project, with the project's present labeling config.

    Raises:
        NotCollected: the project was never collected.
    """
    project = store.project(project_id)
    if project is None:
        raise NotCollected(
            f"the correction store has no data of project {project_id}; run `osprey collect --project {project_id}`"
        )
    title, config = project
    stored = list(store.regions(project_id))
    counts = store.counts(project_id)
    return Submissions(
        project_id=project_id,
        title=title,
        label_config=config,
        regions=tuple(each.region for each in stored),
        images={each.region.image: ImageRef(each.image_url, each.region.task, project_id) for each in stored},
        problems=tuple(store.problems(project_id)),
        counts={
            "tasks": counts.tasks,
            "annotations": counts.annotations,
            "skipped_annotations": counts.skipped_annotations,
        },
    )
