"""How many images are held out: enough for the gate, and none that the champion has learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from job_queue.contracts import ImageRef
from learning.export.splits import Picture, sides_of
from learning.submitted.submissions import Submissions
from learning.training.held_out import SHARES, held_out_share, learned_with
from registry.versions import Base, Registry

SEED = 7


def submissions(images: int) -> Submissions:
    """A project of so many pictures, each a task's."""
    named = {f"{idx}.png": ImageRef(f"/data/{idx}.png", idx, 1) for idx in range(images)}
    return Submissions(1, "street", "<View/>", (), named)


def held_out(images: int, share: float) -> set[str]:
    pictures = [Picture(f"{idx}.png", idx, f"/data/{idx}.png") for idx in range(images)]
    return {name for name, side in sides_of(pictures, share, SEED).items() if side == "held_out"}


@pytest.mark.parametrize("images", [30, 60, 200, 1000])
def test_the_gate_gets_what_it_wants_and_not_much_more(images: int) -> None:
    """Of few images as many as it needs, of more a quarter, of many fifty."""
    share = held_out_share(submissions(images), SEED, 10)
    assert len(held_out(images, share)) >= 12
    smaller = [each for each in SHARES if each < share]
    if share > 0.25:
        assert len(held_out(images, smaller[-1])) < 12
    elif smaller:
        assert len(held_out(images, smaller[-1])) < 50


def test_the_share_shrinks_as_a_project_grows_and_holds_out_nothing_that_was_learned() -> None:
    few = held_out_share(submissions(40), SEED, 10)
    many = held_out_share(submissions(1000), SEED, 10, at_most=few)
    assert SHARES[0] == many < few
    learned = {f"{idx}.png" for idx in range(40)} - held_out(40, few)
    assert not learned & held_out(1000, many)
    assert held_out_share(submissions(40), SEED, 10, at_most=0.1) == 0.1  # too few, but the others are learned


def test_where_no_share_suffices_most_is_learned_from() -> None:
    assert held_out_share(submissions(12), SEED, 10) == SHARES[0]
    assert held_out_share(submissions(0), SEED, 10) == SHARES[0]


def test_only_what_the_champion_comes_from_counts(tmp_path: Path) -> None:
    """Candidates that never served have taught nobody; other projects have other images."""
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "adapter_config.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    assert learned_with(registry, 1) is None
    for share, project, parents in ((0.3, 1, ()), (0.2, 1, ("v1",)), (0.1, 1, ("v1",)), (0.15, 2, ("v2",))):
        config = {"project": project, "held_out_share": share}
        registry.add(trained, "adapter", base=Base("/base", "f" * 40), config=config, parents=parents)
    registry.promote("v4")
    assert (learned_with(registry, 1), learned_with(registry, 2)) == (0.2, 0.15)
    registry.promote("v1")
    assert (learned_with(registry, 1), learned_with(registry, 2)) == (0.3, None)
