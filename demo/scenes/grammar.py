"""Descriptions of the demo world's regions, and checks of descriptions from elsewhere.

`short_description` and `detailed_description` return the canonical texts that the small model is trained on.
`is_short_description` and `detailed_facts` parse any text with the grammar below and compare it with the scene, so
that other wordings also count when they are true:

    thing    = [article] {color | material} category
    part     = [article] {color | material} name "of" thing
    relation = ("left of" | "right of" | "above" | "below" | ...) thing
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from demo.scenes.catalog import CATALOG
from demo.scenes.newcomers import NEWCOMERS
from demo.scenes.palette import COLORS
from demo.scenes.scene import Scene, SceneObject, ScenePart
from demo.scenes.textures import MATERIALS
from demo.scenes.truth import Relation, centroid, place_in_picture

Region = SceneObject | ScenePart

RELATION_PHRASES: dict[Relation, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
PART_PLURALS: dict[str, str] = {
    "apple": "apples",
    "arm": "arms",
    "bell": "bells",
    "eye": "eyes",
    "fin": "fins",
    "foot": "feet",
    "hub": "hubs",
    "leg": "legs",
    "wheel": "wheels",
    "window": "windows",
}
_PART_WORDS = (
    "apple arm back base beak bell blossom body cabin cap center crown door eye face fin flag flame foot gill glass "
    "hand handle head hole hub hull knob leaf leg mast neck nose pane pole pot pupil rim roof sail seat shade stem "
    "tail trunk wall wheel window wing"
)
PART_NAMES: tuple[str, ...] = tuple(_PART_WORDS.split())
# With the names that only newcomers have. The small model was trained on none of them.
_CATEGORY_NAMES = (*CATALOG, *NEWCOMERS)
_ALL_PART_NAMES = (*PART_NAMES, "blade", "hat", "tower")
_ALL_PLURALS = {**PART_PLURALS, "blade": "blades"}
_SYNONYMS: dict[str, str] = {
    "cup": "mug",
    "sailboat": "boat",
    "ship": "boat",
    "metallic": "metal",
    "wood": "wooden",
    "stripy": "striped",
    "spotted": "dotted",
    "checked": "checkered",
    "chequered": "checkered",
    "violet": "purple",
    "centre": "center",
}
_FUNCTION_WORDS = (
    "a an and above below bottom has in is it left no object of part picture plastic region right that the there "
    "this to top yes"
)
VOCABULARY: tuple[str, ...] = tuple(
    sorted({*COLORS, *MATERIALS, *CATALOG, *PART_NAMES, *PART_PLURALS.values(), *_FUNCTION_WORDS.split()})
)

_ADJECTIVE = f"(?:{'|'.join([*COLORS, *MATERIALS])})"
_RELATION_PATTERN = re.compile(
    r"\b(?:(?P<side>left|right)(?: side)? of|(?P<up>above|over|on top of)|(?P<down>below|under|beneath|underneath)) "
    rf"(?P<thing>(?:(?:the|a|an) )?(?:{_ADJECTIVE} )*(?:{'|'.join(_CATEGORY_NAMES)}))\b"
)


def short_description(scene: Scene, region: Region) -> str:
    """Describe a region in a phrase: "a red wooden house", or "the blue door of a red house"."""
    if isinstance(region, SceneObject):
        return _with_article(f"{region.color} {region.material} {region.category}")
    owner = scene.objects[region.object_idx]
    return f"the {region.color} {region.name} of {_with_article(f'{owner.color} {owner.category}')}"


def detailed_description(scene: Scene, region: Region) -> str:
    """Describe a region in two or three sentences: what it is and where, its parts, its canonical relation."""
    owner = region if isinstance(region, SceneObject) else scene.objects[region.object_idx]
    place = place_in_picture(centroid(region.mask), scene.image_wh)
    whole = _with_article(f"{owner.color} {owner.material} {owner.category}")
    subject, what = "It", whole
    pieces = [part for part in owner.parts if (part.color, part.material) != (owner.color, owner.material)]
    if isinstance(region, ScenePart):
        subject = f"The {owner.category}"
        what, pieces = f"the {region.color} {region.material} {region.name} of {whole}", list(region.subparts)
    sentences = [f"This is {what} in the {place} of the picture."]
    notable = _notable(pieces)
    if notable:
        sentences.append(f"It has {' and '.join(notable)}.")
    if owner.relations:
        relation, other_idx = owner.relations[0]
        other = scene.objects[other_idx]
        sentences.append(f"{subject} is {RELATION_PHRASES[relation]} the {other.color} {other.category}.")
    return " ".join(sentences)


def is_short_description(scene: Scene, region: Region, text: str) -> bool:
    """Check that `text` is a short description: kind and colour are named and every word is true.

    The material may be left out; articles and the order of the adjectives are free.
    """
    phrase = _words(text)
    if isinstance(region, SceneObject):
        return _is_thing(phrase, region)
    owner = scene.objects[region.object_idx]
    if phrase.count("of") != 1:
        return False
    cut = phrase.index("of")
    return _is_noun_phrase(phrase[:cut], region.name, region.color, region.material) and _is_thing(
        phrase[cut + 1 :], owner
    )


def detailed_facts(scene: Scene, region: Region, text: str) -> dict[str, bool]:
    """Check which facts of a detailed description are right.

    Returns:
        "category": the first category named is the region's (for a part also the first part named).
        "color" and "material": the first of each is the region's.
        "relation": at least one relation to another object is stated, and every stated one is true.
    """
    owner = region if isinstance(region, SceneObject) else scene.objects[region.object_idx]
    spoken = _words(text)
    sentences = [" ".join(_words(sentence)) for sentence in text.split(".")]
    kind_right = _first(spoken, _CATEGORY_NAMES) == owner.category
    if isinstance(region, ScenePart):
        kind_right = kind_right and _first(spoken, _ALL_PART_NAMES) == region.name
    stated = [match for sentence in sentences for match in _RELATION_PATTERN.finditer(sentence)]
    return {
        "category": kind_right,
        "color": _first(spoken, COLORS) == region.color,
        "material": _first(spoken, MATERIALS) == region.material,
        "relation": bool(stated) and all(_holds(scene, owner, match) for match in stated),
    }


def _with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _notable(parts: Iterable[ScenePart]) -> list[str]:
    """Name up to two kinds of parts in the catalogue's order: "a blue roof", "black wheels"."""
    counts: dict[tuple[str, str], int] = {}
    for part in parts:
        counts[part.color, part.name] = counts.get((part.color, part.name), 0) + 1
    return [
        f"{color} {_ALL_PLURALS[name]}" if count > 1 else _with_article(f"{color} {name}")
        for (color, name), count in list(counts.items())[:2]
    ]


def _words(text: str) -> list[str]:
    """Split a text into words in lower case, with synonyms replaced."""
    return [_SYNONYMS.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]


def _first(spoken: list[str], known: Iterable[str]) -> str | None:
    """Return the first word that is one of the known ones."""
    names = set(known)
    return next((word for word in spoken if word in names), None)


def _is_thing(phrase: list[str], thing: SceneObject) -> bool:
    return _is_noun_phrase(phrase, thing.category, thing.color, thing.material)


def _is_noun_phrase(phrase: list[str], noun: str, color: str, material: str) -> bool:
    if phrase and phrase[0] in ("a", "an", "the"):
        phrase = phrase[1:]
    return phrase[-1:] == [noun] and sorted(phrase[:-1]) in ([color], sorted([color, material]))


def _holds(scene: Scene, subject: SceneObject, stated: re.Match[str]) -> bool:
    """Check that a stated relation is one of the subject's true relations."""
    relation = stated["side"] or ("above" if stated["up"] else "below")
    return any(
        held == relation and _refers_to(stated["thing"].split(), scene.objects[other_idx], scene)
        for held, other_idx in subject.relations
    )


def _refers_to(phrase: list[str], thing: SceneObject, scene: Scene) -> bool:
    """Check that the phrase names `thing`; without its colour only when it is the only one of its kind."""
    if _is_thing(phrase, thing):
        return True
    only_one = sum(other.category == thing.category for other in scene.objects) == 1
    return only_one and phrase[-1:] == [thing.category] and not set(phrase) & {*COLORS, *MATERIALS}
