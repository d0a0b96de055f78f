"""Tests of SOCKS proxies: all traffic goes through them and nothing bypasses them."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
from http_tools import content, failure, into_memory, quick, trust
from servers.raw import Send, reply, serve
from servers.socks import SocksProxy

from pulpcore.plugin.download.futures import DownloadFailed, NotAuthorized
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000
SCHEMES = ("socks4", "socks4a", "socks5", "socks5h")

needs_pysocks = pytest.mark.skipif(
    importlib.util.find_spec("socks") is None, reason="PySocks isn't installed"
)


@pytest.fixture
def socks(running: Callable[..., Any]) -> Callable[..., SocksProxy]:
    """Return `socks(user=None, hosts=None, refuse=0)`, which starts a `SocksProxy`."""
    return lambda **options: running(SocksProxy, **options)


def url_of(gate: SocksProxy, scheme: str, userinfo: str = "") -> str:
    """Return the proxy's URL."""
    return gate.url("", userinfo=userinfo).replace("http:", f"{scheme}:", 1)


@needs_pysocks
class TestThrough:
    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("with_tls", [False, True], ids=["http", "https"])
    @pytest.mark.parametrize("by", ["proxy_url", "environment"])
    def test_all_goes_through(
        self,
        socks: Any,
        file_server: Any,
        tls: Any,
        monkeypatch: pytest.MonkeyPatch,
        scheme: str,
        with_tls: bool,
        by: str,
    ) -> None:
        """With a SOCKS proxy the server sees only the proxy's connection, which is reused."""
        gate = socks()
        server = file_server({"/a": BODY}, tls=tls.server() if with_tls else None)
        peers = []
        original = server.serve
        server.serve = lambda connection: (
            peers.append(connection.socket.getpeername()[1]),
            original(connection),
        )
        options = {"proxy_url": url_of(gate, scheme)}
        if by == "environment":
            monkeypatch.setenv("ALL_PROXY", options.pop("proxy_url"))
        context = Context()
        for _ in range(2):
            download = into_memory(server.url("/a"), ssl=trust(tls.ca), **options)
            download.context = context
            assert content(download) == BODY
        context.close()
        assert gate.asked == [(int(scheme[5]), "127.0.0.1", server.port)]
        assert peers == gate.upstream
        assert (gate.connections, server.connections, server.count) == (1, 1, 2)

    @pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
    def test_name_is_resolved_by_the_proxy(self, socks: Any, file_server: Any, scheme: str) -> None:
        """With socks5h and socks4a the proxy resolves the host name, and we don't."""
        server = file_server({"/a": BODY})
        gate = socks(hosts={"files.example.test": server.port})
        download = into_memory("http://files.example.test/a", proxy_url=url_of(gate, scheme))
        assert content(download) == BODY
        assert gate.asked == [(int(scheme[5]), "files.example.test", 80)]
        assert server.requests[0].header("Host") == "files.example.test"

    def test_credentials(self, socks: Any, file_server: Any) -> None:
        """Credentials in a SOCKS proxy's URL are decoded and go to the proxy only."""
        server = file_server({"/a": BODY})
        gate = socks(user=("m@e", "se:cret"))
        url = url_of(gate, "socks5h", "m%40e:se%3Acret")
        headers = {"Proxy-Authorization": "Basic x"}
        assert content(into_memory(server.url("/a"), proxy_url=url, headers=headers)) == BODY
        assert gate.logins == [("m@e", "se:cret")]
        assert server.requests[0].header("Proxy-Authorization") is None

    @pytest.mark.parametrize("userinfo", ["", "me:wrong"])
    def test_not_authorized(self, socks: Any, file_server: Any, userinfo: str) -> None:
        """A SOCKS proxy that rejects the credentials raises NotAuthorized without their text."""
        server, gate = file_server({"/a": BODY}), socks(user=("me", "secret"))
        url = url_of(gate, "socks5", userinfo)
        error = failure(into_memory(server.url("/a"), quick(), proxy_url=url), NotAuthorized)
        assert "SOCKS proxy" in error.reason
        assert "wrong" not in str(error)
        assert (gate.connections, server.connections) == (1, 0)

    @pytest.mark.parametrize("scheme", ["socks4", "socks5"])
    def test_refused(self, socks: Any, file_server: Any, scheme: str) -> None:
        """If a SOCKS proxy can't connect, the error says so and nobody bypasses the proxy."""
        server, gate = file_server({"/a": BODY}), socks(refuse=5)
        download = into_memory(server.url("/a"), quick(1), proxy_url=url_of(gate, scheme))
        error = failure(download, DownloadFailed)
        assert "SOCKS proxy could not connect" in error.reason
        assert (len(gate.asked), server.connections) == (2, 0)

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 X\r\n\r\n"], ids=["nothing", "http"])
    def test_no_socks(self, raw_server: Any, file_server: Any, answer: bytes) -> None:
        """A proxy that doesn't speak SOCKS is an error."""
        server, gate = file_server({"/a": BODY}), raw_server([[Send(answer)]])
        url = gate.url("").replace("http", "socks5h")
        failure(into_memory(server.url("/a"), proxy_url=url), DownloadFailed)
        assert server.connections == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("by", ["proxy_url", "environment"])
def test_without_pysocks(
    raw_server: Any, monkeypatch: pytest.MonkeyPatch, scheme: str, by: str
) -> None:
    """Without PySocks each download by SOCKS fails with an error that names the extra.

    Neither the server nor the proxy sees a connection.
    """
    monkeypatch.setitem(sys.modules, "socks", None)
    server, gate = raw_server([serve(reply(body=BODY))]), raw_server([serve(reply(body=BODY))])
    download = into_memory(server.url("/a"), quick())
    if by == "environment":
        monkeypatch.setenv("ALL_PROXY", gate.url("").replace("http", scheme))
    else:
        download.proxy_url = gate.url("").replace("http", scheme)
    error = failure(download, DownloadFailed)
    assert "pip install pysocks" in error.reason
    assert (server.connections, gate.connections) == (0, 0)
