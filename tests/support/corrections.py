"""Three rounds of generated corrections on drawn scenes, for tests of the report and for viewing one."""

from __future__ import annotations

import random
from dataclasses import replace

from learning.report.report import ReportSource, source_of_submissions
from learning.submitted.regions import SubmittedRegion
from tests.support.scene_exports import scene_submissions

_WRONG_SHARE = {"osprey-nano@0a1b2c3d4e5f": 0.6, "v1@11aa22bb33cc": 0.3, "v2@44dd55ee66ff": 0.12}
_WRONG = {"category": ["fence", "wall", "barn"], "attribute": ["grey", "wood", "stone"]}


def corrected_source(seeds: range, seed: int = 0) -> ReportSource:
    """Return a source of corrected regions with suggestions of three versions, each better; one in ten is blind."""
    generator = random.Random(seed)
    submissions = scene_submissions(seeds)
    versions = list(_WRONG_SHARE)
    regions = []
    for region in submissions.regions:
        round_idx = (region.task - seeds.start) * len(versions) // len(seeds)
        regions.append(_suggested(region, versions[round_idx], round_idx, generator))
    source = source_of_submissions(replace(submissions, regions=tuple(regions)))
    seen = tuple(replace(each, is_blind=generator.random() < 0.1) for each in source.seen)
    return replace(source, seen=seen)


def _suggested(region: SubmittedRegion, version: str, round_idx: int, generator: random.Random) -> SubmittedRegion:
    suggestion, confidence = {}, {}
    for name, words in region.texts.items():
        is_wrong = generator.random() < _WRONG_SHARE[version]
        suggestion[name] = [generator.choice(_WRONG[name]), *words[1:]] if is_wrong else words
        confidence[name] = generator.betavariate(2, 2) if is_wrong else generator.betavariate(6, 1.2)
    changed = tuple(sorted(name for name, words in region.texts.items() if suggestion[name] != words))
    return replace(
        region,
        suggestion=suggestion,
        confidence=confidence,
        changed=changed,
        model_version=version,
        lead_time_s=generator.uniform(20, 60) * (1 - 0.25 * round_idx),
        updated_at=f"2026-11-{10 + 5 * round_idx:02d}T10:00:00Z",
    )
