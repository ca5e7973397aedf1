"""The header that each kind of token leads to."""

from __future__ import annotations

import pytest

from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, make_jwt
from worker.label_studio import credentials
from worker.label_studio.credentials import Credentials


def refuse_exchange(token: str) -> str:
    """Fail: the token must not be exchanged."""
    raise AssertionError(token)


@pytest.mark.parametrize(
    ("token", "header"),
    [
        (None, {}),
        ("ab" * 20, {"Authorization": "Token " + "ab" * 20}),
        (make_jwt("access"), {"Authorization": "Bearer " + make_jwt("access")}),
        ("not.a.jwt", {"Authorization": "Token not.a.jwt"}),
    ],
)
def test_header_follows_the_kind_of_token(token, header):
    """A legacy token is sent as it is, an access token as bearer; only a personal access token needs an exchange."""
    assert Credentials(token, refuse_exchange).header(fresh=True) == header


def test_access_token_is_kept_until_shortly_before_its_end(monkeypatch):
    """An access token is valid for 300 s: it is used again after 239 s and replaced after 241 s."""
    now_s = 1000.0
    monkeypatch.setattr(credentials.time, "monotonic", lambda: now_s)
    exchanged = []
    personal = Credentials(PERSONAL_ACCESS_TOKEN, lambda token: exchanged.append(token) or f"access-{len(exchanged)}")
    assert personal.header() == {"Authorization": "Bearer access-1"}
    now_s += 239
    assert personal.header() == {"Authorization": "Bearer access-1"}
    now_s += 2
    assert personal.header() == {"Authorization": "Bearer access-2"}
    assert exchanged == [PERSONAL_ACCESS_TOKEN] * 2
