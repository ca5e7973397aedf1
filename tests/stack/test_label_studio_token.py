"""Claims about the workers' token: when it is valid, and how a new one is made."""

from __future__ import annotations

import json
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

import pytest

from stack.label_studio_token import make_token, token_works
from stack.settings import StackError
from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, FakeLabelStudio, Reply, _send, make_jwt

LOGIN = ("admin@example.com", "right")


class LoginPage(FakeLabelStudio):
    """Answers a login as Label Studio 1.23.2 does, and its token routes to the session only."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = ["old"]

    def answer_get(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/user/login/":
            _send(request, Reply(200, b"<html>", {"Set-Cookie": "csrftoken=c1"}))
        elif self._is_session(request):
            _send(request, Reply(200, json.dumps([{"token": token} for token in self.tokens]).encode()))
        else:
            super().answer_get(request)

    def answer_post(self, request: BaseHTTPRequestHandler) -> None:
        if request.path not in ("/user/login/", "/api/token/", "/api/token/blacklist/"):
            super().answer_post(request)
            return
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.path == "/user/login/":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            fits = (form["email"], form["password"]) == LOGIN and form["csrfmiddlewaretoken"] == "c1"
            reply = Reply(302, headers={"Set-Cookie": "sessionid=s1", "Location": "/"}) if fits else Reply(200, b"no")
        elif not self._is_session(request):
            reply = Reply(401)
        elif request.path == "/api/token/blacklist/":
            self.tokens.remove(json.loads(body)["refresh"])
            reply = Reply(204)
        else:
            reply = Reply(409) if self.tokens else Reply(201, json.dumps({"token": PERSONAL_ACCESS_TOKEN}).encode())
        _send(request, reply)

    def _is_session(self, request: BaseHTTPRequestHandler) -> bool:
        cookies = request.headers.get("Cookie") or ""
        is_safe = request.command == "GET" or request.headers.get("X-CSRFToken") == "c1"
        return "sessionid=s1" in cookies and is_safe and request.headers.get("Referer") == self.url


@pytest.fixture
def server():
    with closing(LoginPage()) as server:
        yield server


def test_new_token_replaces_the_old_one(server):
    """Label Studio keeps one valid token per user, so the old one is revoked first."""
    assert make_token(server.url, *LOGIN) == PERSONAL_ACCESS_TOKEN
    assert server.tokens == []


def test_refused_login_names_the_file_to_change(server):
    """If the password was changed in Label Studio, the error names the file that has to be changed."""
    with pytest.raises(StackError, match=r"admin@example\.com, got 200; .*secrets\.json"):
        make_token(server.url, LOGIN[0], "wrong")


@pytest.mark.parametrize(
    ("token", "works"),
    [(PERSONAL_ACCESS_TOKEN, True), (make_jwt("refresh") + "x", False), ("", False), ("ab" * 20, False)],
)
def test_token_works_if_label_studio_exchanges_it(server, token, works):
    """A token that is missing, revoked or of another kind does not work."""
    assert token_works(server.url, token) is works


def test_label_studio_without_an_answer_is_an_error_of_the_stack(server):
    """If Label Studio does not answer, the error is one that `make up` prints without a traceback."""
    server.close()
    for ask in (lambda: token_works(server.url, PERSONAL_ACCESS_TOKEN), lambda: make_token(server.url, *LOGIN)):
        with pytest.raises(StackError, match=server.url):
            ask()
