"""Tests of a download's `session` in its user's hands, and of the limits of the HTTP engine."""

import errno
import gzip
import hashlib
import importlib.metadata
import io
import logging
import os
import socket
import threading
from typing import Any

import pytest
import requests
from http_tools import content, failure, into_memory, trust
from processes import program
from servers.files import Redirect
from servers.message import basic
from servers.raw import (
    Close,
    Cut,
    Damage,
    Read,
    Recv,
    Send,
    Signal,
    Stall,
    Wait,
    reply,
    serve,
)

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadFailed,
    NotAuthorized,
    SizeValidation,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.http.route import user_agent
from pulpcore.plugin.download.futures.http.wire.pool import IDLE_LIMIT

BODY = b"content " * 1000
OK = reply(body=b"fine")


@pytest.fixture
def context() -> Any:
    """Make a context and close it after the test."""
    context = Context()
    yield context
    context.close()


def session_of(context: Context, url: str, **options: Any) -> requests.Session:
    """Return the session of a download."""
    download = into_memory(url, **options)
    download.context = context
    return download.session


class TestSession:
    """Other uses of a `requests.Session` work with our engine, too."""

    @pytest.mark.parametrize(
        ("data", "sent"),
        [
            (b"a=1", b"a=1"),
            ("\u20ac", "\u20ac".encode()),
            ({"a": "1"}, b"a=1"),
            (io.BytesIO(b"from a file"), b"from a file"),
            (iter([b"ab", b"", b"c"]), b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ],
        ids=["bytes", "text", "form", "file", "pieces"],
    )
    def test_content(self, raw_server: Any, context: Context, data: Any, sent: bytes) -> None:
        """A session sends any content that requests accepts, chunked if its size is unknown.

        The requests name this library, as those of downloads do.
        """
        server = raw_server([[Recv(), Read(len(sent)), Send(OK), Stall()]])
        found = session_of(context, server.url()).post(server.url("/p"), data=data)
        assert (found.status_code, found.content) == (200, b"fine")
        (asked,) = server.requests
        length, coding = asked.header("Content-Length"), asked.header("Transfer-Encoding")
        assert asked.method == "POST"
        assert (asked.header("User-Agent"), asked.header("Accept")) == (user_agent(), "*/*")
        assert server.logs[0].received == sent
        expected = (None, "chunked") if sent.startswith(b"2") else (str(len(sent)), None)
        assert (length, coding) == expected

    def test_wrong_url(self, context: Context) -> None:
        """A request whose URL isn't valid is refused with the error that requests has for it."""
        session = session_of(context, "http://localhost/")
        request = session.prepare_request(requests.Request("GET", "http://localhost/"))
        request.url = "http://localhost:port/"
        with pytest.raises(requests.exceptions.InvalidURL):
            session.send(request)

    def test_another_destination(
        self, file_server: Any, raw_server: Any, tls: Any, context: Context
    ) -> None:
        """A session also reaches other servers, with TLS, redirects and cookies."""
        other = file_server({"/b": BODY}, tls=tls.server())
        server = file_server({"/a": Redirect(other.url("/b"))})
        session = session_of(context, server.url(), ssl=trust(tls.ca))
        found = session.get(server.url("/a"))
        assert (found.content, found.url) == (BODY, other.url("/b"))
        assert [each.status_code for each in found.history] == [302]
        wary = session_of(Context(), server.url(), ssl=trust(tls.other_ca))
        with pytest.raises(requests.exceptions.SSLError):
            wary.get(server.url("/a"))

    def test_proxies(self, file_server: Any, proxy: Any, context: Context) -> None:
        """A proxy passed to a request of the session is used for it."""
        server, gate = file_server({"/a": BODY}), proxy(user=("me", "secret"))
        session = session_of(context, server.url())
        url = gate.url("", userinfo="me:secret")
        headers = {"Proxy-Authorization": "Basic x", "Host": "files.example"}
        found = session.get(server.url("/a"), proxies={"http": url}, headers=headers)
        assert found.content == BODY
        # The credentials in the proxy's URL take precedence.
        assert gate.requests[0].header("Proxy-Authorization") == basic("me", "secret")
        assert gate.requests[0].header("Host") == "files.example"
        assert session.get(server.url("/a")).content == BODY
        assert len(gate.requests) == 1

    @pytest.mark.parametrize("timeout", [0.1, (5, 0.1)])
    def test_time_out(self, raw_server: Any, context: Context, timeout: Any) -> None:
        """A time-out passed to a request of the session applies to it."""
        server = raw_server([[Recv(), Stall()]])
        with pytest.raises(requests.ReadTimeout):
            session_of(context, server.url()).get(server.url(), timeout=timeout)

    @pytest.mark.parametrize(
        ("url", "options", "kind"),
        [
            ("http://127.0.0.1:{port}/", {}, requests.ConnectionError),
            (
                "http://h.example/",
                {"proxies": {"http": "http://127.0.0.1:{port}"}},
                requests.exceptions.ProxyError,
            ),
            ("http://h.example/", {"proxies": {"http": "ftp://h"}}, requests.exceptions.InvalidURL),
        ],
        ids=["refused", "proxy", "scheme"],
    )
    def test_errors(self, context: Context, url: str, options: Any, kind: Any) -> None:
        """Failures of a session's requests raise the exceptions of requests."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            options = {
                name: {scheme: text.format(port=port) for scheme, text in value.items()}
                for name, value in options.items()
            }
            with pytest.raises(requests.RequestException) as caught:
                session_of(context, URL).get(url.format(port=port), **options)
        assert type(caught.value) is kind
        assert caught.value.request is not None

    def test_after_it_was_closed(self, file_server: Any, context: Context, no_leaks: None) -> None:
        """A closed session still works but keeps no connection alive."""
        server = file_server({"/a": BODY})
        session = session_of(context, server.url())
        assert session.get(server.url("/a")).content == BODY
        session.close()
        server.until(lambda: server.open_connections == 0)
        assert session.get(server.url("/a")).content == BODY
        server.until(lambda: server.open_connections == 0)
        assert server.connections == 2


URL = "http://127.0.0.1:1/"


class TestMountedAdapter:
    """An adapter mounted by the user, whose responses aren't ours."""

    @pytest.fixture
    def mounted(self, context: Context) -> Any:
        """Make a download whose session has another adapter."""

        def make(url: str, **options: Any) -> Any:
            download = into_memory(url, **options)
            download.context = context
            adapter = requests.adapters.HTTPAdapter()
            download.session.mount("http://", adapter)
            adapters.append(adapter)
            return download

        adapters: list[Any] = []
        yield make
        for adapter in adapters:
            adapter.close()

    def test_content(self, file_server: Any, mounted: Any) -> None:
        """With the user's adapter, redirects, lengths and repeated fields work as usual."""
        server = file_server({"/a": Redirect("/b"), "/b": BODY})
        download = mounted(server.url("/a"))
        assert content(download) == BODY
        assert download.position == len(BODY)

    def test_told(self, file_server: Any, mounted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The user's adapter is told to leave the body, which may be larger than the memory."""
        told = []
        send = requests.adapters.HTTPAdapter.send

        def note(self: Any, request: requests.PreparedRequest, **options: Any) -> Any:
            told.append(options)
            return send(self, request, **options)

        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", note)
        assert content(mounted(file_server({"/a": BODY}).url("/a"))) == BODY
        assert [(each["stream"], each["verify"]) for each in told] == [(True, True)]

    def test_log(self, file_server: Any, mounted: Any, caplog: pytest.LogCaptureFixture) -> None:
        """urllib3's log of requests by the user's adapter has redacted query values."""
        caplog.set_level(logging.DEBUG)
        server = file_server({"/a": BODY})
        assert content(mounted(server.url("/a?token=s3cret"))) == BODY
        assert "token=***" in caplog.text
        assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
        assert "s3cret" not in caplog.text

    def test_repeated_field(self, raw_server: Any, mounted: Any) -> None:
        """With the user's adapter, a repeated identical Location counts once."""
        moved = b"HTTP/1.1 302 X\r\nLocation: /b\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
        server = raw_server(
            lambda index: serve(moved if not index else reply(body=BODY)),
        )
        assert content(mounted(server.url("/a"))) == BODY

    def test_published_gzip(self, raw_server: Any, mounted: Any) -> None:
        """With the user's adapter, a file that is published as gzip isn't unpacked."""
        packed = gzip.compress(BODY)
        headers = {"Content-Type": "application/gzip", "Content-Encoding": "gzip"}
        server = raw_server([[Recv(), Send(reply(headers=headers, body=packed))]])
        assert content(mounted(server.url("/a.gz"))) == packed

    def test_short(self, raw_server: Any, mounted: Any) -> None:
        """With the user's adapter, a truncated body is an error."""
        server = raw_server([[Recv(), Send(reply(body=BODY)[:-1])]])
        failure(mounted(server.url()), DownloadFailed)

    def test_touched(self, file_server: Any, mounted: Any) -> None:
        """A handler that reads from the body can't make a truncated file succeed."""
        download = mounted(file_server({"/a": BODY}).url("/a"))
        download.register("REPLIED", lambda event: event.download.reply.raw.read(10))
        failure(download, DownloadFailed)


class TestIdle:
    def test_many_hosts(
        self, file_server: Any, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A context keeps a limited number of idle connections for all hosts, the latest used."""
        server = file_server({"/a": BODY})
        resolve = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *args, **kwargs: resolve(
                "127.0.0.1" if host.endswith(".test") else host, *args, **kwargs
            ),
        )
        count = IDLE_LIMIT + 30
        for number in [*range(count), count - 1, count - IDLE_LIMIT]:
            download = into_memory(server.url("/a", f"h{number}.example.test"))
            download.context = context
            assert content(download) == BODY
        server.until(lambda: server.open_connections == IDLE_LIMIT)
        assert server.connections == count

    def test_few_descriptors(self, file_server: Any) -> None:
        """Downloads from hundreds of hosts need few descriptors: idle connections are limited."""
        server = file_server({"/a": b"content"})
        code = """
import resource, socket, sys
from pulpcore.plugin.download.futures import Batch, BufferWriter, HttpDownload
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *args, **kwargs: resolve("127.0.0.1", *args, **kwargs)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
urls = [f"http://h{n}.example.test:{sys.argv[1]}/a" for n in range(300)]
with Batch((HttpDownload(url, BufferWriter()) for url in urls), concurrent=8, backlog=16) as batch:
    print(sum(plan.error is None for plan in batch()))
"""
        with program(code, str(server.port)) as process:
            assert process.communicate(timeout=100)[0].strip().splitlines()[-1] == "300"

    def test_shared_by_clones(self, raw_server: Any, no_leaks: None) -> None:
        """A clone that closes shared connections doesn't break other downloads."""
        arrived, go = threading.Event(), threading.Event()
        slow = [Recv(), Signal(arrived), Wait(go), Send(OK), Recv()]
        server = raw_server(lambda index: slow if not index else serve(OK))
        original = into_memory(server.url())
        original.retry = None
        twin = original.clone()
        found = []
        thread = threading.Thread(target=lambda: found.append(content(original)))
        thread.start()
        assert arrived.wait(30)
        twin()
        go.set()
        thread.join()
        assert found == [b"fine"]
        server.until(lambda: server.open_connections == 0)


def test_alpn(file_server: Any, tls: Any) -> None:
    """A server with HTTP/2 is told by ALPN that the client speaks HTTP/1.1."""
    context = tls.server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = file_server({"/a": BODY}, tls=context)
    chosen = []
    original = server.serve
    server.serve = lambda connection: (
        chosen.append(connection.socket.selected_alpn_protocol()),
        original(connection),
    )
    assert content(into_memory(server.url("/a"), ssl=trust(tls.ca))) == BODY
    assert chosen == ["http/1.1"]


class TestMissingCloseNotify:
    """A body without a length over TLS that is cut (RFC 9112 section 9.8)."""

    def cut(self, raw_server: Any, tls: Any, *validations: Any) -> Any:
        """Make a download from a server that cuts TLS after the body."""
        script = [Recv(), Send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY), Cut()]
        server = raw_server([script], tls=tls.server())
        download = into_memory(server.url(), ssl=trust(tls.ca))
        download.validations.extend(validations)
        return download

    def test_digest_agrees(self, raw_server: Any, tls: Any) -> None:
        """A body without length over cut TLS is accepted if an enforced digest matches."""
        right = DigestValidation("sha256", hashlib.sha256(BODY).hexdigest().upper())
        assert content(self.cut(raw_server, tls, SizeValidation(len(BODY)), right)) == BODY

    @pytest.mark.parametrize(
        "validations",
        [
            [],
            [SizeValidation(len(BODY))],
            [DigestValidation("sha256", hashlib.sha256(BODY).hexdigest(), enforced=False)],
            [DigestValidation("sha256", hashlib.sha256(BODY + b"more").hexdigest())],
        ],
        ids=["none", "size", "not enforced", "another"],
    )
    def test_nothing_agrees(self, raw_server: Any, tls: Any, validations: list[Any]) -> None:
        """A body without length over cut TLS is a transient error without a digest."""
        error = failure(self.cut(raw_server, tls, *validations), DownloadFailed)
        assert "close_notify" in error.reason
        assert error.transient


class TestProxies:
    """Failures on the way through a proxy."""

    def test_tls_in_tls_is_verified(self, file_server: Any, proxy: Any, tls: Any) -> None:
        """The server's certificate is verified for its own name behind a TLS proxy, too."""
        server = file_server({"/a": BODY}, tls=tls.server(tls.wrong_name))
        url = proxy(tls=tls.server()).url("")
        error = failure(
            into_memory(server.url("/a"), proxy_url=url, ssl=trust(tls.ca)), NotAuthorized
        )
        assert "certificate of the server" in error.reason
        assert server.count == 0

    @pytest.mark.parametrize("end", [Close(), Cut()])
    def test_tls_in_tls_that_is_cut(self, raw_server: Any, proxy: Any, tls: Any, end: Any) -> None:
        """A truncated body over TLS through a TLS proxy is an error."""
        server = raw_server([[Recv(), Send(OK[:-1]), end]], tls=tls.server())
        url = proxy(tls=tls.server()).url("")
        error = failure(into_memory(server.url("/a"), proxy_url=url, ssl=trust(tls.ca)))
        assert "ended before" in error.reason
        assert error.transient

    @pytest.mark.parametrize(
        ("steps", "reason", "transient"),
        [
            ([Cut()], "the proxy closed the connection without a reply", True),
            ([Damage(), Stall()], "TLS", True),
            ([Stall()], "to the proxy was made within the time-out", True),
            ([Send(b"HTTP/1.1 200 OK\r\n\r\nx"), Stall()], "something behind", False),
        ],
        ids=["cut", "damaged", "silent", "more"],
    )
    def test_connect(
        self, raw_server: Any, tls: Any, steps: list[Any], reason: str, transient: bool
    ) -> None:
        """A failure during CONNECT is reported as a failure of the proxy."""
        gate = raw_server([[Recv(), *steps]], tls=tls.server())
        download = into_memory("https://h.example/", proxy_url=gate.url(""), ssl=trust(tls.ca))
        download.timeout.connect = 0.5 if reason.endswith("time-out") else 30
        error = failure(download, DownloadFailed)
        assert reason in error.reason
        assert error.transient is transient


class TestSetUp:
    """Failures of the system while a route or TLS context is made."""

    def test_descriptors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Running out of descriptors is reported and doesn't count as a failure of the host."""

        def version(name: str) -> str:
            raise OSError(errno.EMFILE, "Too many open files")

        user_agent.cache_clear()
        monkeypatch.setattr(importlib.metadata, "version", version)
        error = failure(into_memory("http://127.0.0.1:1/"), DownloadFailed)
        assert "descriptors" in error.reason
        assert error.local

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_key_log(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        """If the SSLKEYLOGFILE can't be written, the error names it and nothing is retried."""
        tmp_path.chmod(0o500)
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        error = failure(into_memory("https://127.0.0.1:1/"), DownloadFailed)
        assert "SSLKEYLOGFILE" in error.reason
        assert not error.transient

    def test_key_log_in_no_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        """If the folder of the SSLKEYLOGFILE is missing, the error names the file."""
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
        downloads = [into_memory("https://127.0.0.1:1/") for _ in range(3)]
        with Batch(downloads) as batch:
            errors = [plan.error for plan in batch()]
        assert {type(error) for error in errors} == {DownloadFailed}
        assert all("SSLKEYLOGFILE" in str(error) for error in errors)
