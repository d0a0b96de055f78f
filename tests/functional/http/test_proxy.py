"""Tests of HTTP proxies: which one is used, its credentials, and errors it causes."""

import socket
import ssl
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
import trustme
from http_tools import content, failure, into_memory, quick, record, trust
from servers.files import Redirect
from servers.message import basic
from servers.raw import Drip, Read, Recv, Send, reply, serve

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadFailed,
    HttpDownload,
    NotAuthorized,
    User,
)
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000


@pytest.fixture
def plain(file_server: Any) -> Any:
    """Start an HTTP server."""
    return file_server({"/a": BODY})


@pytest.fixture
def secure(file_server: Any, tls: Any) -> Any:
    """Start an HTTPS server."""
    return file_server({"/a": BODY}, tls=tls.server())


@pytest.mark.parametrize("with_tls", [False, True], ids=["http proxy", "https proxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
class TestBoth:
    """HTTP and HTTPS targets through HTTP and HTTPS proxies."""

    def test_through(self, request: Any, proxy: Any, tls: Any, scheme: str, with_tls: bool) -> None:
        """proxy_url is used for http and https, and its connection is reused."""
        server = request.getfixturevalue("secure" if scheme == "https" else "plain")
        gate = proxy(tls=tls.server() if with_tls else None)
        download = into_memory(server.url("/a"), proxy_url=gate.url(""), ssl=trust(tls.ca))
        download.context = context = Context()
        assert content(download) == content(download) == BODY
        context.close()
        assert (gate.connections, server.connections, server.count) == (1, server.connections, 2)
        assert gate.tunnels == ([server.host] if scheme == "https" else [])
        target = server.host if scheme == "https" else server.url("/a")
        assert gate.requests[0].target == target

    @pytest.mark.parametrize(
        ("userinfo", "sent"),
        [
            ("me:secret", ("me", "secret")),
            ("m%40e:s%2Fe%3Ac%20ret", ("m@e", "s/e:c ret")),
            ("me:", ("me", "")),
        ],
    )
    def test_credentials(
        self,
        request: Any,
        proxy: Any,
        tls: Any,
        scheme: str,
        with_tls: bool,
        userinfo: str,
        sent: tuple[str, str],
    ) -> None:
        """The credentials in proxy_url go to the proxy only, and those for the server don't."""
        server = request.getfixturevalue("secure" if scheme == "https" else "plain")
        gate = proxy(user=sent, tls=tls.server() if with_tls else None)
        download = into_memory(
            server.url("/a"),
            proxy_url=gate.url("", userinfo=userinfo),
            ssl=trust(tls.ca),
            user=User("you", "word"),
        )
        assert content(download) == BODY
        (found,) = server.requests
        assert found.header("Proxy-Authorization") is None
        assert found.header("Authorization") == basic("you", "word")
        assert gate.requests[0].header("Proxy-Authorization") == basic(*sent)

    @pytest.mark.parametrize("userinfo", ["", "me:wrong"])
    def test_not_authorized(
        self, request: Any, proxy: Any, tls: Any, scheme: str, with_tls: bool, userinfo: str
    ) -> None:
        """Credentials that the proxy rejects raise NotAuthorized without a retry."""
        server = request.getfixturevalue("secure" if scheme == "https" else "plain")
        gate = proxy(user=("me", "secret"), tls=tls.server() if with_tls else None)
        download = into_memory(
            server.url("/a"),
            quick(),
            proxy_url=gate.url("", userinfo=userinfo),
            ssl=trust(tls.ca),
        )
        error = failure(download, NotAuthorized)
        assert "407" in error.reason
        others = "other credentials" if userinfo else "credentials: give them in proxy_url"
        assert f"the proxy wants {others}" in error.reason
        assert (len(gate.requests), server.count) == (1, 0)

    def test_unreachable_server(
        self, request: Any, proxy: Any, tls: Any, scheme: str, with_tls: bool
    ) -> None:
        """A 502 of the proxy is retried, for a request and for CONNECT."""
        gate = proxy(tls=tls.server() if with_tls else None)
        url = f"{scheme}://elsewhere.example.test/a"
        download = into_memory(url, quick(2), proxy_url=gate.url(""), ssl=trust(tls.ca))
        assert "502" in failure(download, DownloadFailed).reason
        assert len(gate.requests) == 3


TARGETS = [
    "//key",
    "/a//b",
    "/./a/../b/.",
    "/%2f%7E%2F~",
    "/100%/a%20b?rate=5%&name=x%20y",
    "/a?",
    "/a?X-Signature=a%2Fb%7e/+c%2B&list[]=1",
    "/b c",
]


@pytest.mark.parametrize("way", ["direct", "forwarded", "tunnel"])
@pytest.mark.parametrize("path", TARGETS)
def test_targets(raw_server: Any, proxy: Any, tls: Any, path: str, way: str) -> None:
    """A URL is sent unchanged, directly, through a proxy or through a tunnel.

    The request and the response show that URL.
    """
    server = raw_server([serve(reply(body=BODY))], tls=tls.server() if way == "tunnel" else None)
    gate = proxy()
    proxy_url = None if way == "direct" else gate.url("")
    download = into_memory(server.url(path), proxy_url=proxy_url, ssl=trust(tls.ca))
    assert content(download) == BODY
    target = path.replace("%/", "%25/").replace("%&", "%25&").replace(" ", "%20")
    if way == "forwarded":
        assert gate.requests[0].target == server.url(target)
    else:
        assert server.requests[0].target == target
    assert download.reply.url == download.reply.request.url == server.url(target)


class TestRefusals:
    def test_no_tunnel(self, proxy: Any, secure: Any, tls: Any) -> None:
        """A proxy that refuses CONNECT with 403 raises NotAuthorized."""
        gate = proxy(refuse_connect=True)
        download = into_memory(secure.url("/a"), quick(), proxy_url=gate.url(""), ssl=trust(tls.ca))
        assert "403" in failure(download, NotAuthorized).reason
        assert len(gate.requests) == 1

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_down(self, scheme: str, tls: Any) -> None:
        """An unreachable proxy is named by the error and retried."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            download = into_memory(
                f"{scheme}://127.0.0.1:{port}/", quick(2), proxy_url=f"http://127.0.0.1:{port}"
            )
            events = record(download)
            error = failure(download, DownloadFailed)
        assert "refused" in error.reason
        assert "proxy" in error.reason
        assert [e.retrying for e in events if e.NAME == "ERROR"] == [True, True, False]

    def test_untrusted_proxy(self, proxy: Any, plain: Any, tls: Any) -> None:
        """The certificate of an HTTPS proxy is verified like that of a server."""
        gate = proxy(tls=tls.server(tls.expired))
        download = into_memory(plain.url("/a"), proxy_url=gate.url(""), ssl=trust(tls.ca))
        assert "not trusted" in failure(download, NotAuthorized).reason

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_ca_of_its_own(
        self, request: Any, proxy: Any, tls: Any, tmp_path: Path, scheme: str
    ) -> None:
        """A proxy whose certificate is from another CA is trusted if the CA file has both."""
        server = request.getfixturevalue("secure" if scheme == "https" else "plain")
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        gate = proxy(tls=context, user=("me", "secret"))
        both = tmp_path / "both.pem"
        both.write_bytes(tls.ca.read_bytes() + authority.cert_pem.bytes())
        url = gate.url("", userinfo="me:secret")
        assert content(into_memory(server.url("/a"), proxy_url=url, ssl=trust(both))) == BODY
        error = failure(into_memory(server.url("/a"), proxy_url=url, ssl=trust(tls.ca)))
        assert type(error) is NotAuthorized
        assert "the certificate of the proxy is not trusted" in error.reason

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_client_certificate_is_for_the_server(
        self, request: Any, file_server: Any, proxy: Any, tls: Any, scheme: str
    ) -> None:
        """The client certificate for the server isn't sent to the proxy."""
        options = {"ssl": trust(tls.ca, tls.client)}
        strict = tls.server(client_ca=tls.ca, maximum=ssl.TLSVersion.TLSv1_2)
        server = (
            request.getfixturevalue("plain")
            if scheme == "http"
            else file_server({"/a": BODY}, tls=tls.server(client_ca=tls.ca))
        )
        gate = proxy(tls=strict)
        download = into_memory(server.url("/a"), proxy_url=gate.url(""), **options)
        assert "TLS failed" in failure(download, DownloadFailed).reason
        assert (server.count, len(gate.requests)) == (0, 0)
        open_gate = proxy(tls=tls.server())
        download = into_memory(server.url("/a"), proxy_url=open_gate.url(""), **options)
        assert content(download) == BODY

    def test_header_for_the_proxy(self, proxy: Any, secure: Any, tls: Any) -> None:
        """The caller's Proxy-Authorization header isn't sent to the server in a tunnel."""
        download = into_memory(
            secure.url("/a"),
            proxy_url=proxy().url(""),
            ssl=trust(tls.ca),
            headers={"Proxy-Authorization": "Basic x", "X-Mine": "yes"},
        )
        assert content(download) == BODY
        assert secure.requests[0].header("Proxy-Authorization") is None
        assert secure.requests[0].header("X-Mine") == "yes"

    @pytest.mark.parametrize(
        ("status", "tries"),
        [(401, 1), (404, 1), (429, 3), (500, 3), (501, 1), (503, 3), (505, 1)],
    )
    def test_statuses_of_connect(self, raw_server: Any, status: int, tries: int) -> None:
        """A transient status in the proxy's response to CONNECT is retried like a server's."""
        gate = raw_server([[Recv(), Send(reply(status, {"Retry-After": "0"}))]])
        download = into_memory("https://h.example.test/", quick(2), proxy_url=gate.url())
        kind = NotAuthorized if status == 401 else DownloadFailed
        assert f"it replied {status}" in failure(download, kind).reason
        assert len(gate.requests) == tries

    def test_statuses_of_the_caller(self, raw_server: Any) -> None:
        """The retry policy's status_forcelist also applies to the response to CONNECT."""
        gate = raw_server([[Recv(), Send(reply(404))]])
        retry = quick(2, status_forcelist=[404])
        failure(into_memory("https://h.example.test/", retry, proxy_url=gate.url()))
        assert len(gate.requests) == 3

    def test_later(self, raw_server: Any) -> None:
        """Retry-After of a proxy is respected. If it is too long, the error says when to retry."""
        gate = raw_server([[Recv(), Send(reply(503, {"Retry-After": "7200"}))]])
        error = failure(into_memory("https://h.example.test/", quick(2), proxy_url=gate.url()))
        assert error.retry_after == 7200
        assert len(gate.requests) == 1

    @pytest.mark.parametrize("target", ["http://h.example.test/", "https://h.example.test/"])
    def test_no_tls(self, raw_server: Any, target: str) -> None:
        """An https proxy URL of a proxy without TLS is an error that mentions the scheme."""
        gate = raw_server([[Read(1), Send(reply(400))]])
        proxy_url = gate.url().replace("http:", "https:")
        reason = failure(into_memory(target, proxy_url=proxy_url)).reason
        assert "the proxy doesn't speak TLS there" in reason
        assert "is it http://?" in reason

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (b"nonsense\r\n\r\n", "can't be trusted"),
            (b"HTTP/1.1 abc\r\n\r\n", "can't be trusted"),
            (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 140_000, "can't be trusted"),
            (b"HTTP/1.1 403 not here\r\n\r\n", "403"),
            (b"", "without a reply"),
        ],
        ids=["nonsense", "status", "line", "refused", "nothing"],
    )
    def test_answers_to_connect(self, raw_server: Any, answer: bytes, why: str) -> None:
        """Any invalid response to CONNECT is an error that describes it."""
        server = raw_server([[Recv(), Send(answer)]])
        download = into_memory("https://h.example.test/", proxy_url=server.url())
        error = failure(download)
        assert why in error.reason
        assert "not here" not in "".join(traceback.format_exception(error))

    def test_untrusted_server(self, proxy: Any, file_server: Any, tls: Any) -> None:
        """The certificate of a server behind a proxy is verified for the server's name."""
        server = file_server({"/a": BODY}, tls=tls.server(tls.wrong_name))
        download = into_memory(server.url("/a"), proxy_url=proxy().url(""), ssl=trust(tls.ca))
        failure(download, NotAuthorized)
        assert server.count == 0


class TestEnvironment:
    @pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
    @pytest.mark.parametrize("form", ["http://{}", "http://{}/", "{}"])
    def test_used(
        self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, variable: str, form: str
    ) -> None:
        """The proxy in the environment is used, whether it has a scheme or not."""
        gate = proxy()
        monkeypatch.setenv(variable, form.format(gate.host))
        assert content(into_memory(plain.url("/a"))) == BODY
        assert len(gate.requests) == 1

    def test_used_for_https(
        self, proxy: Any, secure: Any, tls: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment names the proxy for https separately, in https_proxy."""
        gate, other = proxy(), proxy()
        monkeypatch.setenv("https_proxy", gate.url(""))
        monkeypatch.setenv("http_proxy", other.url(""))
        assert content(into_memory(secure.url("/a"), ssl=trust(tls.ca))) == BODY
        assert (gate.tunnels, other.connections) == ([secure.host], 0)

    def test_credentials(self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The proxy URL in the environment may contain credentials."""
        gate = proxy(user=("me", "secret"))
        monkeypatch.setenv("http_proxy", f"me:secret@{gate.host}")
        assert content(into_memory(plain.url("/a"))) == BODY

    @pytest.mark.parametrize("value", ["127.0.0.1", "*", "other.example, 127.0.0.1"])
    def test_no_proxy(
        self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        """no_proxy excludes hosts from the proxy. A redirect's target is checked by itself."""
        gate = proxy(hosts={"other.example.test:80": plain.port})
        monkeypatch.setenv("http_proxy", gate.url(""))
        monkeypatch.setenv("no_proxy", value)
        plain.files["/r"] = Redirect("http://other.example.test/a")
        assert content(into_memory(plain.url("/a"))) == BODY
        assert gate.connections == 0
        if value != "*":
            assert content(into_memory(plain.url("/r"))) == BODY
            assert len(gate.requests) == 1

    def test_redirect_to_where_none_is_needed(
        self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Headers for the proxy aren't sent to a redirect's target that no_proxy excludes."""
        gate = proxy(user=("me", "secret"), hosts={"one.example.test:80": plain.port})
        monkeypatch.setenv("http_proxy", gate.url("", userinfo="me:secret"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        plain.files["/r"] = Redirect(plain.url("/a"))
        assert content(into_memory("http://one.example.test/r")) == BODY
        assert len(gate.requests) == 1
        assert [r.header("Proxy-Authorization") for r in plain.requests] == [None, None]

    def test_of_a_cgi_script(self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """HTTP_PROXY is ignored in a CGI script, where clients can set it (httpoxy)."""
        gate = proxy()
        monkeypatch.setenv("HTTP_PROXY", gate.url(""))
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        assert content(into_memory(plain.url("/a"))) == BODY
        assert gate.connections == 0

    def test_own_wins(self, proxy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """proxy_url takes precedence over the environment, including no_proxy."""
        gate, other = proxy(), proxy()
        monkeypatch.setenv("http_proxy", other.url(""))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert content(into_memory(plain.url("/a"), proxy_url=gate.url(""))) == BODY
        assert (len(gate.requests), other.connections) == (1, 0)

    def test_empty_is_none(self, plain: Any) -> None:
        """An empty proxy_url, as in a model's empty field, means no setting."""
        assert content(into_memory(plain.url("/a"), proxy_url="")) == BODY


@pytest.mark.parametrize("limit", ["total", "shutdown"])
def test_connect_that_drips(raw_server: Any, limit: str) -> None:
    """A response to CONNECT that never ends is stopped by time limits and by a shutdown."""
    head = b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10_000
    server = raw_server([[Recv(), Drip(head, 0.05)]])
    download = HttpDownload("https://h.example.test/", BufferWriter(), proxy_url=server.url())
    download.retry = None
    if limit == "total":
        download.timeout.total = 0.3
        with pytest.raises(DownloadFailed, match="total limit"):
            download()
        return
    with Batch([download]) as batch:
        ender = threading.Thread(
            target=lambda: (
                server.until(lambda: server.logs and server.logs[0].sent) or batch.shutdown()
            )
        )
        ender.start()
        (plan,) = batch()
        ender.join()
    assert "shut down" in str(plan.error)
