"""A model sits an exam: per field what it said, how sure it was, whether it is right; and how long it takes.

Neighbours: `learning/gate/exam.py` (the questions), `learning/gate/gate.py` (compares two models' outcomes).
"""

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
class Outcome:
    """One field of one region. `failure` says why there is no answer; then it is wrong with confidence 0."""

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
    is_valid: bool  # of a closed list: one of its choices; of a free text: not empty
    is_closed: bool
    failure: str | None = None


def evaluate(
    model: Osprey,
    exam: Exam,
    similarity: Similarity = token_f1,
    *,
    on_image: Callable[[], None] | None = None,
) -> tuple[Outcome, ...]:
    """Ask everything; the outcomes in the order of the exam, so those of two models can be paired.

    Args:
        model: answers are greedy, so the same model gives the same outcomes.
        exam: images, regions, fields.
        similarity: of expected and given words; the default counts common words.
        on_image: called after each image, for a progress bar.
    """
    from osprey_model.engine.requests import ImageRequest

    outcomes: list[Outcome] = []
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
    """Seconds per image of two models on the same images, best of some interleaved rounds. `clock` is cpu or wall."""

    candidate_s: float
    champion_s: float
    images: int
    rounds: int
    clock: str

    @property
    def ratio(self) -> float:
        """Above 1: the candidate is slower."""
        return self.candidate_s / self.champion_s


def measure_latency(candidate: Osprey, champion: Osprey, images: Sequence[ExamImage], rounds: int = 3) -> Latency:
    """Both models on the same images in turns, everything from the pixels on; the best round of each image counts.

    On a CPU the process's own time is taken, because others share the machine.
    """
    import torch

    on_gpu = candidate.model.device.type == "cuda"
    best: dict[tuple[int, int], float] = {}
    sides = ((0, candidate), (1, champion))
    for turn in range(-1, rounds):  # the first turn warms up and is not counted
        for image_idx, image in enumerate(images):
            pixels, requests = _pixels(image), list(_requests(image))
            for who, model in sides if turn % 2 else sides[::-1]:
                key = f"latency:{turn}:{who}:{image.path}"  # no prefix from an earlier turn
                started = time.perf_counter() if on_gpu else time.process_time()
                model.describe(pixels, requests, image_key=key)
                if on_gpu:
                    torch.cuda.synchronize()
                took_s = (time.perf_counter() if on_gpu else time.process_time()) - started
                if turn >= 0:
                    best[who, image_idx] = min(took_s, best.get((who, image_idx), took_s))
    seconds = [sum(took for (who, _), took in best.items() if who == side) / len(images) for side in (0, 1)]
    return Latency(seconds[0], seconds[1], len(images), rounds, "wall" if on_gpu else "cpu")


def _pixels(image: ExamImage) -> object:
    return decode_image(image.path.read_bytes(), image.path.name, _MAX_PIXELS)


def _requests(image: ExamImage) -> Iterator[RegionRequest]:
    for region in image.regions:
        yield region_request(region.masks, (question for field in region.fields for question in field.questions))


def _outcomes(
    image: ExamImage, answers: Sequence[Sequence[Answer | Failure]], similarity: Similarity
) -> Iterator[Outcome]:
    from osprey_model import Answer

    for region, given in zip(image.regions, answers, strict=True):
        start = 0
        for field in region.fields:
            results = given[start : start + len(field.questions)]
            start += len(field.questions)
            replies = [result for result in results if isinstance(result, Answer)]
            failure = next((result.message for result in results if not isinstance(result, Answer)), None)
            said = () if failure else said_in(field, replies)
            closed = bool(field.choices)
            yield Outcome(
                image=image.path.name,
                task=region.task,
                annotation=region.annotation,
                region=region.region,
                label=region.label,
                field=field.name,
                role=field.role,
                expected=field.expected,
                given=said,
                confidence=0.0 if failure else min(float(reply.confidence) for reply in replies),
                is_right=failure is None and same(field.expected, said),
                similarity=0.0 if failure else similarity(joined(field.expected), joined(said)),
                is_valid=failure is None and bool(said) and (not closed or set(said) <= set(field.choices)),
                is_closed=closed,
                failure=failure,
            )


def said_in(field: ExamField, replies: Sequence[Answer]) -> tuple[str, ...]:
    """The words that the control would be given (`job_queue/field_answers.py`), thresholds left aside."""
    if field.choices and not field.multiple:
        replies = sorted(replies, key=lambda reply: -reply.confidence)[:1]
    return tuple(dict.fromkeys(word for reply in replies for value in reply.values if (word := value.strip())))
