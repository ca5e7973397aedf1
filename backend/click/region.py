"""The record of one region: what a click, the session and the page share about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from job_queue.contracts import CONTRACT_VERSION, Contract, PromptPoint, Question, Rle
from job_queue.field_answers import Filled
from job_queue.mask_codec import BoolMask
from label_config.results import AnsweredRegion, osprey_meta, region_score

RECORD_VERSION = 1  # of the stored JSON; a reader passes over records of any other version


@dataclass(frozen=True, slots=True)
class Region:
    """One region of an image.

    `image_wh` is the size of the upright image in pixels. `mask` is the region's own mask, `object_mask` the mask
    of the object that the region is a part of (None for an object). `score` is SAM's estimate of the mask's IoU.
    `prompt_ids` are the ids of `points`, one each. `logits_id` names the mask's low-resolution logits, from which a
    further point refines it. `origin` is Label Studio's: prediction, prediction-changed or manual.
    """

    region_id: str
    image_wh: tuple[int, int]
    mask: Rle
    score: float = 1.0
    label: str | None = None
    parent_id: str | None = None
    object_mask: Rle | None = None
    points: tuple[PromptPoint, ...] = ()
    prompt_ids: tuple[str, ...] = ()
    box_px_xyxy: tuple[float, float, float, float] | None = None
    logits_id: str | None = None
    segmenter_version: str | None = None
    origin: str = "prediction"

    @property
    def is_part(self) -> bool:
        """Whether the region is a part of an object."""
        return self.object_mask is not None


@dataclass(frozen=True)
class RegionRecord(Contract):
    """A region as the backend last answered it.

    `answered_at` is seconds since the epoch. `active_label` was active in the page at that time. `sent` holds each
    field's value exactly as it was sent, so that a later difference is the annotator's. `describe_job` (which asks
    `questions`) is set while answers are missing. `described` is False until every field was answered. `blind` tells
    that the values are not shown. `annotator` is the user of the request's drafts, None without a draft.
    """

    region: Region
    answered_at: float = 0.0
    active_label: str | None = None
    sent: dict[str, list[Any]] = field(default_factory=dict)
    model_version: str | None = None
    describe_job: str | None = None
    questions: tuple[Question, ...] = ()
    described: bool = False
    blind: bool = False
    annotator: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A flat dict of plain JSON values: the region's fields lie beside the record's own.

        The backend of commit 97671b3 writes the same keys and refuses any other key, so that both releases can share
        one Redis during a rolling upgrade.
        """
        flat = dataclasses.asdict(self)
        return {"version": RECORD_VERSION, **flat.pop("region"), **flat}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` of this or another release wrote.

        Unknown keys are ignored; a missing key gets its default.

        Raises:
            ValueError: another version, or no region id, image size or mask.
        """
        if (version := data.get("version", RECORD_VERSION)) != RECORD_VERSION:
            raise ValueError(f"expected a session record of version {RECORD_VERSION}, got {version!r}")
        return super().from_json({**data, "region": dict(data), "version": CONTRACT_VERSION})


def answered_region(
    record: RegionRecord,
    filled: Filled,
    mask: BoolMask | None,
    drawn: Mapping[str, Any] | None,
    notes: tuple[str, ...] = (),
) -> AnsweredRegion:
    """Build the region that goes to the page, with the values that the record holds as sent.

    Args:
        filled: what the model answered: its suggestions and confidences go into the region's meta.
        mask: (H, W), None where `drawn` is given.
        drawn: the geometry item as the page has it, which then goes back unchanged.
        notes: texts that the page shows with the region.
    """
    region = record.region
    return AnsweredRegion(
        region_id=region.region_id,
        image_wh=region.image_wh,
        mask=mask,
        label=region.label,
        values=record.sent,
        score=region_score(region.score, filled.confidence),
        origin=region.origin,
        parent_id=region.parent_id,
        drawn=drawn,
        notes=notes,
        osprey_meta=osprey_meta(
            record.model_version,
            region.segmenter_version,
            filled.suggestion,
            filled.confidence,
            job=record.describe_job,
            blind=record.blind,
        ),
    )
