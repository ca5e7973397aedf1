"""Osprey behind the jobs' protocol, with the shipped golden model: contracts in, contracts out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from job_queue.contracts import FieldAnswer, Question, RegionQuery
from job_queue.errors import ModelUnavailable
from job_queue.mask_codec import encode_mask
from worker.osprey_describer import OspreyDescriber

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "osprey_tiny_a"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The golden model as a checkpoint folder: its tokenizer lies beside its weights."""
    folder = tmp_path_factory.mktemp("osprey-tiny")
    for path in [*GOLDEN.glob("*.json"), *GOLDEN.glob("*.safetensors"), *(GOLDEN / "tokenizer").iterdir()]:
        shutil.copy(path, folder)
    return folder


def region(*questions: Question) -> RegionQuery:
    mask = np.zeros((48, 64), np.bool_)
    mask[10:30, 10:40] = True
    return RegionQuery("r1", (encode_mask(mask),), questions)


def test_answers_come_back_with_region_field_and_alternatives(checkpoint):
    """Closed lists give listed values with alternatives, free text gives text; short ones come first."""
    describer = OspreyDescriber.load(checkpoint, "cpu")
    image = Image.new("RGB", (64, 48), "gray")
    describer.warm(image, "k")
    answers: list[tuple[int, FieldAnswer]] = []
    category = Question("category", "What is the category of {region}?", choices=("cat", "dog"))
    short = Question("short_description", "Describe {region}.", max_new_tokens=4)
    describer.describe(image, [region(short), region(short, category)], "k", lambda *pair: answers.append(pair))
    assert sorted((place, answer.question_idx, answer.field) for place, answer in answers) == [
        (0, 0, "short_description"),
        (1, 0, "short_description"),
        (1, 1, "category"),
    ]
    chosen = next(answer for _, answer in answers if answer.field == "category")
    (other,) = chosen.alternatives
    assert {chosen.values[0], other.text} == {"cat", "dog"}
    assert chosen.confidence + other.probability == pytest.approx(1.0, abs=1e-4)
    assert all(FieldAnswer.from_json(answer.to_json()) == answer for _, answer in answers)


def test_jobs_that_run_together_answer_as_alone(checkpoint):
    """Two jobs in one session, one added while the other runs, have the answers that each has alone."""
    describer = OspreyDescriber.load(checkpoint, "cpu")
    images = [Image.new("RGB", (64, 48), shade) for shade in ("gray", "white")]
    asked = [
        [region(Question("a", "Describe {region}.", max_new_tokens=12)), region(Question("b", "What is {region}?"))],
        [region(Question("c", "What is the category of {region}?", choices=("cat", "dog")))],
    ]
    alone: list[dict] = [{}, {}]
    for idx, image in enumerate(images):
        describer.describe(image, asked[idx], str(idx), lambda r, answer, idx=idx: alone[idx].update({r: answer}))
    session, together = describer.session(), [dict[int, FieldAnswer](), dict[int, FieldAnswer]()]
    failures: list[Exception] = []
    for idx, image in enumerate(images):
        session.add(
            image,
            asked[idx],
            str(idx),
            lambda r, answer, idx=idx: together[idx].update({r: answer}),
            failures.append,
            priority=1 - idx,
        )
        session.step()
        session.step()
    while not session.is_idle:
        session.step()
    assert not failures
    for one, other in zip(alone, together, strict=True):
        assert {r: answer.values for r, answer in one.items()} == {r: answer.values for r, answer in other.items()}
        for r, answer in one.items():
            assert other[r].confidence == pytest.approx(answer.confidence, abs=1e-4)


def test_missing_and_broken_checkpoints_are_named(checkpoint, tmp_path):
    with pytest.raises(ModelUnavailable, match="OSPREY_MODEL"):
        OspreyDescriber.load(tmp_path / "nowhere", "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="does not load"):
        OspreyDescriber.load(tmp_path, "cpu")
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelUnavailable, match="does not load"):
        OspreyDescriber.load(broken, "cpu")
