"""Claims about how many images are held out: enough for the gate, and none that was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from job_queue.contracts import ImageRef
from learning.export.splits import Picture, sides_of
from learning.submitted.submissions import Submissions
from learning.training.held_out import SHARES, held_out_share, trained_share
from learning.training.triggers import trained_revision
from registry.versions import Base, Registry

SEED = 7


def submissions(images: int) -> Submissions:
    """Return a project with this number of images, one per task."""
    named = {f"{idx}.png": ImageRef(f"/data/{idx}.png", idx, 1) for idx in range(images)}
    return Submissions(1, "street", "<View/>", (), named)


def held_out(images: int, share: float) -> set[str]:
    """Return the images that a share holds out."""
    pictures = [Picture(f"{idx}.png", idx, f"/data/{idx}.png") for idx in range(images)]
    return {name for name, side in sides_of(pictures, share, SEED).items() if side == "held_out"}


@pytest.mark.parametrize("images", [30, 60, 200, 1000])
def test_the_gate_gets_what_it_wants_and_not_much_more(images: int) -> None:
    """A small project holds out what the gate needs, a larger one a quarter, a large one fifty images."""
    share = held_out_share(submissions(images), SEED, 10)
    assert len(held_out(images, share)) >= 12
    smaller = [each for each in SHARES if each < share]
    if share > 0.25:
        assert len(held_out(images, smaller[-1])) < 12
    elif smaller:
        assert len(held_out(images, smaller[-1])) < 50


def test_the_share_shrinks_as_a_project_grows_and_holds_out_nothing_that_was_learned() -> None:
    """A later, smaller share holds out no image that an earlier fine-tune was trained on."""
    few = held_out_share(submissions(40), SEED, 10)
    many = held_out_share(submissions(1000), SEED, 10, at_most=few)
    assert SHARES[0] == many < few
    learned = {f"{idx}.png" for idx in range(40)} - held_out(40, few)
    assert not learned & held_out(1000, many)
    assert held_out_share(submissions(40), SEED, 10, at_most=0.1) == 0.1  # too few, but the others are learned


def test_where_no_share_suffices_most_is_learned_from() -> None:
    """If no share is enough for the gate, the smallest is used."""
    assert held_out_share(submissions(12), SEED, 10) == SHARES[0]
    assert held_out_share(submissions(0), SEED, 10) == SHARES[0]


def test_only_what_the_champion_comes_from_counts(tmp_path: Path) -> None:
    """Only the champion and its ancestors limit the share, for each project separately."""
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "adapter_config.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    assert trained_share(registry, 1) is None
    for share, project, parents in ((0.3, 1, ()), (0.2, 1, ("v1",)), (0.1, 1, ("v1",)), (0.15, 2, ("v2",))):
        config = {"project": project, "held_out_share": share}
        registry.add(trained, "adapter", base=Base("/base", "f" * 40), config=config, parents=parents)
    registry.promote("v4")
    assert (trained_share(registry, 1), trained_share(registry, 2)) == (0.2, 0.15)
    registry.promote("v1")
    assert (trained_share(registry, 1), trained_share(registry, 2)) == (0.3, None)


def test_run_record_of_another_release_is_read(tmp_path: Path) -> None:
    """Unknown facts of a run are ignored; a share or a store revision that is missing does not count."""
    weights = tmp_path / "trained"
    weights.mkdir()
    (weights / "adapter_config.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    for config in ({"project": 1, "held_out_share": 0.2, "teacher": "x"}, {"project": 1, "store_revision": 5}, {}):
        registry.add(weights, "adapter", base=Base("/base", "f" * 40), config=config, parents=("v1",))
        registry.promote(registry.versions()[-1].name)
    assert trained_share(registry, 1) == 0.2
    assert trained_revision(registry, 1) == 5
    assert trained_revision(registry, 2) == 0
