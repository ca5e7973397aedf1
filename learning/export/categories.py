"""The category of a region and a wrong one, for yes/no questions.

A category that the model suggested and the annotator replaced is a hard negative. If there is none, an easy negative is
drawn from the project's categories: one that no region of the annotation has.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from label_config.reader import LabelConfig
from learning.submitted.regions import SubmittedRegion


def clean_text(text: str) -> str:
    """Return the text on one line with single spaces and without `<` and `>`, which mark placeholders."""
    return re.sub(r"\s+", " ", re.sub(r"[<>]", "", text)).strip()


def category_of(config: LabelConfig, region: SubmittedRegion) -> str | None:
    """Return the cleaned category of the region; the label of the mask if no field asks for a category."""
    if any(field.role == "category" for field in config.fields):
        return next(iter(_categories(config, region)), None)
    has_classes = not {label.lower() for label in config.output.labels} & {"object", "region", "part"}
    return clean_text(region.label or "") or None if has_classes else None


def is_edited(region: SubmittedRegion, field_name: str | None) -> bool:
    """Return whether an annotator wrote or changed the value of a field (None: the label)."""
    if region.suggestion is None:
        return True
    return field_name in region.changed if field_name is not None else region.origin != "prediction"


def vocabulary_of(config: LabelConfig, regions: Iterable[SubmittedRegion]) -> list[str]:
    """Return all categories of the project, sorted: those of its regions and those that the config lists."""
    used = {category for region in regions if not region.is_part and (category := category_of(config, region))}
    listed = {choice.text for field in config.fields if field.role == "category" for choice in field.choices}
    return sorted(used | {clean for text in listed if (clean := clean_text(text))})


def corrected_category(config: LabelConfig, region: SubmittedRegion) -> str | None:
    """Return the category that the model suggested and the annotator replaced, a hard negative, or None."""
    right = {category.lower() for category in _categories(config, region)}
    for field in config.fields:
        if field.role == "category" and region.suggestion and right:
            for text in region.suggestion.get(field.name, []):
                if (suggested := clean_text(text)) and suggested.lower() not in right:
                    return suggested
    return None


def absent_category(
    config: LabelConfig,
    region: SubmittedRegion,
    neighbours: Sequence[SubmittedRegion],
    vocabulary: Sequence[str],
    seed: int,
) -> str | None:
    """Return a category of the project that the region does not have, and if possible no region of the annotation.

    It is the category with the highest hash of (seed, region, category). So the same data give the same choice, and a
    new category in the project changes the choice of few regions.
    """
    own = {category.lower() for category in _categories(config, region)} | {(category_of(config, region) or "").lower()}
    near = own | {(category_of(config, other) or "").lower() for other in neighbours}
    absent = [category for category in vocabulary if category.lower() not in near]
    others = absent or [category for category in vocabulary if category.lower() not in own]
    return max(others, key=lambda category: draw(seed, region.region, category), default=None)


def draw(seed: int, *what: str) -> int:
    """Return a pseudo-random number of 64 bits that depends only on the arguments."""
    text = "\0".join((str(seed), *what))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:8], "big")


def _categories(config: LabelConfig, region: SubmittedRegion) -> list[str]:
    texts = [text for field in config.fields if field.role == "category" for text in region.texts.get(field.name, [])]
    return [clean for text in texts if (clean := clean_text(text))]
