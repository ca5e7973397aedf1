"""An export as COCO instance files: a mask as RLE, a category and the texts of every field per region.

`caption` and `ignore` are read by the `VGDATA` reader; `ignore` marks a region without category, which the
`coco_data` reader leaves out. The other keys are ours: `texts`, `part`, `region`, `task`, `annotation`.
"""

from __future__ import annotations

from typing import Any

from learning.export.categories import category_of, clean_text
from learning.export.counts import Content
from learning.export.splits import Side
from learning.submitted.regions import SubmittedRegion

NO_CATEGORY = "(none)"
# The longest text says most about the region.
_CAPTION_ROLES = ("detailed_description", "short_description", "category", "part")


def coco_file(content: Content, side: Side) -> dict[str, Any]:
    """One side as a COCO document. Category numbers are those of the whole export, so both sides agree."""
    names = sorted({_name(content, region) for region in content.taught} - {NO_CATEGORY})
    numbers = {name: idx for idx, name in enumerate((*names, NO_CATEGORY), start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, regions in enumerate(content.annotations_on(side), start=1):
        first = regions[0]
        size = {"width": first.image_wh[0], "height": first.image_wh[1]}
        images.append({"id": image_id, "file_name": first.image, **size, "task": first.task})
        for region in regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": numbers[_name(content, region)],
                    "segmentation": dict(region.mask),
                    "area": region.area,
                    "bbox": list(region.bbox),
                    "iscrowd": 0,
                    "ignore": _name(content, region) == NO_CATEGORY,
                    "caption": _caption(content, region),
                    "texts": region.texts,
                    "label": region.label,
                    "part": region.is_part,
                    "region": region.region,
                    "task": region.task,
                    "annotation": region.annotation,
                }
            )
    return {
        "info": {"description": "regions with texts, exported from Label Studio"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()],
    }


def _name(content: Content, region: SubmittedRegion) -> str:
    """The category; of a part `object:part`, as Pascal-Part writes it, where the object is named."""
    category = category_of(content.config, region)
    if not region.is_part:
        return category or NO_CATEGORY
    part = next((text for text in _texts(content, region, "part")), None)
    return ":".join(name for name in (category, part) if name) or NO_CATEGORY


def _caption(content: Content, region: SubmittedRegion) -> str:
    return next((text for role in _CAPTION_ROLES for text in _texts(content, region, role)), "")


def _texts(content: Content, region: SubmittedRegion, role: str) -> list[str]:
    fields = [field for field in content.config.fields if field.role == role]
    return [clean for field in fields for text in region.texts.get(field.name, []) if (clean := clean_text(text))]
