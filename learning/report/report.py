"""Write the report of a project: read its regions and images, compute the figures, write page and JSON.

The regions come from the correction store, an export version, or Label Studio.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageUnavailable
from learning.corrections.store import Store
from learning.export.image_folder import FOLDER
from learning.export.version import read_export
from learning.report.figures import Figures, SeenRegion, figures_of
from learning.report.gallery import pictures_of
from learning.report.page import report_page
from learning.report.version_history import Examined
from learning.settings import Settings
from learning.submitted.submissions import Submissions
from registry.atomic_writes import Disk
from worker.images.decoding import decode_image
from worker.images.resolver import ImageResolver


@dataclass(frozen=True, slots=True)
class ReportSource:
    """The input of a report. `folder` holds the images by name; None if they were not exported."""

    title: str
    seen: tuple[SeenRegion, ...]
    folder: Path | None = None


def source_of_export(folder: Path) -> ReportSource:
    """Read an export version.

    Raises:
        ExportRefused: the folder is not a complete export version.
    """
    export = read_export(folder)
    seen = tuple(
        SeenRegion(region, ImageRef(export.images.get(region.image, ""), region.task)) for region in export.regions
    )
    return ReportSource(str(export.manifest.get("project", {}).get("title") or folder.name), seen, folder)


def source_of_store(store: Store, project_id: int) -> ReportSource | None:
    """Read a project from the correction store, with its blind regions; None if it was never collected."""
    title = store.projects().get(project_id)
    if title is None:
        return None
    seen = tuple(
        SeenRegion(
            stored.region,
            ImageRef(stored.image_url, task_id=stored.region.task, project_id=project_id),
            stored.is_blind,
            stored.arm,
        )
        for stored in store.regions(project_id)
    )
    return ReportSource(title, seen)


def source_of_submissions(submissions: Submissions) -> ReportSource:
    """Use submissions that were read from Label Studio; it does not know which regions were blind."""
    unknown = ImageRef("")
    seen = tuple(SeenRegion(region, submissions.images.get(region.image, unknown)) for region in submissions.regions)
    return ReportSource(submissions.title, seen)


def write_report(
    source: ReportSource,
    settings: Settings,
    page: Path,
    *,
    figures_file: Path | None = None,
    made_at: datetime,
    task_url: str | None = None,
    versions: Sequence[Examined] = (),
) -> Figures:
    """Write the HTML page, and the figures as JSON if `figures_file` is given; return the figures.

    If an image cannot be read, the gallery shows the reason instead; the report is written all the same.
    """
    figures = figures_of(source.seen)
    images = ImageResolver(settings)

    def open_image(seen: SeenRegion) -> Image.Image:
        exported = None if source.folder is None else source.folder / FOLDER / seen.region.image
        if exported is not None and exported.is_file():
            return decode_image(exported.read_bytes(), exported.name, settings.image_max_pixels)
        if not seen.image.url:
            raise ImageUnavailable(f"the address of the image {seen.region.image} is not known")
        return images.resolve(seen.image, seen.region.image_wh).image

    try:
        pictures = pictures_of(figures.worst, source.seen, open_image)
    finally:
        images.close()
    disk = Disk()
    html = report_page(figures, source.title, pictures, made_at=made_at, task_url=task_url, versions=versions)
    disk.write(page, html.encode("utf-8", "replace"))
    if figures_file is not None:
        data = {"title": source.title, **figures.to_json(), "versions": [asdict(each) for each in versions]}
        disk.write(figures_file, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    return figures
