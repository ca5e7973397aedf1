"""Write an export as COCO instance files: per region a mask as RLE, a category and the values of every field.

The `VGDATA` reader uses `caption` and `ignore`. `ignore` marks a region without a category, which the `coco_data`
reader leaves out. The keys `texts`, `label`, `part`, `region`, `task` and `annotation` are additions of this project.
"""

from __future__ import annotations

from typing import Any

from learning.export.categories import category_of, clean_text
from learning.export.counts import Content
from learning.export.splits import Side
from learning.submitted.regions import SubmittedRegion

NO_CATEGORY = "(none)"
# The first of these roles that has a value gives the caption.
_CAPTION_ROLES = ("detailed_description", "short_description", "category", "part")


def coco_file(content: Content, side: Side) -> dict[str, Any]:
    """Return one side as a COCO document. Both sides number the categories alike."""
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
    """Return the category; for a part `object:part`, as in Pascal-Part, or the part alone if the object has no name."""
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
