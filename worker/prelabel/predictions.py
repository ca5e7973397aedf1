"""An annotated image -> a prediction as Label Studio stores it: result items with parents, scores and provenance."""

from __future__ import annotations

import hashlib
from typing import Any

from job_queue.mask_codec import decode_mask
from job_queue.task_arms import QueueScore
from label_config.reader import LabelConfig
from label_config.results import AnsweredRegion, osprey_meta, region_items
from label_config.validate import validate_results
from worker.prelabel.annotate import AnnotatedImage


class FaultyPrediction(ValueError):
    """Result items that would break the annotator's page."""


def prediction_of(
    config: LabelConfig,
    annotated: AnnotatedImage,
    task_id: int,
    *,
    blind: bool = False,
    queue: QueueScore | None = None,
) -> dict[str, Any]:
    """Make the prediction of one task for Label Studio's predictions API.

    Args:
        config: the project's labeling config.
        annotated: the task's image.
        task_id: Label Studio's id.
        blind: leave the controls empty; the model's answers are stored only in the regions' meta.
        queue: the task's score in the uncertainty order, if it is not the prediction's own score.

    Raises:
        FaultyPrediction: the items would break the page; the message names them and the reason.
    """
    ids = [_region_id(task_id, annotated.model_version, idx) for idx in range(len(annotated.regions))]
    items: list[dict[str, Any]] = []
    for region_id, region in zip(ids, annotated.regions, strict=True):
        answered = AnsweredRegion(
            region_id=region_id,
            image_wh=annotated.image_wh,
            mask=decode_mask(region.rle),
            label=region.label,
            values={} if blind else region.filled.values,
            score=region.score,
            parent_id=None if region.parent is None else ids[region.parent],
            osprey_meta={
                **osprey_meta(
                    annotated.model_version,
                    annotated.segmenter_version,
                    region.filled.suggestion,
                    region.filled.confidence,
                    blind=blind,
                ),
                **({"arm": queue.arm} if queue is not None else {}),
            },
        )
        items += region_items(config, answered)
    problems = validate_results(config, items)
    if problems:
        raise FaultyPrediction("; ".join(problems[:3]))
    return {
        "task": task_id,
        "result": items,
        "score": round(annotated.score if queue is None else queue.score, 4),
        "model_version": annotated.model_version,
    }


def _region_id(task_id: int, model_version: str, idx: int) -> str:
    """Make a region id from task, model and index, so that predictions of different models share no region."""
    return "p" + hashlib.sha256(f"{task_id}:{model_version}:{idx}".encode()).hexdigest()[:10]
