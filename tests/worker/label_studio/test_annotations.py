"""Claims about reading a project through Label Studio's API."""

from __future__ import annotations

import httpx
import pytest

from worker.guarded_http import AllowedHosts, GuardedHttp
from worker.label_studio.annotations import AnnotationSource, AnnotationsUnavailable
from worker.label_studio.credentials import LabelStudio

URL = "http://label-studio.test:8080"


def source(answer) -> AnnotationSource:
    """A source whose requests are answered by a function."""
    label_studio = LabelStudio(URL, "ab" * 20, GuardedHttp(AllowedHosts(), 1.0))
    return AnnotationSource(URL + "/", label_studio, transport=httpx.MockTransport(answer))


def test_all_pages_are_read_and_no_page_too_many():
    """45 tasks in pages of 20: three requests; a fourth would be an error in Label Studio."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        asked.append((page, request.url.params["fields"], request.headers["Authorization"]))
        return httpx.Response(
            200, json={"tasks": [{"id": idx} for idx in range(45)][20 * (page - 1) : 20 * page], "total": 45}
        )

    with source(answer) as tasks:
        assert [task["id"] for task in tasks.tasks(1)] == list(range(45))
    assert asked == [(page, "all", f"Token {'ab' * 20}") for page in (1, 2, 3)]


def test_ended_access_token_is_renewed_once():
    """A 401 between two pages asks again with fresh authorization; a second one is an error that names the variable."""
    answers = iter([401, 200])
    with source(lambda _: httpx.Response(next(answers), json={"label_config": "<View/>"})) as good:
        assert good.project(1)["label_config"] == "<View/>"
    with (
        source(lambda _: httpx.Response(401)) as bad,
        pytest.raises(AnnotationsUnavailable, match="OSPREY_LABEL_STUDIO_TOKEN"),
    ):
        bad.project(1)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(404), "no such project"),
        (httpx.Response(403), "may not see it"),
        (httpx.Response(500, text="boom"), "answers 500"),
        (httpx.Response(200, text="<html>"), "not answer with JSON"),
        (httpx.Response(200, json=["?"]), "is it a Label Studio"),
        (httpx.Response(200, json={"tasks": 1}), "is it a Label Studio"),
    ],
)
def test_failures_say_what_to_check(response, words):
    """Each failure is one error with the next step."""
    with source(lambda _: response) as broken, pytest.raises(AnnotationsUnavailable, match=words):
        broken.project(1)


def test_tasks_without_list_are_refused():
    """An answer that is no page of tasks is an error, not an empty project."""
    with source(lambda _: httpx.Response(200, json={"total": 3})) as broken, pytest.raises(AnnotationsUnavailable):
        list(broken.tasks(1))


def test_no_answer_names_the_address():
    """A server that is down is named with the variable that holds its address."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with source(refuse) as down, pytest.raises(AnnotationsUnavailable, match="OSPREY_LABEL_STUDIO_URL"):
        down.project(1)
