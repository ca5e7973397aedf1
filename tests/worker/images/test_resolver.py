"""Claims about resolving images: tokens, the guard, limits, orientation, colour modes, caches and named errors."""

from __future__ import annotations

import base64
import io
import ipaddress
import os

import numpy as np
import pytest
from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt, ImageUnavailable
from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, FakeLabelStudio, Reply, make_jwt
from worker.guarded_http import AllowedHosts, is_public
from worker.images.disk_cache import DiskCache
from worker.images.resolver import ImageResolver
from worker.settings import Settings


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


RED = png(Image.new("RGB", (8, 4), (255, 0, 0)))


@pytest.fixture
def studio():
    server = FakeLabelStudio()
    yield server
    server.close()


@pytest.fixture
def stranger():
    """Another server on loopback, not the configured Label Studio."""
    server = FakeLabelStudio()
    yield server
    server.close()


@pytest.fixture
def make_resolver(tmp_path):
    made = []

    def make(**changes) -> ImageResolver:
        made.append(ImageResolver(Settings(cache_dir=tmp_path, image_timeout_s=2.0, **changes)))
        return made[-1]

    yield make
    for resolver in made:
        resolver.close()


@pytest.fixture
def resolver(studio, make_resolver):
    return make_resolver(label_studio_url=studio.url, label_studio_token=PERSONAL_ACCESS_TOKEN)


def ref(url: str, task_id: int | None = 5) -> ImageRef:
    return ImageRef(url=url, task_id=task_id)


def data_ref(data: bytes) -> ImageRef:
    return ref("data:image/png;base64," + base64.b64encode(data).decode())


def test_personal_access_token_is_exchanged_once_and_sent_as_bearer(studio, resolver):
    """Two images cost one exchange; the token itself is never a header."""
    for name in ("a", "b"):
        studio.replies[f"/data/upload/1/{name}.png"] = Reply(body=RED, needs_token=True)
        assert resolver.resolve(ref(f"/data/upload/1/{name}.png"), (8, 4)).image.getpixel((0, 0)) == (255, 0, 0)
    assert studio.exchanges == 1
    assert {header for _, header in studio.seen} == {"Bearer access-1"}


def test_revoked_access_token_is_exchanged_again(studio, resolver):
    """A 401 with a cached access token leads to one new exchange and the image."""
    studio.replies["/data/upload/1/a.png"] = Reply(body=RED, needs_token=True)
    studio.replies["/data/upload/1/b.png"] = Reply(body=RED, needs_token=True)
    resolver.resolve(ref("/data/upload/1/a.png"))
    studio.valid_access = "another"
    resolver.resolve(ref("/data/upload/1/b.png"))
    assert studio.exchanges == 2


def test_legacy_token_is_sent_as_it_is(studio, make_resolver):
    """A legacy token needs no exchange."""
    studio.legacy_token = "ab" * 20
    studio.replies["/data/local-files/?d=ds/a.png"] = Reply(body=RED, needs_token=True)
    resolver = make_resolver(label_studio_url=studio.url, label_studio_token="ab" * 20)
    assert resolver.resolve(ref("/data/local-files/?d=ds/a.png")).image.size == (8, 4)


def test_refused_token_says_which_setting(studio, make_resolver):
    """The error of a missing, a refused personal and a refused legacy token names the variable."""
    studio.replies["/data/upload/1/a.png"] = Reply(body=RED, needs_token=True)
    for token in (None, make_jwt("refresh") + "x", "ab" * 20):
        resolver = make_resolver(label_studio_url=studio.url, label_studio_token=token)
        with pytest.raises(ImageUnavailable, match="OSPREY_LABEL_STUDIO_TOKEN"):
            resolver.resolve(ref("/data/upload/1/a.png"))


def test_refused_exchange_is_reported_with_the_image(studio, make_resolver):
    """Where an image was asked for, a refused token is an unavailable image, with the image and the reason."""
    resolver = make_resolver(label_studio_url=studio.url, label_studio_token=make_jwt("refresh") + "x")
    with pytest.raises(ImageUnavailable, match=r"image /data/upload/1/a\.png of task 5 .* with a personal") as caught:
        resolver.resolve(ref("/data/upload/1/a.png"))
    assert "into OSPREY_LABEL_STUDIO_TOKEN" in str(caught.value)[:300]  # what the labeling page shows
    assert studio.seen == []


def test_exchange_without_an_answer_is_reported_with_the_image(studio, make_resolver):
    """The same if Label Studio is down when the token has to be exchanged."""
    resolver = make_resolver(label_studio_url=studio.url, label_studio_token=PERSONAL_ACCESS_TOKEN)
    studio.close()
    with pytest.raises(ImageUnavailable, match=r"of task 5 cannot be fetched: .*OSPREY_LABEL_STUDIO_URL"):
        resolver.resolve(ref("/data/upload/1/a.png"))


def test_log_in_redirect_is_a_token_problem(studio, resolver):
    """A redirect to the login page is an error and is not followed."""
    studio.replies["/data/upload/1/a.png"] = Reply(302, headers={"Location": "/user/login/?next=x"})
    with pytest.raises(ImageUnavailable, match="asks to log in"):
        resolver.resolve(ref("/data/upload/1/a.png"))


def test_token_never_reaches_another_origin(studio, stranger, make_resolver):
    """Neither an absolute address nor a redirect from Label Studio takes the token to another server."""
    stranger.replies["/x.png"] = stranger.replies["/y.png"] = Reply(body=RED)
    studio.replies["/data/upload/1/a.png"] = Reply(302, headers={"Location": f"{stranger.url}/y.png"})
    resolver = make_resolver(
        label_studio_url=studio.url, label_studio_token=PERSONAL_ACCESS_TOKEN, image_allow_hosts=("127.0.0.0/8",)
    )
    resolver.resolve(ref(f"{stranger.url}/x.png"))
    resolver.resolve(ref("/data/upload/1/a.png"))
    assert stranger.seen == [("/x.png", None), ("/y.png", None)]


def test_cloud_storage_goes_through_presign(studio, resolver):
    """An s3:// URI is fetched from where Label Studio's presign route of the task redirects to."""
    encoded = base64.urlsafe_b64encode(b"s3://bucket/a.png").decode()
    studio.replies[f"/tasks/5/presign/?fileuri={encoded}"] = Reply(
        303, headers={"Location": "/signed/a.png"}, needs_token=True
    )
    studio.replies["/signed/a.png"] = Reply(body=RED)
    assert resolver.resolve(ref("s3://bucket/a.png")).image.size == (8, 4)
    with pytest.raises(ImageUnavailable, match="names no task"):
        resolver.resolve(ref("s3://bucket/b.png", task_id=None))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"])
def test_private_addresses_are_refused(resolver, host):
    """Nothing is sent to loopback, private, link-local or metadata addresses."""
    with pytest.raises(ImageUnavailable, match="OSPREY_IMAGE_ALLOW_HOSTS"):
        resolver.resolve(ref(f"http://{host}:9/latest/meta-data"))


def test_redirect_to_a_private_address_is_refused(studio, stranger, resolver):
    """Label Studio's own address is allowed, another port of the same host is not."""
    stranger.replies["/secret"] = Reply(body=RED)
    studio.replies["/data/upload/1/a.png"] = Reply(302, headers={"Location": f"{stranger.url}/secret"})
    with pytest.raises(ImageUnavailable, match="refused"):
        resolver.resolve(ref("/data/upload/1/a.png"))
    assert stranger.seen == []


def test_name_that_resolves_to_loopback_is_refused(monkeypatch, stranger, resolver):
    """The address decides, not the name (DNS rebinding)."""
    entry = (2, 1, 6, "", ("127.0.0.1", stranger.port))
    monkeypatch.setattr("worker.guarded_http.socket.getaddrinfo", lambda *args, **kwargs: [entry])
    with pytest.raises(ImageUnavailable, match=r"images\.example\.com resolves to 127\.0\.0\.1"):
        resolver.resolve(ref(f"http://images.example.com:{stranger.port}/a.png"))
    assert stranger.seen == []


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "100.64.0.1",
        "224.0.0.1",
        "fe80::1",
        "fd00::1",
        "0.0.0.0",
    ],
)
def test_disguised_addresses_are_not_public(address):
    """Private IPv4 addresses inside IPv6 addresses and reserved ranges are refused."""
    assert not is_public(ipaddress.ip_address(address))


def test_allow_list_takes_names_addresses_and_networks():
    """An origin is allowed with its port only; names and networks with every port."""
    allowed = AllowedHosts(["images.internal", "10.0.0.0/8"], [("studio", 8080)])
    ten, other = ipaddress.ip_address("10.1.1.1"), ipaddress.ip_address("192.168.1.1")
    assert allowed.allows("x", 80, ten)
    assert allowed.allows("Images.Internal", 80, other)
    assert allowed.allows("studio", 8080, other)
    assert not allowed.allows("studio", 6379, other)
    assert allowed.allows("example.com", 443, ipaddress.ip_address("8.8.8.8"))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(404, b"x"), "gone"),
        (Reply(500, b"x"), "HTTP 500"),
        (Reply(302, headers={"Location": "/data/upload/1/a.png"}), "redirects more than"),
        (Reply(302, headers={"Location": "file:///etc/passwd"}), "not http"),
        (Reply(200, b"x" * 5000), "OSPREY_IMAGE_MAX_BYTES"),
        (Reply(200, RED, delay_s=0.6), "within"),
    ],
)
def test_unavailable_images_say_why(studio, make_resolver, tmp_path, reply, message):
    """Each failed download is one error with the reason and the task."""
    studio.replies["/data/upload/1/a.png"] = reply
    resolver = ImageResolver(
        Settings(cache_dir=tmp_path, label_studio_url=studio.url, image_max_bytes=1000, image_timeout_s=0.3)
    )
    with pytest.raises(ImageUnavailable, match=message) as caught:
        resolver.resolve(ref("/data/upload/1/a.png"))
    assert "task 5" in str(caught.value)
    resolver.close()


def test_gone_image_recovers_when_it_is_back(studio, resolver):
    """A failure is not cached: the next request fetches again."""
    studio.replies["/data/upload/1/a.png"] = Reply(200, b"<html>oops</html>")
    with pytest.raises(ImageCorrupt, match="web page"):
        resolver.resolve(ref("/data/upload/1/a.png"))
    studio.replies["/data/upload/1/a.png"] = Reply(body=RED)
    assert resolver.resolve(ref("/data/upload/1/a.png")).image.size == (8, 4)


def test_dead_server_is_named(make_resolver, studio):
    """A connection that is refused is an unavailable image."""
    resolver = make_resolver(label_studio_url=studio.url)
    studio.close()
    with pytest.raises(ImageUnavailable, match="cannot be fetched"):
        resolver.resolve(ref("/data/upload/1/a.png"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "a.png", "//host/a.png", "ftp://host/a.png", "x://[", ""])
def test_other_addresses_are_refused(resolver, url):
    """Files, relative paths and other schemes are no images of a task."""
    with pytest.raises(ImageUnavailable, match="not an address"):
        resolver.resolve(ref(url))


@pytest.mark.parametrize("url", ["http://[::1/a.png", "http://host:port/a.png", "http:///a.png", "http://"])
def test_malformed_addresses_are_named(resolver, url):
    """A URL that cannot be parsed is an unavailable image, not a crash."""
    with pytest.raises(ImageUnavailable, match=r"malformed|cannot be fetched"):
        resolver.resolve(ref(url))


def test_redirect_to_a_malformed_address_is_named(studio, resolver):
    """The same for the target of a redirect."""
    studio.replies["/data/upload/1/a.png"] = Reply(302, headers={"Location": "http://[::1"})
    with pytest.raises(ImageUnavailable, match="malformed"):
        resolver.resolve(ref("/data/upload/1/a.png"))


def test_missing_label_studio_address_is_named(make_resolver):
    """A path of Label Studio without its address is an error that names the variable."""
    with pytest.raises(ImageUnavailable, match="OSPREY_LABEL_STUDIO_URL"):
        make_resolver().resolve(ref("/data/upload/1/a.png"))


@pytest.mark.parametrize("data", [b"", b"hello", RED[:40], RED[:-20]])
def test_broken_bytes_are_corrupt(make_resolver, data):
    """Bytes that are empty, no image, cut in the header or cut in the pixels are corrupt."""
    noise = png(Image.effect_noise((64, 64), 50).convert("RGB"))
    with pytest.raises(ImageCorrupt, match="replace the file"):
        make_resolver().resolve(data_ref(noise[: len(noise) // 2] if data == RED[:-20] else data))


def test_postscript_is_not_opened(make_resolver):
    """Formats that start other programs are refused."""
    with pytest.raises(ImageCorrupt):
        make_resolver().resolve(data_ref(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"))


def test_too_many_pixels_are_refused_before_decoding(make_resolver):
    """The error names the variable of the limit."""
    with pytest.raises(ImageUnavailable, match="OSPREY_IMAGE_MAX_PIXELS"):
        make_resolver(image_max_pixels=31).resolve(data_ref(RED))


def test_data_url_without_base64(make_resolver):
    """Percent-encoded data is decoded; broken base64 is corrupt."""
    url = "data:image/png," + "".join(f"%{byte:02x}" for byte in RED)
    assert make_resolver().resolve(ref(url)).image.size == (8, 4)
    with pytest.raises(ImageCorrupt, match="base64"):
        make_resolver().resolve(ref("data:image/png;base64,???"))


def test_exif_orientation_is_applied(make_resolver):
    """A photo that is stored rotated is turned upright, as the browser shows it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    image = Image.new("RGB", (8, 4), (0, 0, 255))
    image.putpixel((0, 0), (255, 0, 0))
    resolved = make_resolver().resolve(data_ref(png(image, exif=exif)), (4, 8))
    assert resolved.image.getpixel((3, 0)) == (255, 0, 0)


def test_another_size_than_shown_is_an_error(make_resolver):
    """The error has both sizes."""
    with pytest.raises(ImageCorrupt, match="8x4 pixels, but Label Studio showed 4x8"):
        make_resolver().resolve(data_ref(RED), (4, 8))


def test_replaced_file_is_fetched_again(studio, make_resolver):
    """A cached image of another size than the page shows is fetched again."""
    studio.replies["/data/upload/1/a.png"] = Reply(body=png(Image.new("RGB", (4, 8))))
    resolver = make_resolver(label_studio_url=studio.url)
    resolver.resolve(ref("/data/upload/1/a.png"), (4, 8))
    studio.replies["/data/upload/1/a.png"] = Reply(body=RED)
    assert resolver.resolve(ref("/data/upload/1/a.png"), (8, 4)).image.size == (8, 4)


def _palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (2, 1), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 1), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (2, 1), (0, 0)), (255, 255, 255)),
        (_palette(), (255, 0, 0)),
        (Image.new("1", (2, 1), 1), (255, 255, 255)),
        (Image.fromarray(np.full((1, 2), 65_535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((1, 2), 257 * 100, np.uint16)), (100, 100, 100)),
    ],
    ids=["clear", "opaque", "grey-clear", "palette", "bilevel", "16-bit-white", "16-bit-grey"],
)
def test_every_mode_becomes_rgb(make_resolver, image, expected):
    """Transparent is white, 16 bits are scaled, palettes are looked up."""
    resolved = make_resolver().resolve(data_ref(png(image)))
    assert resolved.image.mode == "RGB"
    assert resolved.image.getpixel((0, 0)) == expected


def test_second_process_reads_the_disk_cache(studio, make_resolver):
    """One download serves both workers, and the hash is of the downloaded bytes."""
    studio.replies["/data/upload/1/a.png"] = Reply(body=RED)
    first = make_resolver(label_studio_url=studio.url).resolve(ref("/data/upload/1/a.png"))
    second = make_resolver(label_studio_url=studio.url).resolve(ref("/data/upload/1/a.png"))
    assert len(studio.seen) == 1
    assert first.sha256 == second.sha256


def test_decoded_images_are_bounded(tmp_path):
    """The oldest decoded image is removed above the limit; the newest one is kept."""
    resolver = ImageResolver(Settings(cache_dir=tmp_path), decoded_bytes=150)
    refs = [data_ref(png(Image.new("RGB", (8, 4), (shade, 0, 0)))) for shade in (1, 2)]
    first = resolver.resolve(refs[0])
    assert resolver.resolve(refs[0]) is first
    resolver.resolve(refs[1])
    assert resolver.resolve(refs[0]) is not first
    resolver.close()


def test_disk_cache_evicts_what_was_used_longest_ago(tmp_path):
    """Above its limit the cache removes files in the order of their last use, down to 80 %."""
    cache = DiskCache(tmp_path, max_bytes=100)
    for position, key in enumerate("abc"):
        cache.put(key, key.encode() * 30)
        os.utime(cache._path(key), (position, position))
    assert cache.get("a") == b"a" * 30  # now the newest
    cache.put("d", b"d" * 30)
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= 80
    assert not list(tmp_path.glob("**/*.new"))


def test_secrets_in_addresses_are_not_shown(resolver):
    """Error texts have neither passwords nor signatures of URLs."""
    with pytest.raises(ImageUnavailable) as caught:
        resolver.resolve(ref("http://user:hunter2@127.0.0.1:9/a.png?X-Amz-Signature=abc"))
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)
