"""Ask a model every question of an evaluation set; record answer, confidence, correctness and latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learning.gate.exam import Exam, ExamField, ExamImage
from learning.gate.text_similarity import Similarity, joined, same, token_f1
from worker.images.decoding import decode_image
from worker.osprey_describer import region_request

if TYPE_CHECKING:
    from osprey_model import Answer, Osprey, RegionRequest
    from osprey_model.engine.requests import Failure

_IMAGES_AT_ONCE = 4
_MAX_PIXELS = 500_000_000


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """A model's answer to one field of one region.

    Attributes:
        image: file name of the image.
        task: number of the task.
        annotation: number of the annotation.
        region: id of the region.
        label: label of the region.
        field: name of the field.
        role: role of the field in the labeling config.
        expected: the value that the annotator submitted.
        given: the model's answer.
        confidence: the model's confidence, 0 to 1.
        is_right: whether both are equal up to formatting.
        similarity: of both, 0 to 1.
        is_valid: whether the answer is one of the choices of a closed list, or a text that is not empty.
        is_closed: whether the field has a closed list of choices.
        failure: why there is no answer; it then counts as wrong with confidence 0.
    """

    image: str
    task: int
    annotation: int
    region: str
    label: str | None
    field: str
    role: str
    expected: tuple[str, ...]
    given: tuple[str, ...]
    confidence: float
    is_right: bool
    similarity: float
    is_valid: bool
    is_closed: bool
    failure: str | None = None


def evaluate(
    model: Osprey,
    exam: Exam,
    similarity: Similarity = token_f1,
    *,
    on_image: Callable[[], None] | None = None,
) -> tuple[FieldOutcome, ...]:
    """Ask all questions of an exam.

    Args:
        model: decoding is greedy, so the same model gives the same outcomes.
        exam: images, regions and fields.
        similarity: of the expected value and the answer; the default counts common words.
        on_image: called after each image, for a progress bar.

    Returns:
        The outcomes in the order of the exam, so that those of two models can be paired.
    """
    from osprey_model.engine.requests import ImageRequest

    outcomes: list[FieldOutcome] = []
    for start in range(0, len(exam.images), _IMAGES_AT_ONCE):
        images = exam.images[start : start + _IMAGES_AT_ONCE]
        requests = [ImageRequest(_pixels(image), tuple(_requests(image)), f"exam:{image.path}") for image in images]
        for image, answers in zip(images, model.describe_many(requests), strict=True):
            outcomes.extend(_outcomes(image, answers, similarity))
            if on_image is not None:
                on_image()
    return tuple(outcomes)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds per image of two models on the same images, the best of `rounds`. `clock` is "cpu" or "wall"."""

    candidate_s: float
    champion_s: float
    images: int
    rounds: int
    clock: str

    @property
    def ratio(self) -> float:
        """The candidate's time divided by the champion's; above 1 the candidate is slower."""
        return self.candidate_s / self.champion_s


def measure_latency(candidate: Osprey, champion: Osprey, images: Sequence[ExamImage], rounds: int = 3) -> Latency:
    """Time both models in turns on the same images, from pixels to answers; the best round of each image counts.

    On a CPU the time of the process is measured instead of wall time, because other processes share the machine.
    """
    import torch

    on_gpu = candidate.model.device.type == "cuda"
    best: dict[tuple[int, int], float] = {}
    sides = ((0, candidate), (1, champion))
    for turn in range(-1, rounds):  # the first turn warms up and is not counted
        for image_idx, image in enumerate(images):
            pixels, requests = _pixels(image), list(_requests(image))
            for side, model in sides if turn % 2 else sides[::-1]:
                key = f"latency:{turn}:{side}:{image.path}"  # a new key, so that no cached prefix is reused
                started = time.perf_counter() if on_gpu else time.process_time()
                model.describe(pixels, requests, image_key=key)
                if on_gpu:
                    torch.cuda.synchronize()
                took_s = (time.perf_counter() if on_gpu else time.process_time()) - started
                if turn >= 0:
                    best[side, image_idx] = min(took_s, best.get((side, image_idx), took_s))
    seconds = [sum(took for (each, _), took in best.items() if each == side) / len(images) for side in (0, 1)]
    return Latency(seconds[0], seconds[1], len(images), rounds, "wall" if on_gpu else "cpu")


def _pixels(image: ExamImage) -> object:
    return decode_image(image.path.read_bytes(), image.path.name, _MAX_PIXELS)


def _requests(image: ExamImage) -> Iterator[RegionRequest]:
    for region in image.regions:
        yield region_request(region.masks, (question for field in region.fields for question in field.questions))


def _outcomes(
    image: ExamImage, answers: Sequence[Sequence[Answer | Failure]], similarity: Similarity
) -> Iterator[FieldOutcome]:
    """Match the answers of one image, in the order of `_requests`, with the expected values."""
    from osprey_model import Answer

    for region, given in zip(image.regions, answers, strict=True):
        start = 0
        for field in region.fields:
            results = given[start : start + len(field.questions)]
            start += len(field.questions)
            replies = [result for result in results if isinstance(result, Answer)]
            failure = next((result.message for result in results if not isinstance(result, Answer)), None)
            values = () if failure else values_of(field, replies)
            closed = bool(field.choices)
            yield FieldOutcome(
                image=image.path.name,
                task=region.task,
                annotation=region.annotation,
                region=region.region,
                label=region.label,
                field=field.name,
                role=field.role,
                expected=field.expected,
                given=values,
                confidence=0.0 if failure else min(float(reply.confidence) for reply in replies),
                is_right=failure is None and same(field.expected, values),
                similarity=0.0 if failure else similarity(joined(field.expected), joined(values)),
                is_valid=failure is None and bool(values) and (not closed or set(values) <= set(field.choices)),
                is_closed=closed,
                failure=failure,
            )


def values_of(field: ExamField, replies: Sequence[Answer]) -> tuple[str, ...]:
    """Return the value that the field would get (`job_queue/field_answers.py`), without confidence thresholds."""
    if field.choices and not field.multiple:
        replies = sorted(replies, key=lambda reply: -reply.confidence)[:1]
    return tuple(dict.fromkeys(text for reply in replies for value in reply.values if (text := value.strip())))
