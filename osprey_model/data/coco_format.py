"""COCO-format files: stage 2 (COCO, RefCOCO, RefCOCO+, Pascal-Part, PartImageNet) and Visual Genome of stage 3.

A sample is one image entry with at most `max_regions` of its annotations, in random order. The prefixes are literal,
misspellings included, because checkpoints were trained on them. Annotations marked `ignore` are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osprey_model.data.phrasings import SHORT_QUESTIONS
from osprey_model.data.records import CocoRegion, Draws, Record, positive_hw
from osprey_model.inputs.prompts import PREFIX_P, SUFFIX_VG, region_question
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, REGION_PLACEHOLDER

_ONE_EACH_TIME = "I will give you only one region each time."
_COCO = (
    f"{IMAGE_TOKEN}\nIn the conversation below, you simply answer the category name based on what you see in the "
    f"imagery inside a particular region. {_ONE_EACH_TIME}\n"
)
_PARTS = (
    f"{IMAGE_TOKEN}\nIn the conversation below, you simply answer the category and subcategory name based on what "
    "you seein the image inside a particular region. It maybe a subpart of an object. "
    f"{_ONE_EACH_TIME} Your answer should in the format of {{form}}. Categories Containing {{categories}}. "
    "Subcategories Containing {parts}.\n"
)
_PASCAL_PART = _PARTS.format(
    form="category:subcategory",
    categories="potted plant, aeroplane, cow, cat, bus, horse, car, dog, bicycle, person, bird, bottle, sheep, "
    "motorbike",
    parts="eye,window,cap,headlight,hand,mirror,arm,plant,wheel,ear,pot,foot,leg,nose,body,horn,handlebar,neck,"
    "license plate,paw,saddle,head,muzzle,tail,wing,beak,hair,torso,door,mouth",
)
_PART_IMAGENET = _PARTS.format(
    form="category subcategory",
    categories="Bottle, Biped, Quadruped, Fish, Reptile, Bicycle, Bird, Car, Boat, Snake, Aeroplane",
    parts="Tier,Hand,Wing,Mouth,Tail,Side,Fin,Engine,Foot,Head,Body,Sail,Seat",
)
_EXPRESSION = (
    f"{IMAGE_TOKEN}\nI will provide you with only one region containing only one object, although there may be other "
    "objects present in the image. It is recommended that you describe the object's relative position with respect "
    "to other objects in the image"
)
_REFCOCO = f"{_EXPRESSION}, as well as its position within the image and its basic attributes."
_REFCOCOP = f"{_EXPRESSION} and its basic attibuts, you should not give its position within the image."


@dataclass(frozen=True, slots=True)
class CocoFormat:
    """The properties of one COCO-format data set.

    Attributes:
        prefix: text before the first message.
        max_regions: most regions of one sample.
        question: draws -> the message of one region, with its placeholder.
        answer: (image entry, annotation) -> the answer.
        coco_2017_names: remove the prefix of COCO 2014 from file names, because the image files do not have it.
    """

    prefix: str
    max_regions: int
    question: Callable[[Draws], str]
    answer: Callable[[dict[str, Any], dict[str, Any]], str]
    coco_2017_names: bool = False

    def record(self, entry: dict[str, Any], images: Path, draws: Draws) -> Record | None:
        """Return the record of one image entry; None if it has no usable annotation."""
        usable = [annotation for annotation in entry["annotations"] if not annotation.get("ignore", False)]
        chosen = [usable[idx] for idx in draws.permutation(len(usable))[: self.max_regions]]
        if not chosen:
            return None
        image_hw = positive_hw(entry)
        messages = [self.question(draws) for _ in chosen]
        messages[0] = self.prefix + messages[0]
        answers = [self.answer(entry, annotation) for annotation in chosen]
        name = entry["file_name"].rsplit("_", 1)[-1] if self.coco_2017_names else entry["file_name"]
        regions = tuple(CocoRegion(annotation["segmentation"], image_hw) for annotation in chosen)
        return Record(tuple(zip(messages, answers, strict=True)), images / name, regions)


def _bare_region(_draws: Draws) -> str:
    return REGION_PLACEHOLDER


def _short_question(draws: Draws) -> str:
    return region_question(draws.choose(SHORT_QUESTIONS)) + SUFFIX_VG


def _category_name(image: dict[str, Any], annotation: dict[str, Any]) -> str:
    name: str = image["categories"][annotation["category_id"]]
    return name


def _image_caption(image: dict[str, Any], _annotation: dict[str, Any]) -> str:
    caption: str = image["caption"]
    return caption


def _region_caption(_image: dict[str, Any], annotation: dict[str, Any]) -> str:
    caption: str = annotation["caption"]
    return caption


COCO = CocoFormat(_COCO, 20, _bare_region, _category_name)
PASCAL_PART = CocoFormat(_PASCAL_PART, 15, _bare_region, _category_name)
PART_IMAGENET = CocoFormat(_PART_IMAGENET, 15, _bare_region, _category_name)
# In these two, an image entry is one referring expression.
REFCOCO = CocoFormat(_REFCOCO, 15, _bare_region, _image_caption, coco_2017_names=True)
REFCOCOP = CocoFormat(_REFCOCOP, 15, _bare_region, _image_caption, coco_2017_names=True)
VISUAL_GENOME = CocoFormat(PREFIX_P, 3, _short_question, _region_caption)
