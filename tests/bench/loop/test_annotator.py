"""Claims about the simulated annotator: it corrects what is wrong in the team's terms, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from bench.loop.annotator import corrected
from bench.loop.team import is_changed, team_scene, true_fields
from demo.scenes import TEAM_SEEDS, Scene, SceneObject
from demo.scenes.grammar import Region
from demo.truth.fields import plain_fields
from demo.truth.picked import picked_regions
from job_queue.field_answers import WHOLE


def item(name: str, words: Sequence[str]) -> dict[str, Any]:
    return {
        "id": "r1", "type": "textarea", "from_name": name, "to_name": "image", "origin": "prediction",
        "value": {"imageDataURL": "data:x", "text": list(words)},
    }  # fmt: skip


def answered(fields: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return a region of the page with these texts, geometry first."""
    geometry = {
        "id": "r1", "type": "bitmasklabels", "from_name": "mask", "to_name": "image", "origin": "prediction",
        "meta": {"osprey": {"suggestion": {}}}, "value": {"imageDataURL": "data:x", "bitmasklabels": ["Object"]},
    }  # fmt: skip
    return [geometry, *(item(name, words) for name, words in fields.items())]


@cache
def every_region() -> list[tuple[Scene, Region]]:
    scenes = [team_scene(TEAM_SEEDS.start + idx) for idx in range(6)]
    return [
        (scene, region) for scene in scenes for pair in picked_regions(scene) for region in pair if region is not None
    ]


def words_of(items: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    return {str(each["from_name"]): tuple(each["value"]["text"]) for each in items[1:]}


def test_what_is_true_in_the_teams_words_stays_as_it_was() -> None:
    for scene, region in every_region():
        items = answered(true_fields(scene, region))
        result = corrected(scene, region, items)
        assert result.changed == ()
        assert list(result.items) == items  # with the origin, because nothing was edited


def test_plain_words_are_corrected_exactly_where_the_team_has_others() -> None:
    for scene, region in every_region():
        plain, true = plain_fields(scene, region), true_fields(scene, region)
        result = corrected(scene, region, answered(plain))
        assert set(result.changed) == {name for name in true if true[name] != plain[name]}
        assert words_of(result.items) == {**plain, **{name: true[name] for name in result.changed}}


def test_a_correction_changes_the_origin_of_the_whole_region_and_keeps_its_record() -> None:
    scene, region = every_region()[0]
    result = corrected(scene, region, answered({**true_fields(scene, region), "category": ("teapot",)}))
    assert result.changed == ("category",)
    assert {each["origin"] for each in result.items} == {"prediction-changed"}
    assert result.items[0]["meta"] == {"osprey": {"suggestion": {}}}
    assert "bitmasklabels" not in result.items[1]["value"]  # a text repeats the geometry, not the label


def test_an_empty_field_is_written() -> None:
    scene, region = every_region()[0]
    fields = true_fields(scene, region)
    del fields["short_description"]
    result = corrected(scene, region, answered(fields))
    assert result.changed == ("short_description",)
    assert words_of(result.items) == true_fields(scene, region)


@pytest.mark.parametrize(("words", "kept"), [([WHOLE], True), (["roof"], False)])
def test_a_whole_object_is_no_part(words: list[str], kept: bool) -> None:
    scene, region = next(each for each in every_region() if isinstance(each[1], SceneObject))
    result = corrected(scene, region, answered({**true_fields(scene, region), "part": words}))
    assert ("part" in words_of(result.items)) is kept
    assert ("part" in result.changed) is not kept


def test_corrections_take_time() -> None:
    scene, region = every_region()[0]
    wrong = corrected(scene, region, answered({}))
    right = corrected(scene, region, answered(true_fields(scene, region)))
    assert wrong.seconds > right.seconds > 0


def test_the_teams_words_concern_a_good_part_of_the_regions_and_not_all() -> None:
    regions = every_region()
    share = sum(is_changed(scene, region) for scene, region in regions) / len(regions)
    assert 0.2 < share < 0.8
