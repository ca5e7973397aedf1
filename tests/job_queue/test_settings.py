"""Claims about settings classes: one declaration per variable, values from a mapping, misspelled names."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from pydantic import ValidationError

from backend.settings import Settings as BackendSettings
from job_queue import settings as queue_settings
from job_queue.settings import OspreySettings, PositiveWhole, ProcessSettings, Switch, name_warnings, setting
from learning.settings import Settings as LearningSettings
from learning.training.options import FineTuneOptions
from stack.settings import StackVariables
from worker.settings import Settings as WorkerSettings

CLASSES = (BackendSettings, LearningSettings, FineTuneOptions)


class Sample(OspreySettings):
    """Two settings."""

    num_rows: PositiveWhole = setting(4, "rows")
    is_fast: Switch = setting(False, "speed", variable="OSPREY_FAST")


def test_a_setting_is_declared_once():
    """Each variable has a sentence, and one class that declares it; the stack reads the backend's port, too."""
    declared = [
        name
        for one, base in (
            (ProcessSettings, OspreySettings), (BackendSettings, ProcessSettings), (WorkerSettings, ProcessSettings),
            (LearningSettings, WorkerSettings), (FineTuneOptions, OspreySettings), (StackVariables, OspreySettings),
        )
        for name, field in one.variables().items()
        if name not in base.variables()
    ]  # fmt: skip
    assert [one for one, other in pairwise(sorted(declared)) if one == other] == ["OSPREY_BACKEND_PORT"]
    fields = [field for each in (*CLASSES, StackVariables) for field in each.variables().values()]
    assert all(re.fullmatch(r"[^|\n]+[^.|\n]", field.description or "") for field in fields)
    assert all(name.startswith("OSPREY_") for name in declared)


def test_values_come_from_the_mapping_alone(monkeypatch):
    """The process environment does not matter, neither to `from_env` nor to the constructor; empty is missing."""
    monkeypatch.setenv("OSPREY_NUM_ROWS", "7")
    assert Sample().num_rows == Sample.from_env({}).num_rows == Sample.from_env({"OSPREY_NUM_ROWS": " "}).num_rows == 4
    assert Sample.from_env({"OSPREY_NUM_ROWS": " 1_000 "}) == Sample(num_rows=1000)


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("ON", True), ("", False)])
def test_a_flag_is_on_or_off(text, value):
    assert Sample.from_env({"OSPREY_FAST": text}).is_fast is value


@pytest.mark.parametrize("text", ["yes", "1", "true"])
def test_another_flag_is_refused(text):
    with pytest.raises(ValueError, match=f"^OSPREY_FAST must be on or off, got '{text}'$"):
        Sample.from_env({"OSPREY_FAST": text})


def test_settings_cannot_be_changed_or_misnamed():
    """An assignment fails, and so does a keyword that is no setting."""
    with pytest.raises(ValidationError, match="frozen"):
        Sample().num_rows = 3
    with pytest.raises(ValidationError, match="rows"):
        Sample(rows=3)


def test_addresses_with_passwords_are_not_printed():
    """Redis and the database have their password in the address."""
    environ = {"OSPREY_REDIS_URL": "redis://:hush@r", "OSPREY_DATABASE_URL": "postgresql://u:hush@d"}
    assert "hush" not in repr(LearningSettings.from_env(environ))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("OSPREY_MODLE", "OSPREY_MODLE is not a setting and has no effect; did you mean OSPREY_MODEL?"),
        (
            "OSPREY_FINETUNE_EPOCH",
            "OSPREY_FINETUNE_EPOCH is not a setting and has no effect; did you mean OSPREY_FINETUNE_EPOCHS?",
        ),
        ("OSPREY_STATEDIR", "OSPREY_STATEDIR is not a setting and has no effect; did you mean OSPREY_STATE_DIR?"),
        ("OSPREY_XYZQ", "OSPREY_XYZQ is not a setting and has no effect"),
    ],
)
def test_a_misspelled_name_is_reported_with_the_nearest(name, line):
    assert list(name_warnings({name: "x", "OSPREY_SAM": "y", "MODLE": "z"}, CLASSES)) == [line]


def test_known_names_are_not_reported():
    """Neither settings, nor what `make up`, docker compose and the tests read."""
    names = {name for each in (*CLASSES, StackVariables) for name in each.variables()}
    assert list(name_warnings(dict.fromkeys(names | {"OSPREY_COMPOSE", "OSPREY_BACKEND_URL"}, "x"), CLASSES)) == []


def test_a_renamed_variable_works_with_a_warning(monkeypatch):
    """The old name gives the value and one line; where both are set, the new one counts."""
    monkeypatch.setitem(queue_settings.RENAMED, "OSPREY_LINES", "OSPREY_NUM_ROWS")
    environ = {"OSPREY_LINES": "9"}
    assert Sample.from_env(environ).num_rows == 9
    assert Sample.from_env({**environ, "OSPREY_NUM_ROWS": "5"}).num_rows == 5
    assert list(name_warnings(environ, (Sample,))) == [
        "OSPREY_LINES is now called OSPREY_NUM_ROWS; the old name works until the next release"
    ]
