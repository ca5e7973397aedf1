"""`osprey_model.Osprey` behind the `Describer` protocol: contracts in, contracts out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from job_queue.contracts import Alternative, FieldAnswer, Question, RegionQuery, Rle
from job_queue.errors import ModelTooLarge, ModelUnavailable
from job_queue.mask_codec import decode_mask
from worker.model_protocols import OnAnswer, OnFailure

if TYPE_CHECKING:
    from osprey_model import Answer, Osprey, RegionRequest


class OspreyDescriber:
    """`osprey_model.Osprey` behind the `Describer` protocol."""

    def __init__(self, model: Osprey, model_version: str | None = None) -> None:
        self.model = model
        self.model_version = model_version or model.model_version
        self._session: OspreySession | None = None

    @classmethod
    def load(cls, path: Path, device: str, *, adapter: Path | None = None, model_version: str | None = None) -> Self:
        """Load a checkpoint folder, and merge a trained adapter into it if one is given.

        Args:
            path: the checkpoint folder.
            device: see `Osprey.from_pretrained`.
            adapter: a PEFT adapter folder that was trained on this checkpoint.
            model_version: the version that answers are attributed to; None: the checkpoint's own.

        Raises:
            ModelTooLarge: the device is out of memory.
            ModelUnavailable: the folder is missing or does not hold a complete checkpoint.
        """
        import torch

        from osprey_model import Osprey

        if not path.is_dir():
            raise ModelUnavailable(f"there is no Osprey checkpoint folder at {path}; set OSPREY_MODEL to such a folder")
        try:
            return cls(Osprey.from_pretrained(path, device=device, adapter=adapter), model_version)
        except torch.OutOfMemoryError as error:
            raise ModelTooLarge(f"not enough {device} memory for the Osprey checkpoint in {path}: {error}") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelUnavailable(f"the Osprey checkpoint in {path} does not load: {error}") from error

    def describe(self, image: Image.Image, regions: Sequence[RegionQuery], image_key: str, on_answer: OnAnswer) -> None:
        """See `Describer.describe`."""
        requests = _requests(regions)

        def report(region_idx: int, question_idx: int, answer: Answer) -> None:
            on_answer(region_idx, _field_answer(regions[region_idx], question_idx, answer))

        self.model.describe(image, requests, image_key=image_key, on_answer=report)

    def warm(self, image: Image.Image, image_key: str) -> None:
        """See `Describer.warm`."""
        self.model.warm(image, image_key)

    def session(self) -> OspreySession:
        """See `Describer.session`. There is one session, because on a GPU its steps are recorded once."""
        if self._session is None:
            self._session = OspreySession(self.model)
        return self._session

    def forget_session(self) -> None:
        """See `Describer.forget_session`."""
        self._session = None


class OspreySession:
    """An engine session behind the `DescribeSession` protocol."""

    def __init__(self, model: Osprey) -> None:
        self._session = model.scheduler()

    @property
    def is_idle(self) -> bool:
        """See `DescribeSession.is_idle`."""
        return self._session.is_idle

    def add(
        self,
        image: Image.Image,
        regions: Sequence[RegionQuery],
        image_key: str,
        on_answer: OnAnswer,
        on_failure: OnFailure,
        *,
        priority: int,
    ) -> object:
        """See `DescribeSession.add`."""
        from osprey_model import Failure, ImageRequest

        def report(region_idx: int, question_idx: int, result: Answer | Failure) -> None:
            if isinstance(result, Failure):
                on_failure(result.error)
            else:
                on_answer(region_idx, _field_answer(regions[region_idx], question_idx, result))

        request = ImageRequest(image, _requests(regions), image_key)
        return self._session.add(request, report, priority=priority)

    def cancel(self, asked: Any) -> None:
        """See `DescribeSession.cancel`."""
        self._session.cancel(asked)

    def step(self) -> None:
        """See `DescribeSession.step`."""
        self._session.step()


def _requests(regions: Sequence[RegionQuery]) -> tuple[RegionRequest, ...]:
    return tuple(region_request(region.masks, region.questions) for region in regions)


def region_request(masks: Iterable[Rle], questions: Iterable[Question]) -> RegionRequest:
    """Convert the masks and questions of a contract into the engine's request."""
    from osprey_model import Question as EngineQuestion
    from osprey_model import RegionRequest

    return RegionRequest(
        masks=tuple(decode_mask(mask) for mask in masks),
        questions=tuple(
            EngineQuestion(
                text=question.text,
                form=question.form,
                choices=question.choices,
                multiple=question.multiple,
                mask_idx=question.mask_idx,
                max_new_tokens=question.max_new_tokens,
            )
            for question in questions
        ),
    )


def _field_answer(region: RegionQuery, question_idx: int, answer: Answer) -> FieldAnswer:
    return FieldAnswer(
        region_id=region.region_id,
        question_idx=question_idx,
        field=region.questions[question_idx].field,
        values=tuple(answer.values),
        confidence=float(answer.confidence),
        alternatives=tuple(Alternative(other.text, float(other.probability)) for other in answer.alternatives),
        warnings=tuple(str(warning) for warning in answer.warnings),
    )
