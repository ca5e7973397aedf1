"""`OspreyBackend`: the model class for label-studio-ml 1.0.9 and 2.x. Only this file imports that library.

1.0.9: `__init__(label_config, train_output, **kwargs)`, context among `predict`'s keywords, `fit((), event=, data=)`.
2.x:   `__init__(project_id, label_config)` that calls `setup()`, `predict(tasks, context)`, `fit(event, data)`.

Our own app (`backend/app.py`) serves it; other hosts of label-studio-ml can, too (`backend.main.model_class`). The
class is light: the models are in the workers.
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
    """Hide torch from label_studio_ml, which imports it only to set how processes start: 0.5 GB and seconds.

    Where torch is loaded it is hidden, too: how other code of the process starts processes is not label_studio_ml's.
    """
    loaded = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` fail
    try:
        yield
    finally:
        del sys.modules["torch"]
        if loaded is not None:
            sys.modules["torch"] = loaded


with _torch_left_out():
    from label_studio_ml.model import LabelStudioMLBase


@dataclass(frozen=True)
class Reply:
    """The predictions of one request, and how long each step took."""

    predictions: list[dict[str, Any]]
    timings: Timings = field(default_factory=Timings)


class PredictMixin:
    """The methods that work under both releases. `backend_class` sets `service`."""

    service: ClassVar[ClickService]
    label_config: str | None

    def reply(self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, xml: str | None) -> Reply:
        """Answer a click (`context` given), or warm opened tasks and return no prediction at once.

        Without a prediction Label Studio stores nothing for an opened task and asks again; an empty prediction would
        be stored permanently.
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
        """Return one prediction for a click, none for a batch. `kwargs` may hold the request's own `label_config`."""
        return self.reply(tasks, context, kwargs.get("label_config")).predictions

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: separate jobs collect corrections and train on them.

        Returns None, because 1.0.9 takes a returned dict for a new model and changes the model version.
        """
        del args, kwargs


class OspreyBackend(PredictMixin, LabelStudioMLBase):  # type: ignore[misc]  # the base carries no types
    """The model class for a host of label-studio-ml; see `backend_class`."""

    def setup(self) -> None:
        """Set the served model version in the base class; 2.x calls this for each instance."""
        self.set("model_version", self.service.model_version())


def backend_class(service: ClickService, base: type = OspreyBackend) -> type[Any]:
    """Bind `base` to the service: hosts construct the class themselves, with arguments of their own."""
    return type(base.__name__, (base,), {"service": service})
