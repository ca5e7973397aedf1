"""The control of the simulation: useless corrections, because each belongs to another region. Pure.

The gate must reject a model that is trained on them.
"""

from __future__ import annotations

import random
from dataclasses import replace

from learning.submitted.regions import SubmittedRegion
from learning.submitted.submissions import Submissions


def shuffled(submissions: Submissions, seed: int) -> Submissions:
    """Give each region the answers of another one: objects among objects, parts among parts.

    The suggestions move with the answers, so that every region has as many changed fields to learn from as before.
    """
    rng = random.Random(seed)
    regions = list(submissions.regions)
    for is_part in (False, True):
        places = [idx for idx, region in enumerate(regions) if region.is_part is is_part]
        sources = [regions[idx] for idx in places]
        rng.shuffle(sources)
        for idx, source in zip(places, sources, strict=True):
            regions[idx] = _answered_as(regions[idx], source)
    return replace(submissions, title=f"{submissions.title}, shuffled", regions=tuple(regions))


def _answered_as(region: SubmittedRegion, source: SubmittedRegion) -> SubmittedRegion:
    return replace(
        region,
        texts=source.texts,
        stored=source.stored,
        suggestion=source.suggestion,
        changed=source.changed,
        confidence=source.confidence,
    )
