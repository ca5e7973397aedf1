"""Scenes with their true field values as export versions: replay data and the frozen base set.

Both are written once, from seeds that no round and no other set uses.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from demo.scenes import Scene, SceneObject, make_scene
from demo.scenes.grammar import Region
from demo.truth.fields import plain_fields
from demo.truth.picked import picked_regions
from job_queue.contracts import ImageRef
from job_queue.mask_codec import encode_mask
from learning.export.version import DataVersion, ExportOptions, export_version
from learning.submitted.regions import SubmittedRegion
from learning.submitted.submissions import Submissions
from worker.images.resolver import ImageResolver
from worker.settings import Settings


def write_truth_set(
    out: Path,
    cache: Path,
    seeds: Sequence[int],
    label_config: str,
    project_id: int,
    on_step: Callable[[], None] | None = None,
) -> DataVersion:
    """Write, or find, the version of these scenes below `out`. No image of it is held out.

    Args:
        out: the folder that holds versions.
        cache: the image resolver's folder.
        seeds: of the scenes.
        label_config: of the project whose controls are answered.
        project_id: any number that is no other set's: it begins the version's name.
        on_step: called twice for each scene: when it is drawn and when its image is written.

    Raises:
        ExportRefused: `out` cannot hold versions.
    """
    submissions = truth_submissions(seeds, label_config, project_id, on_step)
    with closing(ImageResolver(Settings(cache_dir=cache))) as images:
        return export_version(submissions, out, ExportOptions(held_out_share=0.0), images, on_image=on_step)


def truth_submissions(
    seeds: Sequence[int], label_config: str, project_id: int, on_scene: Callable[[], None] | None = None
) -> Submissions:
    """Every picked region of these scenes, suggested and accepted word for word."""
    regions: list[SubmittedRegion] = []
    images: dict[str, ImageRef] = {}
    for task, seed in enumerate(seeds, start=1):
        scene = make_scene(seed)
        name = f"scene-{seed}.png"
        images[name] = ImageRef(_data_url(scene), task, project_id)
        regions += _scene_regions(scene, task, name)
        if on_scene is not None:
            on_scene()
    counts = {"tasks": len(seeds), "annotations": len(seeds), "skipped_annotations": 0}
    return Submissions(project_id, "Ordinary scenes", label_config, tuple(regions), images, counts=counts)


def _scene_regions(scene: Scene, task: int, image: str) -> Iterator[SubmittedRegion]:
    for thing, part in picked_regions(scene):
        parent = f"object{thing.idx}"
        yield _region(scene, thing, task, image, parent, None)
        if part is not None:
            yield _region(scene, part, task, image, f"part{thing.idx}", parent)


def _region(scene: Scene, region: Region, task: int, image: str, region_id: str, parent: str | None) -> SubmittedRegion:
    rows, columns = np.nonzero(region.mask)
    texts = {name: list(values) for name, values in plain_fields(scene, region).items()}
    return SubmittedRegion(
        task=task,
        annotation=task,
        region=region_id,
        annotator=None,
        image=image,
        image_wh=scene.image_wh,
        mask=encode_mask(region.mask),
        bbox=(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1),
        area=int(region.mask.sum()),
        label="Object" if isinstance(region, SceneObject) else "Part",
        parent=parent,
        is_part=not isinstance(region, SceneObject),
        origin="prediction",
        score=None,
        texts=texts,
        suggestion=texts,  # accepted unchanged, so each attribute is known to answer its own question
    )


def _data_url(scene: Scene) -> str:
    file = io.BytesIO()
    scene.image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
