"""The submitted regions and images of a project: the input of every export.

`submissions_of_tasks` reads Label Studio's tasks. `learning/corrections/stored_submissions.py` reads the correction
store.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from job_queue.contracts import ImageRef
from label_config.reader import LabelConfig, read_label_config
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion, regions_of


@dataclass(frozen=True, slots=True)
class Submissions:
    """Everything submitted in a project.

    Attributes:
        project_id: Label Studio's number of the project.
        title: the project's title.
        label_config: XML of the present labeling config.
        regions: ordered by task, annotation and position in the annotation.
        images: the regions' images by file name.
        problems: what could not be used.
        counts: `tasks`, `annotations` and `skipped_annotations`.
    """

    project_id: int
    title: str
    label_config: str
    regions: tuple[SubmittedRegion, ...]
    images: Mapping[str, ImageRef]
    problems: tuple[Problem, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def submissions_of_tasks(
    project: Mapping[str, Any],
    tasks: Iterable[Mapping[str, Any]],
    *,
    on_task: Callable[[], None] | None = None,
) -> Submissions:
    """Read Label Studio's tasks. Skipped annotations and drafts are left out.

    Args:
        project: Label Studio's project; `id`, `title` and `label_config` are used.
        tasks: the project's tasks with `data` and `annotations`, in any order.
        on_task: called after each task, for a progress bar.

    Raises:
        ConfigError: the project's labeling config cannot be read.
    """
    reader = _TaskReader(read_label_config(project["label_config"]), int(project["id"]))
    for task in tasks:
        reader.read(task)
        if on_task is not None:
            on_task()
    regions = [region for key in sorted(reader.regions) for region in reader.regions[key]]
    return Submissions(
        project_id=int(project["id"]),
        title=str(project.get("title") or ""),
        label_config=project["label_config"],
        regions=tuple(regions),
        images=reader.images,
        problems=tuple(reader.problems),
        counts={name: reader.counts.get(name, 0) for name in ("tasks", "annotations", "skipped_annotations")},
    )


def image_file_name(task_id: int, url: str) -> str:
    """Return the file name of a task's image in exports.

    The name has no `_`, because the readers of the released code keep only what follows the last one.
    """
    if url.startswith("data:"):
        kind = re.match(r"data:image/(\w+)", url)
        stem, suffix = hashlib.sha256(url.encode()).hexdigest()[:12], f".{kind.group(1)}" if kind else ""
    else:
        try:
            parts = urlsplit(url)
        except ValueError:  # for example `http://[::1`; the image resolver reports the reason
            return f"task{task_id}-image"
        # The path of a local file is in the query: /data/local-files/?d=folder/picture.jpg
        path = PurePosixPath(unquote(parts.query.partition("d=")[2] if "local-files" in parts.path else parts.path))
        stem, suffix = path.stem, path.suffix
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", stem).strip("-.")[:80]
    return f"task{task_id}-{stem or 'image'}{re.sub(r'[^a-z0-9.]', '', suffix.lower())[:8]}"


def shown_url(url: str) -> str:
    """Return the image's address on one line; for an image inside the task's data, its hash."""
    if url.startswith("data:"):
        return f"{url.partition(',')[0]},sha256:{hashlib.sha256(url.encode()).hexdigest()}"
    return re.sub(r"\s", "%20", url)


class _TaskReader:
    """Reads tasks one by one and holds what has been read so far."""

    def __init__(self, config: LabelConfig, project_id: int) -> None:
        self._config, self._project_id = config, project_id
        self.counts: Counter[str] = Counter()
        self.images: dict[str, ImageRef] = {}
        self.regions: dict[tuple[int, int], list[SubmittedRegion]] = {}
        self.problems: list[Problem] = []

    def read(self, task: Mapping[str, Any]) -> None:
        self.counts["tasks"] += 1
        task_id = task.get("id")
        if not isinstance(task_id, int):
            self.problems.append(Problem(None, None, None, f"a task has no number: its id is {task_id!r}"))
            return
        for annotation in task.get("annotations") or ():
            annotation_id = annotation.get("id") if isinstance(annotation, Mapping) else None
            if not isinstance(annotation_id, int):
                self.problems.append(Problem(task_id, None, None, "an annotation has no number"))
            elif annotation.get("was_cancelled"):
                self.counts["skipped_annotations"] += 1
            else:
                self._read_annotation(task, annotation, task_id, annotation_id)

    def _read_annotation(
        self, task: Mapping[str, Any], annotation: Mapping[str, Any], task_id: int, annotation_id: int
    ) -> None:
        url = (task.get("data") or {}).get(self._config.image_key)
        if not isinstance(url, str) or not url:
            missing = f"the task's data has no image under {self._config.image_key!r}"
            self.problems.append(Problem(task_id, annotation_id, None, missing, "image"))
            return
        self.counts["annotations"] += 1
        name = image_file_name(task_id, url)
        self.images[name] = ImageRef(url, task_id, self._project_id)
        regions, problems = regions_of(self._config, task, annotation, name)
        self.regions[task_id, annotation_id] = regions
        self.problems += problems


def of_one_size(regions: Sequence[SubmittedRegion]) -> tuple[list[SubmittedRegion], list[Problem]]:
    """Keep the regions with the most frequent image size of their annotation, as a training entry has one image size.

    Returns:
        The regions that are kept, and a problem for each other one.
    """
    sizes: dict[int, Counter[tuple[int, int]]] = {}
    for region in regions:
        sizes.setdefault(region.annotation, Counter())[region.image_wh] += 1
    kept, problems = [], []
    for region in regions:
        expected = sizes[region.annotation].most_common(1)[0][0]  # the first one where two are equally common
        if region.image_wh == expected:
            kept.append(region)
        else:
            sentence = f"its image size {region.image_wh} is not {expected}, that of the annotation's other regions"
            problems.append(Problem(region.task, region.annotation, region.region, sentence, "image"))
    return kept, problems
