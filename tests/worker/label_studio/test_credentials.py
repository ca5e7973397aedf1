"""Label Studio's address and tokens, without a server."""

from __future__ import annotations

import pytest

from tests.support.fake_label_studio import make_jwt
from worker.guarded_http import AllowedHosts, GuardedHttp
from worker.label_studio.credentials import LabelStudio


def make(base_url: str = "http://studio:8080", token: str | None = None) -> LabelStudio:
    return LabelStudio(base_url, token, GuardedHttp(AllowedHosts(), 1.0))


@pytest.mark.parametrize(
    ("base_url", "path", "expected"),
    [
        ("http://studio:8080", "/data/upload/1/a.png", "http://studio:8080/data/upload/1/a.png"),
        ("http://studio:8080/", "/data/a.png", "http://studio:8080/data/a.png"),
        ("https://x.org/labels", "/labels/data/a.png", "https://x.org/labels/data/a.png"),
        ("https://x.org/labels", "/data/a.png", "https://x.org/labels/data/a.png"),
    ],
)
def test_paths_become_addresses_below_the_base(base_url, path, expected):
    """Also where Label Studio is served below a path, which task data may or may not repeat."""
    assert make(base_url).absolute(path) == expected


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://studio:8080/x", True),
        ("http://STUDIO:8080/x", True),
        ("https://studio:8080/x", False),
        ("http://studio/x", False),
        ("http://studio:8080@evil.org/x", False),
    ],
)
def test_own_means_same_scheme_host_and_port(url, own):
    assert make().is_own(url) is own


def test_default_ports_are_filled_in():
    assert make("https://studio").is_own("https://studio:443/a")


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
    """A legacy token as it is, an access token as bearer; only a personal access token needs an exchange."""
    assert make(token=token).headers() == header
