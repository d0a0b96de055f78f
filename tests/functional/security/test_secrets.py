"""Tests that no secret is shown. Secrets are given in every possible way, and servers echo them."""

import base64
import contextlib
import copy
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import pytest
import requests
from http_tools import chain, into_memory, quick, record
from servers.files import CutAfter, File, Redirect, ResetAfter, Status
from servers.message import basic
from servers.raw import Close, Read, Recv, Send, Stall, reply, serve

from pulpcore.plugin.download.futures import (
    SSL,
    Batch,
    BufferWriter,
    DigestValidation,
    Download,
    DownloadError,
    Factory,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.auth import BearerAuth
from pulpcore.plugin.download.futures.context import Context

# Each way of giving a secret has a secret of its own, so that a leak tells where it came from. An
# apostrophe is sent literally in a query, and ends what looks like a URL in many texts.
MARK = "zq7"
DOORS = [
    *("user", "password", "url-user", "url-password", "query", "nameless", "quoted'", "fragment"),
    *("authorization", "cookie", "proxy-authorization", "proxy-user", "proxy-password"),
    *("environment-user", "environment-password", "netrc-password", "default-password"),
    *("auth-header", "auth-query", "token", "token-password"),
    *("key", "key-password", "location-user", "location-query", "location-fragment"),
]


def secret(door: str) -> str:
    """Return the secret for one way of giving it, so that a leak tells where it came from."""
    assert door in DOORS
    return f"{MARK}{door.replace('-', '')}{MARK}"


KEY = f"-----BEGIN PRIVATE KEY-----\n{secret('key')}\n-----END PRIVATE KEY-----\n"
QUERY = (
    f"?token={secret('query')}&{secret('nameless')}&q='{secret(DOORS[6])}'&x=1;y={secret('query')}"
)


def leaks(text: str) -> list[str]:
    """Return the parts of a text with a secret: plain, percent-encoded, or in base64."""
    found = [text[max(0, at - 60) : at + 80] for at in _places(text, MARK)]
    if MARK in unquote(text).lower() and not found:
        found.append(text)
    for word in text.replace('"', " ").replace("'", " ").split():
        with contextlib.suppress(ValueError):
            if MARK.encode() in base64.b64decode(word, validate=True):
                found.append(word)
    return found


def _places(text: str, part: str) -> Iterator[int]:
    at = text.lower().find(part)
    while at >= 0:
        yield at
        at = text.lower().find(part, at + 1)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a netrc file with secrets."""
    netrc = Path.home() / ".netrc"
    netrc.write_text(
        f"machine 127.0.0.1 login me password {secret('netrc-password')}\n"
        f"default login me password {secret('default-password')}\n"
    )
    netrc.chmod(0o600)


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect all shown texts and all log records at DEBUG. At the end none has a secret."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    # Those of this phase alone are in `caplog.records`, and this one is the teardown.
    for item in caplog.get_records("call"):
        texts += [formatter.format(item), repr(item.args), str(item.msg)]
    assert texts
    assert [leak for text in texts for leak in leaks(text)] == []


def look(thing: Any, seen: list[str]) -> None:
    """Collect the texts of an object."""
    seen += [str(thing), repr(thing), f"{thing}"]


def run(download: Download, seen: list[str], shared: Context | None = None) -> DownloadError | None:
    """Run a download in a batch. Collect all texts of it, its events and its errors."""
    events = record(download)  # type: ignore[arg-type]
    context = shared or Context(token=secret("authorization"))
    error = None
    with Batch([download], context=context) as batch:
        (plan,) = batch()
        with contextlib.suppress(LookupError):
            context.cache.get(("nothing", secret("password")))
        try:
            plan.result()
        except DownloadError as caught:
            error = caught
            seen += traceback.format_exception(caught)
            for item in chain(caught):
                look(item, seen)
                seen += [repr(item.args), str(getattr(item, "__notes__", ""))]
            seen += [caught.reason, repr(caught.facts)]
            pickled = pickle.dumps(caught)
            seen.append(pickled.decode("latin-1"))
            look(pickle.loads(pickled), seen)
            look(copy.copy(caught), seen)
        for thing in (batch, batch.iterator, plan, plan.error, context, context.cache, events):
            look(thing, seen)
    for thing in (download, download.writer, download.validations, download.reply, download.router):
        look(thing, seen)
    for name in ("user", "ssl", "timeout", "retry", "session", "auth"):
        with contextlib.suppress(ValueError):
            look(getattr(download, name, None), seen)
    for event in events:
        look(getattr(event, "error", None), seen)
    look(download.clone(), seen)
    if shared is None:
        context.close()
    return error


def echo(request: Any, status: int = 200, **headers: str) -> bytes:
    """Make a response that repeats the whole request wherever it can."""
    said = " ".join(request.lines)
    fields = {
        "WWW-Authenticate": f'Basic realm="{said}"',
        "Proxy-Authenticate": f'Basic realm="{said}"',
        "X-Echo": said,
        "Set-Cookie": f"a={quote(said)}",
        "ETag": f'"{quote(said)}"',
        "Content-Disposition": f'attachment; filename="{quote(said)}"',
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return reply(status, fields, said.encode(), reason=said)


def said(request: Any) -> str:
    """Return the whole request in one line."""
    return " ".join(request.lines)


def challenge(request: Any, path: str) -> str:
    """Make the challenge of a registry, whose realm is a path on the same server."""
    words = said(request).replace('"', "")
    realm = f"http://{request.header('Host')}{path}"
    return f'Bearer realm="{realm}",service="{words}",scope="{words}"'


def to(location: str) -> Callable[[Any], bytes]:
    """Make a function that answers with a redirect whose Location has all kinds of secrets."""

    def answer(request: Any) -> bytes:
        if "location" in request.target:
            return echo(request, 404)
        return echo(request, 302, Location=location.format(said=quote(said(request))))

    return answer


USERINFO = f"{secret('location-user')}:{secret('location-user')}@"
TAIL = f"?token={secret('location-query')}&it's='{secret('location-query')}'"
TAIL += f"#{secret('location-fragment')}"
ANSWERS: dict[str, Callable[[Any], bytes]] = {
    "well": echo,
    **{
        f"{status}": (lambda request, status=status: echo(request, status))
        for status in (204, 206, 304, 401, 403, 404, 407, 418, 429, 503, 799)
    },
    "challenge": lambda r: echo(r, 401, WWW_Authenticate=challenge(r, "/realm")),
    "challenge with all": lambda r: echo(
        r, 401, WWW_Authenticate=challenge(r, f"/{quote(said(r))}")
    ),
    "retry-after": lambda r: echo(r, 503, Retry_After=said(r)),
    "retry-later": lambda r: echo(r, 503, Retry_After="99999"),
    "coding": lambda r: echo(r, Content_Encoding=said(r)),
    "broken gzip": lambda r: echo(r, Content_Encoding="gzip", Content_Type="text/html"),
    "range": lambda r: echo(r, 206, Content_Range=said(r)),
    "length": lambda r: echo(r, Content_Length=said(r)),
    "lengths": lambda r: reply(200, [("Content-Length", "1"), ("Content-Length", said(r))]),
    "transfer coding": lambda r: echo(r, Transfer_Encoding=said(r)),
    "chunk": lambda r: echo(r, Transfer_Encoding="chunked"),
    "field": lambda r: b"HTTP/1.1 200 OK\r\n" + said(r).replace(":", "").encode() + b"\r\n\r\n",
    "folded": lambda r: b"HTTP/1.1 200 OK\r\n " + said(r).encode() + b"\r\n\r\n",
    "status line": lambda r: said(r).encode() + b"\r\n\r\n",
    "status": lambda r: b"HTTP/1.1 " + said(r).encode() + b"\r\n\r\n",
    "interim": lambda r: b"HTTP/1.1 101 " + said(r).encode() + b"\r\n\r\n",
    "short": lambda r: echo(r, Content_Length="999999"),
    "redirect": to("/location" + TAIL),
    "redirect with all": to("/location?all={said}"),
    "redirect with userinfo": to("http://" + USERINFO + "127.0.0.1:1/location" + TAIL),
    "redirect to another host": to("http://" + USERINFO + "localhost:1/location" + TAIL),
    "redirect to nowhere": to("http://" + USERINFO + "[::1/" + TAIL),
    "redirect to a bad port": to("http://127.0.0.1:" + secret("location-user") + "/" + TAIL),
    "redirect to a bad scheme": to(secret("location-user") + ":x@h/" + TAIL),
    "redirect to a file": to("file://" + USERINFO + "/etc/passwd" + TAIL),
    "redirect for ever": to("/" + TAIL),
}


def remote(**more: Any) -> SimpleNamespace:
    """Make a remote with a secret in each attribute that may have one."""
    return SimpleNamespace(
        username="me",
        password=secret("password"),
        proxy_username=secret("proxy-user"),
        proxy_password=secret("proxy-password"),
        headers=[
            {"Cookie": f"session={secret('cookie')}"},
            {"Proxy-Authorization": f"Basic {secret('proxy-authorization')}"},
        ],
        max_retries=0,
        **more,
    )


def build(url: str, settings: Any) -> HttpDownload:
    """Make a download into memory by a factory."""
    download = Factory(settings).build(url, "a")
    assert isinstance(download, HttpDownload)
    download.writer = BufferWriter()
    return download


def url_with_secrets(host: str, scheme: str = "http") -> str:
    """Make a URL with a secret in each of its parts."""
    userinfo = f"{secret('url-user')}:{secret('url-password')}"
    return f"{scheme}://{userinfo}@{host}/a{QUERY}#{secret('fragment')}"


def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add secrets to a request, as a caller's callable does."""
    request.headers["X-Api-Key"] = secret("auth-header")
    request.url = f"{request.url}&signature={secret('auth-query')}"
    return request


def ways(download: HttpDownload, way: str) -> HttpDownload:
    """Keep one kind of credentials for the server, because only one is sent at a time."""
    if way != "remote":
        download.user = User()
    if way == "header":
        download.headers["Authorization"] = f"Bearer {secret('authorization')}"
    if way == "auth":
        download.auth = sign
    if way == "token":
        download.auth = BearerAuth(lambda: secret("token"))
    if way == "registry":
        download.auth = BearerAuth(user=("me", secret("token-password")))
    if way == "netrc":
        download.url = download.url.replace(
            f"{secret('url-user')}:{secret('url-password')}@", "", 1
        )
    return download


@pytest.mark.parametrize(
    "way",
    ["remote", "userinfo", "header", "netrc", "auth", "token", "registry"],
)
@pytest.mark.parametrize("kind", ANSWERS)
def test_server(raw_server: Any, seen: list[str], kind: str, way: str) -> None:
    """No secret is shown when a server echoes the request in any part of its response."""
    server = raw_server(lambda _: [Recv(), Send(ANSWERS[kind]), Close()])
    error = run(ways(build(url_with_secrets(server.host), remote()), way), seen)
    assert MARK in server.requests[0].raw.decode()
    assert (error is None) is (kind in ("well", "coding"))


@pytest.mark.parametrize("by", ["remote", "proxy_url", "environment"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", [*ANSWERS, "long line", "no reply"])
def test_proxy(
    raw_server: Any,
    seen: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    scheme: str,
    by: str,
) -> None:
    """No secret is shown when a proxy echoes the request or the CONNECT that it got."""
    answers = {
        "long line": lambda r: b"HTTP/1.1 200 " + said(r).encode() * 999 + b"\r\n\r\n",
        "no reply": lambda r: b"",
    }
    server = raw_server(lambda _: [Recv(), Send((ANSWERS | answers)[kind]), Close()])
    settings = remote()
    if by == "environment":
        userinfo = f"{secret('environment-user')}:{secret('environment-password')}"
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{userinfo}@{server.host}")
    elif by == "remote":
        settings.proxy_url = f"http://{server.host}"
    else:
        userinfo = f"{secret('proxy-user')}:{secret('proxy-password')}"
        settings.proxy_url = f"http://{userinfo}@{server.host}"
        del settings.proxy_username
    error = run(build(url_with_secrets("h.example.test", scheme), settings), seen)
    assert server.requests[0].header("Proxy-Authorization")
    assert (error is None) is (kind in ("well", "coding") and scheme == "http")


@pytest.fixture
def unused() -> Iterator[int]:
    """Return a port where nobody listens and which nobody else can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1:{}", "h.example.invalid", "a b", "[::1", "h:x"])
def test_nobody(
    seen: list[str], monkeypatch: pytest.MonkeyPatch, unused: int, host: str, scheme: str
) -> None:
    """No secret is shown when the URL has an unreachable or invalid host."""
    look_up = socket.getaddrinfo

    def without_names(name: Any, *arguments: Any, **options: Any) -> Any:
        if name == "h.example.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", without_names)
    url = url_with_secrets(host.format(unused), scheme)
    download = HttpDownload(url, BufferWriter())
    download.retry = quick(1)
    assert run(download, seen)
    try:
        look(Factory(remote()).build(url, "a"), seen)
    except ValueError as error:
        seen += traceback.format_exception(error)


@pytest.mark.parametrize(
    "url",
    [
        "{}:x@127.0.0.1:1/",
        "http://{}@127.0.0.1:1/a",
        "http://127.0.0.1:1/a?b='{}'",
        'http://127.0.0.1:1/a?b="{}"',
        "http://127.0.0.1:1/a?b=<{}>",
        "http://127.0.0.1:1/a?b=c {}",
        "http://127.0.0.1:1/a?b=c\t{}",
        "http://127.0.0.1:1/a?b=c\u3000{}",
        "http://127.0.0.1:1/a?b=c?{}",
        "http://127.0.0.1:1/?{}",
        "http://127.0.0.1:1/??{}",
    ],
)
@pytest.mark.parametrize("kind", [HttpDownload, FtpDownload])
def test_urls(seen: list[str], url: str, kind: Any) -> None:
    """No secret is shown that stands in an unusual place of a URL."""
    url = url.format(secret("url-user"))
    download = kind(url, BufferWriter())
    download.retry = None
    seen.append("")
    if kind is FtpDownload:
        download.url = url.replace("http:", "ftp:", 1)
    run(download, seen)
    try:
        look(Factory(None).build(url), seen)
    except ValueError as error:
        seen += traceback.format_exception(error)


def test_tls(file_server: Any, tls: Any, seen: list[str]) -> None:
    """No secret is shown for an untrusted server, nor of PEM text in the TLS settings."""
    server = file_server({"/a": b"content"}, tls=tls.server())
    certificate = tls.client.certificate.read_text()
    assert run(build(url_with_secrets(server.host, "https"), remote()), seen)
    for more in (
        {"client_key": KEY},
        {"client_cert": certificate, "client_key": KEY},
        {"client_cert": KEY},
        {"ca_cert": KEY},
        # A PEM field that was pasted without its first line isn't a path.
        {"client_cert": certificate, "client_key": KEY.partition("\n")[2]},
        {"client_cert": certificate, "client_key": secret("key") * 99},
        {"ca_cert": KEY.partition("\n")[2]},
    ):
        assert run(build(url_with_secrets(server.host, "https"), remote(**more)), seen)


def test_key_password(file_server: Any, tls: Any, seen: list[str], tmp_path: Path) -> None:
    """No secret is shown when the password of a private key is wrong or the key is invalid."""
    server = file_server({"/a": b"content"}, tls=tls.server())
    for key in (KEY, str(tmp_path / "none"), tls.client.key.read_text()):
        for password in (secret("key-password"), secret("key-password").encode()):
            settings = SSL(
                client_certificate=str(tls.client.certificate),
                client_key=key,
                client_key_password=password,
            )
            seen.append(repr(settings))
            download = build(url_with_secrets(server.host, "https"), remote())
            download.ssl = settings
            assert run(download, seen)


@pytest.mark.parametrize(
    "headers",
    [
        {f"Authorization: Bearer {secret('authorization')}": ""},
        {f"{secret('authorization')} x": "y"},
        {"Authorization": secret("authorization") + "\n"},
        {"Authorization": [secret("authorization")]},
        {"Cookie": secret("cookie") + "\u20ac"},
    ],
)
def test_headers(seen: list[str], headers: dict[str, Any]) -> None:
    """No secret is shown of request headers that can't be sent."""
    settings = remote()
    settings.headers = [headers]
    assert run(build("http://127.0.0.1:1/", settings), seen)


def test_proxy_urls(seen: list[str]) -> None:
    """No secret is shown of an invalid proxy URL, nor of the remote's proxy credentials."""
    for url in ("ftp://h", "http://[::1", "h:x", "", "http://", "socks5://h:1"):
        settings = remote(proxy_url=url.replace("://", f"://{USERINFO}") if "://" in url else url)
        for proxy_user in ("proxy_username", None):
            if proxy_user is None:
                del settings.proxy_username
            assert run(build("http://127.0.0.1:1/", settings), seen)


def test_handlers(file_server: Any, seen: list[str]) -> None:
    """No secret is shown when handlers raise, validations fail or a handler has a bug."""
    server = file_server({"/a": b"content"})
    url = url_with_secrets(server.host)

    def bug(event: Any) -> None:
        raise RuntimeError("bug")

    for validation in (DigestValidation("md5", "0" * 32), DigestValidation("md5", "0" * 32, False)):
        download = build(url, remote())
        download.validations.append(validation)
        for name in ("PREPARED", "ERROR", "FAILED", "SUCCEEDED", "FETCHED"):
            download.register(name, bug)
        run(download, seen)
    download = build(url, remote())
    download.register("PREPARED", lambda event: event.download.register("NONSENSE", bug))
    run(download, seen)


@pytest.mark.parametrize(
    "text",
    ["530 {}", "230 {}", "500 {}", "421 {}", "550 {}", "{}", "4{}", "227 {}", "150-{}"],
)
def test_ftp(raw_server: Any, seen: list[str], text: str) -> None:
    """No secret is shown when an FTP server echoes the login and path in its replies."""
    for userinfo, user in (
        (f"{secret('url-user')}:{secret('url-password')}@", None),
        (f"{secret('url-user')}@", None),
        ("", User("me", secret("password"))),
        ("", User(secret("user"))),
    ):
        name = secret("url-user") if userinfo else user.name if user else ""
        word = secret("url-password") if ":" in userinfo else (user.password or "" if user else "")
        server = raw_server(
            [
                [
                    Send(b"220 hello\r\n"),
                    Read(until=b"\r\n"),
                    Send(f"331 {name}?\r\n".encode()),
                    Read(until=b"\r\n"),
                    Send(text.format(f"USER {name} PASS {word} /a{QUERY}").encode() + b"\r\n"),
                ]
            ]
        )
        download = FtpDownload(f"ftp://{userinfo}{server.host}/a{QUERY}", BufferWriter(), user)
        download.retry = quick(0)
        assert run(download, seen)


def test_file(seen: list[str], tmp_path: Path) -> None:
    """No secret is shown of a file URL with userinfo, query or fragment."""
    for url in (
        f"file://{USERINFO}localhost{tmp_path}/none{QUERY}",
        f"file://{tmp_path}/none{QUERY}#{secret('fragment')}",
        f"file://{USERINFO}[{tmp_path}",
    ):
        assert run(FileDownload(url, FileWriter(tmp_path / "a")), seen)


# These tests give one secret at a time, so that the request contains no other.

SECRET = secret("password")
ONE_DOOR: dict[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
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


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("door", ONE_DOOR)
def test_doors(file_server: Any, seen: list[str], door: str, fault: str) -> None:
    """No secret is shown for any way of giving one, combined with each kind of server fault."""
    found = FAULTS[fault]
    server = file_server({"/a": b"content"}, faults=lambda index, request: found)
    url, options = ONE_DOOR[door](server.host, "/a")
    error = run(into_memory(url, quick(1), **options), seen)
    assert (error is None) is (found is None)
    assert server.count


# Where a server may repeat a secret that it got. `{host}` is the server's own host.
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
@pytest.mark.parametrize("door", [door for door in ONE_DOOR if door != "fragment"])
def test_repeated_by_a_redirect(
    raw_server: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch, door: str, place: str
) -> None:
    """No secret is shown that a server repeats in any part of the URL that it redirects to."""
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
    url, options = ONE_DOOR[door](server.host, "/a")
    assert run(into_memory(url, quick(1), **options), seen)


def test_basic_that_is_repeated(raw_server: Any, seen: list[str]) -> None:
    """A password given as a Basic Authorization header is redacted if a server repeats it."""
    server = raw_server([serve(reply(302, {"Location": f"http://127.0.0.1:1/{SECRET}"}))])
    headers = {"Authorization": basic("me", SECRET), "Proxy-Authorization": b"Basic !", "A": "b"}
    assert run(into_memory(server.url("/a"), headers=headers), seen)


def test_host_that_is_a_secret(
    raw_server: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that a server uses as a host name is redacted in lower case, too."""

    def unknown(host: Any, *unused: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", b"127.0.0.1"):
            return real(host, *unused, **options)
        raise socket.gaierror(-2, f"Name {host} not known")

    real, known = socket.getaddrinfo, SECRET.upper()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    server = raw_server([serve(reply(302, {"Location": f"http://{known}.invalid/"}))])
    error = run(into_memory(server.url("/a"), user=User("me", known)), seen)
    assert error is not None
    assert "Name ***.invalid not known" in str(error.reason)


@pytest.mark.parametrize("of", ["netrc", "proxy"])
def test_environment_that_is_repeated(
    raw_server: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """Passwords from a netrc file or a proxy variable are redacted if a server repeats them."""
    known = secret("netrc-password") if of == "netrc" else SECRET
    server = raw_server([serve(reply(302, {"Location": f"http://127.0.0.1:1/{known}"}))])
    if of == "proxy":
        monkeypatch.setenv("http_proxy", f"me:{SECRET}@{server.host}")
    assert run(into_memory(server.url("/a")), seen)
    assert basic("me", known) in str(server.requests[0].lines)


@pytest.mark.parametrize("door", ONE_DOOR)
def test_mismatch(file_server: Any, seen: list[str], door: str) -> None:
    """No secret is shown when a validation fails, enforced or not."""
    server = file_server({"/a": b"content"})
    url, options = ONE_DOOR[door](server.host, "/a")
    download = into_memory(url, **options)
    download.validations += [SizeValidation(9, enforced=False), DigestValidation("md5", "0" * 32)]
    assert run(download, seen)


@pytest.mark.parametrize("door", ONE_DOOR)
def test_time_out(raw_server: Any, seen: list[str], door: str) -> None:
    """No secret is shown when a server stops answering."""
    server = raw_server([[Recv(), Stall()]])
    url, options = ONE_DOOR[door](server.host, "/a")
    assert run(into_memory(url, timeout=Timeout(read=0.1), **options), seen)


@pytest.mark.parametrize("door", ONE_DOOR)
def test_redirect(file_server: Any, seen: list[str], door: str) -> None:
    """No secret is shown of redirects whose Location has secrets, whether they work or not."""
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
        url, options = ONE_DOOR[door](server.host, path)
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
    """No secret is shown of malformed URLs or of URLs that hide it well."""
    assert run(into_memory(url.format(SECRET), quick(0)), seen)


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
    """No secret is shown of proxy URLs that are malformed or of a proxy that is unreachable."""
    options: dict[str, Any] = {}
    if by == "proxy_url":
        options["proxy_url"] = url.format(SECRET)
    else:
        monkeypatch.setenv(f"{scheme}_proxy", url.format(SECRET))
    assert run(into_memory(f"{scheme}://127.0.0.1:1/", quick(0), **options), seen)


def test_netrc(file_server: Any, seen: list[str]) -> None:
    """No secret is shown of the credentials in a netrc file."""
    (Path.home() / ".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}")
    (Path.home() / ".netrc").chmod(0o600)
    server = file_server({"/a": b"content"})
    run(into_memory(server.url("/a")), seen)
    assert server.requests[0].header("Authorization") == basic("me", SECRET)
    assert run(into_memory(server.url("/none")), seen)


def test_broken_netrc(file_server: Any, seen: list[str]) -> None:
    """No secret is shown of a malformed netrc file."""
    (Path.home() / ".netrc").write_text(f"machine 127.0.0.1 login me {SECRET} {SECRET}")
    (Path.home() / ".netrc").chmod(0o600)
    server = file_server({"/a": b"content"})
    assert run(into_memory(server.url("/a")), seen) is None


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Mine"])
@pytest.mark.parametrize("value", ["{}\r\nX: y", "{}€", " {}", "{}\0"])
def test_bad_headers(seen: list[str], name: str, value: str) -> None:
    """No secret is shown of a header whose value can't be sent."""
    headers = {name: value.format(SECRET)}
    assert run(into_memory("http://127.0.0.1:1/", headers=headers), seen)


def test_settings(seen: list[str], tls: Any) -> None:
    """No secret is shown of invalid settings, nor of PEM text in them."""
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
    """No secret is shown when the writer fails because its buffer is full."""
    server = file_server({"/a": b"content"})
    url = server.url(f"/a?token={SECRET}", userinfo=f"me:{SECRET}")
    download = into_memory(url)
    download.writer = BufferWriter(limit=3)
    assert run(download, seen)


def test_bug_in_the_middle(file_server: Any, seen: list[str]) -> None:
    """No secret is logged or shown when an exception of a plugin's code ends a run."""

    class Broken(SizeValidation):
        def update(self, buffer: bytes) -> None:
            raise KeyError("bug")

    server = file_server({"/a": b"content"})
    download = into_memory(server.url(f"/a?token={SECRET}"))
    download.validations.append(Broken(1))
    with pytest.raises(KeyError) as caught:
        download()
    seen += [*traceback.format_exception(caught.value)]


def test_stale(raw_server: Any, seen: list[str]) -> None:
    """No secret is logged when a stale connection is dropped."""
    server = raw_server([[Recv(), Send(reply(body=b"content"))]])
    context = Context()
    for _ in range(3):
        assert run(into_memory(server.url(f"/a?token={SECRET}")), seen, context) is None
        server.until(lambda: server.open_connections == 0)
    context.close()


def test_cause_has_its_type(file_server: Any, seen: list[str]) -> None:
    """Redaction keeps the type of an error's cause and the parts that help to find the fault."""
    import requests

    error = run(into_memory(f"http://me:{SECRET}@127.0.0.1:1/a?token={SECRET}"), seen)
    assert isinstance(error.__cause__, requests.ConnectionError)  # type: ignore[union-attr]
    assert "token=" in str(error)
    assert "127.0.0.1" in str(error.__cause__)  # type: ignore[union-attr]


@pytest.mark.parametrize("by_proxy", [False, True])
def test_adapter_of_the_caller(
    file_server: Any, proxy: Any, seen: list[str], caplog: pytest.LogCaptureFixture, by_proxy: bool
) -> None:
    """What urllib3 logs of our requests is redacted even if the user mounts a requests adapter."""
    server = file_server({"/a": b"content"})
    download = into_memory(server.url(f"/a?token={SECRET}"))
    if by_proxy:
        download.proxy_url = proxy().url("")
    context = Context()
    download.context = context
    download.session.mount("http://", requests.adapters.HTTPAdapter())
    assert run(download, seen, context) is None
    context.close()
    said = [item.getMessage() for item in caplog.records if item.name.startswith("urllib3.")]
    assert any("token=***" in text for text in said)


@pytest.mark.parametrize("name", ["user", "url"])
def test_secret_that_cannot_be_encoded(seen: list[str], name: str) -> None:
    """The error for credentials that can't be encoded shows neither them nor their length."""
    download = into_memory("http://127.0.0.1:1/a")
    if name == "user":
        download.user = User("me", SECRET + "\udc80")
    else:
        download.proxy_url = f"http://me:{SECRET}\udc80@127.0.0.1:1"
    error = run(download, seen)
    assert "a setting is wrong" in str(error)
    assert str(len(SECRET)) not in str(error).partition("wrong")[2].partition("(")[0]


def test_others_keep_their_logs(file_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Log messages of urllib3 for requests by other code are left unchanged."""
    import urllib3

    caplog.set_level(logging.DEBUG)
    server = file_server({"/a": File(b"content")})
    run(into_memory(server.url("/a?q=mine")), [])
    with urllib3.PoolManager() as manager:
        manager.request("GET", server.url("/a?q=theirs"))
    assert "q=theirs" in caplog.text
    assert "q=mine" not in caplog.text
    assert "q=***" in caplog.text


class TestCommandLine:
    """The command line's output: text, JSON, progress and logs."""

    @pytest.fixture
    def call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any
    ) -> Callable[..., tuple[int, str]]:
        """Run the command line and assert that its output shows no secret."""
        from pulpcore.plugin.download.futures.cli import app

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PULP_FUTURES_PASSWORD", secret("password"))

        def run(*arguments: str) -> tuple[int, str]:
            status = app.run(list(arguments))
            written = b"".join(capsysbinary.readouterr()).decode()
            assert leaks(written) == []
            return status, written

        return run

    OPTIONS: ClassVar = [
        *("--user", "me"),
        *("--header", f"Cookie: {secret('cookie')}"),
        *("--header", f"Proxy-Authorization: Basic {secret('proxy-authorization')}"),
        *("--total-timeout", "60"),
    ]

    @pytest.mark.parametrize("form", [["-vv"], ["--json", "-vv"]], ids=str)
    @pytest.mark.parametrize("kind", [k for k in ANSWERS if k not in ("503", "429", "retry-after")])
    def test_get(
        self, call: Any, seen: list[str], raw_server: Any, kind: str, form: list[str]
    ) -> None:
        """`get` shows no secret when a server or proxy echoes the request."""
        answers = {"short": lambda r: echo(r, 416), "interim": ANSWERS["status line"]}
        answer = (ANSWERS | answers)[kind]
        server = raw_server(lambda _: [Recv(), Send(answer), Close()])
        url = url_with_secrets(server.host)
        status, shown = call("get", url, *self.OPTIONS, *form)
        assert status == (0 if kind in ("well", "coding") else 1)
        userinfo = f"{secret('proxy-user')}:{secret('proxy-password')}"
        gate = f"http://{userinfo}@{server.host}"
        call("get", url_with_secrets("h.example.test"), "--proxy", gate, *self.OPTIONS, *form)
        assert server.requests[-1].header("Proxy-Authorization")
        seen += [shown]

    @pytest.mark.parametrize("form", [["-vv"], ["--json", "-vv"]], ids=str)
    def test_sync(
        self, call: Any, seen: list[str], raw_server: Any, tmp_path: Path, form: list[str]
    ) -> None:
        """`sync` shows no secret of a hostile manifest."""
        digest = f"{'0' * 64},1"
        lines = [
            f"http://{USERINFO}h/a{TAIL},{digest}",
            f"http:/{USERINFO}h/a{TAIL},{digest}",
            f"//{USERINFO}h/a{TAIL},{digest}",
            f"/a{TAIL},{digest}",
            f"http://{USERINFO}h/a{TAIL}",
            f"http://{USERINFO}h/a{TAIL},{digest[1:]}",
            f"fine,{digest}",
            f"again,{digest}",
        ]

        def answer(request: Any) -> bytes:
            if "MANIFEST" in request.target:
                return reply(body="\n".join(lines).encode())
            return echo(request, 404)

        server = raw_server(lambda _: serve(answer))
        url = url_with_secrets(server.host).replace("/a?", "/r/PULP_MANIFEST?")
        status, shown = call("sync", url, "d", *self.OPTIONS, *form)
        assert status == 1
        assert "8 files: 0 downloaded" in shown
        status, _ = call("sync", url, *self.OPTIONS, *form)
        assert all(leaks(str(path)) == [] for path in tmp_path.rglob("*"))
        seen += [shown]

    @pytest.mark.parametrize("kind", ["well", "404"])
    def test_sources(
        self, call: Any, seen: list[str], raw_server: Any, kind: str, tmp_path: Path
    ) -> None:
        """`get` shows no secret of mirrors, of a list's sources, or of a Metalink document's."""
        form = ["--json", "-vv", "--retry", "0"]
        server = raw_server(lambda _: [Recv(), Send(ANSWERS[kind]), Close()])
        url, dead = url_with_secrets(server.host), url_with_secrets("127.0.0.1:1")
        base = f"http://{USERINFO}{server.host}/b"
        (tmp_path / "list").write_text(f"{dead}\t{url}\n")
        status, shown = call("get", "-i", "list", "--mirror", base, "-o", "c", *self.OPTIONS)
        assert status == 2
        status, shown = call("get", "-i", "list", "--mirror", base, *self.OPTIONS, *form)
        assert status == (0 if kind == "well" else 1)
        seen += [shown]
        escaped = url.replace("&", "&amp;")
        (tmp_path / "m").write_text(
            f"<metalink xmlns='urn:ietf:params:xml:ns:metalink'><file name='x'><url>{escaped}</url>"
            f"<url>{dead.replace('&', '&amp;')}</url></file></metalink>"
        )
        seen += [call("get", "--metalink", "m", *self.OPTIONS, *form)[1]]
        seen += [call("get", "--metalink", url, *self.OPTIONS, *form)[1]]
        seen += [call("get", "--metalink", dead, *self.OPTIONS, *form)[1]]

    def test_usage(self, call: Any, tmp_path: Path, tls: Any) -> None:
        """Usage errors show no secret of invalid, misplaced or surplus arguments."""
        url = url_with_secrets("127.0.0.1:1")
        key = tmp_path / "key"
        key.write_text(KEY)
        token = secret("authorization")
        for arguments in (
            [url],
            ["sync", url, "d", url],
            ["sync", "d", url],
            ["sync", "d", f"ftp://{USERINFO}h/"],
            ["get", url, url],
            ["get", "-o", "a", url, url],
            ["get", url, "--user", f"me:{secret('password')}"],
            ["get", url, "--header", token],
            ["get", url, "--header", f"{token} x: y"],
            ["get", url, "--header", f"Authorization: {token}\n"],
            ["get", url, "--proxy", f"ftp://{USERINFO}h"],
            ["get", url, "--proxy", f"{USERINFO}h"],
            ["get", url, "--proxy", f"http://{USERINFO}[h"],
            ["get", url, "--key", str(key)],
            ["get", url, "--cert", str(key)],
            ["get", url, "--cert", str(tls.client.certificate), "--key", str(key)],
            ["get", url, "--ca", str(key)],
            ["get", url, "--ca", url],
            ["get", url, "--concurrent", url],
            ["get", url, "--mirror", url],
            ["get", url, "--mirror", f"ftp://{USERINFO}h"],
            ["get", url, "--parts", url],
            ["get", "--metalink", "d", url],
            ["get", "--metalink", url_with_secrets("h", "gopher")],
            ["get", url, "--connect-timeout", url],
            ["get", url, "--least-speed", url],
            ["get", url, "--size", url],
            ["get", url, "--sha256", url],
            ["get", url, "--digest", url],
            ["get", url, f"--{url}"],
            ["get", "-o", url_with_secrets("h"), url],
            ["get", url_with_secrets("h").replace("/a?", "/?")],
            ["get", url_with_secrets("h", "gopher")],
            ["get", f"{secret('url-user')}:x@h/a"],
        ):
            status, shown = call(*arguments)
            assert status == 2, arguments
            assert shown
        for host in ("[::1", "h:port", "h:80@"):
            status, shown = call("get", url_with_secrets(host))
            assert status == 2
            assert shown

    def test_process(
        self, seen: list[str], tmp_path: Path, tls: Any, file_server: Any, unused: int
    ) -> None:
        """The real program shows no secret, not even in what Python itself writes to stderr."""
        server = file_server({"/a": b"content"}, tls=tls.server())
        userinfo = f"{secret('environment-user')}:{secret('environment-password')}"
        environment = os.environ | {
            "PULP_FUTURES_PASSWORD": secret("password"),
            "PYTHONDEVMODE": "1",
            "http_proxy": f"http://{userinfo}@127.0.0.1:{unused}",
        }
        for url, status in (
            (url_with_secrets(server.host, "https"), 0),
            (url_with_secrets("h.example.test"), 1),
        ):
            done = subprocess.run(
                [
                    *(sys.executable, "-c", "import pulp_futures; pulp_futures.main()"),
                    *("get", url, "-vv", "--ca", str(tls.ca), *self.OPTIONS),
                    *("--total-timeout", "60" if status == 0 else "1"),
                ],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == status, done.stderr
            seen += [done.stdout, done.stderr]
