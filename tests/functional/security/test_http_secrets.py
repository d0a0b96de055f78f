"""No secret comes out: not in errors, their causes and tracebacks, nor in any log record."""

import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_tools import chain, into_memory, quick, record
from servers.files import CutAfter, File, Redirect, ResetAfter, Status
from servers.message import basic
from servers.raw import Recv, Send, Stall, reply, serve

from pulpcore.plugin.download.futures import (
    SSL,
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadError,
    HttpDownload,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context

# What must not be seen, as it is given, and as it goes over the wire.
SECRET = "hunter2SECRET"
FORMS = [
    SECRET,
    basic("me", SECRET).partition(" ")[2],
    basic("", SECRET).partition(" ")[2],
    basic(SECRET, "").partition(" ")[2],
    SECRET[:7],
]
DOORS: dict[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
    "userinfo": lambda host, path: (f"http://me:{SECRET}@{host}{path}", {}),
    "userinfo alone": lambda host, path: (f"http://{SECRET}@{host}{path}", {}),
    "user": lambda host, path: (f"http://{host}{path}", {"user": User("me", SECRET)}),
    "user alone": lambda host, path: (f"http://{host}{path}", {"user": User(SECRET)}),
    "query": lambda host, path: (f"http://{host}{path}?x=1&token={SECRET}&y", {}),
    "query without name": lambda host, path: (f"http://{host}{path}?{SECRET}", {}),
    "fragment": lambda host, path: (f"http://{host}{path}#{SECRET}", {}),
    "Authorization": lambda host, path: (
        f"http://{host}{path}",
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
    ),
    "Cookie": lambda host, path: (f"http://{host}{path}", {"headers": {"cookie": f"a={SECRET}"}}),
    "Proxy-Authorization": lambda host, path: (
        f"http://{host}{path}",
        {"headers": {"Proxy-Authorization": f"Basic {SECRET}"}},
    ),
}
FAULTS: dict[str, Any] = {
    "well": None,
    "not found": Status(404, (), SECRET.encode()),
    "unauthorized": Status(401, {"WWW-Authenticate": f'Basic realm="{SECRET}"'}),
    "unavailable": Status(503, {"Retry-After": SECRET}),
    "cut": CutAfter(3),
    "reset": ResetAfter(0, whole=True),
    "no reply": CutAfter(0, whole=True),
}


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All texts that came out, to which the log records are added; none may have a secret."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    formatter = logging.Formatter("%(name)s %(message)s")
    for item in caplog.records:
        texts += [formatter.format(item), repr(item.args), str(item.msg)]
    assert len(texts) > 3
    for text in texts:
        for form in FORMS:
            assert form not in text, text


def run(download: HttpDownload, seen: list[str]) -> BaseException | None:
    """Run a download, and keep all that can be read of it and of what it raises."""
    events = record(download)
    error: BaseException | None = None
    try:
        download()
    except DownloadError as caught:
        error = caught
        seen += traceback.format_exception(caught)
        seen += [caught.reason, str(caught.args), repr(caught.facts)]
        for item in chain(caught):
            seen += [str(item), repr(item)]
    seen += [str(download), repr(download), repr(download.user), repr(download.ssl)]
    seen += [repr(download.timeout), repr(download.context), repr(download.context.cache)]
    seen += [repr(download.reply), repr(download.writer), repr(download.validations)]
    seen += [repr(event) for event in events]
    seen += [str(getattr(event, "error", "")) for event in events]
    return error


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("door", DOORS)
def test_doors(file_server: Any, seen: list[str], door: str, fault: str) -> None:
    """Each door by which a secret comes in, with each kind of failure."""
    found = FAULTS[fault]
    server = file_server({"/a": b"content"}, faults=lambda index, request: found)
    url, options = DOORS[door](server.host, "/a")
    error = run(into_memory(url, quick(1), **options), seen)
    assert (error is None) is (found is None)
    assert server.count


# Where a server may put a secret that it was sent; `{host}` is its own.
REPEATED = {
    "path": "/x/{secret}/b",
    "path, encoded": "/x{encoded}",
    "relative": "{secret}",
    "query": "/?{secret}",
    "nobody there": "http://127.0.0.1:1/{secret}",
    "host": "http://{secret}.invalid/",
    "userinfo": "http://{secret}:{secret}@{host}/b",
    "no URL": "http://{host}:{secret}/",
    "scheme": "{secret}://x/",
    "again": "/again/{secret}",
}


@pytest.mark.parametrize("place", REPEATED)
@pytest.mark.parametrize("door", [door for door in DOORS if door != "fragment"])
def test_repeated_by_a_redirect(
    raw_server: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch, door: str, place: str
) -> None:
    """A server may repeat what it was sent in the URL that it redirects to."""
    encoded = "".join(f"%{ord(character):02x}" for character in SECRET)

    def unknown(*args: Any, **kwargs: Any) -> Any:
        if args[0] not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror(-2, f"Name {args[0]} not known")
        return real(*args, **kwargs)

    def answer(request: Any) -> bytes:
        location = REPEATED[place].format(secret=SECRET, encoded=encoded, host=server.host)
        is_first = len(server.requests) == 1 or place == "again"
        return reply(302, {"Location": location}) if is_first else reply(404)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    server = raw_server([serve(answer)])
    url, options = DOORS[door](server.host, "/a")
    assert run(into_memory(url, quick(1), **options), seen)


def test_basic_that_is_repeated(raw_server: Any, seen: list[str]) -> None:
    """A password that was given as a header, in base64, is known as well as one of `user`."""
    server = raw_server([serve(reply(302, {"Location": f"http://127.0.0.1:1/{SECRET}"}))])
    headers = {"Authorization": basic("me", SECRET), "Proxy-Authorization": b"Basic !"}
    assert run(into_memory(server.url("/a"), headers=headers), seen)


@pytest.mark.parametrize("door", DOORS)
def test_nobody_there(seen: list[str], door: str) -> None:
    """A connection that can't be made."""
    url, options = DOORS[door]("127.0.0.1:1", "/a")
    assert run(into_memory(url, quick(1), **options), seen)


@pytest.mark.parametrize("door", DOORS)
def test_mismatch(file_server: Any, seen: list[str], door: str) -> None:
    """A failed validation, enforced and not."""
    server = file_server({"/a": b"content"})
    url, options = DOORS[door](server.host, "/a")
    download = into_memory(url, **options)
    download.validations += [SizeValidation(9, enforced=False), DigestValidation("md5", "0" * 32)]
    assert run(download, seen)


@pytest.mark.parametrize("door", DOORS)
def test_time_out(raw_server: Any, seen: list[str], door: str) -> None:
    """A server that goes silent."""
    server = raw_server([[Recv(), Stall()]])
    url, options = DOORS[door](server.host, "/a")
    assert run(into_memory(url, timeout=Timeout(read=0.1), **options), seen)


@pytest.mark.parametrize("door", DOORS)
def test_framing(raw_server: Any, seen: list[str], door: str) -> None:
    """A reply that can't be trusted, and that repeats what it was sent."""
    server = raw_server(
        [
            [Recv(), Send(b"HTTP/1.1 200 OK\r\n" + SECRET.encode() + b"\r\n\r\n")],
            [
                Recv(),
                Send(reply(headers={"Transfer-Encoding": "chunked"}) + SECRET.encode() + b"\r\n"),
            ],
            [Recv(), Send(f"{SECRET}\r\n\r\n".encode())],
        ]
    )
    url, options = DOORS[door](server.host, "/a")
    for _ in range(3):
        assert run(into_memory(url, **options), seen)


@pytest.mark.parametrize("door", DOORS)
def test_redirect(file_server: Any, seen: list[str], door: str) -> None:
    """A redirect, with a secret in its Location too, to somewhere and to nowhere."""
    server = file_server({"/b": b"content"})
    server.files |= {
        "/well": Redirect(f"/b?token={SECRET}", headers={"Set-Cookie": f"a={SECRET}"}),
        "/userinfo": Redirect(f"http://me:{SECRET}@{server.host}/b"),
        "/gone": Redirect(f"/none?token={SECRET}"),
        "/refused": Redirect(f"http://me:{SECRET}@127.0.0.1:1/none?{SECRET}"),
        "/scheme": Redirect(f"ftp://me:{SECRET}@127.0.0.1:1/none?{SECRET}"),
        "/port": Redirect(f"http://me:{SECRET[:4]}/{SECRET[4:]}@127.0.0.1:1/?a={SECRET}"),
        "/no-port": Redirect(f"http://127.0.0.1:{SECRET}/"),
        "/bracket": Redirect(f"http://me:{SECRET}@[::1/"),
        "/loop": Redirect(f"/loop?token={SECRET}"),
    }
    for path in server.files:
        url, options = DOORS[door](server.host, path)
        run(into_memory(url, **options), seen)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:{}@[::1/",
        "http://me:{}@127.0.0.1:port/",
        "http://me:{}@127.0.0.1:99999/",
        "http://me:{}@a b/",
        "http://me:{}@\u2100.example/",
        "http://me:x/{}@127.0.0.1:1/",
        "http://me:{}/x@127.0.0.1:1/",
        "http://me:{}?x@127.0.0.1:1/",
        "http://me:{}#x@127.0.0.1:1/",
        "http://me:x@{}@127.0.0.1:1/",
        "http://me:{} x@127.0.0.1:1/",
        "http://me:{}\nx@127.0.0.1:1/",
        "http:me:{}@127.0.0.1:1/",
        "http:/me:{}@127.0.0.1:1/",
        "//me:{}@127.0.0.1:1/",
        "me:{}@127.0.0.1:1/",
        "ftp://me:{}@127.0.0.1:1/",
        "http://127.0.0.1:1/a?b={}%zz",
        "http://127.0.0.1:1/a;b?c=d;e={}",
        "http://127.0.0.1:1/a?b=c?d={}",
        "http://127.0.0.1:1?{}",
    ],
)
def test_odd_urls(seen: list[str], url: str) -> None:
    """A URL with a secret that isn't well-formed, or hides it well."""
    seen += [""] * 4
    assert run(into_memory(url.format(SECRET), quick(0)), seen)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("path", ["/a", "/none"])
@pytest.mark.parametrize("right", [True, False])
def test_proxy(
    file_server: Any, proxy: Any, tls: Any, seen: list[str], scheme: str, path: str, right: bool
) -> None:
    """Credentials of a proxy, right and wrong, for both kinds of target."""
    server = file_server({"/a": b"content"}, tls=tls.server() if scheme == "https" else None)
    gate = proxy(user=("me", SECRET if right else "other"))
    run(
        into_memory(
            server.url(f"{path}?token={SECRET}", userinfo=f"me:{SECRET}"),
            quick(1),
            proxy_url=gate.url("", userinfo=f"me:{SECRET}"),
            ssl=SSL(ca_certificate=str(tls.ca)),
        ),
        seen,
    )
    assert gate.requests


@pytest.mark.parametrize("by", ["proxy_url", "environment"])
@pytest.mark.parametrize(
    "url",
    [
        "http://me:{}@127.0.0.1:1",
        "me:{}@127.0.0.1:1",
        "http://{}@127.0.0.1:1",
        "http://me:{}@127.0.0.1:port",
        "http://me:{}@[::1",
        "http://me:x/{}@127.0.0.1:1",
        "http://me:{}/x@127.0.0.1:1",
        "http://me:{}#x@127.0.0.1:1",
        "http://me:{} x@127.0.0.1:1",
        "http://me:{}@",
        "ftp://me:{}@127.0.0.1:1",
        "socks5://me:{}@127.0.0.1:1",
        "https://me:{}@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_odd_proxies(
    seen: list[str], monkeypatch: pytest.MonkeyPatch, url: str, by: str, scheme: str
) -> None:
    """A proxy that isn't there, and proxies' URLs that aren't well-formed."""
    options: dict[str, Any] = {}
    if by == "proxy_url":
        options["proxy_url"] = url.format(SECRET)
    else:
        monkeypatch.setenv(f"{scheme}_proxy", url.format(SECRET))
    seen += [""] * 4
    assert run(into_memory(f"{scheme}://127.0.0.1:1/", quick(0), **options), seen)


def test_netrc(file_server: Any, seen: list[str]) -> None:
    """Credentials of a netrc file."""
    (Path.home() / ".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}")
    (Path.home() / ".netrc").chmod(0o600)
    server = file_server({"/a": b"content"})
    run(into_memory(server.url("/a")), seen)
    assert server.requests[0].header("Authorization") == basic("me", SECRET)
    assert run(into_memory(server.url("/none")), seen)


def test_broken_netrc(file_server: Any, seen: list[str]) -> None:
    """A netrc file that isn't well-formed."""
    (Path.home() / ".netrc").write_text(f"machine 127.0.0.1 login me {SECRET} {SECRET}")
    (Path.home() / ".netrc").chmod(0o600)
    server = file_server({"/a": b"content"})
    seen += [""] * 4
    assert run(into_memory(server.url("/a")), seen) is None


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Mine"])
@pytest.mark.parametrize("value", ["{}\r\nX: y", "{}€", " {}", "{}\0"])
def test_bad_headers(seen: list[str], name: str, value: str) -> None:
    """A header that can't be sent."""
    seen += [""] * 4
    headers = {name: value.format(SECRET)}
    assert run(into_memory("http://127.0.0.1:1/", headers=headers), seen)


def test_settings(seen: list[str], tls: Any) -> None:
    """Settings that can't work, and PEM text."""
    seen += [""] * 4
    key = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
    certificate = tls.client.certificate.read_text()
    for options in (
        {"user": User("me", SECRET.encode())},  # type: ignore[arg-type]
        {"ssl": SSL(client_key=key)},
        {"ssl": SSL(client_certificate=certificate, client_key=key)},
        {"ssl": SSL(ca_certificate=key)},
    ):
        assert run(into_memory("https://127.0.0.1:1/", **options), seen)
    for user in (User(SECRET), User(SECRET, ""), User("me", SECRET), User(None, SECRET)):
        seen += [str(user), repr(user)]


def test_disk(file_server: Any, seen: list[str]) -> None:
    """A target that can't be written, and a buffer that is full."""
    server = file_server({"/a": b"content"})
    url = server.url(f"/a?token={SECRET}", userinfo=f"me:{SECRET}")
    download = into_memory(url)
    download.writer = BufferWriter(limit=3)
    assert run(download, seen)


def test_batch(file_server: Any, seen: list[str]) -> None:
    """What plans say, and what a handler that raises is logged with."""
    server = file_server({"/a": b"content"})

    def bug(event: Any) -> None:
        raise RuntimeError("bug")

    downloads = []
    for path in ("/a", "/none"):
        url = server.url(f"{path}?token={SECRET}", userinfo=f"me:{SECRET}")
        downloads.append(into_memory(url))
        downloads[-1].register("SUCCEEDED", bug)
        downloads[-1].register("ERROR", bug)
    with Batch(downloads) as batch:
        for plan in batch():
            seen += [str(plan), repr(plan), str(plan.error), repr(batch), repr(batch.iterator)]


def test_bug_in_the_middle(file_server: Any, seen: list[str]) -> None:
    """A run that ends by a bug is over in the log as well."""

    class Broken(SizeValidation):
        def update(self, buffer: bytes) -> None:
            raise KeyError("bug")

    server = file_server({"/a": b"content"})
    download = into_memory(server.url(f"/a?token={SECRET}"))
    download.validations.append(Broken(1))
    with pytest.raises(KeyError) as caught:
        download()
    seen += [*traceback.format_exception(caught.value), *["", "", ""]]


def test_stale(raw_server: Any, seen: list[str]) -> None:
    """A connection that went stale, and is logged to be dropped."""
    server = raw_server([[Recv(), Send(reply(body=b"content"))]])
    context = Context()
    for _ in range(3):
        download = into_memory(server.url(f"/a?token={SECRET}"))
        download.context = context
        assert run(download, seen) is None
        server.until(lambda: server.open_connections == 0)
    context.close()


def test_cause_has_its_type(file_server: Any, seen: list[str]) -> None:
    """Redaction leaves the type of a cause, and what helps to find the fault."""
    import requests

    error = run(into_memory(f"http://me:{SECRET}@127.0.0.1:1/a?token={SECRET}"), seen)
    assert isinstance(error.__cause__, requests.ConnectionError)  # type: ignore[union-attr]
    assert "token=" in str(error)
    assert "127.0.0.1" in str(error.__cause__)  # type: ignore[union-attr]


def test_others_keep_their_logs(file_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What others log by urllib3 is theirs, and left as it is."""
    import urllib3

    caplog.set_level(logging.DEBUG)
    server = file_server({"/a": File(b"content")})
    run(into_memory(server.url("/a?q=mine")), [])
    with urllib3.PoolManager() as manager:
        manager.request("GET", server.url("/a?q=theirs"))
    assert "q=theirs" in caplog.text
    assert "q=mine" not in caplog.text
    assert "q=***" in caplog.text
