"""Claims about the client that makes every request to Label Studio."""

from __future__ import annotations

import json

import httpx
import pytest

from job_queue.errors import ImageUnavailable, LabelStudioFailed, LabelStudioRefused
from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, FakeLabelStudio, Reply, make_jwt
from worker.label_studio.api import LabelStudioApi
from worker.settings import Settings

URL = "http://label-studio.test:8080"


@pytest.fixture
def server():
    server = FakeLabelStudio()
    yield server
    server.close()


def api_of(answer, token: str | None = "ab" * 20, **more) -> LabelStudioApi:
    """Return a client whose requests are answered by a function."""
    return LabelStudioApi(URL, token, transport=httpx.MockTransport(answer), **more)


def pages_of(num_items: int, at_most: int, asked: list[int]):
    """Answer as a server that gives at most `at_most` items per page."""

    def answer(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        asked.append(page)
        items = [{"id": idx} for idx in range(num_items)][at_most * (page - 1) : at_most * page]
        return httpx.Response(200 if items or page == 1 else 404, json={"results": items, "count": num_items})

    return answer


def test_personal_access_token_is_exchanged_and_exchanged_again_after_a_401(server):
    """Two calls need one exchange; an access token that ended early needs a second one, and the call succeeds."""
    server.replies["/api/ml"] = Reply(body=b"[1]", needs_token=True)
    with LabelStudioApi(server.url, PERSONAL_ACCESS_TOKEN) as api:
        assert api.call("GET", "/api/ml") == api.call("GET", "/api/ml") == [1]
        assert server.exchanges == 1
        server.valid_access = "another"
        assert api.call("GET", "/api/ml") == [1]
    assert server.exchanges == 2
    assert PERSONAL_ACCESS_TOKEN not in str(server.seen)


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (None, "no token"),
        ("ab" * 20, "a legacy token"),
        (make_jwt("access"), "an access token"),
        (make_jwt("refresh") + "x", "a personal access token"),
    ],
)
def test_refused_token_is_an_error_of_its_own(server, token, kind):
    """The error has the kind of the token and the variable, and is no error of an image."""
    server.replies["/api/ml"] = Reply(body=b"[1]", needs_token=True)
    expected = pytest.raises(LabelStudioRefused, match=f"with {kind}, got 401")
    with LabelStudioApi(server.url, token) as api, expected as caught:
        api.call("GET", "/api/ml")
    assert "OSPREY_LABEL_STUDIO_TOKEN" in str(caught.value)
    assert token is None or token not in str(caught.value)
    assert not isinstance(caught.value, ImageUnavailable)
    assert caught.value.status == 401


@pytest.mark.parametrize(("status", "error"), [(400, LabelStudioRefused), (403, LabelStudioRefused), (503, None)])
def test_only_a_client_error_of_the_exchange_is_a_refused_token(status, error):
    """A server that is overloaded has not refused the token."""
    with pytest.raises(LabelStudioFailed) as caught:
        api_of(lambda _: httpx.Response(status), PERSONAL_ACCESS_TOKEN).call("GET", "/api/ml")
    assert type(caught.value) is (error or LabelStudioFailed)
    assert caught.value.status == status


@pytest.mark.parametrize(("num_items", "at_most", "pages"), [(0, 20, 1), (20, 20, 1), (45, 20, 3), (45, 10, 5)])
def test_every_page_is_read_and_none_beyond_the_last(num_items, at_most, pages):
    """Also if the server gives fewer items per page than it was asked for."""
    asked: list[int] = []
    api = api_of(pages_of(num_items, at_most, asked))
    assert [item["id"] for item in api.items("/api/projects", {}, 20)] == list(range(num_items))
    assert len(asked) == pages


def test_list_whose_total_is_too_high_ends_with_its_shorter_page():
    """If an item is deleted between count and page, the next page would be a 404."""
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["page"]))
        count = 20 if asked[-1] == 1 else 19
        return httpx.Response(200, json={"tasks": [{"id": idx} for idx in range(count)], "total": 40})

    assert len(list(api_of(answer).items("/api/tasks", {}, 20))) == 39
    assert asked == [1, 2]


def test_error_text_has_what_label_studio_says_and_not_its_envelope():
    """The form is that of Label Studio 1.23.2."""
    envelope = {"id": "8c6c", "status_code": 400, "version": "1.23.2", "detail": "Validation error", "exc_info": None}
    answer = httpx.Response(400, json={**envelope, "validation_errors": {"title": ["too short"]}})
    with pytest.raises(LabelStudioFailed, match=r"got 400 \"Validation error {'title': \['too short'\]}\"; check"):
        api_of(lambda _: answer).call("POST", "/api/projects", json={})


def test_answer_above_the_limit_is_an_error():
    """An answer is read only up to its limit."""
    api = api_of(lambda _: httpx.Response(200, json=["x" * 100]))
    assert api.call("GET", "/api/ml", max_bytes=104) == ["x" * 100]
    with pytest.raises(LabelStudioFailed, match=r"expected at most 103 bytes for GET .*/api/ml, got more"):
        api.call("GET", "/api/ml", max_bytes=103)


def test_answer_that_does_not_come_in_time_is_an_error(server):
    """The error has the limit and the address."""
    server.replies["/api/ml"] = Reply(body=b"[]", delay_s=0.8)
    with LabelStudioApi(server.url, None, timeout_s=0.2) as api, pytest.raises(LabelStudioFailed, match="ReadTimeout"):
        api.call("GET", "/api/ml")


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 1)])
def test_lost_connection_repeats_only_what_may_run_twice(method, attempts):
    """A kept connection may have been closed by the server; a POST may have been done all the same."""
    asked = []

    def lose(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    with pytest.raises(LabelStudioFailed, match="got RemoteProtocolError"):
        api_of(lose).call(method, "/api/ml")
    assert len(asked) == attempts


def test_upload_is_sent_again_after_a_401():
    """The repeat carries the same body as the first attempt."""
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(401 if len(bodies) == 1 else 201, json={"id": 1})

    uploaded = api_of(answer).call("POST", "/api/projects/1/import", files={"file": ("a.png", b"pixels", "image/png")})
    assert uploaded == {"id": 1}
    assert bodies[0] == bodies[1]
    assert b"pixels" in bodies[0]


def test_empty_answer_is_none_and_json_is_sent():
    """A DELETE answers 204 without a body."""
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, json.loads(request.read() or b"null"), request.url.params.get("task")))
        return httpx.Response(204)

    assert api_of(answer).call("DELETE", "/api/predictions/1", params={"task": 3}, json={"a": 1}) is None
    assert sent == [("DELETE", {"a": 1}, "3")]


def test_error_text_shows_no_password_and_no_query():
    """The address in an error text has neither user, password nor query."""
    api = LabelStudioApi(
        "http://user:hunter2@studio/labels", None, transport=httpx.MockTransport(lambda _: httpx.Response(500))
    )
    with pytest.raises(LabelStudioFailed, match="GET http://studio/labels/api/ml, got 500") as caught:
        api.call("GET", "/api/ml", params={"secret": "abc"})
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_settings_without_an_address_are_an_error():
    """The error has the two variables to set."""
    with pytest.raises(LabelStudioFailed, match=r"OSPREY_LABEL_STUDIO_URL.*OSPREY_LABEL_STUDIO_TOKEN"):
        LabelStudioApi.from_settings(Settings())
