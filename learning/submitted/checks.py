"""Check regions against the present labeling config; values that no longer fit are set aside and reported.

Regions may have been collected weeks ago under another config, so an export checks all of them, from any source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from label_config.reader import Field, LabelConfig
from learning.submitted.problems import Problem, ProblemKind
from learning.submitted.regions import SubmittedRegion

# About 1000 tokens. With the image's 1024 that is the context length of the released model, 2048.
MAX_TEXT_CHARS = 4000


def fit(config: LabelConfig, region: SubmittedRegion) -> tuple[SubmittedRegion, list[Problem]]:
    """Return the region with only the texts that can be trained on, and the problems of the others.

    Texts that are set aside stay in `stored`, so the export contains everything that annotators typed.
    """
    problems: list[Problem] = []

    def complain(kind: ProblemKind, sentence: str) -> None:
        problems.append(Problem(region.task, region.annotation, region.region, sentence, kind))

    texts, stored = {}, dict(region.stored)
    for name, values in region.texts.items():
        field = config.field(name)
        length = sum(map(len, values))
        if field is None:
            gone = f"the labeling config no longer has a field {name!r}"
            complain("control", f"{gone}; its value is kept, but not trained on")
        elif length > MAX_TEXT_CHARS:
            limit = f"{length} characters, more than {MAX_TEXT_CHARS}"
            complain("text", f"{name!r} has {limit}; it is kept, but not trained on")
        else:
            texts[name] = values
            for kind, sentence in _remarks(field, values):
                complain(kind, sentence)
            continue
        stored.setdefault(name, values)
    if region.label is not None and region.label not in config.listed_labels:
        complain(
            "control",
            f"its label {region.label[:80]!r} is no longer in the labeling config; it is exported as it is",
        )
    changed = tuple(name for name in region.changed if config.field(name) is not None)
    return replace(region, texts=texts, stored=stored, changed=changed), problems


def fit_all(
    config: LabelConfig, regions: Iterable[SubmittedRegion]
) -> tuple[tuple[SubmittedRegion, ...], list[Problem]]:
    """Apply `fit` to each region; return all regions and all problems."""
    fitted = [fit(config, region) for region in regions]
    return tuple(region for region, _ in fitted), [problem for _, problems in fitted for problem in problems]


def _remarks(field: Field, values: Iterable[str]) -> Iterator[tuple[ProblemKind, str]]:
    """Yield the problems of values that are trained on all the same."""
    listed = {choice.text for choice in field.choices}
    for text in values:
        shown = repr(text[:80])
        if field.choices and text not in listed:
            yield "control", f"{field.name!r} holds {shown}, no longer in the labeling config; it is exported as it is"
        if re.search(r"[<>]", text):
            reserved = "training files use `<` and `>` to mark regions, so both are removed there"
            yield "text", f"{field.name!r} holds {shown}; {reserved}"
