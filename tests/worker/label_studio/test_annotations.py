"""Claims about reading a project through Label Studio's API."""

from __future__ import annotations

import httpx
import pytest

from job_queue.errors import LabelStudioFailed, LabelStudioRefused
from worker.label_studio.annotations import AnnotationSource
from worker.label_studio.api import LabelStudioApi

URL = "http://label-studio.test:8080"


def source(answer) -> AnnotationSource:
    """Return a source whose requests are answered by a function."""
    return AnnotationSource(LabelStudioApi(URL + "/", "ab" * 20, transport=httpx.MockTransport(answer)))


def test_all_pages_are_read_and_no_page_too_many():
    """45 tasks in pages of 20 are three requests; a fourth would be an error in Label Studio."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        asked.append((page, request.url.params["fields"], request.headers["Authorization"]))
        return httpx.Response(
            200, json={"tasks": [{"id": idx} for idx in range(45)][20 * (page - 1) : 20 * page], "total": 45}
        )

    assert [task["id"] for task in source(answer).tasks(1)] == list(range(45))
    assert asked == [(page, "all", f"Token {'ab' * 20}") for page in (1, 2, 3)]


def test_ended_access_token_is_renewed_once():
    """A 401 between two pages asks again with fresh authorization; a second one is an error that names the variable."""
    answers = iter([401, 200])
    good = source(lambda _: httpx.Response(next(answers), json={"label_config": "<View/>"}))
    assert good.project(1)["label_config"] == "<View/>"
    asked = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(401)

    with pytest.raises(LabelStudioRefused, match="OSPREY_LABEL_STUDIO_TOKEN"):
        source(refuse).project(1)
    assert asked == ["/api/projects/1"] * 2


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(404), "no such project"),
        (httpx.Response(403), "may not see"),
        (httpx.Response(301, headers={"Location": "https://x"}), "got 301 .*OSPREY_LABEL_STUDIO_URL"),
        (httpx.Response(500, text="boom"), "expected 2xx .* got 500 'boom'"),
        (httpx.Response(200, text="<html>"), "expected JSON .* got '<html>'"),
        (httpx.Response(200, json=["?"]), "is it a Label Studio"),
        (httpx.Response(200, json={"tasks": 1}), "is it a Label Studio"),
    ],
)
def test_failures_say_what_to_check(response, words):
    """Each failure is one error with the next step."""
    with pytest.raises(LabelStudioFailed, match=words) as caught:
        source(lambda _: response).project(1)
    assert not isinstance(caught.value, LabelStudioRefused)


def test_tasks_without_list_are_refused():
    """An answer that is not a page of tasks is an error, not an empty project."""
    with pytest.raises(LabelStudioFailed, match="a page of a list"):
        list(source(lambda _: httpx.Response(200, json={"total": 3})).tasks(1))


def test_no_answer_names_the_address():
    """The error of a server that is down has its address and the variable that holds it."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(LabelStudioFailed, match=rf"{URL}/api/projects/1 .*OSPREY_LABEL_STUDIO_URL"):
        source(refuse).project(1)
