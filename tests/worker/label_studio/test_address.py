"""Which URLs are Label Studio's own, and how paths become URLs."""

from __future__ import annotations

import pytest

from worker.label_studio.address import LabelStudioAddress


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
    """Where Label Studio is served below a path, task data may repeat that path or not."""
    assert LabelStudioAddress(base_url).absolute(path) == expected


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
    """A URL is Label Studio's own only if scheme, host and port are the same."""
    assert LabelStudioAddress("http://studio:8080").is_own(url) is own


def test_default_ports_are_filled_in():
    """A URL without a port is the same as one with the scheme's default port."""
    assert LabelStudioAddress("https://studio").is_own("https://studio:443/a")
