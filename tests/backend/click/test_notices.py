"""What the annotator reads about a failure."""

from __future__ import annotations

import pytest

from backend.click.notices import failure_text
from job_queue import errors


def named_errors() -> list[type[Exception]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OspreyError)]


@pytest.mark.parametrize("kind", [kind for kind in named_errors() if kind is not errors.OspreyError])
def test_every_error_of_the_workers_has_a_text_of_its_own(kind: type[Exception]) -> None:
    error = kind("why", 1.0) if kind is errors.QueueBusy else kind("why")
    assert "its log has the cause" not in failure_text(error, 7)


def test_an_unknown_error_names_the_log_and_nothing_internal() -> None:
    text = failure_text(KeyError("/srv/secret"), 7)
    assert "task 7" in text
    assert "secret" not in text


def test_addresses_of_the_queue_stay_in_the_log() -> None:
    assert "redis://" not in failure_text(errors.QueueUnavailable("redis://u:p@host"), 7)


def test_a_long_message_is_one_short_line() -> None:
    text = failure_text(errors.JobFailed("line one\n  line two " + "x" * 2000), 7)
    assert "\n" not in text
    assert len(text) < 400
