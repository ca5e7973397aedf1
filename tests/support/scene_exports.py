"""Export versions of drawn scenes whose annotations are the ground truth, for tests that evaluate a model."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from demo.scenes import make_scene
from job_queue.contracts import ImageRef
from job_queue.mask_codec import encode_mask
from learning.export.version import ExportOptions, export_version
from learning.submitted.regions import SubmittedRegion
from learning.submitted.submissions import Submissions
from tests.support.submitted import CONFIG
from worker.images.resolver import ImageResolver
from worker.settings import Settings


def scene_submissions(seeds: Sequence[int]) -> Submissions:
    """Return submissions with the whole objects of scenes: category, and colour and material as attributes."""
    regions, images = [], {}
    for seed in seeds:
        scene = make_scene(seed, (256, 192))
        name = f"scene{seed}.png"
        images[name] = ImageRef(_data_url(np.asarray(scene.image)), task_id=seed)
        for idx, thing in enumerate(scene.objects):
            rows, columns = np.nonzero(thing.mask)
            regions.append(SubmittedRegion(
                task=seed, annotation=seed, region=f"r{idx}", annotator=1, image=name, image_wh=scene.image_wh,
                mask=encode_mask(thing.mask),
                bbox=(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1),
                area=int(thing.mask.sum()), label="Object", parent=None, is_part=False, origin="manual", score=None,
                texts={"category": [thing.category], "attribute": [thing.color, thing.material]},
            ))  # fmt: skip
    return Submissions(7, "Street scenes", CONFIG, tuple(regions), images, counts={"tasks": len(seeds)})


def scene_export(out: Path, seeds: Sequence[int], held_out_share: float = 0.9) -> Path:
    """Export `scene_submissions` with their images."""
    resolver = ImageResolver(Settings(cache_dir=out / "cache"))
    try:
        options = ExportOptions(held_out_share=held_out_share)
        return export_version(scene_submissions(seeds), out, options, resolver).path
    finally:
        resolver.close()


def _data_url(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
