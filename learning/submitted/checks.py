"""Regions against the label config of today: what no longer fits is set aside and said, the rest stays.

Regions may have been collected weeks ago under another config, so every region passes here, wherever it comes from.
Next on the path: `learning/export/osprey_724k.py` and the other layouts, which take the texts as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from label_config.reader import Field, LabelConfig
from learning.submitted.problems import Problem, ProblemKind
from learning.submitted.regions import SubmittedRegion

# About 1000 tokens: with the 1024 of the image, what the released model was trained to read at once (2048).
MAX_TEXT_CHARS = 4000


def fit(config: LabelConfig, region: SubmittedRegion) -> tuple[SubmittedRegion, list[Problem]]:
    """The region with only those texts that can be taught, and what is wrong with the others.

    What is set aside stays in `stored`, so nothing that somebody typed leaves the export.
    """
    problems: list[Problem] = []

    def complain(kind: ProblemKind, sentence: str) -> None:
        problems.append(Problem(region.task, region.annotation, region.region, sentence, kind))

    texts, stored = {}, dict(region.stored)
    for name, words in region.texts.items():
        field = config.field(name)
        length = sum(map(len, words))
        if field is None:
            complain("control", f"the config does not fill a control {name!r} any more; its value is kept, not taught")
        elif length > MAX_TEXT_CHARS:
            limit = f"{length} characters, more than {MAX_TEXT_CHARS}"
            complain("text", f"{name!r} has {limit}; kept, not taught")
        else:
            texts[name] = words
            for kind, sentence in _remarks(field, words):
                complain(kind, sentence)
            continue
        stored.setdefault(name, words)
    if region.label is not None and region.label not in config.listed_labels:
        complain(
            "control", f"its label {region.label[:80]!r} is one that the config no longer lists; exported as it is"
        )
    changed = tuple(name for name in region.changed if config.field(name) is not None)
    return replace(region, texts=texts, stored=stored, changed=changed), problems


def fit_all(
    config: LabelConfig, regions: Iterable[SubmittedRegion]
) -> tuple[tuple[SubmittedRegion, ...], list[Problem]]:
    """`fit` of each region."""
    fitted = [fit(config, region) for region in regions]
    return tuple(region for region, _ in fitted), [problem for _, problems in fitted for problem in problems]


def _remarks(field: Field, words: Iterable[str]) -> Iterator[tuple[ProblemKind, str]]:
    listed = {choice.text for choice in field.choices}
    for word in words:
        shown = repr(word[:80])
        if field.choices and word not in listed:
            yield "control", f"{field.name!r} holds {shown}, which the config no longer lists; exported as it is"
        if re.search(r"[<>]", word):
            reserved = "`<` and `>` mark regions in the training files, where it is written without them"
            yield "text", f"{field.name!r} holds {shown}; {reserved}"
