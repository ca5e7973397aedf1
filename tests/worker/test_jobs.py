"""The job functions with fake models: caching, partial work, versions, envelopes."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from job_queue.contracts import (
    DescribeAnswer,
    DescribeJob,
    ImageRef,
    PromptPoint,
    Question,
    RegionQuery,
    SegmentAnswer,
    SegmentJob,
    WarmJob,
)
from job_queue.mask_codec import encode_mask
from tests.support.fake_models import FakeDescriber, FakeSegmenter
from worker import jobs
from worker.current_runtime import install
from worker.runtime import Loaders, ModelRuntime
from worker.sam.embedding_store import Embedding
from worker.settings import Settings

pytestmark = pytest.mark.redis

WH = (64, 48)


def image_ref() -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", WH, "red").save(buffer, "PNG")
    return ImageRef(url="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), task_id=3)


def region(region_id: str, *fields: str, left: int = 10, wh: tuple[int, int] = WH) -> RegionQuery:
    mask = np.zeros((wh[1], wh[0]), np.bool_)
    mask[10:20, left : left + 10] = True
    questions = tuple(Question(field=field, text="What is {region}?") for field in fields)
    return RegionQuery(region_id, (encode_mask(mask),), questions)


def describe_job(*regions: RegionQuery) -> DescribeJob:
    return DescribeJob(image=image_ref(), image_wh=WH, regions=regions)


@pytest.fixture
def models():
    return FakeSegmenter(), FakeDescriber()


@pytest.fixture
def runtime(redis_client, tmp_path, models):
    loaders = Loaders(lambda settings, device: models[0], lambda settings, device: models[1])
    runtime = ModelRuntime(Settings(cache_dir=tmp_path, device="cpu"), ("masks", "describe"), redis_client, loaders)
    runtime.load_missing()
    install(runtime)
    yield runtime
    runtime.close()


def test_same_question_about_the_same_mask_is_not_asked_twice(runtime, models):
    """A new click on the same spot has a new region id and the old answers."""
    jobs.describe(describe_job(region("r1", "category", "color")).to_json())
    again = jobs.describe(describe_job(region("r2", "color", "material", "category")).to_json())
    answers = DescribeAnswer.from_json(again["ok"]).answers
    assert [(one.region_id, one.question_idx, one.field) for one in answers] == [
        ("r2", 0, "color"),
        ("r2", 1, "material"),
        ("r2", 2, "category"),
    ]
    assert models[1].num_asked == 3


def test_another_mask_or_another_model_is_asked_again(runtime, models):
    jobs.describe(describe_job(region("r1", "category")).to_json())
    jobs.describe(describe_job(region("r1", "category", left=11)).to_json())
    models[1].model_version = "osprey-fake-2"
    jobs.describe(describe_job(region("r1", "category")).to_json())
    assert models[1].num_asked == 3


def test_several_regions_keep_their_order(runtime):
    result = jobs.describe(describe_job(region("a", "category"), region("b", "color", left=30)).to_json())
    assert [one.region_id for one in DescribeAnswer.from_json(result["ok"]).answers] == ["a", "b"]


def test_job_without_regions_has_no_answers(runtime):
    assert DescribeAnswer.from_json(jobs.describe(describe_job().to_json())["ok"]).answers == ()


def test_mask_of_another_size_is_named(runtime):
    error = jobs.describe(describe_job(region("r9", "category", wh=(10, 48))).to_json())["error"]
    assert error["kind"] == "ValueError"
    assert "region 'r9': mask of 10x48 pixels on an image of 64x48" in error["message"]


@pytest.mark.parametrize("version", ["sam-fake-1", None])
def test_click_with_the_served_version_is_answered(runtime, version):
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(9.0, 9.0),), model_version=version)
    assert SegmentAnswer.from_json(jobs.segment(job.to_json())["ok"]).model_version == "sam-fake-1"


def test_another_model_version_is_refused(runtime):
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(9.0, 9.0),), model_version="sam-0")
    assert jobs.segment(job.to_json())["error"]["kind"] == "ModelUnavailable"


def test_expired_logits_are_no_error(runtime, models):
    """A refinement whose logits have expired uses its points alone."""
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(9.0, 9.0),), previous_logits_id="gone")
    assert "ok" in jobs.segment(job.to_json())
    assert models[0].previous[-1] is None


def test_logits_come_back_as_they_were(runtime, models):
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(9.0, 9.0),))
    first = SegmentAnswer.from_json(jobs.segment(job.to_json())["ok"])
    jobs.segment(dataclasses.replace(job, previous_logits_id=first.candidates[1].logits_id).to_json())
    assert np.array_equal(models[0].previous[-1], np.full((8, 8), 8, np.float32))


def test_warm_embeds_and_prepares_the_prefix(runtime, models):
    for queue in ("masks", "describe"):
        jobs.warm(queue, WarmJob(image=image_ref()).to_json())
    assert len(models[0].embedded) == 2  # with the warm-up's own
    assert len(models[1].warmed) == 2


def test_an_image_is_encoded_once_for_all_workers(runtime, models, redis_client, tmp_path):
    """Another worker finds the embedding in Redis, and a third finds it damaged and encodes."""
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(9.0, 9.0),))
    assert "ok" in jobs.segment(job.to_json())
    warm_up = 1
    assert models[0].num_encoded == warm_up + 1
    for damaged, expected in ((False, 0), (True, 1)):
        if damaged:
            (key,) = redis_client.keys("osprey:embedding:*")
            redis_client.set(key, b"\0" * 100)
        other = FakeSegmenter()
        loaders = Loaders(lambda settings, device, other=other: other, lambda settings, device: models[1])
        second = ModelRuntime(Settings(cache_dir=tmp_path, device="cpu"), ("masks",), redis_client, loaders)
        second.load_missing()
        install(second)
        assert "ok" in jobs.segment(job.to_json())
        assert other.num_encoded == warm_up + expected
        second.close()


def test_of_two_workers_that_encode_at_once_the_first_ones_numbers_count(runtime, models, redis_client):
    """An embedding that another worker has stored in the meantime is adopted."""
    resolved = runtime.images.resolve(image_ref())
    first = Embedding({"features": np.ones((1, 2, 2), np.float16)}, (WH[1], WH[0]))
    plain_embed = models[0].embed

    def embed_slowly(image, image_key):
        plain_embed(image, image_key)
        runtime.embeddings.put("sam-fake-1", image_key, first)

    models[0].embed = embed_slowly
    runtime.embed(resolved)
    assert (models[0].adopted[resolved.sha256].arrays["features"] == 1).all()


def test_another_models_embedding_in_redis_is_encoded_again(runtime, models):
    """An embedding that does not fit this model is not decoded."""
    resolved = runtime.images.resolve(image_ref())
    foreign = Embedding({"levels": np.ones((1, 2, 2), np.float16)}, (WH[1], WH[0]))
    runtime.embeddings.put("sam-fake-1", resolved.sha256, foreign)
    runtime.embed(resolved)
    assert models[0].num_encoded == 2


def test_job_of_another_release_is_named(runtime):
    error = jobs.segment({"version": 99})["error"]
    assert "contract version 99" in error["message"]


def test_model_that_does_not_load_is_a_problem_until_it_does(redis_client, tmp_path, models):
    """A repaired checkpoint is served without a restart."""
    from job_queue.errors import ModelUnavailable

    broken = [True]

    def load(settings, device):
        if broken[0]:
            raise ModelUnavailable("no checkpoint at X")
        return models[0]

    loaders = Loaders(load, lambda settings, device: models[1])
    runtime = ModelRuntime(Settings(cache_dir=tmp_path, device="cpu"), ("masks", "describe"), redis_client, loaders)
    runtime.load_missing()
    assert runtime.model_versions == {"describe": "osprey-fake-1"}
    assert runtime.problem == "no checkpoint at X"
    with pytest.raises(ModelUnavailable, match="no checkpoint at X"):
        _ = runtime.segmenter
    broken[0] = False
    runtime.load_missing()
    assert runtime.problem is None
    assert runtime.segmenter is models[0]
    runtime.close()
