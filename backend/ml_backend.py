"""`OspreyBackend`: the model class on label-studio-ml's base, under release 1.0.9 and under 2.x. Alone imports it.

1.0.9: `__init__(label_config, train_output, **kwargs)`, context among `predict`'s keywords, `fit((), event=, data=)`.
2.x:   `__init__(project_id, label_config)` that calls `setup()`, `predict(tasks, context)`, `fit(event, data)`.

Our own app (`backend/app.py`) serves it; any host of that ecosystem can (`backend.main.model_class`). The class
holds nothing heavy: the models are in the workers. Next on the path of one click: `backend/predict.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from backend.click.timings import Timings
from backend.predict import ClickService


@contextmanager
def _torch_left_out() -> Iterator[None]:
    """label_studio_ml imports torch where it is installed, only to set how processes start: 0.5 GB and seconds."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to say: not to be imported
    try:
        yield
    finally:
        del sys.modules["torch"]


with _torch_left_out():
    from label_studio_ml.model import LabelStudioMLBase


@dataclass(frozen=True)
class Reply:
    """The predictions of one request and how long their steps took."""

    predictions: list[dict[str, Any]]
    timings: Timings = field(default_factory=Timings)


class PredictMixin:
    """What both contracts share. `service` is set by `backend_class`."""

    service: ClassVar[ClickService]
    label_config: str | None

    def reply(self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, xml: str | None) -> Reply:
        """Answer a click (`context` given), or warm opened tasks and answer nothing, at once.

        No prediction is the right answer for an opened task: Label Studio stores nothing and asks again, while an
        empty prediction would be stored for good.
        """
        xml = xml or self.label_config or ""
        if context is None:
            self.service.open_tasks(tasks, xml)
            return Reply([])
        if not tasks:
            return Reply([{"result": []}])
        answer = self.service.click(tasks[0], xml, context)
        version = answer.model_version or self.service.model_version()
        return Reply([{"result": answer.items, "score": answer.score, "model_version": version}], answer.timings)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One prediction for a click; none for a batch. `kwargs` may hold the request's own `label_config`."""
        return self.reply(tasks, context, kwargs.get("label_config")).predictions

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Learns nothing here: corrections are collected and trained on by jobs of their own.

        None, because 1.0.9 would take a returned dict for a new model and change the model version.
        """
        del args, kwargs


class OspreyBackend(PredictMixin, LabelStudioMLBase):  # type: ignore[misc]  # the base carries no types
    """The class to give to a host of label-studio-ml; see `backend_class`."""

    def setup(self) -> None:
        """Called by 2.x for each instance: tells the base which model version is served."""
        self.set("model_version", self.service.model_version())


def backend_class(service: ClickService, base: type = OspreyBackend) -> type[Any]:
    """`base` bound to the service, because hosts construct the class themselves, with arguments of their own."""
    return type(base.__name__, (base,), {"service": service})
