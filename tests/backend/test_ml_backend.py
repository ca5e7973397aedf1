"""`OspreyBackend` under the contracts of label-studio-ml 1.0.9 (installed) and 2.x (a stand-in with its signatures)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.main import model_class
from backend.ml_backend import LabelStudioMLBase, OspreyBackend, PredictMixin, backend_class
from backend.predict import ClickService
from backend.settings import Settings
from job_queue.contracts import WarmJob
from tests.support.click_fakes import FakeQueue, FixedVersion, MemorySessions, point_item

ROOT = Path(__file__).parents[2]
XML = (ROOT / "label_config" / "bitmask.xml").read_text()
TASK = {"id": 7, "project": 3, "data": {"image": "/data/upload/3/a.png"}}
CLICK = {"result": [point_item(200, 160)]}


class Base2:
    """The base class of label-studio-ml 2.x: the methods that a host or a subclass uses."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id, self.label_config = project_id or "", label_config
        self.cache: dict[str, str] = {}
        self.setup()

    def setup(self) -> None:
        """Overridden by a model."""

    def set(self, key: str, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("Value must be a string")
        self.cache[key] = value

    def get(self, key: str) -> str | None:
        return self.cache.get(key)

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def process_event(self, event: str, data: dict[str, Any], *_: Any) -> Any:
        return self.fit(event, data)

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any:
        raise NotImplementedError


class OspreyBackend2(PredictMixin, Base2):
    """`OspreyBackend` as it is where 2.x is installed."""

    setup = OspreyBackend.setup


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def service(queue: FakeQueue) -> ClickService:
    return ClickService(queue, MemorySessions(), FixedVersion(), Settings(blind_share=0))


def test_it_is_a_model_class_of_the_installed_release(service: ClickService) -> None:
    assert issubclass(backend_class(service), LabelStudioMLBase)


def test_release_1_constructs_predicts_and_fits(service: ClickService) -> None:
    """Its manager makes the instance at /setup and passes the context as a keyword."""
    model = backend_class(service)(label_config=XML, train_output={}, hostname="http://ls", access_token="t")
    (prediction,) = model.predict([TASK], login=None, password=None, context=CLICK)
    assert prediction["result"][0]["type"] == "bitmasklabels"
    assert prediction["model_version"] == "osprey-nano-1"
    assert model.process_event("ANNOTATION_CREATED", {"annotation": {}}, "job", {"workdir": "/tmp"}) is None


def test_release_1_manager_serves_it(service: ClickService, tmp_path: Path) -> None:
    """`label-studio-ml start` calls the class through this manager."""
    from label_studio_ml.model import LabelStudioMLManager  # after our module, which imports it without torch

    LabelStudioMLManager.initialize(backend_class(service), model_dir=str(tmp_path))
    LabelStudioMLManager.fetch("3.1", XML, hostname="", access_token="")
    predictions, model = LabelStudioMLManager.predict([TASK], "3.1", XML, context=CLICK)
    assert predictions[0]["result"]
    assert model.model_version == "INITIAL"


def test_release_2_constructs_predicts_and_fits(service: ClickService) -> None:
    """Each request gets a new instance, whose setup() sets the model version."""
    model = backend_class(service, OspreyBackend2)(project_id="3.1", label_config=XML)
    assert model.get("model_version") == "osprey-nano-1"
    (prediction,) = model.predict([TASK], context=CLICK)
    assert prediction["result"][0]["type"] == "bitmasklabels"
    assert model.process_event("START_TRAINING", {"project": {}}) is None


@pytest.mark.parametrize("base", [OspreyBackend, OspreyBackend2])
def test_an_opened_task_gets_no_prediction_under_both(service: ClickService, queue: FakeQueue, base: type) -> None:
    assert backend_class(service, base)(label_config=XML).predict([TASK]) == []
    assert len(queue.of_kind(WarmJob)) == 1


def test_a_click_without_a_task_is_answered_with_nothing(service: ClickService) -> None:
    assert backend_class(service)().predict([], context=CLICK) == [{"result": []}]


def test_a_foreign_host_gets_a_ready_class_from_the_environment() -> None:
    """Making the class opens no connection."""
    model = model_class({"OSPREY_BACKEND_AUTH": "off", "OSPREY_REDIS_URL": "redis://127.0.0.1:1/0"})(label_config=XML)
    assert isinstance(model, LabelStudioMLBase)
    assert model.predict([TASK]) == []  # Redis is away: an opened task is simply not warmed


def test_two_services_do_not_share_a_class(service: ClickService, queue: FakeQueue) -> None:
    other = ClickService(queue, MemorySessions(), FixedVersion(), Settings(blind_share=0))
    assert backend_class(service).service is service
    assert backend_class(other).service is other


@pytest.mark.parametrize("torch", ["missing", "installed"])
def test_the_backend_never_imports_torch(torch: str) -> None:
    """The backend's image has no torch; where it is installed, label_studio_ml would import it (0.5 GB, seconds)."""
    before = "sys.modules['torch'] = None" if torch == "missing" else "pass"
    code = f"import sys; {before}; import backend.main, cli.main; assert sys.modules.get('torch') is None"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=240)
