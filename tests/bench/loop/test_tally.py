"""Claims about counts of corrections: per region and field, for the team's own terms and for the rest."""

from __future__ import annotations

import pytest

from bench.loop.tally import Seen, reduction, split_tally, tally


def seen(*corrected: str, is_changed: bool = True, fields: tuple[str, ...] = ("category", "attribute")) -> Seen:
    return Seen(1, 1, "r", is_changed, fields, corrected, "v1@0")


def test_corrections_per_100_regions_count_every_field() -> None:
    counted = tally([seen("category", "attribute"), seen("category"), seen(), seen()])
    assert (counted.regions, counted.per_100) == (4, 75.0)
    assert (counted.field_per_100("category"), counted.field_per_100("attribute")) == (50.0, 25.0)


def test_a_field_that_not_every_region_has_is_counted_on_those_that_have_it() -> None:
    counted = tally([seen("part", fields=("category", "part")), seen()])
    assert counted.field_per_100("part") == 100.0
    assert counted.field_per_100("never") == 0.0


def test_the_two_vocabularies_are_told_apart() -> None:
    own, rest = split_tally([seen("category"), seen(is_changed=False), seen(is_changed=False)])
    assert (own.regions, own.per_100, rest.regions, rest.per_100) == (1, 100.0, 2, 0.0)


@pytest.mark.parametrize(("before", "after", "share"), [(4, 1, 0.75), (2, 2, 0.0), (1, 2, -1.0), (0, 0, 0.0)])
def test_reduction_is_a_share_of_what_it_was(before: int, after: int, share: float) -> None:
    fields = ("a", "b", "c", "d")
    first, last = (tally([seen(*fields[:count], fields=fields)]) for count in (before, after))
    assert reduction(first, last) == share


def test_no_region_is_no_correction() -> None:
    assert tally([]).per_100 == 0.0


def test_a_line_of_the_journal_is_read_back_as_it_was() -> None:
    assert Seen.from_json(seen("category").to_json()) == seen("category")
